/** IP in IP and anything in IPv6. */
import type { IpTunnelData } from '../../../wire/rtnetlink/kinds/ip-tunnel.ts'
import { eitherAddress, type LinkKindRow } from './link-kind.ts'

export const ipipKind: LinkKindRow<'ipip'> = {
  kind: 'ipip',
  changesWhole: true,
  encode: (settings): IpTunnelData => ({
    local: settings?.local,
    remote: settings?.remote,
    ttl: settings?.ttl,
    pmtuDiscovery: settings?.pmtuDiscovery,
  }),
  decode(value) {
    const data = value as IpTunnelData
    const local = eitherAddress(data.local, undefined)
    const remote = eitherAddress(data.remote, undefined)
    return {
      ...(local && { local }),
      ...(remote && { remote }),
      ttl: data.ttl ?? 0,
      ...(data.pmtuDiscovery !== undefined && { pmtuDiscovery: data.pmtuDiscovery }),
    }
  },
}

export const ip6tnlKind: LinkKindRow<'ip6tnl'> = {
  kind: 'ip6tnl',
  changesWhole: true,
  encode: (settings): IpTunnelData => ({
    local: settings?.local,
    remote: settings?.remote,
    ttl: settings?.hopLimit,
  }),
  decode(value) {
    const data = value as IpTunnelData
    const local = eitherAddress(undefined, data.local)
    const remote = eitherAddress(undefined, data.remote)
    return { ...(local && { local }), ...(remote && { remote }), hopLimit: data.ttl ?? 0 }
  },
}
