/**
 * `npm run bench -- ipam [--agents N] [--addresses N] [--rounds R] [--pods N]`: simulated agents claim addresses of one pool on
 * Kubernetes' own API server, each over connections of its own, a few pods at a time as a kubelet starts them. The peer is the
 * sequence of requests that Calico's plugin makes for an address, one pod of a node at a time, by the same client. The two
 * take turns. Then the same once more with faults: agents that die, answers that are lost, delays, and somebody who
 * changes blocks under everybody's hands.
 *
 * `npm run bench -- ipam-histories [--histories N] [--seed N]`: random histories over the store in memory, with every fault.
 *
 * Sources: Calico cni-plugin/pkg/ipamplugin/ipam_plugin.go (one lock for a host), libcalico-go lib/ipam/ipam.go (autoAssign:
 * affinities listed, affinity and block read, block written, handle read and written).
 */
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { KubernetesStore, revisionOf } from '../../src/cluster/calico/kubernetes-store.ts'
import type { HttpClient } from '../../src/cluster/http-client.ts'
import { Informer, type RawObject } from '../../src/cluster/kubernetes/informer.ts'
import { decodeBlock } from '../../src/config/calico/block.ts'
import { cidrName } from '../../src/config/calico/store-names.ts'
import { addressAt, BlockDraft } from '../../src/ipam/block.ts'
import { hashName } from '../../src/ipam/block-index.ts'
import { claimBlock } from '../../src/ipam/stores/block-claim.ts'
import type { BlockIpam } from '../../src/ipam/stores/block-ipam.ts'
import { type Faults, FaultyStore, noFaults, SeededRandom } from '../../src/ipam/stores/faulty-store.ts'
import { liveHistory } from '../../src/ipam/stores/history.ts'
import { ConflictError, type IpamStore, StoreAwayError } from '../../src/ipam/stores/ipam-store.ts'
import { ipamOf, poolOf } from '../../src/ipam/stores/ipam-store-suite.ts'
import type { BlockOwner, Held, IpamBlock } from '../../src/model/calico.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { RealApiServer } from '../kubernetes/api-server.ts'
import { clear, define, GROUP, ipamResources } from '../netns/calico-api.ts'
import type { Bench, BenchResult } from './bench.ts'

const POOL = poolOf('bench', '10.64.0.0/14')
/** A machine that is busy is no failure. */
const PATIENCE_MS = 60_000
const faulty: Faults = { refused: 0.02, answerLost: 0.02, doneLater: 0.01 }

interface Round {
  readonly addresses: number
  readonly seconds: number
  readonly writes: number
  readonly reads: number
  readonly milliseconds: readonly number[]
  readonly broken: number
  readonly crashes: number
}

/** Requests of all clients, as they are answered. */
class Requests {
  writes = 0
  reads = 0
  readonly observe = (method: string): void => {
    if (method === 'GET') this.reads++
    else this.writes++
  }
}

/** Who was told that which address is his; nobody gives one back here. */
class Given {
  readonly #holders = new Map<string, string>()

  add(ip: string, handleId: string): void {
    const other = this.#holders.get(ip)
    if (other !== undefined && other !== handleId) throw new Error(`${ip} was given to ${other} and to ${handleId}`)
    this.#holders.set(ip, handleId)
  }

  get size(): number {
    return this.#holders.size
  }
}

class DeadError extends Error {
  override readonly name = 'DeadError'
}

/** One agent: its client, its allocator, what it is told by a watch. */
class Agent {
  readonly name: string
  readonly #store: IpamStore
  readonly #random: SeededRandom
  readonly #faults: Faults
  ipam!: BlockIpam
  /** Rejects when the agent dies: the runtime's connection to it breaks. */
  death!: Promise<never>
  #die!: () => void
  #way!: FaultyStore

  constructor(name: string, client: HttpClient, random: SeededRandom, faults: Faults) {
    this.name = name
    this.#store = new KubernetesStore({ client, group: GROUP, patienceMs: PATIENCE_MS })
    this.#random = random
    this.#faults = faults
    this.#start()
  }

  /** kill -9, and another in its place. */
  crash(): void {
    this.#way.kill()
    this.ipam.close()
    this.#die()
    this.#start()
  }

  #start(): void {
    const slow = { next: () => (this.#faults === noFaults ? Promise.resolve() : pause(this.#random.below(4))) }
    this.#way = new FaultyStore(this.#store, this.#random, slow, this.#faults)
    this.ipam = ipamOf(this.#way, this.name, [POOL])
    this.death = new Promise((_, reject) => {
      this.#die = () => reject(new DeadError('the agent died'))
    })
    this.death.catch(() => {})
  }
}

interface Wish {
  readonly agents: number
  readonly perAgent: number
  readonly pods: number
  readonly round: number
}

class Bed {
  readonly server: RealApiServer
  readonly given = new Given()
  readonly random: SeededRandom

  constructor(server: RealApiServer, seed: number) {
    this.server = server
    this.random = new SeededRandom(seed)
  }

  /** One watch for all agents stands for a watch each: what is measured is the server and the agents' writes. */
  async ours({ agents: count, perAgent, pods, round }: Wish, faults: Faults): Promise<Round> {
    const requests = new Requests()
    const clients = Array.from({ length: count }, () =>
      this.server.clientAs(undefined, { direct: true, observe: requests.observe }),
    )
    const agents = clients.map((client, i) => new Agent(`node-${round}-${i}`, client, this.random, faults))
    const informer = this.#watch(agents)
    await informer.listed
    const milliseconds: number[] = []
    let [broken, crashes, left] = [0, 0, count]
    const begun = performance.now()
    const disturbing =
      faults === noFaults
        ? Promise.resolve()
        : this.#disturb(
            agents,
            () => left > 0,
            () => crashes++,
          )
    const add = async (agent: Agent, i: number) => {
      for (let attempt = 0; ; attempt++) {
        const handleId = `k8s-pod-network.${agent.name}-${i}-${attempt}`
        const began = performance.now()
        try {
          const call = agent.ipam.assign({
            handleId,
            attributes: { node: agent.name, pod: `p${i}` },
            use: 'Workload',
            wanted: [{ family: 4 }],
          })
          const [got] = await Promise.race([call, agent.death])
          this.given.add(`${got!.ip}`, handleId)
          milliseconds.push(performance.now() - began)
          return
        } catch (error) {
          if (!(error instanceof StoreAwayError || error instanceof DeadError)) throw error
          broken++
        }
      }
    }
    await Promise.all(
      agents.map(async (agent) => {
        let next = 0
        const worker = async () => {
          while (next < perAgent) await add(agent, next++)
        }
        await Promise.all(Array.from({ length: pods }, worker))
        left--
      }),
    )
    const seconds = (performance.now() - begun) / 1000
    console.log(
      `  ${count * perAgent} addresses in ${seconds.toFixed(1)} s${faults === noFaults ? '' : ', with faults'}`,
    )
    await disturbing
    for (const agent of agents) agent.ipam.close()
    await informer.close()
    for (const client of clients) client.close()
    return { addresses: count * perAgent, seconds, ...counted(requests), milliseconds, broken, crashes }
  }

  /** Calico's requests for each address; the pods of a node wait for its lock. */
  async peer({ agents: count, perAgent, round }: Wish): Promise<Round> {
    const requests = new Requests()
    const clients = Array.from({ length: count }, () =>
      this.server.clientAs(undefined, { direct: true, observe: requests.observe }),
    )
    const milliseconds: number[] = []
    const begun = performance.now()
    await Promise.all(
      clients.map(async (client, i) => {
        const plugin = new CalicoRequests(client, `calico-${round}-${i}`)
        for (let n = 0; n < perAgent; n++) {
          const began = performance.now()
          const handleId = `k8s-pod-network.${round}-${i}-${n}`
          this.given.add(await plugin.assign(handleId), handleId)
          milliseconds.push(performance.now() - began)
        }
      }),
    )
    const seconds = (performance.now() - begun) / 1000
    for (const client of clients) client.close()
    return { addresses: count * perAgent, seconds, ...counted(requests), milliseconds, broken: 0, crashes: 0 }
  }

  #watch(agents: readonly Agent[]) {
    let told = () => {}
    const listed = new Promise<void>((resolve) => {
      told = resolve
    })
    const informer = new Informer<{ version: string }>({
      client: this.server.client,
      path: `/apis/${GROUP}/ipamblocks`,
      project: ({ metadata }) => ({ version: String(metadata?.resourceVersion) }),
      onSet: (_name, _value, object: RawObject) => {
        const held: Held<IpamBlock> = {
          value: decodeBlock(object.spec, cidrName(POOL.cidr)),
          revision: revisionOf(object.metadata ?? {}),
        }
        for (const { ipam } of agents) ipam.news.noteBlock(held)
      },
      onDelete: () => {},
      onListed: () => told(),
      onConnection: () => {},
    })
    informer.start()
    return { listed, close: () => informer.close() }
  }

  /** Kills agents, and writes to blocks without changing an address: whoever holds an older revision loses. */
  async #disturb(agents: readonly Agent[], goesOn: () => boolean, onCrash: () => void): Promise<void> {
    const store = new KubernetesStore({ client: this.server.client, group: GROUP, patienceMs: PATIENCE_MS })
    while (goesOn()) {
      await pause(100)
      this.random.pick(agents).crash()
      onCrash()
      // The server may be too busy to answer: that is one disturbance less.
      const { objects } = await store.blocks.list().catch(unlessAway)
      for (let n = 0; n < 3 && objects.length > 0; n++) {
        const held = this.random.pick(objects)
        const draft = new BlockDraft(held.value)
        draft.touch()
        await store.blocks.replace(held, draft.finish()).catch(ignoreConflict)
      }
    }
  }
}

/** What Calico's plugin asks of the API for one address in a block that its node has. */
class CalicoRequests {
  readonly #client: HttpClient
  readonly #store: KubernetesStore
  readonly #owner: BlockOwner
  #block: Cidr | undefined
  #claimed = 0

  constructor(client: HttpClient, node: string) {
    this.#client = client
    this.#store = new KubernetesStore({ client, group: GROUP, patienceMs: PATIENCE_MS })
    this.#owner = { type: 'host', name: node }
  }

  async assign(handleId: string): Promise<string> {
    const labelSelector = encodeURIComponent(`projectcalico.org/affinityType=host,host=${this.#owner.name}`)
    await this.#client.request({ method: 'GET', path: `/apis/${GROUP}/blockaffinities?labelSelector=${labelSelector}` })
    for (;;) {
      const cidr = this.#block ?? (await this.#claim())
      await this.#store.affinities.read({ owner: this.#owner, cidr })
      const held = await this.#store.blocks.read(cidr)
      const draft = new BlockDraft(held!.value)
      const ordinal = draft.nextFree(() => false)
      if (ordinal === undefined) {
        this.#block = undefined
        continue
      }
      await this.#store.handles.read(handleId)
      await this.#store.handles.create({ handleId, blocks: { [`${cidr}`]: 1 }, deleted: false })
      draft.take(ordinal, handleId, { node: this.#owner.name, pod: 'p' })
      await this.#store.blocks.replace(held!, draft.finish())
      return `${addressAt(cidr, ordinal)}`
    }
  }

  /** The plugin lists every block to find a free one; a place of its own for each node finds one at once here. */
  async #claim(): Promise<Cidr> {
    const counts = { reads: 0, writes: 0, conflicts: 0 }
    await this.#store.blocks.list()
    for (;;) {
      const at = (hashName(this.#owner.name) + this.#claimed++ * 7919) % 4096
      const cidr = Cidr.of(POOL.cidr.base.plus(at * 64), POOL.blockSize)
      const claimed = await claimBlock(
        { store: this.#store, counts },
        { cidr, owner: this.#owner, at: new Date().toISOString(), sequenceNumber: 1n },
      )
      if ('taken' in claimed) continue
      this.#block = cidr
      return cidr
    }
  }
}

function ignoreConflict(error: unknown): void {
  if (!(error instanceof ConflictError)) throw error
}

/** Nothing was listed. */
function unlessAway(error: unknown): { objects: [] } {
  if (error instanceof StoreAwayError) return { objects: [] }
  throw error
}

const counted = ({ writes, reads }: Requests) => ({ writes, reads })

const quantile = (values: readonly number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN
}

function row(name: string, rounds: readonly Round[]): string {
  const sum = (of: (round: Round) => number) => rounds.reduce((total, round) => total + of(round), 0)
  const addresses = sum((round) => round.addresses)
  const rates = rounds.map((round) => round.addresses / round.seconds)
  const all = rounds.flatMap(({ milliseconds }) => milliseconds)
  const columns = [
    `${quantile(rates, 0.5).toFixed(0)} (${Math.min(...rates).toFixed(0)}..${Math.max(...rates).toFixed(0)})`,
    (sum(({ writes }) => writes) / addresses).toFixed(3),
    (sum(({ reads }) => reads) / addresses).toFixed(3),
    `${quantile(all, 0.5).toFixed(1)} / ${quantile(all, 0.99).toFixed(1)}`,
    `${sum(({ broken }) => broken)}`,
    `${sum(({ crashes }) => crashes)}`,
  ]
  return `${name.padEnd(22)}${columns.map((column) => column.padStart(20)).join('')}`
}

async function run(args: readonly string[]): Promise<BenchResult> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      agents: { type: 'string', default: '50' },
      addresses: { type: 'string', default: '10000' },
      rounds: { type: 'string', default: '5' },
      pods: { type: 'string', default: '4' },
      seed: { type: 'string', default: `${Date.now() % 1_000_000}` },
    },
  })
  const [agents, addresses, rounds, pods] = [values.agents, values.addresses, values.rounds, values.pods].map(Number)
  const seed = Number(values.seed)
  const perAgent = Math.ceil(addresses! / agents! / rounds!)
  console.log(
    `${agents} agents, ${pods} pods of each at a time, ${perAgent * agents! * rounds!} addresses in ${rounds} rounds; seed ${seed}`,
  )
  const server = await RealApiServer.start()
  try {
    await define(server.client)
    const bed = new Bed(server, seed)
    const [ours, peer, broken]: [Round[], Round[], Round[]] = [[], [], []]
    for (let round = 0; round < rounds!; round++) {
      const wish = { agents: agents!, perAgent, pods: pods!, round }
      ours.push(await bed.ours(wish, noFaults))
      // It takes several times as long, and a part of it says as much.
      peer.push(await bed.peer({ ...wish, perAgent: Math.ceil(perAgent / 4) }))
    }
    const wish = { agents: agents!, perAgent, pods: pods! }
    for (let round = 0; round < Math.min(2, rounds!); round++)
      broken.push(await bed.ours({ ...wish, round: 1000 + round }, faulty))
    const columns = ['addresses/s', 'writes/address', 'reads/address', 'ms median / p99', 'failed ADDs', 'crashes']
    console.log(`${''.padEnd(22)}${columns.map((column) => column.padStart(20)).join('')}`)
    console.log(row('weft', ours))
    console.log(row('Calico’s requests', peer))
    console.log(row('weft, with faults', broken))
    console.log(`${bed.given.size} addresses given, none twice`)
    const rate = (all: readonly Round[]) =>
      quantile(
        all.map((round) => round.addresses / round.seconds),
        0.5,
      )
    const perAddress = (all: readonly Round[]) =>
      all.reduce((sum, { writes }) => sum + writes, 0) / all.reduce((sum, round) => sum + round.addresses, 0)
    return {
      bench: 'ipam',
      ours: rate(ours),
      peer: rate(peer),
      unit: 'addresses/s',
      ratio: rate(ours) / rate(peer),
      writesPerAddress: perAddress(ours),
      writesPerAddressPeer: perAddress(peer),
      writesPerAddressWithFaults: perAddress(broken),
      addressesPerSecondWithFaults: rate(broken),
      duplicates: 0,
      seed,
    }
  } finally {
    await clear(server.client, ipamResources).catch(() => {})
    await server.close()
  }
}

async function runHistories(args: readonly string[]): Promise<BenchResult> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      histories: { type: 'string', default: '10000' },
      seed: { type: 'string', default: `${Date.now() % 1_000_000_000}` },
    },
  })
  const [count, first] = [Number(values.histories), Number(values.seed)]
  console.log(`${count} histories, seeds from ${first} on`)
  const sums: Record<string, number> = {}
  const begun = performance.now()
  for (let seed = first; seed < first + count; seed++)
    for (const [key, value] of Object.entries(await liveHistory(seed))) sums[key] = (sums[key] ?? 0) + value
  const perSecond = count / ((performance.now() - begun) / 1000)
  console.log(
    Object.entries(sums)
      .map(([key, value]) => `${key} ${value}`)
      .join(', '),
  )
  return { bench: 'ipam-histories', ours: perSecond, peer: Number.NaN, unit: 'histories/s', ratio: Number.NaN, ...sums }
}

export const benches: Bench[] = [
  { name: 'ipam', describe: 'agents that claim addresses on a real API server; the peer makes Calico’s requests', run },
  {
    name: 'ipam-histories',
    describe: 'random histories of address pools with every fault; no peer',
    run: runHistories,
  },
]
