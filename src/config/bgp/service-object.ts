/**
 * What routes need of a Service and of its EndpointSlices, as Kubernetes has them. Never throws: text that is no address is
 * left out, as a Service without it.
 *
 * Sources: Kubernetes API reference, core/v1 Service (spec, status.loadBalancer), discovery.k8s.io/v1 EndpointSlice (conditions;
 * `ready` that is missing means ready).
 */
import type { BgpService } from '../../model/bgp-cluster.ts'
import { Ip } from '../../net/ip.ts'

type Json = Readonly<Record<string, unknown>>

/** What is known of a Service before its endpoints are. */
export type ServiceWords = Omit<BgpService, 'isReady' | 'isReadyHere'>

/** What one slice says. */
export interface SliceWords {
  /** Name of the Service, in the slice's namespace; undefined: nobody's. */
  readonly service?: string
  readonly isReady: boolean
  readonly isReadyHere: boolean
}

const MAX_ADDRESSES = 100
const MAX_ENDPOINTS = 10_000
const ANNOTATIONS = 'kube-router.io/'
const SERVICE_NAME = 'kubernetes.io/service-name'

const asObject = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {})
const asList = (value: unknown, most: number): readonly unknown[] => (Array.isArray(value) ? value.slice(0, most) : [])
const ipsOf = (values: readonly unknown[]): readonly Ip[] =>
  values.flatMap((value) => (typeof value === 'string' ? (Ip.tryParse(value) ?? []) : []))

export function parseServiceWords(object: unknown): ServiceWords {
  const { metadata, spec: rawSpec, status } = asObject(object)
  const { name, namespace, annotations } = asObject(metadata)
  const spec = asObject(rawSpec)
  const ingress = asList(asObject(asObject(status).loadBalancer).ingress, MAX_ADDRESSES)
  const cluster = asList(spec.clusterIPs, MAX_ADDRESSES)
  const types = ['NodePort', 'LoadBalancer', 'ExternalName'] as const
  return {
    namespace: String(namespace),
    name: String(name),
    type: types.find((type) => type === spec.type) ?? 'ClusterIP',
    clusterIps: ipsOf(cluster.length > 0 ? cluster : [spec.clusterIP]),
    externalIps: ipsOf(asList(spec.externalIPs, MAX_ADDRESSES)),
    loadBalancerIps: ipsOf(ingress.map((each) => asObject(each).ip)),
    externalTrafficPolicy: spec.externalTrafficPolicy === 'Local' ? 'Local' : 'Cluster',
    internalTrafficPolicy: spec.internalTrafficPolicy === 'Local' ? 'Local' : 'Cluster',
    annotations: Object.fromEntries(
      Object.entries(asObject(annotations)).filter(
        (pair): pair is [string, string] => pair[0].startsWith(ANNOTATIONS) && typeof pair[1] === 'string',
      ),
    ),
  }
}

export function parseSliceWords(object: unknown, node: string): SliceWords {
  const { metadata, endpoints } = asObject(object)
  const service = asObject(asObject(metadata).labels)[SERVICE_NAME]
  const ready = asList(endpoints, MAX_ENDPOINTS)
    .map(asObject)
    .filter(({ conditions }) => asObject(conditions).ready !== false)
  return {
    ...(typeof service === 'string' && service !== '' && { service }),
    isReady: ready.length > 0,
    isReadyHere: ready.some(({ nodeName }) => nodeName === node),
  }
}
