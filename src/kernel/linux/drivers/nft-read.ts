/**
 * Reads weft's nft tables back as model objects. Only tables whose name starts with `weft` are looked into: others may
 * hold a hundred thousand elements that are nobody's business here.
 *
 * A rule comes back as the statements that its expressions say. When its digest is that of a rule which this process
 * wrote, it comes back as that very rule, however it was phrased.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h.
 */

import type { Reader } from '../../../bytes/reader.ts'
import type { Writer } from '../../../bytes/writer.ts'
import { KernelError } from '../../../model/errors.ts'
import { keyOf } from '../../../model/kernel-object.ts'
import type {
  NftBase,
  NftChain,
  NftCounter,
  NftCounterReading,
  NftElement,
  NftFamily,
  NftRule,
  NftSet,
  NftTable,
} from '../../../model/nft.ts'
import { formatNftRule } from '../../../model/nft-format.ts'
import type { LiteralRange } from '../../../model/nft-literal.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import {
  decodeComment,
  decodeUserdata,
  OBJECT_COMMENT,
  RULE_COMMENT,
  RULE_DIGEST,
  TABLE_COMMENT,
} from '../../../wire/nftables/data.ts'
import {
  type ChainMessage,
  chainMessage,
  type ElementMessage,
  elementListMessage,
  familyNumbers,
  hookNumbers,
  nftMessageType,
  objectMessage,
  policyNumbers,
  type RuleMessage,
  readNfgenmsg,
  ruleMessage,
  type SetMessage,
  setMessage,
  tableMessage,
  writeNfgenmsg,
} from '../../../wire/nftables/message.ts'
import type { NetlinkSocket } from '../netlink-socket.ts'
import { decompileRule } from './nft-decompile.ts'
import { type InstalledChain, type InstalledRule, ruleDigest } from './nft-rule-plan.ts'
import { decodeElements, decodeSet, familyOf, pairRanges } from './nft-set.ts'

const TABLE_PREFIX = 'weft'

export const isOurTable = (name: string | undefined): name is string => name?.startsWith(TABLE_PREFIX) ?? false

/** A set as the kernel has it, with what the model does not say. */
interface DumpedSet {
  readonly message: SetMessage
  readonly set: NftSet | undefined
}

/** Members of the anonymous sets of a table, by name. */
type AnonymousSets = ReadonlyMap<string, readonly LiteralRange[]>

const hooksByNumber = new Map<number, NftBase['hook']>(
  Object.entries(hookNumbers).map(([name, number]) => [number, name as NftBase['hook']]),
)

function decodeBase(family: NftFamily, { type, hook, policy }: ChainMessage): NftBase | undefined {
  const hookName =
    hook?.number === undefined ? undefined : family === 'netdev' ? 'ingress' : hooksByNumber.get(hook.number)
  if (!hook || !hookName || (type !== 'filter' && type !== 'nat' && type !== 'route')) return undefined
  return {
    type,
    hook: hookName,
    priority: hook.priority ?? 0,
    ...(policy === policyNumbers.drop && { policy: 'drop' as const }),
    ...(hook.device !== undefined && { device: hook.device }),
  }
}

export function decodeTable(family: NftFamily, payload: Reader): NftTable | undefined {
  const { name, userdata } = tableMessage.decode(payload)
  if (!isOurTable(name)) return undefined
  const comment = decodeComment(decodeUserdata(userdata), TABLE_COMMENT)
  return { kind: 'nft-table', family, name, ...(comment !== undefined && { comment }) }
}

export function decodeCounter(
  family: NftFamily,
  payload: Reader,
): (NftCounter & { reading: NftCounterReading }) | undefined {
  const { table, name, type, counter, userdata } = objectMessage.decode(payload)
  if (!isOurTable(table) || name === undefined || type !== n.NFT_OBJECT_COUNTER) return undefined
  const comment = decodeComment(decodeUserdata(userdata), OBJECT_COMMENT)
  const reading = { family, table, name, packets: counter?.packets ?? 0n, bytes: counter?.bytes ?? 0n }
  return { kind: 'nft-counter', family, table, name, ...(comment !== undefined && { comment }), reading }
}

/** Rules that this process wrote, by digest. */
export class WrittenRules {
  readonly #rules = new Map<string, NftRule>()

  remember(chain: NftChain): void {
    for (const rule of chain.rules) this.#rules.set(ruleDigest(formatNftRule(rule)), rule)
  }

  get(digest: string): NftRule | undefined {
    return this.#rules.get(digest)
  }
}

/** Dumps of one socket; one at a time. */
export class NftReader {
  readonly #socket: NetlinkSocket
  readonly #written: WrittenRules

  constructor(socket: NetlinkSocket, written: WrittenRules) {
    this.#socket = socket
    this.#written = written
  }

  async #dump<T>(
    message: number,
    family: number,
    encode: (writer: Writer) => void,
    decode: (family: NftFamily, payload: Reader) => T | undefined,
  ): Promise<T[]> {
    const out: T[] = []
    try {
      await this.#socket.dump(
        'nft list ruleset',
        nftMessageType(message),
        (writer) => {
          writeNfgenmsg(writer, family)
          encode(writer)
        },
        (_header, payload) => {
          const objectFamily = familyOf(readNfgenmsg(payload).family)
          const value = objectFamily && decode(objectFamily, payload)
          if (value !== undefined) out.push(value)
        },
        () => {
          out.length = 0
        },
      )
    } catch (error) {
      // Gone while reading: then there is nothing to read.
      if (error instanceof KernelError && error.code === 'ENOENT') return []
      throw error
    }
    return out
  }

  tables(): Promise<NftTable[]> {
    return this.#dump(n.NFT_MSG_GETTABLE, 0, () => {}, decodeTable)
  }

  async #dumpedSets({ family, name }: NftTable): Promise<DumpedSet[]> {
    return this.#dump(
      n.NFT_MSG_GETSET,
      familyNumbers[family],
      (writer) => setMessage.encode(writer, { table: name }),
      (setFamily, payload) => {
        const message = setMessage.decode(payload)
        return message.table === name && setFamily === family
          ? { message, set: decodeSet(setFamily, message) }
          : undefined
      },
    )
  }

  /** Named sets and maps of a table. */
  async sets(table: NftTable): Promise<NftSet[]> {
    return (await this.#dumpedSets(table)).flatMap(({ set }) => set ?? [])
  }

  async #elementMessages(family: NftFamily, table: string, set: string): Promise<ElementMessage[]> {
    const lists = await this.#dump(
      n.NFT_MSG_GETSETELEM,
      familyNumbers[family],
      (writer) => elementListMessage.encode(writer, { table, set }),
      (_family, payload) => elementListMessage.decode(payload).elements ?? [],
    )
    return lists.flat()
  }

  async elements(set: NftSet): Promise<NftElement[]> {
    return decodeElements(set, await this.#elementMessages(set.family, set.table, set.name))
  }

  async #anonymousSets(table: NftTable): Promise<AnonymousSets> {
    const members = new Map<string, readonly LiteralRange[]>()
    for (const { message } of await this.#dumpedSets(table)) {
      const { name, flags = 0 } = message
      if (name === undefined || !(flags & n.NFT_SET_ANONYMOUS)) continue
      const elements = await this.#elementMessages(table.family, table.name, name)
      const fields = message.desc?.fields?.length ?? 1
      const ranges = pairRanges((flags & n.NFT_SET_INTERVAL) !== 0, fields, elements)
      members.set(
        name,
        ranges.map(({ range }) => range),
      )
    }
    return members
  }

  async counters({ family, name }: NftTable): Promise<(NftCounter & { reading: NftCounterReading })[]> {
    return this.#dump(
      n.NFT_MSG_GETOBJ,
      familyNumbers[family],
      (writer) => objectMessage.encode(writer, { table: name, type: n.NFT_OBJECT_COUNTER }),
      decodeCounter,
    )
  }

  /** Chains of a table with their rules; of one chain when `only` names it. */
  async chains(table: NftTable, only?: string): Promise<{ chain: NftChain; installed: InstalledChain }[]> {
    const { family, name } = table
    const heads = await this.#dump(
      n.NFT_MSG_GETCHAIN,
      familyNumbers[family],
      () => {},
      (chainFamily, payload) => {
        const message = chainMessage.decode(payload)
        const wanted = chainFamily === family && message.table === name && (only === undefined || message.name === only)
        return wanted ? message : undefined
      },
    )
    const rules = await this.#dump(
      n.NFT_MSG_GETRULE,
      familyNumbers[family],
      (writer) => ruleMessage.encode(writer, { table: name, ...(only !== undefined && { chain: only }) }),
      (ruleFamily, payload) => {
        const message = ruleMessage.decode(payload)
        return ruleFamily === family && message.table === name ? message : undefined
      },
    )
    const usesAnonymous = rules.some(({ expressions }) =>
      expressions?.some(({ name: e, data }) => e === 'lookup' && 'set' in data && data.set?.startsWith('__')),
    )
    const anonymous: AnonymousSets = usesAnonymous ? await this.#anonymousSets(table) : new Map()
    return heads.map((head) => {
      const base = decodeBase(family, head)
      const installed = rules
        .filter((rule) => rule.chain === head.name)
        .map((rule) => this.#rule(family, rule, anonymous))
      const chain: NftChain = {
        kind: 'nft-chain',
        family,
        table: name,
        name: head.name ?? '',
        ...(base && { base }),
        rules: installed.map(({ rule }) => rule),
      }
      return { chain, installed: { ...(base && { base }), rules: installed } }
    })
  }

  #rule(family: NftFamily, message: RuleMessage, anonymous: AnonymousSets): InstalledRule {
    const userdata = decodeUserdata(message.userdata)
    const comment = decodeComment(userdata, RULE_COMMENT)
    const digestBytes = userdata.get(RULE_DIGEST)
    const digest = digestBytes && Buffer.from(digestBytes).toString('hex')
    const statements = decompileRule(family, message.expressions ?? [], (set) => anonymous.get(set))
    const read: NftRule = { statements, ...(comment !== undefined && { comment }) }
    const rule = (digest !== undefined && this.#written.get(digest)) || read
    return { handle: message.handle ?? 0n, ...(digest !== undefined && { digest }), rule }
  }
}

/** Key of the set that an element belongs to. */
export const setKeyOf = (family: NftFamily, table: string, set: string): string =>
  keyOf({ kind: 'nft-set', family, table, name: set, type: [] })
