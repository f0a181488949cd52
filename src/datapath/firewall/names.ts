/**
 * Names inside weft's own table, and how its objects are made. Everything that weft filters or translates is in
 * `table inet weft`; no rule of anybody else's is touched.
 *
 * Sets, per family (`4` or `6` behind the name):
 *
 *   cluster   the pod network(s)                       one element per cluster CIDR
 *   local     this node's own pod subnets              one element per pod CIDR
 *   others    pod networks with rules of their own     one element per network; the set is there when there is one
 *   origins   node address . what it may send          its own prefix, and each of the node's pod subnets
 *   origin-ranges   the same                           pod subnets of unusual lengths
 *   hostports, hostport-addresses                      one element per port mapping
 *
 * `origins` holds prefixes of one length (24 bits of IPv4, 64 of IPv6: what nodes' subnets usually have) as plain numbers, so
 * that the kernel keeps it as a hash table: one look costs half of one into ranges, whatever the number of nodes, and a newcomer
 * does not make the kernel copy the set. A number says little to who reads it, so elements carry the subnet as comment.
 *
 * and `pod-devices`, the devices that this node's pods hang on.
 */
import type {
  NftChain,
  NftCounter,
  NftElement,
  NftRule,
  NftSelector,
  NftSet,
  NftStatement,
  NftTable,
  NftType,
} from '../../model/nft.ts'
import type { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Family, Ip } from '../../net/ip.ts'

export const firewallTable: NftTable = { kind: 'nft-table', family: 'inet', name: 'weft' }

const inTable = { family: 'inet', table: 'weft' } as const

export type SetName = 'cluster' | 'local' | 'others' | 'origins' | 'origin-ranges' | 'hostports' | 'hostport-addresses'

export const setName = (name: SetName, family: Family): string => `${name}${family}`

const addressType = (family: Family): NftType => (family === 4 ? 'ipv4_addr' : 'ipv6_addr')

/** Length of the prefixes in `origins`. */
export const originBits = (family: Family): 24 | 64 => (family === 4 ? 24 : 64)

/** Where rules find the first `originBits` of an address, and the whole inner one. `inner` is behind UDP, VXLAN and Ethernet. */
export const prefixSelectors = {
  4: { inner: '@th,336,24', source: '@nh,96,24', destination: '@nh,128,24', wholeInner: '@th,336,32' },
  6: { inner: '@th,304,64', source: '@nh,64,64', destination: '@nh,192,64', wholeInner: '@th,304,128' },
} as const

/** The sets of one family, empty. */
export function planSets(family: Family): NftSet[] {
  const address = addressType(family)
  const set = (name: SetName, type: readonly NftType[], rest: Partial<NftSet> = {}): NftSet =>
    planSet(name, family, type, rest)
  const ranges = { flags: ['interval'] } as const
  const { inner, wholeInner } = prefixSelectors[family]
  const byOrigin = (selector: NftSelector) => ({ typeof: [saddr(family), selector] })
  const target = { data: [address, 'inet_service'] } as const
  return [
    set('cluster', [address], ranges),
    set('local', [address], ranges),
    set('origins', [address, family === 4 ? 'raw_u24' : 'raw_u64'], byOrigin(inner)),
    set('origin-ranges', [address, family === 4 ? 'raw_u32' : 'raw_u128'], { ...byOrigin(wholeInner), ...ranges }),
    set('hostports', ['inet_proto', 'inet_service'], target),
    set('hostport-addresses', [address, 'inet_proto', 'inet_service'], target),
  ]
}

const planSet = (name: SetName, family: Family, type: readonly NftType[], rest: Partial<NftSet>): NftSet => ({
  kind: 'nft-set',
  ...inTable,
  name: setName(name, family),
  type,
  ...rest,
})

/** The set `others` of one family, empty. */
export const planOthersSet = (family: Family): NftSet =>
  planSet('others', family, [addressType(family)], { flags: ['interval'] })

export const podDevices: NftSet = { kind: 'nft-set', ...inTable, name: 'pod-devices', type: ['ifname'] }

/** Lets packets with this node's pod addresses in by a further device. */
export const planPodDevice = (device: string): NftElement => ({
  kind: 'nft-element',
  ...inTable,
  set: podDevices.name,
  key: `"${device}"`,
})

export const element = (
  name: SetName,
  family: Family,
  key: string,
  rest: { readonly value?: string; readonly comment?: string } = {},
): NftElement => ({ kind: 'nft-element', ...inTable, set: setName(name, family), key, ...rest })

export const counter = (name: string): NftCounter => ({ kind: 'nft-counter', ...inTable, name })

export const chain = (name: string, base: NftChain['base'], rules: readonly NftRule[]): NftChain => ({
  kind: 'nft-chain',
  ...inTable,
  name,
  ...(base && { base }),
  rules,
})

/** nft prints a block of one address without its length. */
export const keyOfCidr = (cidr: Cidr): string => (cidr.length === bitsOf(cidr.family) ? `${cidr.base}` : `${cidr}`)

/** A rule with the sentence that `nft list` shows beside it. */
export const rule = (comment: string | undefined, ...statements: NftStatement[]): NftRule =>
  comment === undefined ? { statements } : { statements, comment }

export const saddr = (family: Family) => (family === 4 ? 'ip saddr' : 'ip6 saddr') as 'ip saddr' | 'ip6 saddr'
export const daddr = (family: Family) => (family === 4 ? 'ip daddr' : 'ip6 daddr') as 'ip daddr' | 'ip6 daddr'

/** `left @set`, or `left != @set`. */
export const inSet = (
  selector: ReturnType<typeof saddr | typeof daddr>,
  name: SetName,
  family: Family,
): NftStatement => ({
  match: [selector],
  right: `@${setName(name, family)}`,
})
export const notInSet = (
  selector: ReturnType<typeof saddr | typeof daddr>,
  name: SetName,
  family: Family,
): NftStatement => ({ match: [selector], op: '!=', right: `@${setName(name, family)}` })

/** All multicast of a family. */
export const multicast = (family: Family): string => (family === 4 ? '224.0.0.0/4' : `${Ip.parse('ff00::')}/8`)

export const families: readonly Family[] = [4, 6]

/** A number as nft prints raw payload. */
export const hex = (value: bigint): string => `0x${value.toString(16)}`

/** The first `bits` of an address as that number. */
export const leadingBits = (ip: Ip, bits: number): string => hex(ip.toBigInt() >> BigInt(bitsOf(ip.family) - bits))
