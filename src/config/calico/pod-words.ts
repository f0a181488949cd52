/**
 * What a pod and its namespace ask for in Calico's words, by annotations `cni.projectcalico.org/…`. Lists are JSON in
 * the annotation's text.
 *
 *   on pod or namespace (the pod's wins)   ipv4pools ["pool-a", "172.26.0.0/16"]   ipv6pools   ipFamilies ["IPv4", "IPv6"]
 *   on the pod                             ipAddrs ["172.26.0.9", "fd00::9"]   ipAddrsNoIpam   hwAddr 1c:0c:0a:c0:ff:ee
 *                                          allowedSourcePrefixes ["203.0.113.0/24"]   floatingIPs ["203.0.113.7"]
 *
 * Sources: Calico cni-plugin/pkg/k8s/k8s.go (which object, at most one address of each family, not both ipAddrs and
 * ipAddrsNoIpam), pkg/dataplane/linux (hwAddr), libcalico-go/lib/backend/k8s/conversion (written annotations, prefixes).
 */
import { ConfigError } from '../../model/errors.ts'
import { Cidr, parsePrefixed } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import { shown } from './fields.ts'

const PREFIX = 'cni.projectcalico.org/'
const MAX_TEXT = 4096
const MAX_ITEMS = 64

/** Written on a pod once it is wired, emptied when it goes. */
export const writtenPodAnnotations = {
  podIp: `${PREFIX}podIP`,
  podIps: `${PREFIX}podIPs`,
  containerId: `${PREFIX}containerID`,
} as const

export interface PodRequest {
  /** Addresses asked for: at most one of each family, out of pools. */
  readonly ipAddrs?: readonly Ip[]
  /** The same, from nowhere: no pool knows them. */
  readonly ipAddrsNoIpam?: readonly Ip[]
  /** Pools by name or by CIDR, in order. */
  readonly ipv4Pools?: readonly string[]
  readonly ipv6Pools?: readonly string[]
  /** Which families the pod gets; left out: what the pools have. */
  readonly families?: readonly Family[]
  readonly hwAddr?: Mac
  /** Sources besides its own addresses; they count only where FelixConfiguration allows it. */
  readonly allowedSourcePrefixes?: readonly Cidr[]
  readonly floatingIps?: readonly Ip[]
}

type Annotations = Readonly<Record<string, string>>

/** `object` names the pod for messages: `Pod default/web-0`. Throws ConfigError naming pod and annotation. */
export function parsePodWords(annotations: Annotations, namespaceAnnotations: Annotations, object: string): PodRequest {
  const own = new Words(annotations, object)
  const inherited = new Words(namespaceAnnotations, `${object}: its namespace`)
  const either = <T>(read: (words: Words) => T | undefined): T | undefined => read(own) ?? read(inherited)
  const request = {
    ipAddrs: own.onePerFamily('ipAddrs'),
    ipAddrsNoIpam: own.onePerFamily('ipAddrsNoIpam'),
    ipv4Pools: either((words) => words.pools('ipv4pools', 4)),
    ipv6Pools: either((words) => words.pools('ipv6pools', 6)),
    families: either((words) => words.families('ipFamilies')),
    hwAddr: own.mac('hwAddr'),
    allowedSourcePrefixes: own.prefixes('allowedSourcePrefixes'),
    floatingIps: own.addresses('floatingIPs'),
  }
  if (request.ipAddrs && request.ipAddrsNoIpam) throw own.error('ipAddrsNoIpam', 'cannot stand beside ipAddrs')
  const said = Object.entries(request).filter(([, value]) => value !== undefined)
  return Object.fromEntries(said) as PodRequest
}

/** What to write on a pod that has these addresses, in the order of its result; null takes it back as Calico does. */
export function formatPodAnnotations(pod: { readonly ips: readonly Ip[]; readonly containerId: string } | null) {
  const hosts = pod?.ips.map((ip) => `${Cidr.host(ip)}`) ?? []
  return {
    [writtenPodAnnotations.podIp]: hosts[0] ?? '',
    [writtenPodAnnotations.podIps]: hosts.join(','),
    [writtenPodAnnotations.containerId]: pod?.containerId ?? '',
  }
}

class Words {
  readonly #annotations: Annotations
  readonly #object: string

  constructor(annotations: Annotations, object: string) {
    this.#annotations = annotations
    this.#object = object
  }

  error(key: string, problem: string, cause?: unknown): ConfigError {
    return new ConfigError(this.#object, PREFIX + key, problem, cause === undefined ? undefined : { cause })
  }

  mac(key: string): Mac | undefined {
    const text = this.#text(key)
    if (text === undefined) return undefined
    const mac = Mac.tryParse(text)
    if (!mac || mac.isMulticast || mac.isZero)
      throw this.error(key, `must be a device's Ethernet address, not ${shown(text)}`)
    return mac
  }

  addresses(key: string): readonly Ip[] | undefined {
    return this.#texts(key)?.map((text) => {
      const ip = Ip.tryParse(text)
      if (!ip || ip.isAny || ip.isMulticast || ip.isLoopback || ip.isLinkLocal)
        throw this.error(key, `${shown(text)} is no address that a pod can have`)
      return ip
    })
  }

  onePerFamily(key: string): readonly Ip[] | undefined {
    const ips = this.addresses(key)
    if (!ips) return undefined
    if (ips.length === 0) throw this.error(key, 'names no address')
    for (const family of [4, 6] as const)
      if (ips.filter((ip) => ip.family === family).length > 1)
        throw this.error(key, `has more than one IPv${family} address; a pod has one of each family`)
    return ips
  }

  pools(key: string, family: Family): readonly string[] | undefined {
    const pools = this.#texts(key)
    if (pools?.length === 0) return undefined
    for (const text of pools ?? []) {
      const cidr = text.includes('/') ? Cidr.tryParse(text) : undefined
      if (text.includes('/') ? cidr?.family !== family : !/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(text))
        throw this.error(key, `${shown(text)} is neither the name of a pool nor its IPv${family} CIDR`)
    }
    return pools
  }

  families(key: string): readonly Family[] | undefined {
    const families = this.#texts(key)?.map((text): Family => {
      if (text !== 'IPv4' && text !== 'IPv6') throw this.error(key, `must be IPv4 or IPv6, not ${shown(text)}`)
      return text === 'IPv4' ? 4 : 6
    })
    if (families?.length === 0) throw this.error(key, 'names no family')
    return families && [...new Set(families)]
  }

  /** Host bits are masked, as Calico does it. */
  prefixes(key: string): readonly Cidr[] | undefined {
    return this.#texts(key)?.map((text) => {
      try {
        const { ip, length } = parsePrefixed(text.includes('/') ? text : `${Cidr.host(Ip.parse(text))}`)
        return Cidr.of(ip, length)
      } catch (cause) {
        throw this.error(key, `${shown(text)} is no CIDR`, cause)
      }
    })
  }

  #text(key: string): string | undefined {
    const text = Object.hasOwn(this.#annotations, PREFIX + key) ? this.#annotations[PREFIX + key] : undefined
    if (text === undefined || text === '') return undefined
    if (text.length > MAX_TEXT) throw this.error(key, `is longer than ${MAX_TEXT} characters`)
    return text
  }

  #texts(key: string): readonly string[] | undefined {
    const text = this.#text(key)
    if (text === undefined) return undefined
    let list: unknown
    try {
      list = JSON.parse(text)
    } catch (cause) {
      throw this.error(key, `is not JSON: ${shown(text)}; write ["…"]`, cause)
    }
    if (list === null) return undefined
    if (!Array.isArray(list) || !list.every((item) => typeof item === 'string'))
      throw this.error(key, `must be a JSON list of texts, not ${shown(text)}`)
    if (list.length > MAX_ITEMS) throw this.error(key, `has ${list.length} items; at most ${MAX_ITEMS} are read`)
    return list
  }
}
