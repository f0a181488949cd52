/**
 * This node's place on the underlay, kept up to date: the external interface and the node's addresses are detected at the
 * start and again when a link, an address or a route that they depend on changes. Bursts are read once.
 */
import { lookup } from 'node:dns/promises'
import type { NodeWishes } from '../cluster/cluster.ts'
import type { Kernel, KernelEvent, Watch } from '../kernel/kernel.ts'
import type { CalicoNode } from '../model/calico.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import { WEFT_ROUTE_PROTOCOL } from '../model/route.ts'
import { Ip } from '../net/ip.ts'
import type { AddressMethod } from './address-methods.ts'
import { type AddressOptions, detectAddresses, isOverlayDevice } from './calico-addresses.ts'
import { type Detected, detectExternal, readingOf } from './external-interface.ts'
import type { InterfaceOptions } from './options.ts'

const SETTLE_MS = 50
const RETRY_MS = 5000

export interface NodeWatchOptions {
  readonly kernel: Kernel
  readonly options: InterfaceOptions
  /** How the node's addresses are found in Calico's words; left out: they are not looked for. */
  readonly addresses?: AddressOptions
  onDetected(detected: Detected): void
  /** Nothing was found; what was found before still holds. It is tried again. */
  onProblem(error: Error): void
}

interface KnownNode {
  readonly addresses: readonly Ip[]
  readonly wishes: NodeWishes
  readonly calico?: CalicoNode
}

export class NodeWatch {
  readonly #options: NodeWatchOptions
  readonly #methods: readonly AddressMethod[]
  #node: KnownNode = { addresses: [], wishes: {} }
  #watch: Watch | undefined
  #timer: NodeJS.Timeout | undefined
  #last: Detected | undefined
  #lastText = ''
  #closed = false

  constructor(options: NodeWatchOptions) {
    this.#options = options
    const { v4, v6 } = options.addresses ?? {}
    this.#methods = [v4, v6].flatMap((choice) => (choice?.type === 'autodetect' ? [choice.method] : []))
  }

  /** Detects once; later changes are told. */
  async start(): Promise<void> {
    this.#watch = this.#options.kernel.watch(['link', 'address', 'route'], (event) => {
      if (this.#concerns(event)) this.#again(SETTLE_MS)
    })
    await this.#detect()
  }

  /** What the cluster says of this node: InternalIPs, an administrator's wishes, its own words of before. */
  setNode(addresses: readonly Ip[], wishes: NodeWishes, calico?: CalicoNode): void {
    const before = JSON.stringify(this.#node)
    this.#node = { addresses, wishes, ...(calico ? { calico } : {}) }
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
    if (this.#concernsMethods(object)) return true
    const { device } = this.#last.external
    if (object.kind === 'route') return object.destination.length === 0
    if (object.kind === 'address') return object.device === device || this.#options.options.names.length > 0
    return object.kind === 'link' && (object.name === device || this.#options.options.names.includes(object.name))
  }

  /** Methods look at every device that may lead to other nodes. */
  #concernsMethods(object: KernelObject): boolean {
    const isUnderlay = (device: string) => !isOverlayDevice(device)
    const looking = this.#methods.filter(({ type }) => type !== 'external')
    if (looking.length === 0) return false
    if (object.kind === 'address') return isUnderlay(object.device) && !object.ip.isLinkLocal
    if (object.kind === 'link') return isUnderlay(object.name)
    if (object.kind !== 'route' || object.protocol === WEFT_ROUTE_PROTOCOL) return false
    return looking.some(({ type }) => type === 'can-reach')
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
      const resolved = await resolve(this.#methods)
      const reading = readingOf(await kernel.read('link', 'address', 'route'))
      if (this.#closed) return
      const found = detectExternal(reading, options, this.#node)
      const { addresses } = this.#options
      const detected: Detected = addresses
        ? { ...found, node: detectAddresses(reading, addresses, found, { ...this.#node, resolved }) }
        : found
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

/** Looks up the names of `can-reach=`; one that has no address now leads nowhere. */
async function resolve(methods: readonly AddressMethod[]): Promise<ReadonlyMap<string, readonly Ip[]>> {
  const hosts = new Set(methods.flatMap((method) => (method.type === 'can-reach' ? [method.host] : [])))
  const resolved = new Map<string, readonly Ip[]>()
  for (const host of hosts)
    if (!Ip.tryParse(host)) {
      const found = await lookup(host, { all: true }).catch(() => [])
      resolved.set(
        host,
        found.map(({ address }) => Ip.parse(address)),
      )
    }
  return resolved
}
