/**
 * Bridged and routed pods of one node, in one subnet. A pod on the bridge takes the whole subnet for its neighbours and asks for
 * routed ones by ARP; they are not on the bridge, so the node answers for them there and passes packets on.
 *
 *   10.244.1.5 ── cni0 ──(answers for 10.244.1.9)── node ── calie64b9fa939d ── 10.244.1.9
 *
 * For ARP the bridge answers for everything that has a route elsewhere; for neighbour discovery each address has to be named.
 *
 * Sources: Documentation/networking/ip-sysctl.rst (proxy_arp, proxy_ndp), ip-neighbour(8).
 */
import type { KernelObject } from '../model/kernel-object.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Attachment } from './journal.ts'
import { nodePool } from './pools.ts'

export const besideBridgeSource = 'cni/beside-bridge'

/** What the bridge needs while pods of both kinds live; undefined while there are none of one kind. */
export function besideBridgeFragment(bridge: string, living: readonly Attachment[]): Fragment | undefined {
  const isBridged = living.some((one) => one.bridge === bridge)
  const routed = living.filter(({ role, pool }) => role === 'routed' && pool === nodePool).flatMap(({ ips }) => ips)
  if (!isBridged || routed.length === 0) return undefined
  const variable = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path: `net/${path}`, value })
  const discovered = routed.filter(({ ip }) => ip.family === 6)
  return {
    source: besideBridgeSource,
    objects: [
      variable(`ipv4/conf/${bridge}/proxy_arp`, '1'),
      variable(`ipv4/neigh/${bridge}/proxy_delay`, '0'),
      ...(discovered.length
        ? [
            variable(`ipv6/conf/${bridge}/proxy_ndp`, '1'),
            variable(`ipv6/neigh/${bridge}/proxy_delay`, '0'),
            ...discovered.map(({ ip }): KernelObject => ({ kind: 'neighbour', device: bridge, ip, proxy: true })),
          ]
        : []),
    ],
  }
}
