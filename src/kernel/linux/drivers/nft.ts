/**
 * The nftables driver: tables, sets, elements, chains and counters of weft's own tables over nfnetlink. A run of ops is
 * one transaction. Everything of one session goes through one queue, because a changed chain is read before it is
 * written.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; nfnetlink batches in net/netfilter/nfnetlink.c.
 */
import { type KernelObject, keyOf, type ObjectKind } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import type { NftCounterReading, NftElement, NftSet, NftTable } from '../../../model/nft.ts'
import { NETLINK_NETFILTER } from '../../../wire/netlink/constants.gen.ts'
import { describeNfnetlink } from '../../../wire/nftables/describe.ts'
import type { Kernel, KernelEvent, OpResult, Watch } from '../../kernel.ts'
import type { Driver, DriverContext, DriverSession } from '../driver.ts'
import type { NetlinkSocket } from '../netlink-socket.ts'
import * as syscalls from '../syscalls.ts'
import type { NftOp } from './nft-outcome.ts'
import { NftReader, setKeyOf, WrittenRules } from './nft-read.ts'
import type { InstalledChain } from './nft-rule-plan.ts'
import { NftTransaction } from './nft-transaction.ts'
import { NftWatch } from './nft-watch.ts'

const kinds = ['nft-table', 'nft-set', 'nft-counter', 'nft-chain', 'nft-element'] as const
const SEND_BUFFER_SLACK_BYTES = 64 << 10

export const nftDriver: Driver = {
  name: 'nftables',
  kinds,
  open: (context) => new NftSession(context),
}

/** What the named counters of weft's tables have counted, in a kernel of this machine; nothing in another (the twin). */
export async function readNftCounters(kernel: Kernel): Promise<readonly NftCounterReading[]> {
  if (!isContext(kernel)) return []
  const session = new NftSession(kernel)
  try {
    return await session.readCounters()
  } finally {
    session.close()
  }
}

const isContext = (kernel: Kernel): kernel is Kernel & DriverContext => 'openNetlink' in kernel

class NftSession implements DriverSession {
  readonly #context: DriverContext
  readonly #socket: NetlinkSocket
  readonly #written = new WrittenRules()
  readonly #reader: NftReader
  /** Definitions of sets that were read or written, by key. */
  readonly #sets = new Map<string, NftSet>()
  #queue: Promise<unknown> = Promise.resolve()
  #sendBufferBytes = 2 << 20

  constructor(context: DriverContext) {
    this.#context = context
    this.#socket = context.openNetlink(NETLINK_NETFILTER, { describe: describeNfnetlink })
    this.#reader = new NftReader(this.#socket, this.#written)
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(work)
    this.#queue = turn.catch(() => {})
    return turn
  }

  read(wanted: readonly ObjectKind[]): Promise<KernelObject[]> {
    return this.#exclusive(() => this.#read(new Set(wanted)))
  }

  async #read(wanted: ReadonlySet<ObjectKind>): Promise<KernelObject[]> {
    const out: KernelObject[] = []
    for (const table of await this.#reader.tables()) {
      if (wanted.has('nft-table')) out.push(table)
      if (wanted.has('nft-set') || wanted.has('nft-element')) {
        const sets = await this.#readSets(table)
        if (wanted.has('nft-set')) out.push(...sets)
        if (wanted.has('nft-element'))
          for (const set of sets) for (const element of await this.#reader.elements(set)) out.push(element)
      }
      if (wanted.has('nft-counter'))
        for (const { reading: _, ...counter } of await this.#reader.counters(table)) out.push(counter)
      if (wanted.has('nft-chain')) for (const { chain } of await this.#reader.chains(table)) out.push(chain)
    }
    return out
  }

  async #readSets(table: NftTable): Promise<NftSet[]> {
    const sets = await this.#reader.sets(table)
    const prefix = setKeyOf(table.family, table.name, '')
    for (const key of this.#sets.keys()) if (key.startsWith(prefix)) this.#sets.delete(key)
    for (const set of sets) this.#sets.set(keyOf(set), set)
    return sets
  }

  /** What the named counters of weft's tables have counted. */
  readCounters(): Promise<NftCounterReading[]> {
    return this.#exclusive(async () => {
      const out: NftCounterReading[] = []
      for (const table of await this.#reader.tables())
        for (const { reading } of await this.#reader.counters(table)) out.push(reading)
      return out
    })
  }

  execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    return this.#exclusive(() => this.#execute(ops as readonly NftOp[]))
  }

  async #execute(ops: readonly NftOp[]): Promise<readonly OpResult[]> {
    await this.#learnSets(ops)
    const chains = await this.#installedChains(ops)
    const batch = this.#socket.batch()
    const transaction = new NftTransaction(batch, ops, {
      set: (key) => this.#sets.get(key),
      chain: (key) => chains.get(key),
    })
    if (!transaction.encode() || transaction.isEmpty) return transaction.results(new Map())
    this.#makeRoom(batch.writer.length)
    const results = transaction.results(this.#socket.transact(batch))
    if (results.every((result) => result === undefined)) this.#remember(ops)
    return results
  }

  /** A transaction is one send, however long. */
  #makeRoom(bytes: number): void {
    // The kernel counts its own overhead too, and doubles what it is told.
    if (bytes + SEND_BUFFER_SLACK_BYTES <= this.#sendBufferBytes) return
    this.#sendBufferBytes = bytes + SEND_BUFFER_SLACK_BYTES
    syscalls.setsockoptInt(this.#socket.fd, syscalls.SOL_SOCKET, syscalls.SO_SNDBUFFORCE, this.#sendBufferBytes)
  }

  /** Definitions of the sets whose elements change, as far as they are neither known nor part of the ops. */
  async #learnSets(ops: readonly NftOp[]): Promise<void> {
    const made = new Set(ops.filter(({ object }) => object.kind === 'nft-set').map(({ object }) => keyOf(object)))
    const unknown = new Map<string, NftTable>()
    let last: NftElement | undefined
    for (const { verb, object } of ops) {
      if (object.kind === 'nft-set' && verb === 'set' && !this.#sets.has(keyOf(object)))
        unknown.set(`${object.family} ${object.table}`, tableOf(object))
      if (object.kind !== 'nft-element') continue
      // Elements of one set come together.
      if (last?.set === object.set && last.table === object.table && last.family === object.family) continue
      last = object
      const key = setKeyOf(object.family, object.table, object.set)
      if (!made.has(key) && !this.#sets.has(key)) unknown.set(`${object.family} ${object.table}`, tableOf(object))
    }
    for (const table of unknown.values()) await this.#readSets(table)
  }

  async #installedChains(ops: readonly NftOp[]): Promise<Map<string, InstalledChain>> {
    const chains = new Map<string, InstalledChain>()
    for (const { verb, object } of ops) {
      if (object.kind !== 'nft-chain' || verb !== 'set') continue
      for (const { chain, installed } of await this.#reader.chains(tableOf(object), object.name))
        chains.set(keyOf(chain), installed)
    }
    return chains
  }

  #remember(ops: readonly NftOp[]): void {
    for (const { verb, object } of ops) {
      if (object.kind === 'nft-set' && verb !== 'delete') this.#sets.set(keyOf(object), object)
      if (object.kind === 'nft-set' && verb === 'delete') this.#sets.delete(keyOf(object))
      if (object.kind === 'nft-chain' && verb !== 'delete') this.#written.remember(object)
    }
  }

  watch(wanted: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    const read = (table: NftTable, chain: string) =>
      this.#exclusive(async () => (await this.#reader.chains(table, chain))[0]?.chain)
    const readSet = (table: NftTable) => this.#exclusive(() => this.#readSets(table))
    const known = (key: string) => this.#sets.get(key)
    return new NftWatch(this.#context, new Set(wanted), listener, { chain: read, sets: readSet, known })
  }

  close(): void {
    this.#socket.close()
  }
}

const tableOf = (object: { readonly family: NftTable['family']; readonly table: string }): NftTable => ({
  kind: 'nft-table',
  family: object.family,
  name: object.table,
})
