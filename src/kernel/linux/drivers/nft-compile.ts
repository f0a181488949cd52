/**
 * Compiles a rule's statements to the kernel's expressions, as nft itself would, so that `nft list` prints them back as
 * formatNftRule does. Loads that make sense for one protocol only are preceded by the check, once per rule.
 *
 * An anonymous set (`{ a, b }`) becomes a set of its own in the same transaction, named by an id.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; `nft --debug=netlink` of nft 1.0.6.
 */
import type { NftFamily, NftRule, NftSelector, NftStatement } from '../../../model/nft.ts'
import { parseNatTarget } from '../../../model/nft-format.ts'
import {
  formatRaw,
  isFlagType,
  isRawType,
  type LiteralRange,
  type LiteralType,
  NftLiteralError,
  type NftVerdict,
  paddedBytes,
  parseKey,
  parseLiteral,
  rawToBytes,
} from '../../../model/nft-literal.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import { NF_ACCEPT, NF_DROP } from '../../../wire/nftables/data.ts'
import type { NftExpression } from '../../../wire/nftables/expression.ts'
import { type Dependency, dependencyRows, registerOf, selectorRows } from './nft-selector.ts'

/** NFPROTO numbers as the nat expression wants them. */
const NFPROTO = { 4: 2, 6: 10 } as const
const REGISTER_WORDS = 16
const DEFAULT_BURST_PACKETS = 5
const VERDICT_REGISTER = 0

export interface AnonymousSet {
  readonly id: number
  readonly types: readonly LiteralType[]
  readonly elements: readonly LiteralRange[]
}

export interface CompiledRule {
  readonly expressions: readonly NftExpression[]
  readonly sets: readonly AnonymousSet[]
}

const verdictCodes: Readonly<Record<NftVerdict['verdict'], number>> = {
  drop: NF_DROP,
  accept: NF_ACCEPT,
  continue: n.NFT_CONTINUE,
  return: n.NFT_RETURN,
  jump: n.NFT_JUMP,
  goto: n.NFT_GOTO,
}

/** A verdict as the kernel's data attribute has it. */
export const encodeVerdict = ({ verdict, chain }: NftVerdict): { code: number; chain?: string } =>
  chain === undefined ? { code: verdictCodes[verdict] } : { code: verdictCodes[verdict], chain }

/** The reverse; undefined for a code that no verdict has. */
export function decodeVerdict(code: number, chain: string | undefined): NftVerdict | undefined {
  for (const [verdict, number] of Object.entries(verdictCodes))
    if (number === code) return { verdict: verdict as NftVerdict['verdict'], ...(chain !== undefined && { chain }) }
  return undefined
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

/** A mask, or what is compared with the masked value. */
function operand(type: LiteralType, value: number | bigint): Uint8Array {
  if (typeof value === 'number') return word(value)
  return rawToBytes(type, value) ?? refuse(`${formatRaw(value)} is wider than a ${type}`)
}

const refuse = (problem: string): never => {
  throw new NftLiteralError(problem)
}

class Compiler {
  readonly expressions: NftExpression[] = []
  readonly sets: AnonymousSet[] = []
  readonly #known = new Set<Dependency>()
  readonly #allocateSetId: () => number

  constructor(family: NftFamily, allocateSetId: () => number) {
    this.#allocateSetId = allocateSetId
    if (family === 'ip') this.#known.add('ipv4')
    if (family === 'ip6') this.#known.add('ipv6')
    if (family === 'bridge' || family === 'netdev') this.#known.add('ether')
  }

  emit(expression: NftExpression): void {
    this.expressions.push(expression)
  }

  require(dependency: Dependency): void {
    if (this.#known.has(dependency)) return
    this.#known.add(dependency)
    const { key, value } = dependencyRows[dependency]
    this.emit({ name: 'meta', data: { key, dreg: registerOf(0) } })
    this.compare(n.NFT_CMP_EQ, value)
  }

  compare(op: number, value: Uint8Array): void {
    this.emit({ name: 'cmp', data: { sreg: registerOf(0), op, data: value } })
  }

  mask(mask: Uint8Array, xor: Uint8Array = new Uint8Array(mask.length)): void {
    const register = registerOf(0)
    this.emit({ name: 'bitwise', data: { sreg: register, dreg: register, length: mask.length, op: 0, mask, xor } })
  }

  /** Loads a concatenation into registers from the first on. */
  load(selectors: readonly NftSelector[]): readonly LiteralType[] {
    const rows = selectors.map((selector) => selectorRows[selector])
    for (const row of rows) for (const dependency of row.needs) this.require(dependency)
    let at = 0
    for (const row of rows) {
      this.emit(row.load(registerOf(at)))
      at += paddedBytes(row.type) / 4
    }
    if (at > REGISTER_WORDS) throw new NftLiteralError(`${selectors.join(' . ')} is longer than 64 bytes`)
    return rows.map((row) => row.type)
  }

  lookup(set: { name: string; id?: number }, inverted: boolean, dreg?: number): void {
    this.emit({
      name: 'lookup',
      data: {
        set: set.name,
        ...(set.id !== undefined && { setId: set.id }),
        sreg: registerOf(0),
        ...(dreg !== undefined && { dreg }),
        ...(inverted && { flags: n.NFT_LOOKUP_F_INV }),
      },
    })
  }

  /** A rule may check by itself what a later load needs: then it is not checked twice. */
  #learn(selector: NftSelector, value: Uint8Array): void {
    for (const [name, row] of Object.entries(dependencyRows))
      if (row.selector === selector && row.value[0] === value[0]) this.#known.add(name as Dependency)
  }

  match({ match, op, right }: Extract<NftStatement, { match: unknown }>): void {
    const inverted = op === '!='
    if (typeof right !== 'string') {
      const types = this.load(match)
      const set = { id: this.#allocateSetId(), types, elements: right.map((text) => parseKey(types, text)) }
      this.sets.push(set)
      this.lookup({ name: '__set%d', id: set.id }, inverted)
    } else if (right.startsWith('@')) {
      this.load(match)
      this.lookup({ name: right.slice(1) }, inverted)
    } else if (match.length === 1) this.matchLiteral(match[0]!, inverted, right)
    else throw new NftLiteralError(`${match.join(' . ')} is compared with a set, not with ${JSON.stringify(right)}`)
  }

  matchLiteral(selector: NftSelector, inverted: boolean, text: string): void {
    const { type } = selectorRows[selector]
    const equality = inverted ? n.NFT_CMP_NEQ : n.NFT_CMP_EQ
    const isStem = type === 'ifname' && text.endsWith('*"')
    if (inverted && isFlagType(type) && text.includes(','))
      throw new NftLiteralError(`${selector} != ${text}: name the values as a set, { ${text.replaceAll(',', ', ')} }`)
    const { from, to } = parseLiteral(type, isStem ? `${text.slice(0, -2)}"` : text)
    this.load([selector])
    if (isStem) this.compare(equality, from.subarray(0, from.indexOf(0)))
    else if (to) this.matchRange(type, inverted, from, to)
    else if (isFlagType(type) && !inverted) {
      this.mask(from)
      this.compare(n.NFT_CMP_NEQ, word(0))
    } else {
      this.compare(equality, from)
      if (!inverted) this.#learn(selector, from)
    }
  }

  matchRange(type: LiteralType, inverted: boolean, from: Uint8Array, to: Uint8Array): void {
    const mask = Uint8Array.from(from, (octet, i) => ~(octet ^ to[i]!) & 255)
    if (
      from.length > 2 &&
      !isRawType(type) &&
      isPrefixMask(mask) &&
      from.every((octet, i) => (octet & ~mask[i]!) === 0)
    ) {
      this.mask(mask)
      this.compare(inverted ? n.NFT_CMP_NEQ : n.NFT_CMP_EQ, from)
    } else if (inverted) {
      this.emit({ name: 'range', data: { sreg: registerOf(0), op: n.NFT_RANGE_NEQ, from, to } })
    } else {
      this.compare(n.NFT_CMP_GTE, from)
      this.compare(n.NFT_CMP_LTE, to)
    }
  }

  verdict(verdict: NftVerdict): void {
    this.emit({ name: 'immediate', data: { dreg: VERDICT_REGISTER, data: { verdict: encodeVerdict(verdict) } } })
  }

  setMark(set: number, keep: number | undefined): void {
    const register = registerOf(0)
    if (keep === undefined) {
      this.emit({ name: 'immediate', data: { dreg: register, data: { value: word(set) } } })
    } else {
      this.load(['meta mark'])
      this.mask(word(keep & ~set), word(set))
    }
    this.emit({ name: 'meta', data: { key: n.NFT_META_MARK, sreg: register } })
  }

  /** Loads the first and the last of a range of ports; returns their registers. */
  #portRange(ports: string, firstWord: number): { portRegister: number; lastPortRegister: number } {
    const range = /^(\d{1,5})-(\d{1,5})$/.exec(ports)
    const [first, last] = [Number(range?.[1]), Number(range?.[2])]
    if (!(first <= last && last <= 65535)) throw new NftLiteralError(`Not a range of ports: ${JSON.stringify(ports)}`)
    const [portRegister, lastPortRegister] = [registerOf(firstWord), registerOf(firstWord + 1)]
    this.#loadPort(portRegister, first)
    this.#loadPort(lastPortRegister, last)
    return { portRegister, lastPortRegister }
  }

  #loadPort(dreg: number, port: number): void {
    this.emit({ name: 'immediate', data: { dreg, data: { value: Uint8Array.of(port >> 8, port & 255) } } })
  }

  masquerade({ fullyRandom, ports }: Extract<NftStatement, { masquerade: unknown }>['masquerade']): void {
    const registers = ports === undefined ? {} : this.#portRange(ports, 0)
    const random = fullyRandom ? n.NF_NAT_RANGE_PROTO_RANDOM_FULLY : 0
    const flags = random | (ports === undefined ? 0 : n.NF_NAT_RANGE_PROTO_SPECIFIED)
    this.emit({ name: 'masq', data: { ...registers, ...(flags && { flags }) } })
  }

  natTo(type: number, to: string, ports?: string): void {
    const target = parseNatTarget(to)
    if (!target) throw new NftLiteralError(`Not an address to translate to: ${JSON.stringify(to)}`)
    const address = target.ip.toBytes()
    this.emit({ name: 'immediate', data: { dreg: registerOf(0), data: { value: address } } })
    const portRegister = registerOf(address.length / 4)
    if (target.port !== undefined) this.#loadPort(portRegister, target.port)
    const range = ports === undefined ? undefined : this.#portRange(ports, address.length / 4)
    this.emit({
      name: 'nat',
      data: {
        type,
        family: NFPROTO[target.ip.family],
        addressRegister: registerOf(0),
        ...(target.port !== undefined && { portRegister, flags: n.NF_NAT_RANGE_PROTO_SPECIFIED }),
        ...(range && { ...range, flags: n.NF_NAT_RANGE_PROTO_SPECIFIED }),
      },
    })
  }

  dnatByMap({
    family,
    map,
    by,
    port,
  }: Extract<Extract<NftStatement, { dnat: unknown }>['dnat'], { map: string }>): void {
    this.load(by)
    this.lookup({ name: map }, false, registerOf(0))
    this.emit({
      name: 'nat',
      data: {
        type: n.NFT_NAT_DNAT,
        family: NFPROTO[family],
        addressRegister: registerOf(0),
        ...(port && { portRegister: registerOf(family === 4 ? 1 : 4) }),
      },
    })
  }
}

function isPrefixMask(mask: Uint8Array): boolean {
  const bits = Array.from(mask, (octet) => octet.toString(2).padStart(8, '0')).join('')
  return /^1*0*$/.test(bits)
}

const rejects = {
  'icmp-port-unreachable': { type: n.NFT_REJECT_ICMPX_UNREACH, code: n.NFT_REJECT_ICMPX_PORT_UNREACH },
  'icmp-admin-prohibited': { type: n.NFT_REJECT_ICMPX_UNREACH, code: n.NFT_REJECT_ICMPX_ADMIN_PROHIBITED },
  'tcp-reset': { type: n.NFT_REJECT_TCP_RST, code: 0 },
} as const

function compileStatement(to: Compiler, statement: NftStatement): void {
  if ('match' in statement) to.match(statement)
  else if ('masked' in statement) {
    const [type] = to.load([statement.masked])
    to.mask(operand(type!, statement.mask))
    to.compare(statement.op === '!=' ? n.NFT_CMP_NEQ : n.NFT_CMP_EQ, operand(type!, statement.value))
  } else if ('vmap' in statement) {
    to.load(statement.vmap)
    to.lookup({ name: statement.map }, false, VERDICT_REGISTER)
  } else if ('setMark' in statement) to.setMark(statement.setMark, statement.keepMask)
  else if ('masquerade' in statement) to.masquerade(statement.masquerade)
  else if ('snat' in statement) to.natTo(n.NFT_NAT_SNAT, statement.snat.to, statement.snat.ports)
  else if ('dnat' in statement) {
    if ('to' in statement.dnat) to.natTo(n.NFT_NAT_DNAT, statement.dnat.to)
    else to.dnatByMap(statement.dnat)
  } else if ('verdict' in statement) to.verdict({ verdict: statement.verdict })
  else if ('jump' in statement) to.verdict({ verdict: 'jump', chain: statement.jump })
  else if ('goto' in statement) to.verdict({ verdict: 'goto', chain: statement.goto })
  else {
    if ('reject' in statement && statement.reject === 'tcp-reset') to.require('tcp')
    to.emit(lone(statement))
  }
}

type LoneStatement = Extract<
  NftStatement,
  | { notrack: unknown }
  | { counter: unknown }
  | { limit: unknown }
  | { log: unknown }
  | { reject: unknown }
  | { foreign: unknown }
>

/** Statements that are one expression each. */
function lone(statement: LoneStatement): NftExpression {
  if ('notrack' in statement) return { name: 'notrack', data: {} }
  if ('counter' in statement) {
    if (statement.counter === true) return { name: 'counter', data: { bytes: 0n, packets: 0n } }
    return { name: 'objref', data: { type: n.NFT_OBJECT_COUNTER, object: statement.counter } }
  }
  if ('limit' in statement) {
    const { perSecond, burst = DEFAULT_BURST_PACKETS } = statement.limit
    return { name: 'limit', data: { rate: BigInt(perSecond), unit: 1n, burst, type: n.NFT_LIMIT_PKTS, flags: 0 } }
  }
  if ('log' in statement) {
    const { group, prefix } = statement.log
    return { name: 'log', data: { ...(prefix !== undefined && { prefix }), ...(group !== undefined && { group }) } }
  }
  if ('reject' in statement) return { name: 'reject', data: rejects[statement.reject] }
  throw new NftLiteralError(`[${statement.foreign}] cannot be written`)
}

/** Compiles one rule of a table of `family`. Throws NftLiteralError on text that is no literal of its selector. */
export function compileRule(family: NftFamily, rule: NftRule, allocateSetId: () => number): CompiledRule {
  const compiler = new Compiler(family, allocateSetId)
  for (const statement of rule.statements) compileStatement(compiler, statement)
  return { expressions: compiler.expressions, sets: compiler.sets }
}
