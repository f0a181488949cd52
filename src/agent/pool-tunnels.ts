/**
 * Which tunnel ends of this node need an address, and of which pools it may be.
 *
 * Sources: Calico node/pkg/allocateip/allocateip.go (which pools, handles), libcalico-go/lib/ipam (attribute types).
 */
import { parseSelector } from '../config/calico/selector.ts'
import type { PathId } from '../datapath/path.ts'
import { tunnelAddressOf } from '../datapath/pools/pool-devices.ts'
import { ipipPath, modeOf, vxlanPath } from '../datapath/pools/pool-mode.ts'
import { deviceOfPoolPath, parsePoolPath } from '../datapath/pools/pool-path.ts'
import type { FelixSettings, IpPool } from '../model/calico.ts'
import type { NodeContext } from '../model/cluster.ts'
import type { Family, Ip } from '../net/ip.ts'

export interface TunnelAddressNeed {
  readonly device: string
  readonly family: Family
  /** `ipip-tunnel-addr-<node>` and its kin. */
  readonly handleId: string
  /** What IPAM keeps as the address's `type`. */
  readonly attribute: 'ipipTunnelAddress' | 'vxlanTunnelAddress' | 'vxlanV6TunnelAddress'
  /** Field of CalicoNode that tells it to the others. */
  readonly word: 'ipv4IpipTunnelAddr' | 'ipv4VxlanTunnelAddr' | 'ipv6VxlanTunnelAddr'
  /** Where a new one may be from; empty where none is to be taken, and one that there is stays. */
  readonly pools: readonly IpPool[]
  readonly current?: Ip
}

/** `paths` are those in use: what is on its way out still needs its address. */
export function neededTunnelAddresses(
  { name, labels = {}, calico = {} }: NodeContext,
  pools: readonly IpPool[],
  settings: FelixSettings,
  paths: readonly PathId[],
): readonly TunnelAddressNeed[] {
  const ends = [
    { path: ipipPath, kind: 'ipip', attribute: 'ipipTunnelAddress', word: 'ipv4IpipTunnelAddr' },
    { path: vxlanPath(settings, 4), kind: 'vxlan', attribute: 'vxlanTunnelAddress', word: 'ipv4VxlanTunnelAddr' },
    { path: vxlanPath(settings, 6), kind: 'vxlan-v6', attribute: 'vxlanV6TunnelAddress', word: 'ipv6VxlanTunnelAddr' },
  ] as const
  const usable = pools.filter(({ cidr }) => cidr.family === 4 || settings.ipv6Support)
  return ends.flatMap(({ path: id, kind, attribute, word }): TunnelAddressNeed[] => {
    const path = parsePoolPath(id)!
    const device = deviceOfPoolPath(path)!
    const asking = usable.filter((pool) => modeOf(pool, settings).wrapped === id)
    const isInUse = paths.some((other) => deviceOfPoolPath(parsePoolPath(other)!) === device)
    if (asking.length === 0 && !isInUse) return []
    const current = tunnelAddressOf(path, calico)
    return [
      {
        device,
        family: path.type === 'vxlan' ? path.family : 4,
        handleId: `${kind}-tunnel-addr-${name}`,
        attribute,
        word,
        pools: asking.filter((pool) => givesTunnelAddresses(pool, labels)),
        ...(current && { current }),
      },
    ]
  })
}

const givesTunnelAddresses = (pool: IpPool, labels: Readonly<Record<string, string>>): boolean =>
  !pool.disabled && pool.allowedUses.includes('Tunnel') && parseSelector(pool.nodeSelector)(labels)
