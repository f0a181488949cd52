/**
 * Names made from who an attachment is for, always the same ones: the node's device `veth` and eight hexadecimal
 * digits of a digest, and an alias that tells what the device is for and which addresses are behind it. The alias is
 * a second journal: from it alone an attachment can be known again.
 *
 *   weft-pod:3fa9…/eth0 10.244.1.7 fd00:10:244:1::7
 *   weft-pod:3fa9…/net1 10.91.0.2 net=blue              of a network by another name than weft
 *   weft-pod:3fa9…/eth0 172.26.0.5 routed=pool          a routed pod with an address of a pool; routed=node: of this node's
 *
 * A routed pod's device has the name that Calico gives it, made from the pod's namespace and name.
 *
 * Sources: include/uapi/linux/if.h (IFALIASZ 256, IFNAMSIZ 16); Calico libcalico-go conversion.go (VethNameForWorkload) and
 * cni-plugin utils.go (GetHandleID).
 */
import { createHash } from 'node:crypto'
import { Ip } from '../net/ip.ts'

const aliasPrefix = 'weft-pod:'
/** The network of the configuration list that the agent itself writes: an alias says others only. */
const ownNetwork = 'weft'
/** The kernel counts the NUL that ends it. */
const maxAliasBytes = 254

export const digestOf = (containerId: string, ifname: string): Uint8Array =>
  createHash('sha1').update(`${containerId}/${ifname}`).digest()

export const hostDeviceOf = (digest: Uint8Array): string =>
  `veth${Array.from(digest.subarray(0, 4), (octet) => octet.toString(16).padStart(2, '0')).join('')}`

/** Most of a name of a routed pod's device are hexadecimal digits of this many. */
const routedDigits = 11
const maxDeviceCharacters = 15

/** The name for an owner: `namespace.pod`, or anything else that is one interface's alone. */
export const routedDeviceOf = (prefix: string, owner: string): string =>
  `${prefix}${createHash('sha1').update(owner).digest('hex').slice(0, routedDigits)}`.slice(0, maxDeviceCharacters)

/** What the network of weft's own configuration list is called in handles: as Calico's is, whose tools know it. */
const ownHandleNetwork = 'k8s-pod-network'
const maxHandleCharacters = 200

/** Under which handle a pool's addresses are for an interface. All of one handle are released together. */
export function handleOf(network: string, containerId: string, ifname: string): string {
  const of = `${network === ownNetwork ? ownHandleNetwork : network}.${containerId}${ifname === 'eth0' ? '' : `.${ifname}`}`
  if (of.length <= maxHandleCharacters) return of
  return `${ownHandleNetwork}.sha256-${createHash('sha256').update(of).digest('hex')}`
}

/** Where a routed pod's addresses are from; of a bridged one nothing is said. */
export type RoutedFrom = 'pool' | 'node' | 'configuration'

/**
 * The alias of the node's end. What does not fit is left out: addresses and network first, then the end of the container id.
 */
export function podAlias(
  containerId: string,
  ifname: string,
  ips: readonly { readonly ip: Ip }[] = [],
  network = ownNetwork,
  routed?: RoutedFrom,
): string {
  const owner = `${aliasPrefix}${containerId.slice(0, maxAliasBytes - aliasPrefix.length - 1 - ifname.length)}/${ifname}`
  const named = network === ownNetwork ? [] : [`net=${network}`]
  const wiring = routed === undefined ? [] : [`routed=${routed}`]
  const whole = [owner, ...ips.map(({ ip }) => `${ip}`), ...named, ...wiring].join(' ')
  return whole.length <= maxAliasBytes ? whole : owner
}

export interface PodIdentity {
  readonly containerId: string
  readonly ifname: string
  readonly ips: readonly Ip[]
  /** The name of its network. */
  readonly network: string
  /** Undefined for a port of a bridge. */
  readonly routed?: RoutedFrom
}

/** What an alias says; undefined for a device that is not a pod's, or whose container id may be cut. */
export function parsePodAlias(alias: string): PodIdentity | undefined {
  const match =
    /^weft-pod:([a-zA-Z0-9][a-zA-Z0-9_.-]*)\/([\x21-\x7e]{1,15})((?: [0-9a-f.:]+)*)(?: net=([a-zA-Z0-9_.-]+))?(?: routed=(pool|node|configuration))?$/.exec(
      alias,
    )
  if (!match || `${aliasPrefix}${match[1]}/${match[2]}`.length === maxAliasBytes) return undefined
  const texts = match[3]!.split(' ').filter(Boolean)
  const ips = texts.map(Ip.tryParse).filter((ip) => ip !== undefined)
  if (ips.length !== texts.length) return undefined
  const routed = match[5] as RoutedFrom | undefined
  return {
    containerId: match[1]!,
    ifname: match[2]!,
    ips,
    network: match[4] ?? ownNetwork,
    ...(routed ? { routed } : {}),
  }
}
