/**
 * Reads a rule's expressions back as statements: the reverse of nft-compile for what it writes, so that a chain can be
 * compared with what is wanted, and a rule that somebody else wrote can be shown. What has no statement becomes
 * `{ foreign: name }`, which equals nothing that weft wants.
 *
 * Checks that a load needs (an IPv4 address comes from an IPv4 packet) are held back until the load says which of
 * them it explains; those left over were matches of their own.
 */
import type { NftFamily, NftSelector, NftStatement } from '../../../model/nft.ts'
import {
  bytesToRaw,
  formatKey,
  formatLiteral,
  isFlagType,
  isRawType,
  type LiteralRange,
  type LiteralType,
  literalBytes,
  NftLiteralError,
  paddedBytes,
} from '../../../model/nft-literal.ts'
import { Ip } from '../../../net/ip.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import type { ExpressionName, NftExpression } from '../../../wire/nftables/expression.ts'
import { decodeVerdict } from './nft-compile.ts'
import { type Dependency, dependencyRows, selectorRows, wordOf } from './nft-selector.ts'

/** Members of the anonymous set of that name; undefined when it is none. */
export type AnonymousMembers = (set: string) => readonly LiteralRange[] | undefined

type Data<K extends ExpressionName> = Extract<NftExpression, { name: K }>['data']

const VERDICT_REGISTER = 0
const NFPROTO_IPV4 = 2
const DEFAULT_BURST_PACKETS = 5

/** Thrown inside, caught at the end of the rule: an expression that weft does not write. */
class Foreign extends Error {}

const foreign = (what: string): never => {
  throw new Foreign(what)
}

/** What distinguishes one load from another, apart from its register. */
function loadKey(expression: NftExpression): string | undefined {
  switch (expression.name) {
    case 'payload':
      return `payload ${expression.data.base} ${expression.data.offset} ${expression.data.length}`
    case 'meta':
      return expression.data.sreg === undefined ? `meta ${expression.data.key}` : undefined
    case 'ct':
      return expression.data.sreg === undefined && expression.data.direction === undefined
        ? `ct ${expression.data.key}`
        : undefined
    case 'fib':
      return `fib ${expression.data.flags} ${expression.data.result}`
    default:
      return undefined
  }
}

const selectorsByLoad = new Map<string, NftSelector[]>()
for (const [selector, row] of Object.entries(selectorRows) as [NftSelector, (typeof selectorRows)[NftSelector]][]) {
  const key = loadKey(row.load(0))!
  selectorsByLoad.set(key, [...(selectorsByLoad.get(key) ?? []), selector])
}

interface Load {
  readonly selector: NftSelector
  readonly word: number
}

/** Throws Foreign unless the bytes are as many as a value of the type has. */
function checkWidth(type: LiteralType, ...values: readonly Uint8Array[]): void {
  if (values.some((value) => value.length !== literalBytes(type))) throw new Foreign(`${type} of another width`)
}

const toNumber = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)

class Decompiler {
  readonly statements: NftStatement[] = []
  readonly #members: AnonymousMembers
  readonly #known = new Set<Dependency>()
  /** Checks whose reason has not shown yet. */
  readonly #pending: Dependency[] = []
  #loads: Load[] = []
  /** meta key of a load that only a dependency has. */
  #bareMeta: number | undefined
  #masked: { mask: Uint8Array; xor: Uint8Array } | undefined
  #lower: Uint8Array | undefined
  #mapped: { map: string; by: readonly NftSelector[] } | undefined
  readonly #constants = new Map<number, Uint8Array>()

  constructor(family: NftFamily, members: AnonymousMembers) {
    this.#members = members
    if (family === 'ip') this.#known.add('ipv4')
    if (family === 'ip6') this.#known.add('ipv6')
    if (family === 'bridge' || family === 'netdev') this.#known.add('ether')
  }

  /** Adds a statement, after the checks that stand for themselves. */
  #push(statement: NftStatement): void {
    this.flush()
    this.statements.push(statement)
  }

  flush(): void {
    for (const dependency of this.#pending.splice(0)) {
      const { selector, value } = dependencyRows[dependency]
      if (!selector) throw new Foreign('meta iiftype')
      this.#known.add(dependency)
      this.statements.push({ match: [selector], right: formatLiteral(selectorRows[selector].type, value) })
    }
  }

  #takeLoads(): readonly NftSelector[] {
    const loads = this.#loads
    this.#loads = []
    let word = 0
    for (const load of loads) {
      if (load.word !== word) throw new Foreign('registers out of order')
      word += paddedBytes(selectorRows[load.selector].type) / 4
    }
    return loads.length ? loads.map((load) => load.selector) : foreign('nothing loaded')
  }

  #takeOne(): NftSelector {
    const selectors = this.#takeLoads()
    return selectors.length === 1 ? selectors[0]! : foreign('cmp of a concatenation')
  }

  load(expression: NftExpression, dreg: number): void {
    const candidates = selectorsByLoad.get(loadKey(expression) ?? '') ?? []
    const has = (dependency: Dependency) => this.#known.has(dependency) || this.#pending.includes(dependency)
    const fitting = candidates.filter((selector) => selectorRows[selector].needs.every(has))
    const selector = fitting.sort((a, b) => selectorRows[b].needs.length - selectorRows[a].needs.length)[0]
    if (!selector) {
      if (expression.name !== 'meta' || this.#loads.length) throw new Foreign(expression.name)
      this.#bareMeta = expression.data.key
      return
    }
    for (const dependency of selectorRows[selector].needs) {
      const at = this.#pending.indexOf(dependency)
      if (at >= 0) this.#pending.splice(at, 1)
      this.#known.add(dependency)
    }
    this.#loads.push({ selector, word: wordOf(dreg) })
  }

  cmp({ op, data: value }: Data<'cmp'>): void {
    if (op === undefined || !value) throw new Foreign('cmp')
    if (this.#bareMeta !== undefined) this.#bareDependency(op, value)
    else if (this.#masked) this.#compareMasked(op, value, this.#masked)
    else this.#compare(op, value)
  }

  #compare(op: number, value: Uint8Array): void {
    if (op === n.NFT_CMP_GTE && this.#loads.length === 1) {
      this.#lower = value
      return
    }
    const selector = this.#takeOne()
    const { type } = selectorRows[selector]
    if (op === n.NFT_CMP_LTE && this.#lower) {
      checkWidth(type, this.#lower, value)
      this.#push({ match: [selector], right: formatLiteral(type, this.#lower, value) })
      this.#lower = undefined
      return
    }
    if (op !== n.NFT_CMP_EQ && op !== n.NFT_CMP_NEQ) throw new Foreign('cmp')
    const inverted = op === n.NFT_CMP_NEQ
    if (isFlagType(type) && !inverted) throw new Foreign('cmp')
    const dependency = inverted ? undefined : this.#dependencyOf(selector, value)
    if (dependency && !this.#known.has(dependency)) {
      this.#pending.push(dependency)
      return
    }
    const isStem = type === 'ifname' && value.length < literalBytes(type)
    if (!isStem) checkWidth(type, value)
    const right = isStem ? `"${String.fromCharCode(...value)}*"` : formatLiteral(type, value)
    this.#push({ match: [selector], ...(inverted && { op: '!=' }), right })
  }

  #bareDependency(op: number, value: Uint8Array): void {
    const key = this.#bareMeta
    this.#bareMeta = undefined
    const entry = Object.entries(dependencyRows).find(
      ([, row]) => !row.selector && row.key === key && row.value.every((octet, i) => octet === value[i]),
    )
    if (!entry || op !== n.NFT_CMP_EQ) throw new Foreign('meta')
    this.#pending.push(entry[0] as Dependency)
  }

  #dependencyOf(selector: NftSelector, value: Uint8Array): Dependency | undefined {
    const entry = Object.entries(dependencyRows).find(
      ([, row]) => row.selector === selector && row.value[0] === value[0],
    )
    return entry?.[0] as Dependency | undefined
  }

  #compareMasked(op: number, value: Uint8Array, { mask, xor }: { mask: Uint8Array; xor: Uint8Array }): void {
    this.#masked = undefined
    const selector = this.#takeOne()
    const { type } = selectorRows[selector]
    if (xor.some((octet) => octet !== 0) || (op !== n.NFT_CMP_EQ && op !== n.NFT_CMP_NEQ)) throw new Foreign('bitwise')
    const inverted = op === n.NFT_CMP_NEQ
    checkWidth(type, mask, value)
    if (isFlagType(type)) {
      if (!inverted || value.some((octet) => octet !== 0)) throw new Foreign('bitwise')
      this.#push({ match: [selector], right: formatLiteral(type, mask) })
    } else if (type === 'mark' || isRawType(type)) {
      const equality = inverted ? { op: '!=' as const } : {}
      const operand = type === 'mark' ? toNumber : bytesToRaw
      this.#push({ masked: selector, mask: operand(mask), ...equality, value: operand(value) })
    } else {
      const to = Uint8Array.from(value, (octet, i) => octet | (~mask[i]! & 255))
      this.#push({ match: [selector], ...(inverted && { op: '!=' }), right: formatLiteral(type, value, to) })
    }
  }

  range({ op, from, to }: Data<'range'>): void {
    const selector = this.#takeOne()
    if (!from || !to) throw new Foreign('range')
    checkWidth(selectorRows[selector].type, from, to)
    const right = formatLiteral(selectorRows[selector].type, from, to)
    this.#push({ match: [selector], ...(op === n.NFT_RANGE_NEQ && { op: '!=' }), right })
  }

  bitwise({ mask, xor, op }: Data<'bitwise'>): void {
    if (!mask || !xor || op || this.#loads.length !== 1) throw new Foreign('bitwise')
    this.#masked = { mask, xor }
  }

  lookup({ set, dreg, flags }: Data<'lookup'>): void {
    if (!set) throw new Foreign('lookup')
    const match = this.#takeLoads()
    if (dreg !== undefined && dreg !== VERDICT_REGISTER) {
      this.#mapped = { map: set, by: match }
      return
    }
    const members = this.#members(set)
    if (dreg === VERDICT_REGISTER) {
      if (members) throw new Foreign('anonymous map')
      this.#push({ vmap: match, map: set })
      return
    }
    const types = match.map((selector) => selectorRows[selector].type)
    const right = members ? members.map(({ from, to }) => formatKey(types, from, to)).sort() : `@${set}`
    this.#push({ match, ...(flags ? { op: '!=' as const } : {}), right })
  }

  immediate({ dreg, data }: Data<'immediate'>): void {
    if (data?.verdict?.code !== undefined) {
      const { verdict, chain } = decodeVerdict(data.verdict.code, data.verdict.chain) ?? foreign('verdict')
      if (verdict === 'jump') this.#push({ jump: chain ?? '' })
      else if (verdict === 'goto') this.#push({ goto: chain ?? '' })
      else this.#push({ verdict })
    } else if (data?.value && dreg !== undefined) this.#constants.set(wordOf(dreg), data.value)
    else foreign('immediate')
  }

  metaSet({ key }: Data<'meta'>): void {
    if (key !== n.NFT_META_MARK) throw new Foreign('meta set')
    const masked = this.#masked
    if (masked) {
      this.#masked = undefined
      if (this.#takeOne() !== 'meta mark') throw new Foreign('meta set')
      checkWidth('mark', masked.mask, masked.xor)
      const setMark = toNumber(masked.xor)
      this.#push({ setMark, keepMask: (toNumber(masked.mask) | setMark) >>> 0 })
      return
    }
    const constant = this.#constants.get(0)
    if (constant?.length !== 4) throw new Foreign('meta set')
    this.#constants.clear()
    this.#push({ setMark: toNumber(constant) })
  }

  /** The port that a register was loaded with. */
  #portIn(register: number | undefined): number | undefined {
    const bytes = register === undefined ? undefined : this.#constants.get(wordOf(register))
    if (!bytes) return undefined
    checkWidth('inet_service', bytes)
    return (bytes[0]! << 8) | bytes[1]!
  }

  masquerade({ flags = 0, portRegister, lastPortRegister }: Data<'masq'>): void {
    const [first, last] = [this.#portIn(portRegister), this.#portIn(lastPortRegister)]
    this.#constants.clear()
    const known = n.NF_NAT_RANGE_PROTO_RANDOM_FULLY | (first === undefined ? 0 : n.NF_NAT_RANGE_PROTO_SPECIFIED)
    if (flags & ~known || (first === undefined) !== (last === undefined)) throw new Foreign('masq')
    this.#push({
      masquerade: {
        ...(flags & n.NF_NAT_RANGE_PROTO_RANDOM_FULLY && { fullyRandom: true }),
        ...(first !== undefined && { ports: `${first}-${last}` }),
      },
    })
  }

  nat({ type, family, portRegister, lastPortRegister }: Data<'nat'>): void {
    const mapped = this.#mapped
    if (mapped && type === n.NFT_NAT_DNAT) {
      this.#mapped = undefined
      const to = { family: family === NFPROTO_IPV4 ? (4 as const) : (6 as const), ...mapped }
      this.#push({ dnat: portRegister === undefined ? to : { ...to, port: true } })
      return
    }
    const address = this.#constants.get(0)
    if (address?.length !== 4 && address?.length !== 16) throw new Foreign('nat')
    const ip = Ip.fromBytes(address)
    const [port, last] = [this.#portIn(portRegister), this.#portIn(lastPortRegister)]
    this.#constants.clear()
    if (type === n.NFT_NAT_SNAT && port !== undefined && last !== undefined && last !== port) {
      this.#push({ snat: { to: `${ip}`, ports: `${port}-${last}` } })
      return
    }
    const bracketed = ip.family === 6 && port !== undefined ? `[${ip}]` : `${ip}`
    const to = port === undefined ? bracketed : `${bracketed}:${port}`
    this.#push(type === n.NFT_NAT_DNAT ? { dnat: { to } } : { snat: { to } })
  }

  step(expression: NftExpression): void {
    if (expression.name === 'cmp') this.cmp(expression.data)
    else if (expression.name === 'range') this.range(expression.data)
    else if (expression.name === 'bitwise') this.bitwise(expression.data)
    else if (expression.name === 'lookup') this.lookup(expression.data)
    else if (expression.name === 'immediate') this.immediate(expression.data)
    else if (expression.name === 'nat') this.nat(expression.data)
    else if (expression.name === 'masq') this.masquerade(expression.data)
    else if (expression.name === 'payload' || expression.name === 'fib')
      this.load(expression, expression.data.dreg ?? 0)
    else if (expression.name === 'meta' || expression.name === 'ct') {
      if (expression.data.sreg === undefined) this.load(expression, expression.data.dreg ?? 0)
      else if (expression.name === 'meta') this.metaSet(expression.data)
      else throw new Foreign('ct set')
    } else this.#push(loneStatement(expression))
  }
}

/** Statements that are one expression each. */
function loneStatement(expression: NftExpression): NftStatement {
  switch (expression.name) {
    case 'notrack':
      return { notrack: true }
    case 'counter':
      return { counter: true }
    case 'objref':
      return { counter: expression.data.object ?? foreign('objref') }
    case 'limit': {
      const { rate = 0n, unit, burst, type, flags } = expression.data
      if (unit !== 1n || type !== n.NFT_LIMIT_PKTS || flags) throw new Foreign('limit')
      const perSecond = Number(rate)
      return { limit: burst === undefined || burst === DEFAULT_BURST_PACKETS ? { perSecond } : { perSecond, burst } }
    }
    case 'log': {
      const { group, prefix } = expression.data
      return { log: { ...(group !== undefined && { group }), ...(prefix !== undefined && { prefix }) } }
    }
    case 'reject':
      return { reject: rejectOf(expression.data) }
    default:
      return foreign(expression.name === 'other' ? expression.kernelName : expression.name)
  }
}

function rejectOf({ type, code }: Data<'reject'>): 'icmp-port-unreachable' | 'tcp-reset' | 'icmp-admin-prohibited' {
  if (type === n.NFT_REJECT_TCP_RST) return 'tcp-reset'
  if (type === n.NFT_REJECT_ICMPX_UNREACH && code === n.NFT_REJECT_ICMPX_PORT_UNREACH) return 'icmp-port-unreachable'
  if (type === n.NFT_REJECT_ICMPX_UNREACH && code === n.NFT_REJECT_ICMPX_ADMIN_PROHIBITED)
    return 'icmp-admin-prohibited'
  throw new Foreign('reject')
}

/** The statements of a rule. Never throws: a rule that weft could not have written ends in `{ foreign }`. */
export function decompileRule(
  family: NftFamily,
  expressions: readonly NftExpression[],
  members: AnonymousMembers,
): readonly NftStatement[] {
  const decompiler = new Decompiler(family, members)
  try {
    for (const expression of expressions) decompiler.step(expression)
    decompiler.flush()
  } catch (error) {
    if (!(error instanceof Foreign || error instanceof NftLiteralError)) throw error
    decompiler.statements.push({ foreign: error.message })
  }
  return decompiler.statements
}
