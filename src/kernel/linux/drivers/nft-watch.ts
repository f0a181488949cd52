/**
 * What anybody changes in weft's nft tables, as events. The kernel announces a transaction piece by piece and ends it
 * with NEWGEN; events are held back until then, because the two ends of a range come apart, and a chain is read again
 * as a whole when its rules have changed. When a table or a set goes, its contents go unannounced: the listener is told
 * to read again.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nf_tables_api.c (nf_tables_commit_notify).
 */
import type { Reader } from '../../../bytes/reader.ts'
import { type KernelObject, keyOf, type ObjectKind } from '../../../model/kernel-object.ts'
import type { NftChain, NftFamily, NftSet, NftTable } from '../../../model/nft.ts'
import { NETLINK_NETFILTER } from '../../../wire/netlink/constants.gen.ts'
import { readMessages } from '../../../wire/netlink/message.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import { describeNfnetlink } from '../../../wire/nftables/describe.ts'
import {
  chainMessage,
  type ElementMessage,
  elementListMessage,
  readNfgenmsg,
  ruleMessage,
  setMessage,
} from '../../../wire/nftables/message.ts'
import type { KernelEvent, Watch } from '../../kernel.ts'
import type { DriverContext } from '../driver.ts'
import { MulticastSocket } from '../multicast-socket.ts'
import { decodeCounter, decodeTable, isOurTable, setKeyOf } from './nft-read.ts'
import { decodeElements, decodeSet, familyOf } from './nft-set.ts'

/** What the watch asks the session for. */
export interface NftWatchSource {
  chain(table: NftTable, name: string): Promise<NftChain | undefined>
  sets(table: NftTable): Promise<NftSet[]>
  /** Definition of a set that the session has read or written, by its key. */
  known(key: string): NftSet | undefined
}

interface ElementChange {
  readonly table: NftTable
  readonly set: string
  readonly added: ElementMessage[]
  readonly removed: ElementMessage[]
}

export class NftWatch implements Watch {
  readonly #kinds: ReadonlySet<ObjectKind>
  readonly #listener: (event: KernelEvent) => void
  readonly #source: NftWatchSource
  readonly #socket: MulticastSocket
  readonly #sets = new Map<string, NftSet>()
  readonly #elements = new Map<string, ElementChange>()
  readonly #chains = new Map<string, { table: NftTable; name: string }>()
  #isStale = false
  #closed = false

  constructor(
    context: DriverContext,
    kinds: ReadonlySet<ObjectKind>,
    listener: (event: KernelEvent) => void,
    source: NftWatchSource,
  ) {
    this.#kinds = kinds
    this.#listener = listener
    this.#source = source
    this.#socket = context.inside(
      () =>
        new MulticastSocket(NETLINK_NETFILTER, [n.NFNLGRP_NFTABLES], {
          datagram: (bytes) => this.#datagram(bytes),
          describe: describeNfnetlink,
          lost: () => this.#listener({ type: 'resync' }),
        }),
    )
  }

  close(): void {
    this.#closed = true
    this.#socket.close()
  }

  #datagram(bytes: Uint8Array): void {
    readMessages(bytes, ({ type }, payload) => {
      if (type >> 8 !== n.NFNL_SUBSYS_NFTABLES) return
      const family = familyOf(readNfgenmsg(payload).family)
      if ((type & 255) === n.NFT_MSG_NEWGEN) this.#endOfTransaction()
      else if (family) this.#message(type & 255, family, payload)
    })
  }

  #emit(type: 'new' | 'delete', object: KernelObject | undefined): void {
    if (object && this.#kinds.has(object.kind) && !this.#closed) this.#listener({ type, key: keyOf(object), object })
  }

  #message(message: number, family: NftFamily, payload: Reader): void {
    switch (message) {
      case n.NFT_MSG_NEWTABLE:
        this.#emit('new', decodeTable(family, payload))
        break
      case n.NFT_MSG_DELTABLE: {
        const table = decodeTable(family, payload)
        if (table) this.#isStale = true
        this.#emit('delete', table)
        break
      }
      case n.NFT_MSG_NEWOBJ:
      case n.NFT_MSG_DELOBJ: {
        const decoded = decodeCounter(family, payload)
        if (!decoded) break
        const { reading: _, ...counter } = decoded
        this.#emit(message === n.NFT_MSG_NEWOBJ ? 'new' : 'delete', counter)
        break
      }
      case n.NFT_MSG_NEWSET:
      case n.NFT_MSG_DELSET:
        this.#set(message === n.NFT_MSG_NEWSET, family, payload)
        break
      case n.NFT_MSG_NEWSETELEM:
      case n.NFT_MSG_DELSETELEM:
        this.#element(message === n.NFT_MSG_NEWSETELEM, family, payload)
        break
      case n.NFT_MSG_NEWCHAIN:
      case n.NFT_MSG_DELCHAIN: {
        const { table, name } = chainMessage.decode(payload)
        this.#chain(message === n.NFT_MSG_NEWCHAIN, family, table, name)
        break
      }
      case n.NFT_MSG_NEWRULE:
      case n.NFT_MSG_DELRULE: {
        const { table, chain } = ruleMessage.decode(payload)
        this.#chain(true, family, table, chain)
        break
      }
    }
  }

  #set(isNew: boolean, family: NftFamily, payload: Reader): void {
    const set = decodeSet(family, setMessage.decode(payload))
    if (!set || !isOurTable(set.table)) return
    if (isNew) this.#sets.set(keyOf(set), set)
    else {
      this.#sets.delete(keyOf(set))
      this.#isStale = true
    }
    this.#emit(isNew ? 'new' : 'delete', set)
  }

  #element(isNew: boolean, family: NftFamily, payload: Reader): void {
    if (!this.#kinds.has('nft-element')) return
    const { table, set, elements } = elementListMessage.decode(payload)
    if (!isOurTable(table) || set === undefined || !elements) return
    const key = setKeyOf(family, table, set)
    let change = this.#elements.get(key)
    if (!change) {
      change = { table: { kind: 'nft-table', family, name: table }, set, added: [], removed: [] }
      this.#elements.set(key, change)
    }
    const list = isNew ? change.added : change.removed
    for (const element of elements) list.push(element)
  }

  #chain(exists: boolean, family: NftFamily, table: string | undefined, name: string | undefined): void {
    if (!this.#kinds.has('nft-chain') || !isOurTable(table) || name === undefined) return
    const key = keyOf({ kind: 'nft-chain', family, table, name, rules: [] })
    if (exists) {
      this.#chains.set(key, { table: { kind: 'nft-table', family, name: table }, name })
      return
    }
    this.#chains.delete(key)
    this.#emit('delete', { kind: 'nft-chain', family, table, name, rules: [] })
  }

  #endOfTransaction(): void {
    const changes = [...this.#elements]
    const chains = [...this.#chains.values()]
    this.#elements.clear()
    this.#chains.clear()
    for (const [key, change] of changes) this.#emitElements(key, change)
    for (const chain of chains) void this.#readChain(chain)
    if (!this.#isStale) return
    this.#isStale = false
    if (!this.#closed) this.#listener({ type: 'resync' })
  }

  #emitElements(key: string, { table, set: name, added, removed }: ElementChange): void {
    // Members of a rule's anonymous set are the chain's business.
    if (name.startsWith('__')) return
    const set = this.#sets.get(key) ?? this.#source.known(key)
    if (!set) {
      void this.#learnSets(table)
      return
    }
    for (const element of decodeElements(set, removed)) this.#emit('delete', element)
    for (const element of decodeElements(set, added)) this.#emit('new', element)
  }

  /** A set that is older than this watch and that nobody has read: its types first, and then everything again. */
  async #learnSets(table: NftTable): Promise<void> {
    try {
      for (const set of await this.#source.sets(table)) this.#sets.set(keyOf(set), set)
    } finally {
      if (!this.#closed) this.#listener({ type: 'resync' })
    }
  }

  async #readChain({ table, name }: { table: NftTable; name: string }): Promise<void> {
    try {
      this.#emit('new', await this.#source.chain(table, name))
    } catch {
      // The session was closed or the dump failed: whoever reads again learns the rest.
      if (!this.#closed) this.#listener({ type: 'resync' })
    }
  }
}
