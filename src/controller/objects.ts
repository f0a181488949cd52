/**
 * What the controller reads of the API's objects and errors, wherever it meets them. Strangers wrote the objects.
 */
import { HttpError } from '../cluster/http-client.ts'
import { type ProjectedNode, parseNode, projectNode, STATUS_ANNOTATION } from '../cluster/kubernetes/annotations.ts'
import type { RawObject } from '../cluster/kubernetes/informer.ts'
import { type NetworkCondition, networkConditionOf } from '../cluster/kubernetes/network-condition.ts'
import type { CidrHolder } from '../ipam/node-cidrs.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'

/** Somebody else wrote first. */
export const isConflict = (error: unknown): boolean => error instanceof HttpError && error.status === 409

/** The server has understood and will not: trying the same again is of no use. */
export const isRefusal = (error: unknown): boolean =>
  error instanceof HttpError &&
  error.status >= 400 &&
  error.status < 500 &&
  ![404, 408, 409, 429].includes(error.status)

/** The resource version of an object as it came; empty when there is none. */
export function versionOf(object: unknown): string {
  const version = (object as RawObject | null)?.metadata?.resourceVersion
  return typeof version === 'string' ? version : ''
}

export type Condition = NetworkCondition

/** What the controller keeps of a Node. */
export interface WatchedNode extends ProjectedNode {
  /** Only of a node without podCIDRs: a heartbeat of any other is no news. */
  readonly version: string
  /** It is on its way out: nothing is given to it any more. */
  readonly leaving: boolean
  readonly networkUnavailable?: NetworkCondition
}

/** For an informer. Never throws. */
export function projectWatched(object: RawObject, annotationPrefix: string): WatchedNode {
  const condition = networkConditionOf(object)
  const metadata = (object.metadata ?? {}) as { deletionTimestamp?: unknown }
  const node = projectNode(object, annotationPrefix)
  return {
    ...node,
    version: node.podCidrs.length === 0 ? versionOf(object) : '',
    leaving: metadata.deletionTimestamp !== undefined && metadata.deletionTimestamp !== null,
    ...(condition ? { networkUnavailable: condition } : {}),
  }
}

/** True when an agent of weft has spoken for the node. */
export const hasWeft = (node: WatchedNode): boolean => node.annotations[STATUS_ANNOTATION] !== undefined

/** What the node occupies of the pod network, and with which addresses it stands in the way. */
export function holderOf(node: WatchedNode, annotationPrefix: string): CidrHolder {
  const { lease } = parseNode(node, annotationPrefix).node
  const addresses = [...node.addresses.map((text) => Ip.tryParse(text)), lease?.publicIp, lease?.publicIpv6]
  return {
    name: node.name,
    uid: node.uid ?? '',
    podCidrs: node.podCidrs.flatMap((text) => Cidr.tryParse(text) ?? []),
    addresses: addresses.filter((ip) => ip !== undefined),
  }
}
