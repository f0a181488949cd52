/**
 * What a node tells of Services, by BGPConfiguration: whole blocks from every node, and single addresses from nodes that
 * serve them.
 *
 *   externalTrafficPolicy Local       addresses of the Service, from nodes with a ready endpoint of it
 *   a block of one address (/32)      the address, from every node when a Service with policy Cluster has it
 *   serviceLoadBalancerAggregation    Disabled: addresses of every Service that has a ready endpoint anywhere
 *
 * A node with the label node.kubernetes.io/exclude-from-external-load-balancers=true tells nothing of Services.
 *
 * Sources: Calico confd/pkg/backends/calico/routes.go (advertiseThisService, getAllRoutesForService) and client.go
 * (onExternalIPsUpdate, onLoadBalancerIPsUpdate).
 */
import type { LocalRoute, LocalRouteKind } from '../../model/bgp.ts'
import type { BgpNode, BgpService } from '../../model/bgp-cluster.ts'
import type { BgpConfiguration } from '../../model/calico-bgp.ts'
import type { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Ip } from '../../net/ip.ts'
import { hostPrefix } from '../bgp/peer-settings.ts'

const EXCLUDED = 'node.kubernetes.io/exclude-from-external-load-balancers'

const isSingle = ({ length, family }: Cidr): boolean => length === bitsOf(family)
const isIn = (cidrs: readonly Cidr[], ip: Ip): boolean => cidrs.some((cidr) => cidr.contains(ip))

/** Blocks that every node tells of. */
export const serviceBlocks = (configuration: BgpConfiguration): readonly Cidr[] => [
  ...configuration.clusterIps,
  ...configuration.externalIps.filter((cidr) => !isSingle(cidr)),
  ...(configuration.aggregateLoadBalancerIps ? configuration.loadBalancerIps.filter((cidr) => !isSingle(cidr)) : []),
]

/** Without preference; the caller knows it. */
export function serviceRoutes(
  configuration: BgpConfiguration,
  node: BgpNode,
  services: Iterable<BgpService>,
): readonly LocalRoute[] {
  if (node.labels[EXCLUDED] === 'true') return []
  const routes: LocalRoute[] = serviceBlocks(configuration).map((cidr) => ({
    prefix: `${cidr}`,
    kind: 'aggregate',
    origin: 'BGPConfiguration default',
  }))
  for (const service of services) {
    if (!isTold(configuration, service)) continue
    const add = (kind: LocalRouteKind, allowed: readonly Cidr[], ips: readonly Ip[]) => {
      for (const ip of ips.filter((each) => isIn(allowed, each)))
        routes.push({ prefix: hostPrefix(ip), kind, origin: `Service ${service.namespace}/${service.name}` })
    }
    add('cluster-ip', configuration.clusterIps, service.clusterIps)
    add('external-ip', configuration.externalIps, service.externalIps)
    add('load-balancer-ip', configuration.loadBalancerIps, service.loadBalancerIps)
  }
  return routes
}

function isTold(configuration: BgpConfiguration, service: BgpService): boolean {
  if (service.type === 'ExternalName' || service.clusterIps.length === 0) return false
  if (service.externalTrafficPolicy === 'Local') return service.isReadyHere
  const singles = (cidrs: readonly Cidr[]) => cidrs.filter(isSingle)
  const hasSingle =
    service.externalIps.some((ip) => isIn(singles(configuration.externalIps), ip)) ||
    (service.type === 'LoadBalancer' &&
      service.loadBalancerIps.some((ip) => isIn(singles(configuration.loadBalancerIps), ip)))
  return hasSingle || (!configuration.aggregateLoadBalancerIps && service.isReady)
}
