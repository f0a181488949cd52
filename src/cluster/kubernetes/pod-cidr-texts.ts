/**
 * Where a Node says which blocks its pods have: in its spec, or in kube-router's annotations, which go before it.
 *
 * Sources: kube-router pkg/controllers/routing/utils.go (getPodCIDRsFromAllNodeSources: order, and what of a bad text counts).
 */
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'

export const POD_CIDR_ANNOTATION = 'kube-router.io/pod-cidr'
export const POD_CIDRS_ANNOTATION = 'kube-router.io/pod-cidrs'

const MAX_LIST = 512

type Json = Readonly<Record<string, unknown>>

/** `key` is where the texts stand. None of them has been read, unless they are of an annotation of one. */
export interface PodCidrTexts {
  readonly key: string
  readonly texts: readonly string[]
}

/** One block goes before a list of them, but counts as not there when it is none; a list counts whatever is in it. */
export function podCidrTexts(annotations: Json, spec: Json): PodCidrTexts {
  const [one, several] = [annotations[POD_CIDR_ANNOTATION], annotations[POD_CIDRS_ANNOTATION]]
  if (typeof one === 'string' && tryPodCidr(one)) return { key: POD_CIDR_ANNOTATION, texts: [one] }
  if (typeof several === 'string' && several !== '')
    return { key: POD_CIDRS_ANNOTATION, texts: several.slice(0, MAX_LIST).split(',') }
  const list = Array.isArray(spec.podCIDRs) && spec.podCIDRs.length > 0 ? spec.podCIDRs : [spec.podCIDR]
  return { key: 'spec.podCIDRs', texts: list.filter((text) => typeof text === 'string' && text !== '') }
}

/** The block that an annotation names by any address of it. Undefined when it names none. */
export function tryPodCidr(text: string): Cidr | undefined {
  const [, address = '', length = ''] = /^([0-9a-fA-F.:]{2,45})\/(\d{1,3})$/.exec(text) ?? []
  const ip = Ip.tryParse(address)
  return ip && Number(length) <= (ip.family === 4 ? 32 : 128) ? Cidr.of(ip, Number(length)) : undefined
}
