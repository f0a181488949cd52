/**
 * A node as Calico keeps it in etcd: a resource of its own, with addresses and tunnels in its spec.
 *
 *   {"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1","labels":{…},"annotations":{…}},
 *    "spec":{"bgp":{"ipv4Address":"192.0.2.1/24","ipv4IPIPTunnelAddr":"172.26.0.1"},"ipv4VXLANTunnelAddr":"172.26.0.0",
 *            "vxlanTunnelMACAddr":"66:…"},"status":{…}}
 *
 * weft's own status stands among its annotations, as it does on a Node of Kubernetes. What others wrote stays.
 *
 * Sources: Calico libcalico-go/lib/apis/internalapi/node.go (fields), lib/backend/k8s/resources/node.go (which annotation of
 * Kubernetes is which field), node/pkg/lifecycle/startup (an address alone in a spec is one without a subnet).
 */
import type { CalicoNode } from '../../model/calico.ts'
import { isObject, type PlainObject } from './fields.ts'
import { formatNodeAnnotations, parseNodeAnnotations } from './node-annotations.ts'

/** By annotation the place in the spec. */
const places: Readonly<Record<string, readonly [string] | readonly ['bgp', string]>> = {
  'projectcalico.org/IPv4Address': ['bgp', 'ipv4Address'],
  'projectcalico.org/IPv6Address': ['bgp', 'ipv6Address'],
  'projectcalico.org/ASNumber': ['bgp', 'asNumber'],
  'projectcalico.org/RouteReflectorClusterID': ['bgp', 'routeReflectorClusterID'],
  'projectcalico.org/IPv4IPIPTunnelAddr': ['bgp', 'ipv4IPIPTunnelAddr'],
  'projectcalico.org/IPv4VXLANTunnelAddr': ['ipv4VXLANTunnelAddr'],
  'projectcalico.org/IPv6VXLANTunnelAddr': ['ipv6VXLANTunnelAddr'],
  'projectcalico.org/VXLANTunnelMACAddr': ['vxlanTunnelMACAddr'],
  'projectcalico.org/VXLANTunnelMACAddrV6': ['vxlanTunnelMACAddrV6'],
}

const asObject = (value: unknown): PlainObject => (isObject(value) ? value : {})

export interface NodeResource {
  readonly calico?: CalicoNode
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly creationTimestamp?: string
}

/** Never throws; `onProblem` gets the place in the spec and what is wrong with it. */
export function parseNodeResource(value: unknown, onProblem: (key: string, problem: Error) => void): NodeResource {
  const { metadata, spec: rawSpec } = asObject(value)
  const spec = asObject(rawSpec)
  const { labels, annotations, creationTimestamp } = asObject(metadata)
  const words: Record<string, string> = {}
  for (const [annotation, [first, second]] of Object.entries(places)) {
    const found = second === undefined ? spec[first] : asObject(spec[first])[second]
    if (typeof found === 'string' || typeof found === 'number') words[annotation] = `${found}`
  }
  const calico = parseNodeAnnotations(words, (annotation, problem) =>
    onProblem(`spec.${places[annotation]!.join('.')}`, problem),
  )
  return {
    ...(calico ? { calico } : {}),
    labels: textsOf(labels),
    annotations: textsOf(annotations),
    ...(typeof creationTimestamp === 'string' ? { creationTimestamp } : {}),
  }
}

const textsOf = (value: unknown): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(asObject(value)).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  )

export interface NodeChange {
  /** Left out: what stands stays; null: what the node said of itself is taken back. */
  readonly calico?: CalicoNode | null
  /** null removes one. */
  readonly annotations: Readonly<Record<string, string | null>>
}

/** The resource with a node's words in it; made when there is none. `made`: uid and time of one that is. */
export function changeNodeResource(
  name: string,
  standing: unknown,
  { calico, annotations }: NodeChange,
  made: { readonly uid: string; readonly creationTimestamp: string },
): PlainObject {
  const before = isObject(standing)
    ? standing
    : { kind: 'Node', apiVersion: 'projectcalico.org/v3', metadata: { name, ...made }, spec: {}, status: {} }
  const metadata = asObject(before.metadata)
  const spec: Record<string, unknown> = { ...asObject(before.spec) }
  const bgp: Record<string, unknown> = { ...asObject(spec.bgp) }
  for (const [annotation, text] of Object.entries(calico === undefined ? {} : formatNodeAnnotations(calico))) {
    const [first, second] = places[annotation]!
    const [into, key] = second === undefined ? [spec, first] : [bgp, second]
    if (text === null) delete into[key]
    else into[key] = key === 'asNumber' ? Number(text) : text
  }
  if (Object.keys(bgp).length > 0) spec.bgp = bgp
  else delete spec.bgp
  const kept = Object.entries({ ...asObject(metadata.annotations), ...annotations }).filter(([, text]) => text !== null)
  const { annotations: _, ...others } = metadata
  return {
    ...before,
    metadata: { ...others, ...(kept.length > 0 ? { annotations: Object.fromEntries(kept) } : {}) },
    spec,
  }
}
