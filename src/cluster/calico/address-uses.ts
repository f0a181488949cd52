/**
 * Who has which address, as the API server tells it: pods by their status, nodes by the addresses of their tunnel devices.
 *
 * Sources: Kubernetes API reference (PodStatus); the annotation k8s.v1.cni.cncf.io/network-status of the Network Plumbing
 * Working Group's multi-network specification v1, section 5.4: addresses of further interfaces.
 */
import type { AddressUse } from '../../ipam/audit.ts'
import type { NodeInfo } from '../../model/cluster.ts'
import { Ip } from '../../net/ip.ts'
import type { RawObject } from '../kubernetes/informer.ts'

const NETWORK_STATUS = 'k8s.v1.cni.cncf.io/network-status'
const FINISHED = ['Succeeded', 'Failed']

/** Every address that a pod's object names, those of further interfaces included. Never throws. */
export function addressesOf({ metadata, status }: RawObject): string[] {
  const { podIPs } = (status ?? {}) as { podIPs?: unknown }
  const texts: unknown[] = (Array.isArray(podIPs) ? podIPs : []).map((each) => (each as { ip?: unknown } | null)?.ip)
  const { annotations = {} } = (metadata ?? {}) as { annotations?: Readonly<Record<string, unknown>> }
  try {
    const networks = JSON.parse(String(annotations[NETWORK_STATUS] ?? '[]')) as unknown
    for (const network of Array.isArray(networks) ? networks : [])
      texts.push(...[(network as { ips?: unknown } | null)?.ips ?? []].flat())
  } catch {
    // Not Multus' words.
  }
  return texts.flatMap((text) => {
    const ip = typeof text === 'string' ? Ip.tryParse(text) : undefined
    return ip ? [String(ip)] : []
  })
}

/** A pod that has finished has its address until the runtime takes its sandbox down, which its node's journal tells. */
export function usesOfPod(pod: RawObject): AddressUse[] {
  const { namespace = '', name = '' } = (pod.metadata ?? {}) as { namespace?: string; name?: string }
  const { phase } = (pod.status ?? {}) as { phase?: string }
  const { nodeName, hostNetwork } = (pod.spec ?? {}) as { nodeName?: string; hostNetwork?: boolean }
  if (hostNetwork === true || FINISHED.includes(phase ?? '')) return []
  return addressesOf(pod).map((text) => ({
    ip: Ip.parse(text),
    holder: `Workload(${namespace}/${name})`,
    ...(nodeName === undefined ? {} : { node: nodeName }),
  }))
}

/** Addresses of a node's tunnel devices. */
export function usesOfNode({ name, calico }: NodeInfo): AddressUse[] {
  const own = [calico?.ipv4IpipTunnelAddr, calico?.ipv4VxlanTunnelAddr, calico?.ipv6VxlanTunnelAddr]
  return own.flatMap((ip) => (ip ? [{ ip, holder: `Node(${name})`, node: name }] : []))
}
