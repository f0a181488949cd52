/**
 * Everything that weft may want in a kernel, as plain frozen data, with its identity.
 * An object's key is what the kernel itself tells objects apart by: two objects of one key cannot stand
 * side by side, and a change under one key is a `set`, not a delete and an add.
 */
import type {
  Address,
  BridgeVlan,
  FdbEntry,
  ForeignLink,
  FouPort,
  Link,
  Neighbour,
  Offload,
  Sysctl,
  Tunnel,
  TunnelPeer,
} from './link.ts'
import type { NftChain, NftCounter, NftElement, NftSet, NftTable } from './nft.ts'
import type { Route, Rule } from './route.ts'
import type { Filter, Qdisc, TrafficClass } from './traffic.ts'

export type KernelObject =
  | Link
  | ForeignLink
  | Address
  | Route
  | Neighbour
  | FdbEntry
  | BridgeVlan
  | Rule
  | Qdisc
  | TrafficClass
  | Filter
  | Sysctl
  | Offload
  | FouPort
  | Tunnel
  | TunnelPeer
  | NftTable
  | NftSet
  | NftCounter
  | NftChain
  | NftElement

export type ObjectKind = KernelObject['kind']
export type ObjectOf<K extends ObjectKind> = Extract<KernelObject, { kind: K }>

/** Identity within one network namespace, unique over all kinds. Opaque: compare, do not parse. */
export type KernelKey = string

export function keyOf(object: KernelObject): KernelKey {
  switch (object.kind) {
    case 'link':
      return `link ${object.name}`
    case 'address':
      return `address ${object.device} ${object.ip}/${object.prefixLength}`
    case 'route':
      return `route ${object.table ?? 254} ${object.destination} ${object.metric ?? (object.destination.family === 6 ? 1024 : 0)}`
    case 'neighbour':
      return `neighbour ${object.device} ${object.ip}${object.proxy ? ' proxy' : ''}`
    case 'fdb':
      return `fdb ${object.device} ${object.mac} ${object.vlan ?? 0}${object.mac.isZero ? ` ${object.remote}` : ''} ${object.table ?? 'self'}`
    case 'bridge-vlan':
      return `bridge-vlan ${object.device} ${object.vlan}`
    case 'rule':
      return `rule ${object.family} ${object.priority} ${object.from ?? ''} ${object.to ?? ''} ${object.inDevice ?? ''} ${object.outDevice ?? ''} ${object.mark ?? ''}/${object.markMask ?? ''}`
    case 'qdisc':
      return `qdisc ${object.device} ${object.parent}`
    case 'class':
      return `class ${object.device} ${object.handle}`
    case 'filter':
      return `filter ${object.device} ${object.parent} ${object.priority}`
    case 'sysctl':
      return `sysctl ${object.path}`
    case 'offload':
      return `offload ${object.device}`
    case 'fou':
      return `fou ${object.family} ${object.port}`
    case 'tunnel':
      return `tunnel ${object.device}`
    case 'tunnel-peer':
      return `tunnel-peer ${object.device} ${object.subnet}`
    case 'nft-table':
      return `nft-table ${object.family} ${object.name}`
    case 'nft-set':
      return `nft-set ${object.family} ${object.table} ${object.name}`
    case 'nft-counter':
      return `nft-counter ${object.family} ${object.table} ${object.name}`
    case 'nft-chain':
      return `nft-chain ${object.family} ${object.table} ${object.name}`
    case 'nft-element':
      return `nft-element ${object.family} ${object.table} ${object.set} ${object.key}`
  }
}
