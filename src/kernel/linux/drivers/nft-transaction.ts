/**
 * Encodes a run of nft operations as one transaction and finds out, from what the kernel refused, which operation was
 * at fault.
 *
 * Inside a transaction the order of operations does not matter to anybody but the kernel, so they are sorted into the
 * order that references need: tables, sets, chains, rules away, elements away, elements, rules, and then what is no
 * longer referenced. Two operations on one object keep their order: the later one starts a new round.
 *
 * A chain that exists is changed rule by rule: rules that stay keep their handle and their counters. A set that is to have
 * another definition goes and comes again: rules that use it are taken away before and written anew, as far as their chains
 * are part of the transaction.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nfnetlink.c (batches).
 */
import { keyOf } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import type { NftChain, NftCounter, NftElement, NftRule, NftSet, NftTable } from '../../../model/nft.ts'
import { formatNftRule, type NftObject, sameDefinition } from '../../../model/nft-format.ts'
import { NftLiteralError } from '../../../model/nft-literal.ts'
import { setsUsedBy } from '../../../model/nft-reference.ts'
import * as nl from '../../../wire/netlink/constants.gen.ts'
import { beginMessage, endMessage } from '../../../wire/netlink/message.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import {
  commentEntry,
  encodeUserdata,
  OBJECT_COMMENT,
  RULE_COMMENT,
  RULE_DIGEST,
  TABLE_COMMENT,
} from '../../../wire/nftables/data.ts'
import {
  chainMessage,
  elementListMessage,
  familyNumbers,
  hookNumbers,
  nftMessageType,
  objectMessage,
  policyNumbers,
  ruleMessage,
  setMessage,
  tableMessage,
  writeNfgenmsg,
} from '../../../wire/nftables/message.ts'
import type { OpResult } from '../../kernel.ts'
import type { Failures, RequestBatch } from '../netlink-socket.ts'
import { compileRule } from './nft-compile.ts'
import { ElementMessages, writeElementList } from './nft-element-message.ts'
import { concludeTransaction, type NftOp, type Refused, type Sent } from './nft-outcome.ts'
import { type InstalledChain, type InstalledRule, longestCommon, ruleDigest, sameBase } from './nft-rule-plan.ts'
import { encodeAnonymousSet, encodeElement, encodeRange, encodeSet } from './nft-set.ts'

const EINVAL = 22
const ENOENT = 2

export interface TransactionContext {
  /** Definition of a set that exists, by its key. */
  set(key: string): NftSet | undefined
  /** Present for every existing chain that a `set` names. */
  chain(key: string): InstalledChain | undefined
}

/** Writes one transaction into a batch. */
export class NftTransaction {
  readonly #batch: RequestBatch
  readonly #ops: readonly NftOp[]
  readonly #context: TransactionContext
  readonly #sent: Sent[] = []
  readonly #elements: ElementMessages
  readonly #refused = new Map<number, Refused>()
  readonly #newSets = new Map<string, NftSet>()
  /** Sets whose definition changes: they go and come again, and with them the rules that use them. */
  readonly #renewed = new Set<string>()
  readonly #removedRules = new Set<bigint>()
  #nextSetId = 1

  constructor(batch: RequestBatch, ops: readonly NftOp[], context: TransactionContext) {
    this.#batch = batch
    this.#ops = ops
    this.#context = context
    this.#elements = new ElementMessages(batch, this.#sent)
    for (const { verb, object } of ops) {
      if (object.kind !== 'nft-set' || verb === 'delete') continue
      const key = keyOf(object)
      this.#newSets.set(key, object)
      const have = verb === 'set' ? context.set(key) : undefined
      if (have && !sameDefinition(have, object)) this.#renewed.add(key)
    }
  }

  /** Encodes everything. False when an op cannot be encoded: then nothing must be sent. */
  encode(): boolean {
    this.#batch.openingSequence = this.#batch.nextSequence
    this.#mark(n.NFNL_MSG_BATCH_BEGIN)
    if (this.#renewed.size > 0) this.#removeUsersOfRenewed()
    for (const round of this.#rounds())
      for (const phase of this.#phases) for (const op of round) this.#attempt(phase, op)
    this.#elements.flush()
    if (this.#sent.length === 0) return this.#refused.size === 0
    // The batch's end has no sequence number of its own, so that the last message that asks for an answer is an op.
    const end = beginMessage(this.#batch.writer, n.NFNL_MSG_BATCH_END, nl.NLM_F_REQUEST, this.#batch.nextSequence - 1)
    writeNfgenmsg(this.#batch.writer, 0, n.NFNL_SUBSYS_NFTABLES)
    endMessage(this.#batch.writer, end)
    return this.#refused.size === 0
  }

  /** True when there is nothing to send: every op was done already. */
  get isEmpty(): boolean {
    return this.#sent.length === 0
  }

  #mark(type: number): void {
    const start = this.#batch.begin(type, 0)
    writeNfgenmsg(this.#batch.writer, 0, n.NFNL_SUBSYS_NFTABLES)
    this.#batch.end(start)
  }

  *#rounds(): Generator<number[]> {
    if (this.#ops.length === 1) {
      yield [0]
      return
    }
    let round: number[] = []
    let seen = new Set<string>()
    for (const [i, { object }] of this.#ops.entries()) {
      const key = keyOf(object)
      if (seen.has(key)) {
        yield round
        round = []
        seen = new Set()
      }
      seen.add(key)
      round.push(i)
    }
    yield round
  }

  #attempt(phase: (op: NftOp, index: number) => void, index: number): void {
    if (this.#refused.has(index)) return
    try {
      phase(this.#ops[index]!, index)
    } catch (error) {
      if (!(error instanceof NftLiteralError || error instanceof RangeError)) throw error
      this.#refused.set(index, { errno: EINVAL, problem: error.message })
    }
  }

  /** One message for one op. */
  #message(index: number, family: number, message: number, flags: number, body: () => void): void {
    this.#elements.flush()
    const sequence = this.#batch.nextSequence
    const start = this.#batch.begin(nftMessageType(message), flags)
    writeNfgenmsg(this.#batch.writer, family)
    body()
    this.#batch.end(start)
    this.#sent.push({ sequence, parts: [{ offset: 0, op: index }] })
  }

  readonly #phases: readonly ((op: NftOp, index: number) => void)[] = [
    ({ verb, object }, i) => object.kind === 'nft-table' && verb !== 'delete' && this.#addTable(object, i),
    ({ verb, object }, i) => {
      if (verb === 'delete') return
      if (object.kind === 'nft-counter') this.#addCounter(verb, object, i)
      if (object.kind === 'nft-set' && !this.#renewed.has(keyOf(object))) this.#addSet(verb, object, i)
    },
    ({ verb, object }, i) => object.kind === 'nft-chain' && verb !== 'delete' && this.#addChain(verb, object, i),
    ({ verb, object }, i) => object.kind === 'nft-chain' && this.#removeRules(verb, object, i),
    ({ verb, object }, i) => object.kind === 'nft-element' && verb !== 'add' && this.#element('delete', object, i),
    ({ object }, i) => object.kind === 'nft-set' && this.#renewed.has(keyOf(object)) && this.#renewSet(object, i),
    ({ verb, object }, i) => object.kind === 'nft-element' && verb !== 'delete' && this.#element('add', object, i),
    ({ verb, object }, i) => object.kind === 'nft-chain' && verb !== 'delete' && this.#addRules(verb, object, i),
    ({ verb, object }, i) => verb === 'delete' && this.#deleteSetOrCounter(object, i),
    ({ verb, object }, i) => object.kind === 'nft-chain' && verb === 'delete' && this.#deleteChain(object, i),
    ({ verb, object }, i) => object.kind === 'nft-table' && verb === 'delete' && this.#deleteTable(object, i),
  ]

  /** Before anything else, because the sets may go in an earlier round than the one that sets the chain. */
  #removeUsersOfRenewed(): void {
    for (const [i, { verb, object }] of this.#ops.entries()) {
      if (object.kind !== 'nft-chain' || verb !== 'set') continue
      for (const rule of this.#context.chain(keyOf(object))?.rules ?? [])
        if (this.#usesRenewed(object, rule.rule)) this.#removeRule(object, rule, i)
    }
  }

  #usesRenewed({ family, table }: NftChain, rule: NftRule): boolean {
    if (this.#renewed.size === 0) return false
    return setsUsedBy(rule).some((name) => this.#renewed.has(keyOf({ kind: 'nft-set', family, table, name, type: [] })))
  }

  #removeRule(chain: NftChain, { handle }: InstalledRule, index: number): void {
    if (this.#removedRules.has(handle)) return
    this.#removedRules.add(handle)
    this.#message(index, familyNumbers[chain.family], n.NFT_MSG_DELRULE, 0, () =>
      ruleMessage.encode(this.#batch.writer, { table: chain.table, chain: chain.name, handle }),
    )
  }

  /** Adding a table that exists is fine, as it is for nft. */
  #addTable(table: NftTable, index: number): void {
    const comment = table.comment === undefined ? [] : [commentEntry(TABLE_COMMENT, table.comment)]
    this.#message(index, familyNumbers[table.family], n.NFT_MSG_NEWTABLE, nl.NLM_F_CREATE, () =>
      tableMessage.encode(this.#batch.writer, {
        name: table.name,
        flags: 0,
        ...(comment.length && { userdata: encodeUserdata(comment) }),
      }),
    )
  }

  #deleteTable(table: NftTable, index: number): void {
    this.#message(index, familyNumbers[table.family], n.NFT_MSG_DELTABLE, 0, () =>
      tableMessage.encode(this.#batch.writer, { name: table.name }),
    )
  }

  #addCounter(verb: KernelOp['verb'], counter: NftCounter, index: number): void {
    const comment = counter.comment === undefined ? [] : [commentEntry(OBJECT_COMMENT, counter.comment)]
    const flags = nl.NLM_F_CREATE | (verb === 'add' ? nl.NLM_F_EXCL : 0)
    this.#message(index, familyNumbers[counter.family], n.NFT_MSG_NEWOBJ, flags, () =>
      objectMessage.encode(this.#batch.writer, {
        table: counter.table,
        name: counter.name,
        type: n.NFT_OBJECT_COUNTER,
        counter: { bytes: 0n, packets: 0n },
        ...(comment.length && { userdata: encodeUserdata(comment) }),
      }),
    )
  }

  #addSet(verb: KernelOp['verb'], set: NftSet, index: number): void {
    const flags = nl.NLM_F_CREATE | (verb === 'add' ? nl.NLM_F_EXCL : 0)
    this.#message(index, familyNumbers[set.family], n.NFT_MSG_NEWSET, flags, () =>
      setMessage.encode(this.#batch.writer, encodeSet(set, this.#nextSetId++)),
    )
  }

  #renewSet(set: NftSet, index: number): void {
    this.#deleteSetOrCounter(set, index)
    this.#addSet('add', set, index)
  }

  #deleteSetOrCounter(object: NftObject, index: number): void {
    if (object.kind === 'nft-set')
      this.#message(index, familyNumbers[object.family], n.NFT_MSG_DELSET, 0, () =>
        setMessage.encode(this.#batch.writer, { table: object.table, name: object.name }),
      )
    if (object.kind === 'nft-counter')
      this.#message(index, familyNumbers[object.family], n.NFT_MSG_DELOBJ, 0, () =>
        objectMessage.encode(this.#batch.writer, {
          table: object.table,
          name: object.name,
          type: n.NFT_OBJECT_COUNTER,
        }),
      )
  }

  #addChain(verb: KernelOp['verb'], chain: NftChain, index: number): void {
    const have = verb === 'set' ? this.#context.chain(keyOf(chain)) : undefined
    const isReplaced = have && !sameBase(have.base, chain.base)
    if (isReplaced) this.#deleteChain(chain, index)
    const flags = nl.NLM_F_CREATE | (verb === 'add' || isReplaced ? nl.NLM_F_EXCL : 0)
    const { base } = chain
    this.#message(index, familyNumbers[chain.family], n.NFT_MSG_NEWCHAIN, flags, () =>
      chainMessage.encode(this.#batch.writer, {
        table: chain.table,
        name: chain.name,
        ...(base && {
          type: base.type,
          policy: policyNumbers[base.policy ?? 'accept'],
          hook: {
            number: chain.family === 'netdev' ? 0 : hookNumbers[base.hook],
            priority: base.priority,
            ...(base.device !== undefined && { device: base.device }),
          },
        }),
      }),
    )
  }

  #deleteChain(chain: NftChain, index: number): void {
    this.#message(index, familyNumbers[chain.family], n.NFT_MSG_DELCHAIN, 0, () =>
      chainMessage.encode(this.#batch.writer, { table: chain.table, name: chain.name }),
    )
  }

  /** Installed rules that may stay, in order, and the wanted rules that they are. */
  #plan(
    verb: KernelOp['verb'],
    chain: NftChain,
  ): { have: readonly InstalledRule[]; kept: ReadonlyMap<number, InstalledRule> } {
    const installed = verb === 'set' ? this.#context.chain(keyOf(chain)) : undefined
    if (!installed || !sameBase(installed.base, chain.base)) return { have: [], kept: new Map() }
    const wanted = chain.rules.map((rule) => ruleDigest(formatNftRule(rule)))
    const lasting = installed.rules.filter(({ rule }) => !this.#usesRenewed(chain, rule))
    return { have: installed.rules, kept: longestCommon(lasting, wanted) }
  }

  #removeRules(verb: KernelOp['verb'], chain: NftChain, index: number): void {
    // Deleting a chain deletes its rules, but jumps to other chains of the same transaction must be gone before those.
    if (verb === 'delete') {
      this.#message(index, familyNumbers[chain.family], n.NFT_MSG_DELRULE, 0, () =>
        ruleMessage.encode(this.#batch.writer, { table: chain.table, chain: chain.name }),
      )
      return
    }
    const { have, kept } = this.#plan(verb, chain)
    const staying = new Set(kept.values())
    for (const rule of have) if (!staying.has(rule)) this.#removeRule(chain, rule, index)
  }

  #addRules(verb: KernelOp['verb'], chain: NftChain, index: number): void {
    const { kept } = this.#plan(verb, chain)
    const positions: (bigint | undefined)[] = []
    let next: bigint | undefined
    for (let i = chain.rules.length - 1; i >= 0; i--) {
      next = kept.get(i)?.handle ?? next
      positions[i] = next
    }
    for (const [i, rule] of chain.rules.entries()) if (!kept.has(i)) this.#addRule(chain, rule, positions[i], index)
  }

  #addRule(chain: NftChain, rule: NftRule, before: bigint | undefined, index: number): void {
    const text = formatNftRule(rule)
    const { expressions, sets } = compileRule(chain.family, rule, () => this.#nextSetId++)
    const family = familyNumbers[chain.family]
    for (const set of sets) {
      this.#message(index, family, n.NFT_MSG_NEWSET, nl.NLM_F_CREATE, () =>
        setMessage.encode(this.#batch.writer, encodeAnonymousSet(chain.table, set)),
      )
      const interval = set.elements.some(({ to }) => to)
      const elements = set.elements.flatMap((range) => encodeRange(set.types, interval, range))
      this.#message(index, family, n.NFT_MSG_NEWSETELEM, nl.NLM_F_CREATE, () => {
        elementListMessage.encode(this.#batch.writer, { table: chain.table, set: '__set%d', setId: set.id })
        writeElementList(this.#batch.writer, elements)
      })
    }
    const comment = rule.comment === undefined ? [] : [commentEntry(RULE_COMMENT, rule.comment)]
    const digest = { type: RULE_DIGEST, value: Buffer.from(ruleDigest(text), 'hex') }
    const flags = nl.NLM_F_CREATE | (before === undefined ? nl.NLM_F_APPEND : 0)
    this.#message(index, family, n.NFT_MSG_NEWRULE, flags, () =>
      ruleMessage.encode(this.#batch.writer, {
        table: chain.table,
        chain: chain.name,
        expressions: [...expressions],
        ...(before !== undefined && { position: before }),
        userdata: encodeUserdata([...comment, digest]),
      }),
    )
  }

  /** The set of the element before, because elements of one set come together. */
  #lastSet: { table: string; name: string; family: string; key: string; set: NftSet | undefined } | undefined

  #setOf({ family, table, set: name }: NftElement): { readonly key: string; readonly set: NftSet | undefined } {
    const last = this.#lastSet
    if (last?.name === name && last.table === table && last.family === family) return last
    const key = keyOf({ kind: 'nft-set', family, table, name, type: [] })
    this.#lastSet = { family, table, name, key, set: this.#newSets.get(key) ?? this.#context.set(key) }
    return this.#lastSet
  }

  #element(verb: 'add' | 'delete', element: NftElement, index: number): void {
    const { key, set } = this.#setOf(element)
    if (set) return this.#elements.put(verb, key, element, encodeElement(set, element, verb === 'delete'), index)
    this.#refused.set(index, {
      errno: ENOENT,
      problem: `there is no set ${element.set} in ${element.family} ${element.table}`,
    })
  }

  /** One result per op: the transaction happened, or some ops were at fault and the others were not done. */
  results(failures: Failures): readonly OpResult[] {
    return concludeTransaction(this.#ops, this.#sent, this.#refused, failures)
  }
}
