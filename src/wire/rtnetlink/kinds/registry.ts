/**
 * The device kinds whose own settings weft can read and write, by the kernel's IFLA_INFO_KIND, and those of ports by
 * IFLA_INFO_SLAVE_KIND. A new kind is a file and a row.
 */
import type { Codec } from '../../../bytes/codec.ts'
import { bridge, bridgePort } from './bridge.ts'
import { geneve } from './geneve.ts'
import { gre } from './gre.ts'
import { ip6Tunnel, ipTunnel } from './ip-tunnel.ts'
import { ipvlan } from './ipvlan.ts'
import { macvlan } from './macvlan.ts'
import { tun } from './tun.ts'
import { vlan } from './vlan.ts'
import { vrf } from './vrf.ts'
import { vxlan } from './vxlan.ts'

export const linkKinds: ReadonlyMap<string, Codec<object>> = new Map<string, Codec<object>>([
  ['bridge', bridge],
  ['geneve', geneve],
  ['gre', gre],
  ['ip6tnl', ip6Tunnel],
  ['ipip', ipTunnel],
  ['ipvlan', ipvlan],
  ['macvlan', macvlan],
  ['sit', ipTunnel],
  ['tun', tun],
  ['vlan', vlan],
  ['vrf', vrf],
  ['vxlan', vxlan],
])

export const portKinds: ReadonlyMap<string, Codec<object>> = new Map<string, Codec<object>>([['bridge', bridgePort]])
