/**
 * This node's place on the underlay, kept up to date: the external interface is detected at the start and again when its
 * link, its addresses or a default route change. Bursts are read once.
 */
import type { NodeWishes } from '../cluster/cluster.ts'
import type { Kernel, KernelEvent, Watch } from '../kernel/kernel.ts'
import type { Ip } from '../net/ip.ts'
import { type Detected, detectExternal, type InterfaceReading } from './external-interface.ts'
import type { InterfaceOptions } from './options.ts'

const SETTLE_MS = 50
const RETRY_MS = 5000

export interface NodeWatchOptions {
  readonly kernel: Kernel
  readonly options: InterfaceOptions
  onDetected(detected: Detected): void
  /** Nothing was found; what was found before still holds. It is tried again. */
  onProblem(error: Error): void
}

export class NodeWatch {
  readonly #options: NodeWatchOptions
  #node: { readonly addresses: readonly Ip[]; readonly wishes: NodeWishes } = { addresses: [], wishes: {} }
  #watch: Watch | undefined
  #timer: NodeJS.Timeout | undefined
  #last: Detected | undefined
  #lastText = ''
  #closed = false

  constructor(options: NodeWatchOptions) {
    this.#options = options
  }

  /** Detects once; later changes are told. */
  async start(): Promise<void> {
    this.#watch = this.#options.kernel.watch(['link', 'address', 'route'], (event) => {
      if (this.#concerns(event)) this.#again(SETTLE_MS)
    })
    await this.#detect()
  }

  /** What the cluster says of this node: InternalIPs and an administrator's wishes. */
  setNode(addresses: readonly Ip[], wishes: NodeWishes): void {
    const before = JSON.stringify(this.#node)
    this.#node = { addresses, wishes }
    if (JSON.stringify(this.#node) !== before && this.#watch) this.#again(0)
  }

  close(): void {
    this.#closed = true
    this.#watch?.close()
    clearTimeout(this.#timer)
  }

  #concerns(event: KernelEvent): boolean {
    if (event.type === 'resync' || !this.#last) return true
    const { object } = event
    const { device } = this.#last.external
    if (object.kind === 'route') return object.destination.length === 0
    if (object.kind === 'address') return object.device === device || this.#options.options.names.length > 0
    return object.kind === 'link' && (object.name === device || this.#options.options.names.includes(object.name))
  }

  #again(milliseconds: number): void {
    if (this.#closed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#detect(), milliseconds)
  }

  async #detect(): Promise<void> {
    if (this.#closed) return
    const { kernel, options, onDetected, onProblem } = this.#options
    try {
      const objects = await kernel.read('link', 'address', 'route')
      if (this.#closed) return
      const reading: InterfaceReading = {
        links: objects.filter((object) => object.kind === 'link'),
        addresses: objects.filter((object) => object.kind === 'address'),
        routes: objects.filter((object) => object.kind === 'route'),
      }
      const detected = detectExternal(reading, options, this.#node)
      const text = JSON.stringify(detected)
      if (text === this.#lastText) return
      this.#lastText = text
      this.#last = detected
      onDetected(detected)
    } catch (error) {
      if (this.#closed) return
      onProblem(error as Error)
      this.#again(RETRY_MS)
    }
  }
}
