/**
 * nft objects as text: rules and rulesets as `nft --stateless list` prints them, operations as the command lines that an
 * operator would type. A rule's text is its identity, so this file decides what "the same rule" means.
 *
 * Sources: nft(8); output of nft 1.0.6, which test/netns/nftables.test.ts compares with.
 */
import { Ip } from '../net/ip.ts'
import type { KernelOp } from './kernel-state.ts'
import type {
  NftBase,
  NftChain,
  NftCounter,
  NftElement,
  NftFamily,
  NftHook,
  NftRule,
  NftSelector,
  NftSet,
  NftStatement,
  NftTable,
  NftType,
} from './nft.ts'

export type NftObject = NftTable | NftSet | NftCounter | NftChain | NftElement

const selectorText = (selector: NftSelector): string =>
  selector === 'meta iifname' || selector === 'meta oifname' ? selector.slice(5) : selector

const concatenation = (selectors: readonly NftSelector[]): string => selectors.map(selectorText).join(' . ')

/** Marks are as wide as they are, raw payload is not padded. */
const number = (value: number | bigint): string => (typeof value === 'bigint' ? `0x${value.toString(16)}` : mark(value))

const mark = (value: number): string => `0x${(value >>> 0).toString(16).padStart(8, '0')}`

const quoted = (text: string): string => `"${text}"`

/** Members of an anonymous set have no order: they print sorted by text. */
const rightText = (right: string | readonly string[]): string =>
  typeof right === 'string' ? right : `{ ${[...right].sort().join(', ')} }`

/** The family that a NAT target `10.0.0.1`, `10.0.0.1:80` or `[fd00::1]:80` is of, its address and its port. Undefined when it is none. */
export function parseNatTarget(to: string): { ip: Ip; port?: number } | undefined {
  const parts = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(to) ?? (/^[\da-f:]+$/i.test(to) ? [to, to] : [])
  const ip = Ip.tryParse(parts[1] ?? parts[2] ?? '')
  const port = parts[3] === undefined ? undefined : Number(parts[3])
  if (!ip || (port !== undefined && port > 65535)) return undefined
  return port === undefined ? { ip } : { ip, port }
}

function natText(verb: string, to: string): string {
  const target = parseNatTarget(to)
  return `${verb}${target ? (target.ip.family === 4 ? ' ip' : ' ip6') : ''} to ${to}`
}

function setMarkText(set: number, keep: number | undefined): string {
  if (keep === undefined) return `meta mark set ${mark(set)}`
  const survives = (keep | set) >>> 0
  const masked = survives === 0xffffffff ? 'meta mark' : `meta mark & ${mark(survives)}`
  return set === 0 ? `meta mark set ${masked}` : `meta mark set ${masked} | ${mark(set)}`
}

/** One statement as nft lists it. */
export function formatNftStatement(statement: NftStatement): string {
  if ('match' in statement)
    return `${concatenation(statement.match)}${statement.op === '!=' ? ' !=' : ''} ${rightText(statement.right)}`
  if ('masked' in statement)
    return `${selectorText(statement.masked)} & ${number(statement.mask)} ${statement.op ?? '=='} ${number(statement.value)}`
  if ('vmap' in statement) return `${concatenation(statement.vmap)} vmap @${statement.map}`
  if ('counter' in statement)
    return statement.counter === true ? 'counter' : `counter name ${quoted(statement.counter)}`
  if ('notrack' in statement) return 'notrack'
  if ('setMark' in statement) return setMarkText(statement.setMark, statement.keepMask)
  if ('masquerade' in statement) {
    const { fullyRandom, ports } = statement.masquerade
    return `masquerade${ports === undefined ? '' : ` to :${ports}`}${fullyRandom ? ' fully-random' : ''}`
  }
  if ('snat' in statement) {
    const { to, ports } = statement.snat
    if (ports === undefined) return natText('snat', to)
    return `${natText('snat', to).replace(to, to.includes(':') ? `[${to}]` : to)}:${ports}`
  }
  if ('dnat' in statement) return dnatText(statement.dnat)
  if ('limit' in statement) return limitText(statement.limit)
  if ('log' in statement) return logText(statement.log)
  if ('verdict' in statement) return statement.verdict
  if ('jump' in statement) return `jump ${statement.jump}`
  if ('goto' in statement) return `goto ${statement.goto}`
  if ('reject' in statement) return rejectText[statement.reject]
  return `[${statement.foreign}]`
}

type Statement<K extends string> = Extract<NftStatement, Record<K, unknown>>

function dnatText(dnat: Statement<'dnat'>['dnat']): string {
  if ('to' in dnat) return natText('dnat', dnat.to)
  return `dnat ${dnat.family === 4 ? 'ip' : 'ip6'} to ${concatenation(dnat.by)} map @${dnat.map}`
}

/** nft leaves its default burst of 5 packets out. */
const limitText = ({ perSecond, burst }: Statement<'limit'>['limit']): string =>
  `limit rate ${perSecond}/second${burst === undefined || burst === 5 ? '' : ` burst ${burst} packets`}`

const logText = ({ group, prefix }: Statement<'log'>['log']): string =>
  `log${prefix === undefined ? '' : ` prefix ${quoted(prefix)}`}${group === undefined ? '' : ` group ${group}`}`

const rejectText = {
  'icmp-port-unreachable': 'reject',
  'tcp-reset': 'reject with tcp reset',
  'icmp-admin-prohibited': 'reject with icmpx admin-prohibited',
} as const

/** One rule as nft lists it: its identity within a chain. */
export function formatNftRule(rule: NftRule): string {
  const text = rule.statements.map(formatNftStatement).join(' ')
  return rule.comment === undefined ? text : `${text} comment ${quoted(rule.comment)}`
}

type StandardPriority = readonly [name: string, priority: number, hook?: NftHook]

const standardPriorities: readonly StandardPriority[] = [
  ['raw', -300],
  ['mangle', -150],
  ['dstnat', -100, 'prerouting'],
  ['filter', 0],
  ['security', 50],
  ['srcnat', 100, 'postrouting'],
]

/** Bridges have names of their own. */
const bridgePriorities: readonly StandardPriority[] = [
  ['dstnat', -300, 'prerouting'],
  ['filter', -200],
  ['out', 100, 'output'],
  ['srcnat', 300, 'postrouting'],
]

function priorityText(family: NftFamily, { hook, priority }: NftBase): string {
  for (const [name, standard, only] of family === 'bridge' ? bridgePriorities : standardPriorities) {
    const over = priority - standard
    if (Math.abs(over) > 10 || (only && only !== hook) || (hook === 'ingress' && name !== 'filter')) continue
    return over === 0 ? name : `${name} ${over < 0 ? '-' : '+'} ${Math.abs(over)}`
  }
  return `${priority}`
}

const baseText = (family: NftFamily, base: NftBase): string =>
  `type ${base.type} hook ${base.hook}${base.device ? ` device ${quoted(base.device)}` : ''} priority ${priorityText(family, base)}; policy ${base.policy ?? 'accept'};`

const typesText = (types: readonly NftType[]): string => types.join(' . ')

/** The definition of a set or map: `type ipv4_addr`, `flags interval`, … */
function setLines(set: NftSet): string[] {
  const keys = set.typeof ? `typeof ${concatenation(set.typeof)}` : `type ${typesText(set.type)}`
  const lines = [set.data ? `${keys} : ${typesText(set.data)}` : keys]
  const flags = (['constant', 'interval', 'dynamic', 'timeout'] as const).filter((flag) => set.flags?.includes(flag))
  if (flags.length) lines.push(`flags ${flags.join(',')}`)
  if (set.comment !== undefined) lines.push(`comment ${quoted(set.comment)}`)
  return lines
}

/** True when the kernel can keep the set: nothing of a definition can be changed. */
export const sameDefinition = (a: NftSet, b: NftSet): boolean => setLines(a).join() === setLines(b).join()

/** One element inside the braces of its set. */
export function formatNftElement({ key, value, comment }: Pick<NftElement, 'key' | 'value' | 'comment'>): string {
  return `${key}${comment === undefined ? '' : ` comment ${quoted(comment)}`}${value === undefined ? '' : ` : ${value}`}`
}

const place = (object: NftSet | NftCounter | NftChain): string => `${object.family} ${object.table} ${object.name}`

/**
 * A command that brings the object, or removes it. `set` of a chain or an element is the atomic pair of lines that does it;
 * so is `set` of a set whose definition `was` another.
 */
function commandLines(verb: KernelOp['verb'], object: NftObject, was?: KernelOp['was']): string[] {
  const word = verb === 'delete' ? 'delete' : 'add'
  switch (object.kind) {
    case 'nft-table': {
      const comment = verb === 'delete' || object.comment === undefined ? '' : ` { comment ${quoted(object.comment)}; }`
      return [`${word} table ${object.family} ${object.name}${comment}`]
    }
    case 'nft-set': {
      const noun = object.data ? 'map' : 'set'
      if (verb === 'delete') return [`delete ${noun} ${place(object)}`]
      const add = `add ${noun} ${place(object)} { ${setLines(object).join('; ')}; }`
      return verb === 'set' && was?.kind === 'nft-set' && !sameDefinition(was, object)
        ? [...commandLines('delete', was), add]
        : [add]
    }
    case 'nft-counter':
      return [`${word} counter ${place(object)}`]
    case 'nft-element': {
      const where = `element ${object.family} ${object.table} ${object.set}`
      const remove = `delete ${where} { ${object.key} }`
      if (verb === 'delete') return [remove]
      const add = `add ${where} { ${formatNftElement(object)} }`
      return verb === 'set' ? [remove, add] : [add]
    }
    case 'nft-chain': {
      if (verb === 'delete') return [`delete chain ${place(object)}`]
      return [
        `add chain ${place(object)}${object.base ? ` { ${baseText(object.family, object.base)} }` : ''}`,
        ...(verb === 'set' ? [`flush chain ${place(object)}`] : []),
        ...object.rules.map((rule) => `add rule ${place(object)} ${formatNftRule(rule)}`),
      ]
    }
  }
}

/** The operation as lines for `nft -f`, or each after the word `nft`; consecutive ones are one transaction. */
export function formatNftOp(op: KernelOp & { readonly object: NftObject }): string {
  return commandLines(op.verb, op.object, op.was)
    .map((line) => `nft ${line}`)
    .join('\n')
}

function tableText(table: NftTable, objects: readonly NftObject[]): string {
  const here = <K extends NftObject['kind']>(kind: K): Extract<NftObject, { kind: K; table: string }>[] =>
    objects.filter(
      (o) => o.kind === kind && o.family === table.family && 'table' in o && o.table === table.name,
    ) as Extract<NftObject, { kind: K; table: string }>[]
  const elements = here('nft-element')
  const blocks: string[] = []
  const block = (head: string, lines: readonly string[]) =>
    blocks.push(`\t${head} {\n${lines.map((line) => `\t\t${line}\n`).join('')}\t}\n`)

  for (const counter of here('nft-counter'))
    block(`counter ${counter.name}`, counter.comment === undefined ? [] : [`comment ${quoted(counter.comment)}`])
  for (const set of here('nft-set')) {
    const mine = elements.filter((element) => element.set === set.name).map(formatNftElement)
    const lines = setLines(set)
    if (mine.length) lines.push(`elements = { ${mine.join(',\n\t\t\t     ')} }`)
    block(`${set.data ? 'map' : 'set'} ${set.name}`, lines)
  }
  for (const chain of here('nft-chain'))
    block(`chain ${chain.name}`, [
      ...(chain.base ? [baseText(chain.family, chain.base)] : []),
      ...chain.rules.map(formatNftRule),
    ])
  const comment = table.comment === undefined ? '' : `\tcomment ${quoted(table.comment)}\n${blocks.length ? '\n' : ''}`
  return `table ${table.family} ${table.name} {\n${comment}${blocks.join('\n')}}\n`
}

/** Tables with everything in them, in the order given. Objects whose table is not among them are left out. */
export function formatNftRuleset(objects: readonly NftObject[]): string {
  return objects
    .filter((object) => object.kind === 'nft-table')
    .map((table) => tableText(table, objects))
    .join('')
}

/** True for objects that this file prints. */
export const isNftObject = (object: { readonly kind: string }): object is NftObject => object.kind.startsWith('nft-')

/** Everything that makes an object what it is, as text: two objects of equal text are the same. */
export const nftObjectText = (object: NftObject): string => formatNftOp({ verb: 'add', object })
