/**
 * Which addresses of Services a node tells of, in kube-router's words: flags say it for all, annotations for one.
 *
 *   kube-router.io/service.advertise.{clusterip,externalip,loadbalancerip}   true or false, before the flag
 *   kube-router.io/service.local                                             as externalTrafficPolicy Local
 *   kube-router.io/service.skiplbips                                         no load balancer addresses, whatever it says
 *
 * With a policy Local only nodes with a ready endpoint tell.
 *
 * Sources: kube-router pkg/controllers/routing/ecmp_vip.go (getAllVIPsForService, shouldAdvertiseService).
 */
import type { LocalRoute, LocalRouteKind } from '../../model/bgp.ts'
import type { BgpService } from '../../model/bgp-cluster.ts'
import type { Ip } from '../../net/ip.ts'
import { hostPrefix } from '../bgp/peer-settings.ts'
import { serviceBgpAnnotations as names } from './bgp-node.ts'
import type { KubeRouterBgpSettings } from './bgp-settings.ts'

const PREFIX = 'kube-router.io/'
/** As Go reads a boolean; anything else is false. */
const TRUE = ['1', 't', 'T', 'true', 'TRUE', 'True']

export function vipRoutes(settings: KubeRouterBgpSettings, services: Iterable<BgpService>): readonly LocalRoute[] {
  const routes: LocalRoute[] = []
  for (const service of services) {
    if (service.type === 'ExternalName') continue
    const { annotations } = service
    const isWanted = (key: string, usual: boolean) => {
      const said = annotations[PREFIX + key]
      return said === undefined ? usual : TRUE.includes(said)
    }
    const isLocal = service.externalTrafficPolicy === 'Local' || annotations[PREFIX + names.local] === 'true'
    const servesOutside = !isLocal || service.isReadyHere
    const servesInside = service.internalTrafficPolicy !== 'Local' || service.isReadyHere
    const hasBalancer = service.type === 'LoadBalancer' && annotations[PREFIX + names.skipLoadBalancerIps] === undefined
    const add = (kind: LocalRouteKind, ips: readonly Ip[]) => {
      for (const ip of ips)
        routes.push({ prefix: hostPrefix(ip), kind, origin: `Service ${service.namespace}/${service.name}` })
    }
    if (servesInside && isWanted(names.clusterIp, settings.advertiseClusterIp)) add('cluster-ip', service.clusterIps)
    if (servesOutside && isWanted(names.externalIp, settings.advertiseExternalIp))
      add('external-ip', service.externalIps)
    if (servesOutside && hasBalancer && isWanted(names.loadBalancerIp, settings.advertiseLoadBalancerIp))
      add('load-balancer-ip', service.loadBalancerIps)
  }
  return routes
}
