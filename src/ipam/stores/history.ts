/**
 * One random history: nodes that come, die and come back, pods that are made and removed, over a store that fails in every way
 * it can; beside it a model that knows who was told that he has which address. What must hold:
 *
 *   always       an address that somebody was told is his is nobody else's until he gives it back; it is in a pool and was not
 *                reserved; it is not given again before its cooldown is over
 *   at the end   what the blocks say is in use is what is in use, and what the audit finds as leaked; mended, nothing is left
 *
 * Pods outlive the agent that asked for their addresses, as they do in a cluster.
 */
import type { IpamSettings, IpPool, IpReservation } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Family, Ip } from '../../net/ip.ts'
import { AddressSet } from '../address-set.ts'
import { type AuditInput, audit, type Finding, notes } from '../audit.ts'
import { allocationsOf, isInUse } from '../block.ts'
import type { BlockIpam } from './block-ipam.ts'
import { type Faults, FaultyStore, noFaults, SeededRandom, Turns } from './faulty-store.ts'
import { StoreAwayError } from './ipam-store.ts'
import { defaultSettings, ipamOf, poolOf } from './ipam-store-suite.ts'
import { MemoryStore } from './memory-store.ts'
import { mend } from './mend.ts'
import { NoAddressError } from './pool-addresses.ts'

/** What one history did, for those who want to know that it did something. */
export interface HistoryReport {
  readonly assigned: number
  readonly refused: number
  readonly away: number
  readonly released: number
  readonly crashes: number
  readonly leaked: number
  readonly conflicts: number
  readonly borrowed: number
}

interface Pod {
  readonly handleId: string
  readonly node: string
  /** Which of the clients serves its node. */
  readonly at: number
  readonly families: readonly Family[]
  addresses: readonly Ip[]
  attempts: number
  /** What the node's journal says that it has, until that is given back. */
  journal: readonly Ip[]
  removed: boolean
  /** An agent died over it: what that one wrote last may come to light later, beside what the next one gave. */
  orphaned: boolean
}

interface Client {
  readonly node: string
  readonly ipam: BlockIpam
  readonly store: FaultyStore
  readonly unwatch: () => void
  /** Rejects when the client dies: the connection to an agent breaks when that dies. */
  readonly death: Promise<never>
  readonly die: () => void
}

class DeadError extends Error {
  override readonly name = 'DeadError'
}

const SECOND = 1000
const reservations4 = ['10.0.0.0/29', '10.0.0.64/26', '10.0.0.17/32']

class History {
  readonly #random: SeededRandom
  readonly #turns: Turns
  readonly #store = new MemoryStore()
  readonly #pools: readonly IpPool[]
  readonly #settings: IpamSettings
  readonly #names: readonly string[]
  readonly #faults: Faults
  readonly #spares: number
  readonly #watches: boolean
  readonly #clockJumps: boolean
  #reservations: readonly IpReservation[] = []
  #reserved = AddressSet.of([])
  /** Rises with every change of the reservations. */
  #era = 0
  #now = Date.parse('2026-11-21T10:00:00Z')
  #clients: Client[] = []
  #nextHandle = 0
  /** Address → the pod that was told that it is its. */
  readonly #live = new Map<string, Pod>()
  readonly #pods = new Set<Pod>()
  /** Pods that a journal knows, those included that are being removed. */
  readonly #journals = new Set<Pod>()
  readonly #given = new Map<string, number>()
  readonly #calls = new Set<Promise<void>>()
  readonly #problems: string[] = []
  readonly #counts = { assigned: 0, refused: 0, away: 0, released: 0, crashes: 0, borrowed: 0 }

  constructor(seed: number) {
    const random = new SeededRandom(seed)
    this.#random = random
    this.#turns = new Turns(random)
    this.#pools = random.pick([
      [poolOf('a', '10.0.0.0/26', { blockSize: 29 })],
      [poolOf('a', '10.0.0.0/25', { blockSize: 30 }), poolOf('b', 'fd00::/122', { blockSize: 125 })],
      [poolOf('a', '10.0.0.0/27', { blockSize: 32 })],
      [poolOf('a', '10.0.0.0/27', { blockSize: 29 }), poolOf('b', '10.0.0.64/27', { blockSize: 28 })],
    ])
    this.#settings = {
      ...defaultSettings,
      strictAffinity: random.chance(0.3),
      maxBlocksPerHost: random.pick([0, 0, 3]),
      ipCooldownSeconds: random.pick([0, 0, 30]),
    }
    this.#names = random.pick([['n1'], ['n1', 'n2'], ['n1', 'n2', 'n3', 'n4'], ['n1', 'n2', 'n2'], ['n1', 'n1']])
    this.#faults = random.pick([
      noFaults,
      { refused: 0.05, answerLost: 0.05, doneLater: 0 },
      { refused: 0.1, answerLost: 0.1, doneLater: 0.1 },
    ])
    this.#spares = random.pick([0, 1, 2, 4, 8])
    this.#watches = random.chance(0.7)
    this.#clockJumps = random.chance(0.2)
    this.#reserve()
  }

  async run(): Promise<HistoryReport> {
    this.#clients = this.#names.map((node, at) => this.#start(node, at))
    for (let step = 20 + this.#random.below(40); step > 0; step--) {
      this.#step()
      await this.#turns.run(this.#random.below(12))
    }
    for (const { store } of this.#clients) store.faults = noFaults
    await this.#turns.run()
    for (const { ipam } of this.#clients) this.#call(ipam.news.refresh().then(() => ipam.retire()))
    await this.#turns.run()
    for (const { kind, message } of this.#audit()) if (kind === 'spare-address') this.#problems.push(message)
    if (this.#calls.size > 0) this.#problems.push(`${this.#calls.size} calls hang`)
    this.#check(this.#audit().filter(({ kind }) => kind !== 'leaked-address'))
    return this.#end()
  }

  #step(): void {
    const random = this.#random
    const dice = random.next()
    const at = random.below(this.#clients.length)
    if (dice < 0.5)
      for (let n = 1 + random.below(4); n > 0; n--) this.#call(this.#add(this.#clients[at]!, this.#newPod(at)))
    else if (dice < 0.55) this.#retry()
    else if (dice < 0.8) this.#remove()
    else if (dice < 0.87) this.#crash(at)
    else if (dice < 0.92) this.#now += random.below(90) * SECOND
    else if (dice < 0.95 && this.#clockJumps) this.#now += (random.below(7200) - 3600) * SECOND
    else if (dice < 0.97) this.#reserve()
    else this.#mendSomething()
  }

  #newPod(at: number): Pod {
    const families = this.#pools.some(({ cidr }) => cidr.family === 6)
      ? this.#random.pick<readonly Family[]>([[4], [6], [4, 6]])
      : ([4] as const)
    const handleId = `k8s-pod-network.c${this.#nextHandle++}`
    return {
      handleId,
      node: this.#clients[at]!.node,
      at,
      families,
      addresses: [],
      attempts: 0,
      journal: [],
      removed: false,
      orphaned: false,
    }
  }

  async #add({ ipam, death }: Client, pod: Pod): Promise<void> {
    // Whoever asks again may be given what it got before something was reserved.
    const era = pod.attempts++ === 0 ? this.#era : undefined
    try {
      const call = ipam.assign({
        handleId: pod.handleId,
        attributes: { node: pod.node, pod: pod.handleId },
        use: this.#random.chance(0.1) ? 'Tunnel' : 'Workload',
        wanted: pod.families.map((family) => ({ family })),
      })
      const got = await Promise.race([call, death])
      this.#counts.assigned++
      this.#hold(
        pod,
        got.map(({ ip }) => ip),
        era,
      )
    } catch (error) {
      pod.orphaned ||= error instanceof DeadError
      if (error instanceof NoAddressError) this.#counts.refused++
      else if (isBreak(error)) this.#counts.away++
      else this.#problems.push(`assign: ${(error as Error).stack}`)
      // The runtime removes what it could not make, or tries again, or has died itself.
      if (this.#random.chance(0.3)) await this.#add(this.#clientOf(pod), pod)
      else if (this.#random.chance(0.5)) await this.#giveBack(pod)
    }
  }

  #hold(pod: Pod, addresses: readonly Ip[], era: number | undefined): void {
    if (pod.removed) return
    if (pod.addresses.length > 0 && !pod.orphaned && String(pod.addresses) !== String(addresses))
      this.#problems.push(`${pod.handleId} had ${pod.addresses} and is given ${addresses}`)
    const reserved = era === this.#era ? this.#reserved : undefined
    for (const ip of addresses) {
      const other = this.#live.get(`${ip}`)
      if (other && other !== pod) this.#problems.push(`${ip} is given to ${pod.handleId} and is ${other.handleId}'s`)
      if (!this.#pools.some(({ cidr }) => cidr.contains(ip))) this.#problems.push(`${ip} is in no pool`)
      if (reserved?.has(ip)) this.#problems.push(`${ip} is given and reserved`)
      const released = this.#given.get(`${ip}`)
      const cooledAt = (released ?? 0) + this.#settings.ipCooldownSeconds * SECOND
      if (released !== undefined && !this.#clockJumps && this.#now < cooledAt && other !== pod)
        this.#problems.push(`${ip} is given ${cooledAt - this.#now} ms before its cooldown is over`)
      this.#live.set(`${ip}`, pod)
      this.#checkOwner(ip, pod)
    }
    for (const ip of pod.addresses.filter((old) => !addresses.some((each) => each.equals(old))))
      this.#live.delete(`${ip}`)
    pod.addresses = addresses
    pod.journal = addresses
    this.#pods.add(pod)
    this.#journals.add(pod)
  }

  /** An address of another node's block is borrowed, which strict affinity forbids. */
  #checkOwner(ip: Ip, { node }: Pod): void {
    const owner = this.#blocks().find(({ value }) => value.cidr.contains(ip))?.value.owner
    if (!owner || owner.name === node) return
    this.#counts.borrowed++
    if (this.#settings.strictAffinity) this.#problems.push(`${ip} is of ${owner.name}'s block and given to ${node}`)
  }

  #retry(): void {
    const pod = this.#somePod()
    if (pod) this.#call(this.#add(this.#clientOf(pod), pod))
  }

  #remove(): void {
    const pod = this.#somePod()
    if (pod) this.#call(this.#giveBack(pod))
  }

  async #giveBack(pod: Pod): Promise<void> {
    this.#pods.delete(pod)
    pod.removed = true
    for (const ip of pod.addresses) {
      this.#live.delete(`${ip}`)
      this.#given.delete(`${ip}`)
    }
    const { addresses } = pod
    pod.addresses = []
    const at = this.#now
    try {
      const { ipam, death } = this.#clientOf(pod)
      await Promise.race([ipam.release(pod.handleId), death])
      this.#counts.released++
      pod.journal = []
      this.#journals.delete(pod)
      for (const ip of addresses) if (!this.#live.has(`${ip}`)) this.#given.set(`${ip}`, at)
    } catch (error) {
      if (!isBreak(error)) this.#problems.push(`release: ${(error as Error).stack}`)
      if (this.#random.chance(0.7)) await this.#giveBack(pod)
    }
  }

  /** The agent dies, with all that it was about to do, and another comes in its place. */
  #crash(at: number): void {
    const { node, ipam, store, unwatch, die } = this.#clients[at]!
    store.kill()
    ipam.close()
    unwatch()
    die()
    this.#clients[at] = this.#start(node, at)
    this.#counts.crashes++
  }

  #start(node: string, at: number): Client {
    const store = new FaultyStore(this.#store, this.#random, this.#turns, this.#faults)
    const ipam = ipamOf(store, node, this.#pools, {
      settings: () => this.#settings,
      reservations: () => this.#reservations,
      now: () => this.#now,
      wait: () => this.#turns.next(),
      spareAddresses: this.#spares,
      uptime: () => (this.#hasNamesakes ? 0 : this.#now),
    })
    const held = [...this.#journals].filter((pod) => pod.at === at)
    ipam.resume(
      `j${at}`,
      held.flatMap(({ handleId, node, journal, removed }) =>
        journal.map((ip) => ({ ip, handleId, attributes: { node, pod: handleId }, isLeaving: removed })),
      ),
    )
    ipam.expectPods(true)
    let die = () => {}
    const death = new Promise<never>((_, reject) => {
      die = () => reject(new DeadError('the agent died'))
    })
    death.catch(() => {})
    return { node, ipam, store, unwatch: this.#watches ? this.#watch(ipam) : () => {}, death, die }
  }

  /** News in order, each some time after it happened. */
  #watch(ipam: BlockIpam): () => void {
    let on = true
    let last: Promise<void> = Promise.resolve()
    const tell = (news: () => void) => {
      last = last.then(() => this.#turns.next()).then(() => (on ? news() : undefined))
    }
    const off = [
      this.#store.blocks.watch(({ cidr }, held) =>
        tell(() => (held ? ipam.news.noteBlock(held) : ipam.news.noteBlockGone(cidr))),
      ),
      this.#store.affinities.watch(({ owner, cidr }, held) =>
        tell(() => (held ? ipam.news.noteAffinity(held) : ipam.news.noteAffinityGone(owner, cidr))),
      ),
    ]
    tell(() => ipam.news.noteListed())
    return () => {
      on = false
      for (const each of off) each()
    }
  }

  #reserve(): void {
    const cidrs = reservations4.filter(() => this.#random.chance(0.3)).map((text) => Cidr.parse(text))
    this.#reservations = cidrs.length > 0 ? [{ name: 'r', cidrs }] : []
    this.#reserved = AddressSet.of(cidrs)
    this.#era++
  }

  /** Somebody else than the nodes mends what cannot be a call that is under way: never an address. */
  #mendSomething(): void {
    const found = this.#audit().filter(({ kind }) => kind === 'affinity-unfinished' || kind === 'handle-count')
    if (found.length === 0) return
    const store = new FaultyStore(this.#store, this.#random, this.#turns, this.#faults)
    const counts = { reads: 0, writes: 0, conflicts: 0 }
    this.#call(
      mend({ store, counts }, this.#random.pick(found), this.#cooldown()).then(
        () => {},
        () => {},
      ),
    )
  }

  /** Mends all that the audit finds, as often as it finds something; then nothing may be left over. */
  async #end(): Promise<HistoryReport> {
    const counts = { reads: 0, writes: 0, conflicts: 0 }
    const leaked = this.#audit().filter(({ kind }) => kind === 'leaked-address').length
    for (let round = 0; round < 10; round++)
      for (const finding of this.#audit().filter(({ kind }) => !notes.has(kind)))
        await mend({ store: this.#store, counts }, finding, this.#cooldown()).catch(() => {})
    this.#check(this.#audit().filter(({ kind }) => !notes.has(kind)))
    const inBlocks = this.#blocks().flatMap(({ value }) =>
      [...allocationsOf(value)].filter(isInUse).map(({ ip, handleId }) => `${ip} ${handleId}`),
    )
    const inModel = [...this.#live].map(([ip, { handleId }]) => `${ip} ${handleId}`)
    if (String(inBlocks.sort()) !== String(inModel.sort()))
      this.#problems.push(
        `in use are ${inModel.filter((x) => !inBlocks.includes(x))}, and the blocks say ${inBlocks.filter((x) => !inModel.includes(x))}`,
      )
    if (this.#problems.length > 0) throw new Error(this.#problems.slice(0, 5).join('\n'))
    const conflicts = this.#clients.reduce((sum, { ipam }) => sum + ipam.counts.conflicts, 0)
    for (const { ipam } of this.#clients) ipam.close()
    return { ...this.#counts, leaked, conflicts }
  }

  #check(findings: readonly Finding[]): void {
    const bad = new Set(['duplicate-use', 'duplicate-allocation', 'not-allocated', 'not-in-pool', 'damaged-block'])
    for (const { kind, message } of findings)
      if (bad.has(kind) || kind === 'overlapping-blocks') this.#problems.push(`${kind}: ${message}`)
  }

  #audit(): Finding[] {
    const input: AuditInput = {
      pools: this.#pools,
      reservations: this.#reservations,
      settings: this.#settings,
      blocks: this.#blocks(),
      affinities: this.#store.affinities.all(),
      handles: this.#store.handles.all(),
      nodes: new Set(this.#names),
      inUse: [...this.#live.values()].flatMap(({ handleId, node, addresses }) =>
        addresses.map((ip) => ({ ip, holder: handleId, node })),
      ),
      now: this.#now,
    }
    return audit(input)
  }

  #blocks() {
    return this.#store.blocks.all()
  }

  #cooldown() {
    return { nowMilliseconds: this.#now, seconds: this.#settings.ipCooldownSeconds }
  }

  get #hasNamesakes(): boolean {
    return new Set(this.#names).size < this.#names.length
  }

  #somePod(): Pod | undefined {
    return this.#pods.size > 0 ? this.#random.pick([...this.#pods]) : undefined
  }

  #clientOf({ at }: Pod): Client {
    return this.#clients[at]!
  }

  #call(call: Promise<void>): void {
    const settled = call.finally(() => this.#calls.delete(settled))
    this.#calls.add(settled)
  }
}

const isBreak = (error: unknown): boolean => error instanceof StoreAwayError || error instanceof DeadError

/** Lives one history through. Rejects with all that should not have been; the message names the seed. */
export async function liveHistory(seed: number): Promise<HistoryReport> {
  try {
    return await new History(seed).run()
  } catch (cause) {
    throw new Error(`history of seed ${seed}: ${(cause as Error).message}`, { cause })
  }
}
