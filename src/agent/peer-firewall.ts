/**
 * What weft's own packet rules must know of this node and of each peer, gathered from leases and paths.
 */
import { datapathOf } from '../datapath/datapath.ts'
import { type FirewallTunnel, planFirewallSkeleton, planPeerElements } from '../datapath/firewall/firewall.ts'
import type { BackendConfig } from '../model/backend.ts'
import type { NodeContext, NodeInfo } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'

export interface FirewallSettings {
  readonly masquerade: boolean
  readonly fullyRandom: boolean
}

export const FIREWALL_SOURCE = 'firewall'
export const peerFirewallSource = (peer: string): string => `node/${peer}/firewall`

/** Tunnels that packets may come in by, of the paths in use. */
export const tunnelsOf = (configs: readonly BackendConfig[], node: NodeContext): FirewallTunnel[] =>
  configs.flatMap((config) => tunnelsOfPath(config, node))

function tunnelsOfPath(config: BackendConfig, node: NodeContext): FirewallTunnel[] {
  switch (config.type) {
    case 'host-gw':
      return []
    case 'vxlan':
    case 'udp':
      return datapathOf(config)
        .devices(config, node)
        .map((device) => ({ type: config.type, device, port: config.port }))
    case 'ipip':
      return [{ type: 'ipip', device: 'flannel.ipip' }]
    case 'kube-router': {
      // Its devices take packets in without UDP in any case.
      const plain: FirewallTunnel = { type: 'ipip', device: 'tun-in' }
      return config.encap === 'fou' ? [plain, { type: 'gue', device: 'tun-in', port: config.port }] : [plain]
    }
  }
}

export function planFirewall(
  clusterCidrs: readonly Cidr[],
  node: NodeContext,
  tunnels: readonly FirewallTunnel[],
  settings: FirewallSettings,
  otherCidrs: readonly Cidr[] = [],
): Fragment {
  return {
    source: FIREWALL_SOURCE,
    objects: planFirewallSkeleton({ clusterCidrs, otherCidrs, localCidrs: node.podCidrs, tunnels, ...settings }),
  }
}

/** What the tunnels' rules look up about a peer. */
export function planPeerFirewall({ name, lease, addresses, podCidrs }: NodeInfo): Fragment {
  const leased = [lease?.publicIp, lease?.publicIpv6].filter((ip) => ip !== undefined)
  return {
    source: peerFirewallSource(name),
    objects: planPeerElements({ addresses: [...leased, ...addresses], podCidrs }),
  }
}
