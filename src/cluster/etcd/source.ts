/**
 * The cluster source on etcd v3, with flannel's keys, so that weft and flannel nodes share one store. Nodes take their
 * subnets themselves: a free one by compare-and-swap, the one they had before when it is still free or theirs.
 *
 *   range (all keys) ──► watch from the next revision ──► cut: watch again from the last ──► compacted: range again, compare
 *
 * A taken subnet stands under a lease of 24 hours that is renewed; a key without a lease is a reservation: its node
 * gets that subnet and the key never ends. A lease that ended while this node lived is taken again, the same subnet.
 *
 * Sources: flannel pkg/subnet/etcd (order of choice, lifetime), Documentation/reservations.md, configuration.md.
 */
import type { FlannelLease } from '../../model/cluster.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { Backoff, type BackoffOptions, sleep } from '../backoff.ts'
import type {
  Announcement,
  ClusterEvent,
  ClusterListener,
  ClusterLog,
  ClusterObserver,
  ClusterSource,
  NodeReport,
  SubnetRange,
  SubnetRequest,
} from '../cluster.ts'
import { HttpError } from '../http-client.ts'
import { ReportLimiter } from '../report-limiter.ts'
import { CompactedError, type EtcdClient, type KeyEvent, type KeyValue } from './client.ts'
import { formatLeaseValue, formatSubnetKey, type ParsedLease, parseLeaseValue, parseSubnetKey } from './subnet-key.ts'

export interface EtcdSourceOptions {
  readonly client: EtcdClient
  readonly prefix: string
  readonly nodeName: string
  /** Renewed when less than this is left of a lease. */
  readonly renewMarginMinutes: number
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  readonly backoff?: BackoffOptions
  /** Seconds that a lease lives; flannel's day when left out. */
  readonly leaseSeconds?: number
  /** How often to look how much is left of the lease, in milliseconds; a minute when left out. */
  readonly renewCheckMs?: number
}

/** How the store's one watch is called where watches are counted. */
const RESOURCE = 'keys'
const LEASE_SECONDS = 24 * 3600
const RENEW_CHECK_MS = 60_000
/** Free subnets to choose from by chance, so that nodes that start together seldom want the same. */
const CHOICES = 100
const RACES = 20

interface Held extends KeyValue {
  readonly subnets: readonly Cidr[]
  readonly parsed: ParsedLease
}

/** What this node has: its key, and how it ends. */
interface Own {
  readonly key: string
  readonly subnets: readonly Cidr[]
  readonly lease: string
}

export class EtcdSource implements ClusterSource {
  readonly #options: EtcdSourceOptions
  readonly #abort = new AbortController()
  readonly #limiter = new ReportLimiter()
  readonly #held = new Map<string, Held>()
  readonly #backoff: Backoff
  #listener: ClusterListener = () => {}
  #config: string | undefined | null = null
  #revision: bigint | undefined
  #synced = false
  #failing = false
  #own: Own | undefined
  #lastValue: string | undefined
  #ended: Promise<void> = Promise.resolve()
  #renewal: NodeJS.Timeout | undefined

  constructor(options: EtcdSourceOptions) {
    this.#options = options
    this.#backoff = new Backoff(options.backoff)
  }

  start(listener: ClusterListener): void {
    this.#listener = listener
    this.#ended = this.#run()
    this.#renewal = setInterval(() => void this.#renew(), this.#options.renewCheckMs ?? RENEW_CHECK_MS)
    this.#renewal.unref()
  }

  async acquire(request: SubnetRequest): Promise<readonly Cidr[]> {
    return this.#retrying('take a subnet', async (signal) => {
      for (let race = 0; race < RACES; race++) {
        const subnets = await this.#tryAcquire(request, signal)
        if (subnets) return subnets
      }
      throw new Error(`lost ${RACES} races for a subnet`)
    })
  }

  /** Calico's words have no place among flannel's keys; without a subnet neither has anything else. */
  async announce({ lease, weft }: Announcement): Promise<void> {
    await this.#retrying('announce', async (signal) => {
      const own = this.#own
      if (!own) return
      if (lease === null) return this.#giveBack(own, signal)
      const held = this.#held.get(own.key)
      const stands = lease ?? this.#leaseOf(own)
      if (!stands) return
      const value = formatLeaseValue({ lease: stands, weft }, this.#options.nodeName)
      if (held?.value === value && this.#lastValue === value) return
      await this.#put(own, value, signal)
    })
  }

  async setNetworkAvailable(): Promise<void> {}

  report(report: NodeReport): void {
    if (!this.#limiter.admit(report)) return
    const { node, reason, message } = report
    this.#options.log.warn({ node, reason }, message)
  }

  reconnect(): void {
    this.#options.client.close()
  }

  async close(): Promise<void> {
    this.#abort.abort()
    clearInterval(this.#renewal)
    await this.#ended
    this.#options.client.close()
  }

  /** flannel's order: the subnet under our public address, the one of an earlier run, a free one. Undefined: lost a race. */
  async #tryAcquire(request: SubnetRequest, signal: AbortSignal): Promise<readonly Cidr[] | undefined> {
    const { client, prefix, nodeName, log } = this.#options
    const { pairs } = await client.range(`${prefix}/subnets/`, {}, signal)
    const all = pairs.map((pair) => this.#hold(pair)).filter((held) => held !== undefined)
    const { publicIp } = request
    const mine = all.find(
      ({ parsed }) =>
        parsed.node.name === nodeName || (publicIp !== undefined && parsed.publicIp?.equals(publicIp) === true),
    )
    if (mine && fits(mine.subnets, request.ranges)) return this.#take(mine.subnets, mine, request, signal)
    if (mine) {
      log.warn(
        { subnets: mine.subnets },
        'the subnet that this node had does not fit the network any more; it takes another',
      )
      await client.delete(mine.key, signal)
    }
    const others = all.filter((held) => held !== mine).flatMap(({ subnets }) => subnets)
    const free = (subnets: readonly Cidr[]) => !subnets.some((cidr) => others.some((other) => other.overlaps(cidr)))
    const before = [...request.previous].sort((a, b) => a.compare(b))
    if (before.length > 0 && fits(before, request.ranges) && free(before))
      return this.#take(before, undefined, request, signal)
    return this.#take(chooseFree(request.ranges, others), undefined, request, signal)
  }

  async #take(
    subnets: readonly Cidr[],
    standing: KeyValue | undefined,
    request: SubnetRequest,
    signal: AbortSignal,
  ): Promise<readonly Cidr[] | undefined> {
    const { client, prefix, nodeName, log, leaseSeconds = LEASE_SECONDS } = this.#options
    const key = standing?.key ?? `${prefix}/subnets/${formatSubnetKey(subnets)}`
    const kept = standing && this.#held.get(key)?.parsed.node.weft
    const announcement = request.announce(subnets)
    const value = formatLeaseValue(kept ? { ...announcement, weft: kept } : announcement, nodeName)
    // A standing key without a lease is a reservation and stays one.
    const reserved = standing?.lease === '0'
    const lease = reserved ? '0' : await client.grant(leaseSeconds, signal)
    if (!(await client.putIf(key, standing?.modRevision ?? '0', value, lease, signal))) return undefined
    this.#own = { key, subnets, lease }
    this.#lastValue = value
    log.info({ subnets, reserved, again: standing !== undefined }, 'took a subnet')
    return subnets
  }

  /** What was announced of the own subnet last. */
  #leaseOf({ key, subnets }: Own): FlannelLease | undefined {
    const text = this.#lastValue ?? this.#held.get(key)?.value
    return text === undefined ? undefined : parseLeaseValue(key, subnets, text).node.lease
  }

  /** The subnet is free again; a reservation stays what it was before its node came. */
  async #giveBack(own: Own, signal: AbortSignal): Promise<void> {
    const { client } = this.#options
    this.#lastValue = undefined
    if (own.lease === '0') {
      const publicIp = this.#held.get(own.key)?.parsed.publicIp
      const [standing] = (await client.range(own.key, { exact: true }, signal)).pairs
      const value = JSON.stringify({ PublicIP: `${publicIp ?? '0.0.0.0'}` })
      if (standing && !(await client.putIf(own.key, standing.modRevision, value, '0', signal)))
        throw new Error('the key changed meanwhile')
    } else await client.delete(own.key, signal)
    this.#own = undefined
  }

  /** Writes the own key whatever stands there: it is ours by its lease, or lost and taken again. */
  async #put(own: Own, value: string, signal: AbortSignal): Promise<void> {
    const { client, log, leaseSeconds = LEASE_SECONDS } = this.#options
    for (;;) {
      const [standing] = (await client.range(own.key, { exact: true }, signal)).pairs
      let { lease } = own
      if (!standing) {
        log.warn({ subnets: own.subnets }, 'the lease of this node had ended; it is taken again')
        lease = await client.grant(leaseSeconds, signal)
      } else if (standing.lease !== own.lease) {
        const holder = parseLeaseValue(own.key, own.subnets, standing.value).node
        if (holder.name !== this.#options.nodeName)
          throw new ConfigError(`etcd ${own.key}`, 'value', `the subnet of this node now belongs to ${holder.name}`)
        lease = standing.lease
      }
      if (await client.putIf(own.key, standing?.modRevision ?? '0', value, lease, signal)) {
        this.#own = { ...own, lease }
        this.#lastValue = value
        return
      }
    }
  }

  async #renew(): Promise<void> {
    const { client, renewMarginMinutes, log, leaseSeconds = LEASE_SECONDS } = this.#options
    const own = this.#own
    if (!own || this.#lastValue === undefined) return
    try {
      const { signal } = this.#abort
      if (own.lease === '0') return
      const left = await client.timeToLive(own.lease, signal)
      if (left > renewMarginMinutes * 60) return
      const renewed = left > 0 ? await client.keepAlive(own.lease, signal) : 0
      if (renewed <= 0)
        await this.#put({ ...own, lease: await client.grant(leaseSeconds, signal) }, this.#lastValue, signal)
      log.info({ seconds: renewed }, 'renewed the lease')
    } catch (error) {
      if (!this.#abort.signal.aborted)
        log.error({ err: (error as Error).message }, 'the lease cannot be renewed; trying again in a minute')
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      try {
        if (this.#revision === undefined) await this.#list()
        await this.#watch()
        this.#options.observer?.watchEnd(RESOURCE, 'ended')
      } catch (error) {
        if (signal.aborted) return
        const watched = this.#revision !== undefined
        if (watched) this.#options.observer?.watchEnd(RESOURCE, error instanceof CompactedError ? 'expired' : 'failed')
        if (error instanceof CompactedError) {
          this.#revision = undefined
          continue
        }
        await this.#fail(error as Error)
      }
    }
  }

  async #list(): Promise<void> {
    const { client, prefix } = this.#options
    const { pairs, revision } = await client.range(`${prefix}/`, {}, this.#abort.signal)
    this.#succeed()
    const seen = new Set(pairs.map(({ key }) => key))
    if (!seen.has(`${prefix}/config`)) this.#onConfig(undefined)
    for (const pair of pairs) this.#onPut(pair)
    for (const key of [...this.#held.keys()]) if (!seen.has(key)) this.#onDelete(key)
    this.#revision = revision
    this.#options.observer?.list(RESOURCE, this.#synced ? 'expired' : 'first')
    if (this.#synced) return
    this.#synced = true
    this.#tell({ type: 'synced' })
  }

  async #watch(): Promise<void> {
    const { client, prefix } = this.#options
    const startedAt = performance.now()
    await client.watch(
      `${prefix}/`,
      this.#revision! + 1n,
      (events, revision) => this.#onEvents(events, revision),
      this.#abort.signal,
    )
    if (performance.now() - startedAt < 1000) await sleep(this.#backoff.next(), this.#abort.signal)
  }

  #onEvents(events: readonly KeyEvent[], revision: bigint): void {
    this.#succeed()
    for (const event of events) {
      if (event.type === 'put') this.#onPut(event.pair)
      else if (event.key === `${this.#options.prefix}/config`) this.#onConfig(undefined)
      else this.#onDelete(event.key)
    }
    if (events.length > 0) this.#revision = revision
  }

  #onPut(pair: KeyValue): void {
    const { prefix } = this.#options
    if (pair.key === `${prefix}/config`) {
      this.#onConfig(pair.value)
      return
    }
    const before = this.#held.get(pair.key)
    const held = this.#hold(pair)
    if (!held) return
    this.#held.set(pair.key, held)
    if (before?.value === held.value) return
    if (before && before.parsed.node.name !== held.parsed.node.name)
      this.#tell({ type: 'node-gone', name: before.parsed.node.name })
    this.#tell({ type: 'node', ...held.parsed, wishes: {} })
  }

  #onDelete(key: string): void {
    const held = this.#held.get(key)
    if (!held) return
    this.#held.delete(key)
    const { name } = held.parsed.node
    if (key === this.#own?.key) {
      // Expired or removed while this node lives: the subnet is still in use here.
      if (this.#lastValue !== undefined)
        void this.#retrying('take the subnet again', (signal) => this.#put(this.#own!, this.#lastValue!, signal)).catch(
          (error: Error) => this.#options.log.error({ err: error.message }, 'the subnet of this node is lost'),
        )
      return
    }
    if (![...this.#held.values()].some((other) => other.parsed.node.name === name))
      this.#tell({ type: 'node-gone', name })
  }

  #onConfig(text: string | undefined): void {
    if (text === this.#config) return
    this.#config = text
    this.#tell({ type: 'network', text, object: `etcd ${this.#options.prefix}/config` })
  }

  #hold(pair: KeyValue): Held | undefined {
    const { prefix } = this.#options
    if (!pair.key.startsWith(`${prefix}/subnets/`)) return undefined
    const name = pair.key.slice(`${prefix}/subnets/`.length)
    const subnets = parseSubnetKey(name)
    if (!subnets) return undefined
    return { ...pair, subnets, parsed: parseLeaseValue(name, subnets, pair.value) }
  }

  #tell(event: ClusterEvent): void {
    if (!this.#abort.signal.aborted) this.#listener(event)
  }

  async #fail(error: Error): Promise<void> {
    if (!this.#failing) {
      this.#failing = true
      this.#tell({ type: 'connection', up: false, problem: error.message })
    }
    await sleep(this.#backoff.next(), this.#abort.signal)
  }

  #succeed(): void {
    this.#backoff.reset()
    if (!this.#failing) return
    this.#failing = false
    this.#tell({ type: 'connection', up: true })
  }

  /** Repeats while the store cannot be reached; what it refuses, and what is wrong, rejects. */
  async #retrying<T>(what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = this.#abort
    const backoff = new Backoff(this.#options.backoff)
    for (let attempt = 0; ; attempt++) {
      try {
        return await work(signal)
      } catch (error) {
        const refused = error instanceof ConfigError || (error instanceof HttpError && error.status < 500)
        if (signal.aborted || refused) throw error
        if (attempt === 0) this.#options.log.warn({ err: (error as Error).message }, `cannot ${what} yet`)
        await sleep(backoff.next(), signal)
      }
    }
  }
}

/** One subnet of the right length within each range, and nothing else. */
function fits(subnets: readonly Cidr[], ranges: readonly SubnetRange[]): boolean {
  return (
    subnets.length === ranges.length &&
    ranges.every((range) =>
      subnets.some(
        (cidr) =>
          cidr.length === range.length &&
          range.network.covers(cidr) &&
          cidr.base.compare(range.min) >= 0 &&
          cidr.base.compare(range.max) <= 0,
      ),
    )
  )
}

/** One of the first free subnets of each range, by chance. Throws ConfigError when a range is full. */
function chooseFree(ranges: readonly SubnetRange[], taken: readonly Cidr[]): Cidr[] {
  return ranges.map(({ network, length, min, max }) => {
    const step = 1n << BigInt((network.family === 4 ? 32 : 128) - length)
    const used = taken.filter(({ family }) => family === network.family)
    const choices: Cidr[] = []
    for (let at = min.toBigInt(); at <= max.toBigInt() && choices.length < CHOICES; at += step) {
      const candidate = Cidr.of(min.plus(at - min.toBigInt()), length)
      if (!used.some((cidr) => cidr.overlaps(candidate))) choices.push(candidate)
    }
    if (choices.length === 0)
      throw new ConfigError(
        'net-conf.json',
        network.family === 4 ? 'Network' : 'IPv6Network',
        `${network} has no free subnet of length ${length}`,
      )
    return choices[Math.floor(Math.random() * choices.length)]!
  })
}
