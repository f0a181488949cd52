/**
 * What a routed pod is to get: the wishes written on it and on its namespace, the configuration's, and the node's own settings,
 * put together. No effects but the one look at the pod.
 *
 *   address   ipAddrsNoIpam, else ipAddrs, else what the runtime asks for, else one of each family
 *   family    ipFamilies of pod or namespace, else assign_ipv4 and assign_ipv6, else the node's
 *   pool      ipv4pools and ipv6pools of pod or namespace, else of the configuration, else any that fits
 *
 * Sources: Calico cni-plugin k8s.go (precedence; what a configuration without Calico's IPAM ignores and refuses).
 */
import type { PodWords } from '../cluster/calico/calico-source.ts'
import { type PodRequest, parsePodWords } from '../config/calico/pod-words.ts'
import type { AddressRequest } from '../ipam/stores/pool-addresses.ts'
import { ConfigError } from '../model/errors.ts'
import type { Family, Ip } from '../net/ip.ts'
import { podOf } from './attachment-plan.ts'
import { CniCode, CniError } from './error.ts'
import type { RoutedNetwork } from './network.ts'
import type { AttachmentRequest } from './request.ts'

const annotation = (key: string): string => `cni.projectcalico.org/${key}`

export interface PodWishes extends PodRequest {
  readonly podUid?: string
  readonly namespaceLabels?: Readonly<Record<string, string>>
}

const nameOfLabel = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const nameOfObject = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/

/** The pod of `namespace/name`; undefined for what cannot be a pod's: runtimes besides Kubernetes say names of their own. */
export function podOfCluster(text = ''): { readonly namespace: string; readonly name: string } | undefined {
  const slash = text.indexOf('/')
  const [namespace, name] = [text.slice(0, Math.max(slash, 0)), text.slice(slash + 1)]
  return nameOfLabel.test(namespace) && nameOfObject.test(name) ? { namespace, name } : undefined
}

/**
 * Looks at the pod. Throws CniError 11 when nobody can be asked, 7 naming pod and annotation for what cannot be read or is not
 * allowed here.
 */
export async function readWishes(request: AttachmentRequest, routed: RoutedNetwork): Promise<PodWishes> {
  const pod = podOfCluster(podOf(request).pod)
  if (!routed.pods || !pod) return {}
  let words: PodWords | undefined
  try {
    words = await routed.pods.find(pod.namespace, pod.name, request.args.podUid)
  } catch (cause) {
    throw new CniError(
      CniCode.tryAgainLater,
      `Pod ${pod.namespace}/${pod.name} cannot be read now`,
      (cause as Error).message,
      { cause },
    )
  }
  return words ? parseWishes(words, request, routed) : {}
}

function parseWishes(words: PodWords, request: AttachmentRequest, routed: RoutedNetwork): PodWishes {
  const pod = `Pod ${podOf(request).pod}`
  const refuse = (key: string, problem: string) =>
    new CniError(CniCode.invalidConfig, `${pod}: ${annotation(key)} ${problem}`)
  let wishes: PodRequest
  try {
    wishes = parsePodWords(words.annotations, words.namespaceAnnotations, pod)
  } catch (cause) {
    if (!(cause instanceof ConfigError)) throw cause
    throw new CniError(CniCode.invalidConfig, cause.message, '', { cause })
  }
  const mayBypass = routed.allowAddressesWithoutIpam || request.config.calico?.addressesWithoutIpam
  if (wishes.ipAddrsNoIpam && !mayBypass)
    throw refuse('ipAddrsNoIpam', 'is not allowed: the configuration has no feature_control.ip_addrs_no_ipam')
  if (wishes.floatingIps?.length) throw refuse('floatingIPs', 'is not supported by weft')
  const { uid, namespaceLabels } = words
  return { ...wishes, namespaceLabels, ...(uid === undefined ? {} : { podUid: uid }) }
}

/** Addresses that are asked for by name; undefined when any will do. */
export function askedFor({ config, args }: AttachmentRequest, wishes: PodWishes): readonly Ip[] | undefined {
  if (wishes.ipAddrs) return wishes.ipAddrs
  const asked = [...config.runtime.ips.map(({ ip }) => ip), ...args.ips]
  const distinct = asked.filter((ip, index) => asked.findIndex((other) => other.equals(ip)) === index)
  return distinct.length ? distinct : undefined
}

/** What to ask the pools for. Throws CniError 100 when the pod is to get no address at all. */
export function wantedOf(
  request: AttachmentRequest,
  routed: RoutedNetwork,
  wishes: PodWishes,
): AddressRequest['wanted'] {
  const asked = askedFor(request, wishes)
  if (asked) return asked.map((ip) => ({ family: ip.family, ip }))
  const { calico } = request.config
  const families = wishes.families ?? calico?.families ?? routed.families
  if (families.length === 0)
    throw new CniError(CniCode.noAddress, 'There is no enabled pool for pods of this node, of either family')
  const poolsOf = (family: Family) =>
    family === 4 ? (wishes.ipv4Pools ?? calico?.ipv4Pools) : (wishes.ipv6Pools ?? calico?.ipv6Pools)
  return families.map((family) => {
    const pools = poolsOf(family)
    return { family, ...(pools?.length ? { pools } : {}) }
  })
}

/** What is kept beside the addresses in their block: whose they are. */
export function attributesOf(request: AttachmentRequest, routed: RoutedNetwork): Readonly<Record<string, string>> {
  const pod = podOfCluster(podOf(request).pod)
  return {
    node: routed.nodeName,
    ...(pod ? { namespace: pod.namespace, pod: pod.name } : {}),
    timestamp: new Date().toISOString(),
  }
}
