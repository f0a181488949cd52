/**
 * What weft's own packet rules must know of this node and of each peer, gathered from leases and paths.
 */
import { datapathOf } from '../datapath/datapath.ts'
import { type FirewallTunnel, planFirewallSkeleton, planPeerElements } from '../datapath/firewall/firewall.ts'
import { vtepMac } from '../datapath/vxlan/vtep.ts'
import type { BackendConfig } from '../model/backend.ts'
import type { NodeContext, NodeInfo } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import { decodeVxlanEndpoint } from '../model/vxlan-endpoint.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Mac } from '../net/mac.ts'

export interface FirewallSettings {
  readonly masquerade: boolean
  readonly fullyRandom: boolean
  readonly forward: boolean
}

export const FIREWALL_SOURCE = 'firewall'
export const peerFirewallSource = (peer: string): string => `node/${peer}/firewall`

/** Tunnels that packets may come in by, of the paths in use. */
export function tunnelsOf(configs: readonly BackendConfig[], node: NodeContext): FirewallTunnel[] {
  return configs.flatMap((config) =>
    config.type === 'host-gw'
      ? []
      : datapathOf(config)
          .devices(config, node)
          .map((device) => ({ type: config.type, device, port: config.port })),
  )
}

export function planFirewall(
  clusterCidrs: readonly Cidr[],
  node: NodeContext,
  tunnels: readonly FirewallTunnel[],
  settings: FirewallSettings,
): Fragment {
  return {
    source: FIREWALL_SOURCE,
    objects: planFirewallSkeleton({ clusterCidrs, localCidrs: node.podCidrs, tunnels, ...settings }),
  }
}

/** What the tunnels' rules look up about a peer; what none of them asks is left out. */
export function planPeerFirewall(
  peer: NodeInfo,
  tunnels: readonly FirewallTunnel[],
  configs: readonly BackendConfig[],
): Fragment {
  const leased = [peer.lease?.publicIp, peer.lease?.publicIpv6].filter((ip) => ip !== undefined)
  const asked = new Set(
    tunnels.flatMap(({ type }) => (type === 'udp' ? ['peers4', 'peers6'] : ['senders4', 'senders6'])),
  )
  const elements = planPeerElements({
    addresses: [...leased, ...peer.addresses],
    podCidrs: peer.podCidrs,
    vtepMacs: [...vtepMacsOf(peer), ...(peer.weft ? configs.flatMap((config) => expectedMacs(config, peer)) : [])],
  })
  return {
    source: peerFirewallSource(peer.name),
    objects: elements.filter(({ set }) => set.startsWith('nodes') || asked.has(set)),
  }
}

/**
 * MACs that the peer's VXLAN ends will have, known before the peer has announced them: its first packet by a path that
 * both have just made would come before its words have been heard here. A flannel node's MAC is its kernel's choice.
 */
const expectedMacs = (config: BackendConfig, peer: NodeInfo): Mac[] =>
  config.type === 'vxlan' ? ([4, 6] as const).map((family) => vtepMac(config, peer, family)) : []

/** MACs of the peer's VXLAN ends: the one of its lease, and those that it announces beside another backend. */
function vtepMacsOf({ lease, weft }: NodeInfo): Mac[] {
  const values: unknown[] = lease?.backendType === 'vxlan' ? [lease.backendData, lease.backendV6Data] : []
  for (const [path, endpoint] of Object.entries(weft?.endpoints ?? {})) {
    if (!path.startsWith('vxlan/') || typeof endpoint !== 'object' || endpoint === null) continue
    const { data, v6Data } = endpoint as { data?: unknown; v6Data?: unknown }
    values.push(data, v6Data)
  }
  return values
    .slice(0, 8)
    .map(decodeVxlanEndpoint)
    .filter((decoded) => typeof decoded === 'object')
    .map(({ mac }) => mac)
}
