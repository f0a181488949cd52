/**
 * When is what the kernel has good enough? Only fields that are wanted count: a wanted object says nothing about the
 * fields it leaves out, and the kernel fills in many. Beside it, which differences no `set` can mend.
 */
import type { KernelObject, ObjectKind, ObjectOf } from '../model/kernel-object.ts'
import { isFallbackDevice, type Link } from '../model/link.ts'
import type { NftChain, NftSet } from '../model/nft.ts'
import { formatNftRule } from '../model/nft-format.ts'
import type { NextHop, Route } from '../model/route.ts'

type Plain = Readonly<Record<string, unknown>>

/** Same data, field by field; an undefined field equals a missing one. */
export function equalObjects(a: unknown, b: unknown): boolean {
  return matches(a, b) && matches(b, a)
}

/** Every field of `want` that is not undefined is in `have` with the same value, at every depth; arrays match whole. */
function matches(have: unknown, want: unknown): boolean {
  if (have === want) return true
  if (typeof have !== 'object' || typeof want !== 'object' || have === null || want === null) return false
  if ('equals' in want && typeof want.equals === 'function')
    return Object.getPrototypeOf(have) === Object.getPrototypeOf(want) && want.equals(have) === true
  if (Array.isArray(want))
    return Array.isArray(have) && have.length === want.length && want.every((item, i) => matches(have[i], item))
  for (const key in want) {
    const value = (want as Plain)[key]
    if (value !== undefined && !matches((have as Plain)[key], value)) return false
  }
  return true
}

type Rule<K extends ObjectKind> = (have: ObjectOf<K>, want: ObjectOf<K>) => boolean

/** Kinds that need more than field by field. */
const rules: { readonly [K in ObjectKind]?: Rule<K> } = {
  link: coversLink,
  route: coversRoute,
  'nft-chain': coversChain,
  'nft-set': coversSet,
  // The kernel does not show whether detection was skipped once it is over.
  address: (have, want) => matches(have, { ...want, noDad: undefined }),
  fdb: (have, want) => matches({ ...have, table: have.table ?? 'self' }, { ...want, table: want.table ?? 'self' }),
  // Whoever opened the port: it takes the same packets.
  fou: (have, want) => matches(have, { ...want, marked: undefined }),
  sysctl: (have, want) => have.value.trim() === want.value.trim(),
}

/** True when nothing needs to be done about `want` in a kernel that has `have` under the same key. */
export function covers(have: KernelObject, want: KernelObject): boolean {
  if (have === want) return true
  if (have.kind !== want.kind) return false
  const rule = rules[want.kind] as Rule<ObjectKind> | undefined
  return rule ? rule(have, want) : matches(have, want)
}

function coversLink(have: ObjectOf<'link'>, want: ObjectOf<'link'>): boolean {
  // Where a veth's other end went, and what is a fact of the process that holds a TUN device, cannot be read back.
  const readable: Plain = {
    ...want,
    settings: undefined,
    master: undefined,
    alias: undefined,
    operationalState: undefined,
  }
  if (!matches(have, readable)) return false
  if (want.alias !== undefined && (have.alias ?? '') !== want.alias) return false
  if (want.master !== undefined && (have.master ?? null) !== want.master) return false
  if (have.type !== want.type || want.type === 'foreign' || want.type === 'veth') return have.type === want.type
  return want.type === 'tun' ? !mustRecreateLink(have, want) : matches(settingsOf(have), falseIsAbsent(want.settings))
}

const settingsOf = (link: ObjectOf<'link'>): unknown => (link.type === 'foreign' ? {} : falseIsAbsent(link.settings))

/** Flags that are off are the same said or unsaid. */
const falseIsAbsent = (settings: object | undefined): Plain =>
  Object.fromEntries(Object.entries(settings ?? {}).map(([key, value]) => [key, value === false ? undefined : value]))

/** Field by field and without a copy: the kernel tells of every route that is written. */
function coversRoute(have: Route, want: Route): boolean {
  return (
    (have.type ?? 'unicast') === (want.type ?? 'unicast') &&
    (want.protocol === undefined || have.protocol === want.protocol) &&
    (want.scope === undefined || have.scope === want.scope) &&
    (want.source === undefined || have.source?.equals(want.source) === true) &&
    (want.mtuBytes === undefined || have.mtuBytes === want.mtuBytes) &&
    (want.advertisedMssBytes === undefined || have.advertisedMssBytes === want.advertisedMssBytes) &&
    have.hops.length === want.hops.length &&
    want.hops.every((hop, i) => coversHop(have.hops[i]!, hop))
  )
}

const coversHop = (have: NextHop, want: NextHop): boolean =>
  (want.device === undefined || have.device === want.device) &&
  (want.via ? have.via?.equals(want.via) === true : have.via === undefined) &&
  (want.weight ?? 1) === (have.weight ?? 1) &&
  (want.onlink ?? false) === (have.onlink ?? false) &&
  (want.encapsulation ? matches(have.encapsulation, want.encapsulation) : have.encapsulation === undefined)

function coversChain(have: NftChain, want: NftChain): boolean {
  return (
    equalObjects(
      { ...have.base, policy: have.base?.policy ?? 'accept' },
      { ...want.base, policy: want.base?.policy ?? 'accept' },
    ) &&
    have.rules.length === want.rules.length &&
    want.rules.every((rule, i) => formatNftRule(have.rules[i]!) === formatNftRule(rule))
  )
}

function coversSet(have: NftSet, want: NftSet): boolean {
  const flags = (set: NftSet) => [...(set.flags ?? [])].sort().join()
  return flags(have) === flags(want) && matches(have, { ...want, flags: undefined })
}

/** VXLAN settings that the kernel fixes when it makes the device (vxlan_changelink). */
const fixedVxlanSettings = ['vni', 'port', 'gbp', 'external'] as const

/** Geneve settings that the kernel fixes when it makes the device (geneve_nl2info). */
const fixedGeneveSettings = [
  'vni',
  'port',
  'external',
  'udpChecksum',
  'udp6ZeroChecksumTx',
  'udp6ZeroChecksumRx',
] as const

/** True when no change in place leads from `have` to `want`: the object has to go and come again. */
export function mustRecreate(have: KernelObject, want: KernelObject): boolean {
  if (have.kind === 'link' && want.kind === 'link') return mustRecreateLink(have, want as Link)
  if (have.kind === 'rule' || have.kind === 'filter' || have.kind === 'fou') return true
  if (have.kind === 'nft-chain' && want.kind === 'nft-chain')
    return !equalObjects({ ...have.base, policy: undefined }, { ...want.base, policy: undefined })
  return false
}

function mustRecreateLink(have: ObjectOf<'link'>, want: Link): boolean {
  // One that cannot be deleted is changed, or refused by the kernel's side with the reason.
  if (isFallbackDevice(want)) return false
  if (have.type !== want.type) return true
  const is = falseIsAbsent(have.settings)
  const shall = falseIsAbsent(want.settings)
  switch (want.type) {
    case 'vxlan':
      return fixedVxlanSettings.some((key) => !equalObjects(is[key] ?? null, shall[key] ?? null))
    case 'tun':
      return (is.mode ?? 'tun') !== (shall.mode ?? 'tun')
    case 'geneve':
      return fixedGeneveSettings.some((key) => shall[key] !== undefined && !equalObjects(is[key], shall[key]))
    case 'ipip':
    case 'ip6tnl':
      // From one peer to any, and back, the kernel takes no device (point-to-point or not is said when it is made).
      return (
        (is.remote === undefined) !== (shall.remote === undefined) || (is.external ?? null) !== (shall.external ?? null)
      )
    case 'vlan':
      return is.id !== shall.id
    default:
      return false
  }
}
