/**
 * IP in IP and anything in IPv6, as they are or inside UDP. The kernel makes a fallback device of each kind in every
 * namespace, `tunl0` and `ip6tnl0`, and takes no settings for it: none are ever said.
 *
 * Sources: net/ipv4/ipip.c, net/ipv4/ip_tunnel.c (ip_tunnel_changelink), net/ipv6/ip6_tunnel.c (ip6_tnl_netlink_parms).
 */
import type { LinkSettings, TunnelEncapsulation } from '../../../model/link.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import type { Ip6TunnelData, IpTunnelData } from '../../../wire/rtnetlink/kinds/ip-tunnel.ts'
import { eitherAddress, type LinkKindRow } from './link-kind.ts'

/** IP protocol numbers of what is inside. */
const IPPROTO_IPIP = 4
const IPPROTO_IPV6 = 41
const modes = { ipip6: IPPROTO_IPIP, ip6ip6: IPPROTO_IPV6, any: 0 } as const

const types = [
  ['fou', k.TUNNEL_ENCAP_FOU],
  ['gue', k.TUNNEL_ENCAP_GUE],
] as const

/** A change that says nothing of it leaves it; one that says none must name that. */
function encodeEncapsulation(encapsulation: TunnelEncapsulation | null | undefined): IpTunnelData {
  if (encapsulation === undefined) return {}
  if (encapsulation === null) return { encapsulationType: k.TUNNEL_ENCAP_NONE }
  return {
    encapsulationType: new Map<string, number>(types).get(encapsulation.type),
    encapsulationFlags:
      (encapsulation.checksum ? k.TUNNEL_ENCAP_FLAG_CSUM : 0) |
      (encapsulation.checksum6 ? k.TUNNEL_ENCAP_FLAG_CSUM6 : 0),
    encapsulationSourcePort: encapsulation.sourcePort ?? 0,
    encapsulationDestinationPort: encapsulation.destinationPort,
  }
}

function decodeEncapsulation(data: IpTunnelData): TunnelEncapsulation | null {
  const type = types.find(([, number]) => number === data.encapsulationType)?.[0]
  if (!type) return null
  const flags = data.encapsulationFlags ?? 0
  return {
    type,
    destinationPort: data.encapsulationDestinationPort ?? 0,
    sourcePort: data.encapsulationSourcePort ?? 0,
    checksum: (flags & k.TUNNEL_ENCAP_FLAG_CSUM) !== 0,
    checksum6: (flags & k.TUNNEL_ENCAP_FLAG_CSUM6) !== 0,
  }
}

export const ipipKind: LinkKindRow<'ipip'> = {
  kind: 'ipip',
  changesWhole: true,
  encode: (settings, context): IpTunnelData => ({
    link: settings?.lower === undefined ? undefined : context.index(settings.lower),
    local: settings?.local,
    remote: settings?.remote,
    ttl: settings?.ttl,
    pmtuDiscovery: settings?.pmtuDiscovery,
    ...encodeEncapsulation(settings?.encapsulation),
    collectMetadata: settings?.external || undefined,
  }),
  decode(value, name): LinkSettings['ipip'] {
    const data = value as IpTunnelData
    const local = eitherAddress(data.local, undefined)
    const remote = eitherAddress(data.remote, undefined)
    return {
      ...(data.link && { lower: name(data.link) }),
      ...(local && { local }),
      ...(remote && { remote }),
      ttl: data.ttl ?? 0,
      ...(data.pmtuDiscovery !== undefined && { pmtuDiscovery: data.pmtuDiscovery }),
      ...(data.collectMetadata && { external: true }),
      encapsulation: decodeEncapsulation(data),
    }
  },
}

export const ip6tnlKind: LinkKindRow<'ip6tnl'> = {
  kind: 'ip6tnl',
  changesWhole: true,
  encode: (settings, context): Ip6TunnelData => ({
    link: settings?.lower === undefined ? undefined : context.index(settings.lower),
    local: settings?.local,
    remote: settings?.remote,
    ttl: settings?.hopLimit,
    protocol: settings?.mode && modes[settings.mode],
    ...(settings?.encapsulationLimit === null
      ? { flags: k.IP6_TNL_F_IGN_ENCAP_LIMIT }
      : { encapsulationLimit: settings?.encapsulationLimit }),
    ...encodeEncapsulation(settings?.encapsulation),
    collectMetadata: settings?.external || undefined,
  }),
  decode(value, name): LinkSettings['ip6tnl'] {
    const data = value as Ip6TunnelData
    const local = eitherAddress(undefined, data.local)
    const remote = eitherAddress(undefined, data.remote)
    const mode = Object.entries(modes).find(([, number]) => number === data.protocol)?.[0] as keyof typeof modes
    const unlimited = ((data.flags ?? 0) & k.IP6_TNL_F_IGN_ENCAP_LIMIT) !== 0
    return {
      ...(data.link && { lower: name(data.link) }),
      ...(local && { local }),
      ...(remote && { remote }),
      hopLimit: data.ttl ?? 0,
      ...(mode && { mode }),
      ...(unlimited
        ? { encapsulationLimit: null }
        : data.encapsulationLimit !== undefined && { encapsulationLimit: data.encapsulationLimit }),
      ...(data.collectMetadata && { external: true }),
      encapsulation: decodeEncapsulation(data),
    }
  },
}
