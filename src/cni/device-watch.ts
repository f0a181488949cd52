/**
 * Mends what another hand does to the node's bridge and to pods' devices: the bridge deleted or set down, its gateway address
 * removed, a pod's device taken off it, a routed pod's device set down (its routes are the applier's to mend). Watches multicast; a repair reads the kernel, so that an echo of weft's own
 * changes costs one look.
 */
import type { Kernel, KernelEvent, Watch } from '../kernel/kernel.ts'
import type { Journal } from './journal.ts'

const settleMilliseconds = 20

export class DeviceWatch {
  readonly #watch: Watch
  readonly #repair: () => Promise<void>
  readonly #failed: (error: unknown) => void
  #timer: NodeJS.Timeout | undefined
  #running = false

  constructor(
    kernel: Kernel,
    bridge: string,
    journal: Journal,
    repair: () => Promise<void>,
    failed: (error: unknown) => void,
  ) {
    this.#repair = repair
    this.#failed = failed
    this.#watch = kernel.watch(['link', 'address'], (event) => {
      if (isDamage(event, bridge, journal)) this.#soon()
    })
  }

  #soon(): void {
    if (this.#running) return
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#running = true
      this.#repair()
        .catch(this.#failed)
        .finally(() => {
          this.#running = false
        })
    }, settleMilliseconds)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#watch.close()
  }
}

function isDamage(event: KernelEvent, bridge: string, journal: Journal): boolean {
  if (event.type === 'resync') return true
  const { object, type } = event
  if (object.kind === 'address') return type === 'delete' && object.device === bridge
  if (object.kind !== 'link') return false
  if (object.name === bridge) return type === 'delete' || object.up === false
  if (type !== 'new' || object.alias === undefined) return false
  const attachment = journal.livingWith(object.name)
  return attachment?.role === 'routed' ? object.up === false : attachment?.bridge === bridge && object.master !== bridge
}
