/**
 * The CNI server of a node: requests from the plugin binary in, pods wired, answers out.
 *
 *   const server = new CniServer({ kernel, runDir, sink, log })
 *   await server.start()                   // recovers, then listens; ADD answers code 11 until …
 *   await server.setNetwork({ podCidrs, clusterNetworks, mtuBytes })
 *   await server.setMtu(1450)              // pushed into living pods
 *   await server.close()                   // pods stay as they are
 *
 * Requests about one container are served one after another, those about different ones side by side.
 */
import { join } from 'node:path'
import type { RangeUsage } from '../ipam/allocator.ts'
import type { PoolAddresses } from '../ipam/stores/pool-addresses.ts'
import type { Ip } from '../net/ip.ts'
import { Attacher } from './attacher.ts'
import { attachmentFragment } from './attachment-fragment.ts'
import { checkAttachment } from './check.ts'
import { DeviceWatch } from './device-watch.ts'
import { CniCode, CniError, formatError } from './error.ts'
import { askFromInside, callerNetns } from './inside.ts'
import { type Attachment, Journal, readBootId } from './journal.ts'
import { pushMtu } from './mtu.ts'
import type { CniServerOptions, NodeNetwork } from './network.ts'
import { Pools } from './pools.ts'
import { type RecoveryReport, recover } from './recovery.ts'
import { type CniRequest, parseRequest, splitBody, versionForErrors } from './request.ts'
import { encodeResult } from './result.ts'
import { CniSocket, type Reply } from './socket.ts'
import { supportedVersions } from './version.ts'
import { NetnsError } from './wiring.ts'

export class CniServer {
  readonly #options: CniServerOptions
  readonly #journal: Journal
  readonly #attacher: Attacher
  readonly #pools: Pools
  readonly #socket: CniSocket
  /** The last request of each container under way. */
  readonly #turns = new Map<string, Promise<unknown>>()
  /** Requests that have not begun. */
  readonly #waiting: (() => void)[] = []
  #turnTaken = false
  #recovered = false
  #givenBackTo: PoolAddresses | undefined
  #deviceWatch: DeviceWatch | undefined
  #watched: string | undefined

  /** Opens the journal. Throws the file system's errors. */
  constructor(options: CniServerOptions) {
    this.#options = options
    const stateDir = options.stateDir ?? join(options.runDir, 'cni')
    this.#journal = Journal.open(join(stateDir, 'journal'), readBootId())
    this.#pools = new Pools(this.#journal, options.hostLocalDir)
    this.#attacher = new Attacher({ ...options, journal: this.#journal, pools: this.#pools })
    this.#socket = new CniSocket(join(options.runDir, 'cni.sock'), (body, fd) => this.#answerFrom(body, fd))
  }

  /** Settles the journal with the kernel, wants the living pods' fragments, then listens. */
  async start(): Promise<RecoveryReport> {
    const { kernel, log } = this.#options
    const { recovery } = this.#journal
    if (recovery.voided) log.info(recovery, 'Dropped attachments of an earlier boot')
    if (recovery.damagedLines) log.error(recovery, 'The CNI journal was damaged; a copy is beside it')
    if (recovery.foreign) log.warn(recovery, 'The CNI journal has records of another version of weft; they are kept')
    const report = await recover(kernel, this.#journal, this.#attacher, log)
    this.#recovered = true
    if (this.#givenBackTo) this.#attacher.setAddresses(this.#givenBackTo)
    await this.#want(this.#living())
    await this.#socket.listen()
    return report
  }

  /** How full each range of addresses is, the node's own first. */
  usage(): RangeUsage[] {
    return this.#pools.usage()
  }

  /** True while the plugin finds somebody to ask. */
  get isListening(): boolean {
    return this.#socket.isListening
  }

  /** The node's network is known, or has changed. Attachments keep what they have; the bridge is made ready. */
  async setNetwork(network: NodeNetwork): Promise<void> {
    if (!this.#recovered) throw new Error('setNetwork before start')
    const before = this.#attacher.isReady ? this.#attacher.network : undefined
    const spoofing = this.#attacher.sourceSpoofing
    this.#attacher.setNetwork(network)
    this.#attacher.doubtBridges()
    if (this.#usesBridge(network)) await this.#attacher.prepareBridge()
    else await this.#attacher.removeUnusedBridge()
    await this.#attacher.joinWirings()
    this.#watchDevices(network.bridge ?? 'cni0')
    if (this.#attacher.sourceSpoofing !== spoofing) await this.#renewAllowedSources()
    if (before && before.mtuBytes !== network.mtuBytes) await this.#pushMtu(network)
  }

  /** A routed node has the bridge as long as pods from before hang on it. */
  #usesBridge({ routed }: NodeNetwork): boolean {
    return !routed || this.#attacher.hasBridgedPods
  }

  #living(): Attachment[] {
    return [...this.#journal.entries.values()].flatMap(({ attachment, state }) => (state === 'up' ? attachment : []))
  }

  /** Whether pods may send under sources that they ask for has changed. */
  async #renewAllowedSources(): Promise<void> {
    await this.#want(this.#living().filter(({ allowedSources }) => allowedSources?.length))
  }

  async #want(attachments: readonly Attachment[]): Promise<void> {
    const { log, sink } = this.#options
    const fragments = attachments.flatMap((one) => attachmentFragment(one, this.#attacher.sourceSpoofing) ?? [])
    const failed = (source: string) => (err: unknown) => log.error({ err, source }, 'Cannot restore what a pod needs')
    await Promise.all(fragments.map((fragment) => sink.set(fragment).catch(failed(fragment.source))))
  }

  /** Whom addresses of pools are given back to, also while new pods get none of them. A routed network says so as well. */
  giveBackTo(addresses: PoolAddresses): void {
    this.#givenBackTo = addresses
    if (this.#recovered) this.#attacher.setAddresses(addresses)
  }

  /** The data path's MTU has changed, in bytes: bridge, veths and the devices inside living pods follow. */
  async setMtu(mtuBytes: number): Promise<void> {
    await this.setNetwork({ ...this.#attacher.network, mtuBytes })
  }

  async #pushMtu(network: NodeNetwork): Promise<void> {
    const { kernel, log } = this.#options
    const bridge = network.bridge ?? 'cni0'
    const follow = this.#living().filter((one) => !one.fixedMtu && (one.role === 'routed' || one.bridge === bridge))
    await pushMtu(kernel, this.#usesBridge(network) ? bridge : undefined, follow, network.mtuBytes, log)
  }

  #watchDevices(bridge: string): void {
    if (this.#watched === bridge) return
    this.#deviceWatch?.close()
    this.#watched = bridge
    const { kernel, log } = this.#options
    const failed = (err: unknown) => log.warn({ err, bridge }, "Cannot mend the bridge or a pod's device")
    this.#deviceWatch = new DeviceWatch(kernel, bridge, this.#journal, () => this.#repairDevices(), failed)
  }

  /** Makes the bridge again if it is gone, puts ports of ours back on it, and sets routed pods' devices up. */
  async #repairDevices(): Promise<void> {
    await this.#attacher.raiseRouted()
    if (!this.#usesBridge(this.#attacher.network)) return
    this.#attacher.doubtBridges()
    await this.#attacher.prepareBridge()
    await this.#attacher.replugPorts()
  }

  /** Stops listening, answers what is under way, finishes deletions. Pods and rules stay. */
  async close(): Promise<void> {
    this.#deviceWatch?.close()
    await this.#socket.close()
    await this.#attacher.drain.flush()
    this.#attacher.drain.stop()
    await this.#attacher.releases.stop()
    this.#journal.close()
  }

  async #answerFrom(body: Buffer, connection: number): Promise<Reply> {
    const caller = callerNetns(body, connection)
    try {
      return await this.#answer(body, caller?.file)
    } finally {
      caller?.close()
    }
  }

  async #answer(body: Buffer, netnsFile: string | undefined): Promise<Reply> {
    const started = performance.now()
    if (this.#turnTaken) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#takeTurn()
    let stdin: Uint8Array = new Uint8Array()
    let command = ''
    try {
      const split = splitBody(body)
      stdin = split.stdin
      command = split.environment.get('CNI_COMMAND') ?? ''
      const stdout = await this.#serve(parseRequest(split.environment, stdin, netnsFile))
      this.#observe(command, 0, started)
      return { exitCode: 0, stdout }
    } catch (error) {
      if (error instanceof NetnsError && netnsFile === undefined)
        return { exitCode: askFromInside, stdout: formatError(error, versionForErrors(stdin)) }
      const shown = error instanceof CniError ? error : new CniError(CniCode.internal, (error as Error).message)
      const { log } = this.#options
      if (error instanceof CniError) log.warn({ command, code: shown.code, details: shown.details }, shown.message)
      else log.error({ command, err: error }, 'A CNI request failed unexpectedly')
      this.#observe(command, shown.code, started)
      return { exitCode: 1, stdout: formatError(shown, versionForErrors(stdin)) }
    }
  }

  /** One request begins in a turn of the event loop, so that a crowd of them never stops it for long. */
  #takeTurn(): void {
    this.#turnTaken = true
    setImmediate(() => {
      this.#turnTaken = false
      const next = this.#waiting.shift()
      if (!next) return
      this.#takeTurn()
      next()
    })
  }

  /** Addresses of living attachments, those of one container together. */
  heldAddresses(): Ip[][] {
    const byContainer = new Map<string, Ip[]>()
    for (const { attachment, state } of this.#journal.entries.values()) {
      if (state !== 'up' || attachment.ips.length === 0) continue
      const held = byContainer.get(attachment.containerId) ?? []
      byContainer.set(attachment.containerId, [...held, ...attachment.ips.map(({ ip }) => ip)])
    }
    return [...byContainer.values()]
  }

  #observe(command: string, code: number, started: number): void {
    const { metrics } = this.#options
    if (!metrics) return
    metrics.observe(command, code, performance.now() - started)
    metrics.gauge(this.#journal.entries.size, this.#attacher.drain.length + this.#attacher.releases.length)
  }

  async #serve(request: CniRequest): Promise<string> {
    switch (request.command) {
      case 'VERSION':
        return print({ cniVersion: request.cniVersion, supportedVersions })
      case 'STATUS':
        if (this.#attacher.isReady) return ''
        throw new CniError(CniCode.notAvailable, 'The pod network of this node is not known yet')
      case 'GC':
        if (request.valid) await this.#attacher.gc(request.config.name, request.valid)
        return ''
      case 'ADD': {
        const result = await this.#inTurn(request.containerId, () => this.#attacher.add(request))
        return print(encodeResult(result, request.config.cniVersion))
      }
      case 'DEL':
        await this.#inTurn(request.containerId, () => this.#attacher.del(request.containerId, request.ifname))
        return ''
      case 'CHECK':
        await this.#inTurn(request.containerId, () =>
          checkAttachment(this.#options.kernel, request, this.#journal.find(request.containerId, request.ifname)),
        )
        return ''
    }
  }

  #inTurn<T>(containerId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(containerId)
    const mine = before ? before.then(work, work) : work()
    this.#turns.set(containerId, mine)
    const settled = () => {
      if (this.#turns.get(containerId) === mine) this.#turns.delete(containerId)
    }
    mine.then(settled, settled)
    return mine
  }
}

const print = (value: object): string => `${JSON.stringify(value, undefined, 4)}\n`
