/**
 * Port mappings (hostPort): one element each, in maps that the skeleton's `hostport` chain translates by. They answer
 * on every address of the node, from outside, from pods, from the node itself and by 127.0.0.1; with a host address on
 * that one only, and only while it is an address of the node, so that a mapping can never capture traffic that passes.
 *
 * 127.0.0.1 needs `route_localnet` on the pods' bridge, because the translated packet leaves there with a loopback
 * source until it is masqueraded. It is set on that device alone, and the guard chain drops what pods send to 127.0.0.0/8.
 * IPv6 has no such switch: [::1] does not answer, as with the reference portmap plugin.
 *
 * Sources: CNI portmap plugin (plugins/meta/portmap), its capability `portMappings`.
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Ip } from '../../net/ip.ts'
import { element } from './names.ts'

export interface HostPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly hostPort: number
  readonly containerPort: number
  /** The one host address that listens; every address when left out. */
  readonly hostIp?: Ip
}

export interface HostPortOptions {
  /** The bridge that the pod hangs on. Default `cni0`. */
  readonly bridge?: string
}

/** What a pod's mappings want: an element for each mapping and address family of the pod, and the bridge's setting. */
export function planHostPorts(
  pod: { readonly ips: readonly Ip[] },
  mappings: readonly HostPort[],
  { bridge = 'cni0' }: HostPortOptions = {},
): KernelObject[] {
  const out: KernelObject[] = []
  let usesLoopback = false
  for (const family of [4, 6] as const) {
    const ip = pod.ips.find((candidate) => candidate.family === family)
    if (!ip) continue
    for (const { protocol, hostPort, containerPort, hostIp } of mappings) {
      if (hostIp && hostIp.family !== family) continue
      const target = `${ip} . ${containerPort}`
      const port = `${protocol} . ${hostPort}`
      out.push(
        hostIp && !hostIp.isAny
          ? element('hostport-addresses', family, `${hostIp} . ${port}`, { value: target })
          : element('hostports', family, port, { value: target }),
      )
      if (family === 4 && (!hostIp || hostIp.isAny || hostIp.isLoopback)) usesLoopback = true
    }
  }
  if (usesLoopback) out.push({ kind: 'sysctl', path: `net/ipv4/conf/${bridge}/route_localnet`, value: '1' })
  return out
}
