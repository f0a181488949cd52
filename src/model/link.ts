/**
 * Network devices and what hangs on them. Devices are named, never numbered: an ifindex is a reading of
 * one moment, a name is what fragments, operators and goldens share. Every optional field left out of a
 * wanted object means "as the kernel has it".
 *
 * Sources: include/uapi/linux/if_link.h, if_addr.h, neighbour.h, if_tun.h.
 */
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'
import type { Mac } from '../net/mac.ts'

/** Where the other end of a veth pair lives and how it is made. */
export interface VethPeer {
  readonly name: string
  /** Path of the peer's network namespace; the device's own when left out. Write only. */
  readonly netnsPath?: string
  readonly mac?: Mac
  readonly mtuBytes?: number
  /** Index to give the peer in its namespace; the kernel picks when left out. Write only. */
  readonly ifindex?: number
}

/** A second wrapping, in UDP, of what an IP tunnel sends: Foo over UDP, or Generic UDP Encapsulation with its own header. */
export interface TunnelEncapsulation {
  readonly type: 'fou' | 'gue'
  /** UDP port of the peer that takes it (its FouPort). */
  readonly destinationPort: number
  /** 0 or left out: one that follows from the flow, so that routers in between spread flows. */
  readonly sourcePort?: number
  /** A UDP checksum on IPv4; off when left out. */
  readonly checksum?: boolean
  /** A UDP checksum on IPv6; off when left out. */
  readonly checksum6?: boolean
}

/** Kind-specific settings; the keys are the kernel's IFLA_INFO_KIND names. */
export interface LinkSettings {
  readonly veth: {
    readonly peer?: VethPeer
    /** Queues of each end in each direction, when it is made; the kernel makes one for each CPU when left out. Write only. */
    readonly queues?: number
  }
  readonly bridge: { readonly vlanFiltering?: boolean; readonly stp?: boolean; readonly multicastSnooping?: boolean }
  readonly vxlan: {
    readonly vni: number
    /** UDP destination port. */
    readonly port: number
    /** Device whose routes carry the encapsulated packets. */
    readonly lower?: string
    readonly local?: Ip
    readonly learning?: boolean
    readonly gbp?: boolean
    /** Collect-metadata mode (IFLA_VXLAN_COLLECT_METADATA). */
    readonly external?: boolean
    readonly ttl?: number
    readonly udpChecksum?: boolean
    readonly udp6ZeroChecksumTx?: boolean
    readonly udp6ZeroChecksumRx?: boolean
  }
  /** To one remote end; with `external` to whichever a route's encapsulation names, and the VNI is the route's too. */
  readonly geneve: {
    readonly vni: number
    readonly port: number
    readonly remote?: Ip
    /** Collect-metadata mode (IFLA_GENEVE_COLLECT_METADATA). */
    readonly external?: boolean
    readonly ttl?: number
    /** A UDP checksum on IPv4. */
    readonly udpChecksum?: boolean
    readonly udp6ZeroChecksumTx?: boolean
    readonly udp6ZeroChecksumRx?: boolean
  }
  /** IPv4 in IPv4; an end that is left out is any. */
  readonly ipip: {
    /** Device by which wrapped packets go and come. */
    readonly lower?: string
    readonly local?: Ip
    readonly remote?: Ip
    /** 0: the inner packet's. */
    readonly ttl?: number
    readonly pmtuDiscovery?: boolean
    /** Collect-metadata mode (IFLA_IPTUN_COLLECT_METADATA). */
    readonly external?: boolean
    /** null: none, also where there was one; left out: as it is. */
    readonly encapsulation?: TunnelEncapsulation | null
  }
  /** In IPv6; an end that is left out is any. */
  readonly ip6tnl: {
    /** Device by which wrapped packets go and come. */
    readonly lower?: string
    readonly local?: Ip
    readonly remote?: Ip
    readonly hopLimit?: number
    /** What may be inside: IPv6 (`ip6ip6`), IPv4 (`ipip6`) or both (`any`, the kernel's default). */
    readonly mode?: 'ip6ip6' | 'ipip6' | 'any'
    /** The tunnel encapsulation limit option of RFC 2473, eight bytes of every packet; null: without it. The kernel's default is 4. */
    readonly encapsulationLimit?: number | null
    readonly external?: boolean
    /** null: none, also where there was one; left out: as it is. */
    readonly encapsulation?: TunnelEncapsulation | null
  }
  readonly gre: { readonly local?: Ip; readonly remote?: Ip; readonly key?: number; readonly ttl?: number }
  /** A TUN or TAP device. `owner` processes are outside this vocabulary; see Tunnel. */
  readonly tun: { readonly mode?: 'tun' | 'tap'; readonly vnetHeader?: boolean; readonly persist?: boolean }
  readonly vlan: { readonly id: number; readonly lower?: string }
  readonly macvlan: { readonly mode: 'private' | 'vepa' | 'bridge' | 'passthru'; readonly lower?: string }
  readonly ipvlan: { readonly mode: 'l2' | 'l3' | 'l3s'; readonly lower?: string }
  readonly vrf: { readonly table: number }
  readonly ifb: Readonly<Record<never, never>>
  readonly dummy: Readonly<Record<never, never>>
}
export type LinkKind = keyof LinkSettings

/** Settings that a bridge keeps for one port (IFLA_PROTINFO / IFLA_INFO_SLAVE_DATA). */
export interface BridgePort {
  readonly hairpin?: boolean
  readonly isolated?: boolean
  readonly learning?: boolean
  readonly guard?: boolean
}

interface LinkOf<K extends LinkKind> {
  readonly kind: 'link'
  readonly name: string
  /** Undefined for a physical or foreign device without IFLA_INFO_KIND. */
  readonly type: K
  readonly settings?: LinkSettings[K]
}
interface LinkCommon {
  readonly up?: boolean
  /** IFF_PROMISC as somebody asked for it: takes frames to every address. */
  readonly promiscuous?: boolean
  readonly mtuBytes?: number
  readonly mac?: Mac
  /** Name of the bridge or VRF that this device is a port of; null: of none. */
  readonly master?: string | null
  readonly port?: BridgePort
  /** IFLA_IFALIAS. `weft:<role>` marks the device as ours; empty: none. */
  readonly alias?: string
  /** IFLA_GROUP: devices of one group can be deleted in one message. */
  readonly group?: number
  readonly txQueueLength?: number
  readonly gsoMaxBytes?: number
  readonly addressGeneration?: 'eui64' | 'none' | 'stable-privacy' | 'random'
  /** Readings; never wanted. */
  readonly ifindex?: number
  /** IFLA_LINK: index of the peer or lower device, in the namespace `peerNetnsId` when that is set. */
  readonly lowerIfindex?: number
  readonly peerNetnsId?: number
  readonly operationalState?: string
}
/** A device that weft may create. */
export type Link = { [K in LinkKind]: LinkOf<K> & LinkCommon }[LinkKind]
/** A device read from the kernel that weft cannot create (loopback, hardware, unknown kind). */
export interface ForeignLink extends LinkCommon {
  readonly kind: 'link'
  readonly name: string
  readonly type: 'foreign'
  readonly infoKind?: string
}

/**
 * A device that the kernel makes in every namespace when it loads a tunnel's module, for what comes in and is no other
 * tunnel's. It can neither be deleted nor given other ends: weft takes it by an alias and gives it back without one.
 *
 * Sources: net/ipv4/ip_tunnel.c (ip_tunnel_init_net, ip_tunnel_dellink, ip_tunnel_changelink), net/ipv6/ip6_tunnel.c.
 */
export const isFallbackDevice = ({ name, type }: Link | ForeignLink): boolean =>
  (type === 'ipip' && name === 'tunl0') || (type === 'ip6tnl' && name === 'ip6tnl0')

/** What is left of a fallback device that weft had taken: down, without an alias. Its addresses are objects of their own. */
export const givenBack = ({ name, type }: Link | ForeignLink): Link =>
  ({ kind: 'link', name, type, up: false, alias: '' }) as Link

/** An interface address (IFA_LOCAL / IFA_ADDRESS). */
export interface Address {
  readonly kind: 'address'
  readonly device: string
  readonly ip: Ip
  readonly prefixLength: number
  readonly peer?: Ip
  readonly broadcast?: Ip
  readonly scope?: 'global' | 'link' | 'host' | 'site'
  /** IFA_F_NODAD: skip IPv6 duplicate address detection. */
  readonly noDad?: boolean
  /** IFA_F_NOPREFIXROUTE. */
  readonly noPrefixRoute?: boolean
}

/** A permanent neighbour entry: IP → link-layer address. */
export interface Neighbour {
  readonly kind: 'neighbour'
  readonly device: string
  readonly ip: Ip
  readonly mac?: Mac
  /** NTF_PROXY: answer for this address instead of resolving it. */
  readonly proxy?: boolean
  readonly state?: 'permanent' | 'reachable' | 'stale' | 'noarp' | 'incomplete' | 'failed' | 'delay' | 'probe' | 'none'
}

/** A forwarding-database entry of a VXLAN device or a bridge port. */
export interface FdbEntry {
  readonly kind: 'fdb'
  readonly device: string
  readonly mac: Mac
  /** Remote VTEP; absent for a bridge port's entry. */
  readonly remote?: Ip
  readonly vlan?: number
  /** NTF_SELF (the device's own table) or NTF_MASTER (its bridge's). */
  readonly table?: 'self' | 'master'
  readonly state?: 'permanent' | 'static' | 'dynamic'
}

/**
 * A VLAN that a port of a bridge lets through, or the bridge itself hears. Only a bridge with `vlanFiltering` asks for it;
 * a new port has the bridge's default VLAN, 1.
 */
export interface BridgeVlan {
  readonly kind: 'bridge-vlan'
  /** The port, or the bridge with `self`. */
  readonly device: string
  /** 1 to 4094. */
  readonly vlan: number
  readonly self?: boolean
  /** Untagged frames that come in belong to this VLAN; a device has one such VLAN at most. */
  readonly pvid?: boolean
  /** Frames of this VLAN go out without a tag. */
  readonly untagged?: boolean
}

/** Set one kernel variable; `path` is relative to /proc/sys, dots written as slashes. */
export interface Sysctl {
  readonly kind: 'sysctl'
  readonly path: string
  readonly value: string
}

/** Offload features set by ethtool netlink, by the kernel's feature names (`tx-udp_tnl-segmentation`, …). */
export interface Offload {
  readonly kind: 'offload'
  readonly device: string
  readonly features: Readonly<Record<string, boolean>>
}

/**
 * A UDP port on which the kernel unwraps Foo over UDP and hands what is inside to the IP tunnel that it is for. The kernel
 * has one such port for all nodes that send to it, per family.
 */
export interface FouPort {
  readonly kind: 'fou'
  readonly family: Family
  readonly port: number
  /** `gue` says itself what is inside; `fou` is always `protocol`. */
  readonly type: 'gue' | 'fou'
  /** IP protocol number inside `fou`: 4 is IPv4, 41 is IPv6. */
  readonly protocol?: number
  /**
   * FOU_ATTR_REMCSUM_NOPARTIAL. Nobody who sends to us asks for remote checksums, so it changes nothing: it is how weft marks
   * the ports that it opened.
   */
  readonly marked?: boolean
}

/** The user-space UDP tunnel of one TUN device (flannel's `udp` backend): a process that outlives the agent. */
export interface Tunnel {
  readonly kind: 'tunnel'
  readonly device: string
  readonly mtuBytes: number
  /** Local address and port that the tunnel sends from and receives on. */
  readonly local: Ip
  readonly port: number
  /** Networks of this node: only inner packets to these are let in. Left out: to anything that is no peer's. */
  readonly subnets?: readonly Cidr[]
}
/** One destination of a Tunnel: inner packets to `subnet` go to `remote`; inner sources from `remote` must be in `subnet`. */
export interface TunnelPeer {
  readonly kind: 'tunnel-peer'
  readonly device: string
  readonly subnet: Cidr
  readonly remote: Ip
  readonly port: number
}
