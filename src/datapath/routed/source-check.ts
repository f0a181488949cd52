/**
 * Keeps routed pods to their own addresses: a packet that comes from a pod's device under another source is dropped and counted,
 * before connection tracking and before routing. A pod costs an element for its device and one for each address.
 *
 *   table inet weft
 *     set calico-pods      { "calie64b9fa939d" }
 *     set calico-sources4  { "calie64b9fa939d" . 172.26.0.5 }
 *     chain calico-source-check                                         prerouting, before the guard
 *       iifname != @calico-pods return
 *       ip daddr 127.0.0.0/8 counter name "forged-loopback" drop
 *       iifname . ip saddr @calico-sources4 return
 *       …
 *       counter name "calico-forged-pod-source" drop
 *
 * Prefixes that a pod may send under besides (allowedSourcePrefixes) are in sets of ranges, which are asked last: most packets
 * are never looked up there. Of IPv6 the unspecified source and link-local ones pass, for neighbour discovery; they are routed
 * nowhere.
 *
 * The kernel's strict reverse-path check, set beside, drops the same of IPv4; but it counts nothing that tells by whom, knows
 * no IPv6, and is a variable that any sysctl file may turn off.
 *
 * Sources: Calico felix rules/static.go (order of checks; what is let through for workloadSourceSpoofing), nft(8).
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { NftChain, NftElement, NftRule, NftSet, NftStatement } from '../../model/nft.ts'
import { Cidr, disjointCidrs } from '../../net/cidr.ts'
import type { Family, Ip } from '../../net/ip.ts'
import {
  chain,
  counter,
  daddr,
  families,
  firewallTable,
  keyOfCidr,
  planPodDevice,
  podDevices,
  rule,
  saddr,
} from '../firewall/names.ts'
import { loopbackCounter } from '../firewall/skeleton.ts'

const inTable = { family: 'inet', table: 'weft' } as const
const pods = 'calico-pods'
const sources = (family: Family): string => `calico-sources${family}`
const ranges = (family: Family): string => `calico-source-ranges${family}`

/** Counts packets of pods under sources that are not theirs. */
export const spoofedCounter = 'calico-forged-pod-source'

const set = (name: string, type: NftSet['type'], rest: Partial<NftSet> = {}): NftSet => ({
  kind: 'nft-set',
  ...inTable,
  name,
  type,
  ...rest,
})
const element = (name: string, key: string): NftElement => ({ kind: 'nft-element', ...inTable, set: name, key })

const drop: NftStatement = { verdict: 'drop' }
const keep: NftStatement = { verdict: 'return' }

const addressType = (family: Family) => (family === 4 ? 'ipv4_addr' : 'ipv6_addr')

/** Of which pair of device and source the packet must be. */
const isOf = (family: Family, name: string): NftStatement => ({
  match: ['meta iifname', saddr(family)],
  right: `@${name}`,
})

const passes = (comment: string, family: Family, source: string): NftRule =>
  rule(comment, { match: [saddr(family)], right: source }, keep)

/** Sets, counters and the chain: the same for every pod, there while there is one. */
const standing: readonly KernelObject[] = [
  firewallTable,
  counter(spoofedCounter),
  counter(loopbackCounter),
  set(pods, ['ifname']),
  ...families.flatMap((family) => [
    set(sources(family), ['ifname', addressType(family)]),
    set(ranges(family), ['ifname', addressType(family)], { flags: ['interval'] }),
  ]),
  chain('calico-source-check', { type: 'filter', hook: 'prerouting', priority: -310 }, [
    rule('of no routed pod', { match: ['meta iifname'], op: '!=', right: `@${pods}` }, keep),
    rule('loopback is not for pods', { match: [daddr(4)], right: '127.0.0.0/8' }, { counter: loopbackCounter }, drop),
    ...families.map((family) => rule("the pod's own address", isOf(family, sources(family)), keep)),
    passes('neighbour discovery', 6, 'fe80::/10'),
    passes('duplicate address detection', 6, '::'),
    ...families.map((family) => rule('an allowed source prefix', isOf(family, ranges(family)), keep)),
    rule("under a source that is not the pod's", { counter: spoofedCounter }, drop),
  ]),
]

/** What the check of one pod wants: its addresses, and prefixes that it may send under besides. */
export function planSourceCheck(device: string, ips: readonly Ip[], allowed: readonly Cidr[] = []): KernelObject[] {
  const name = `"${device}"`
  return [
    ...planClosedDevice(device),
    ...ips.map((ip) => element(sources(ip.family), `${name} . ${ip}`)),
    ...disjointCidrs(allowed).map((cidr) => element(ranges(cidr.family), `${name} . ${keyOfCidr(cidr)}`)),
  ]
}

/** A device that nothing is let in by: of a pod that has no address yet, or that is going. */
export const planClosedDevice = (device: string): KernelObject[] => [...standing, element(pods, `"${device}"`)]

/** A device whose pod has an address of the node's own pod subnets. */
export const planOwnSubnetDevice = (device: string): KernelObject[] => [podDevices, planPodDevice(device)]

/**
 * Translates a pod that reaches itself through a port mapping, and a client of this node by loopback: answers would not come back
 * this way. Stands for the masquerading part of the port mappings where nothing else masquerades.
 */
export const hairpinChain: NftChain = chain('calico-hairpin', { type: 'nat', hook: 'postrouting', priority: 99 }, [
  ...families.map((family) =>
    rule(
      'a pod to itself',
      { match: ['meta oifname', saddr(family)], right: `@${sources(family)}` },
      { masquerade: {} },
    ),
  ),
  rule(
    'this node by loopback',
    { match: ['meta oifname'], right: `@${pods}` },
    { match: ['ip saddr'], right: '127.0.0.0/8' },
    { masquerade: {} },
  ),
])

/** Prefixes that a device's pod may send under, as the kernel tells them. */
export const allowedPrefixesOf = (device: string, elements: readonly NftElement[]): Cidr[] =>
  elements
    .filter(({ family, table, set: name, key }) => {
      const isRange = name === ranges(4) || name === ranges(6)
      return family === 'inet' && table === 'weft' && isRange && key.startsWith(`"${device}" . `)
    })
    .flatMap(({ key }) => {
      const text = key.slice(device.length + 5)
      return Cidr.tryParse(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`) ?? []
    })
