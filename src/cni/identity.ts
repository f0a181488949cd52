/**
 * Names made from who an attachment is for, always the same ones: the node's device `veth` and eight hexadecimal
 * digits of a digest, and an alias that tells what the device is for and which addresses are behind it. The alias is
 * a second journal: from it alone an attachment can be known again.
 *
 *   weft-pod:3fa9…/eth0 10.244.1.7 fd00:10:244:1::7
 *   weft-pod:3fa9…/net1 10.91.0.2 net=blue              of a network by another name than weft
 *
 * Sources: include/uapi/linux/if.h (IFALIASZ 256, IFNAMSIZ 16).
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

/**
 * The alias of the node's end. What does not fit is left out: addresses and network first, then the end of the container id.
 */
export function podAlias(
  containerId: string,
  ifname: string,
  ips: readonly { readonly ip: Ip }[] = [],
  network = ownNetwork,
): string {
  const owner = `${aliasPrefix}${containerId.slice(0, maxAliasBytes - aliasPrefix.length - 1 - ifname.length)}/${ifname}`
  const named = network === ownNetwork ? [] : [`net=${network}`]
  const whole = [owner, ...ips.map(({ ip }) => `${ip}`), ...named].join(' ')
  return whole.length <= maxAliasBytes ? whole : owner
}

export interface PodIdentity {
  readonly containerId: string
  readonly ifname: string
  readonly ips: readonly Ip[]
  /** The name of its network. */
  readonly network: string
}

/** What an alias says; undefined for a device that is not a pod's, or whose container id may be cut. */
export function parsePodAlias(alias: string): PodIdentity | undefined {
  const match =
    /^weft-pod:([a-zA-Z0-9][a-zA-Z0-9_.-]*)\/([\x21-\x7e]{1,15})((?: [0-9a-f.:]+)*)(?: net=([a-zA-Z0-9_.-]+))?$/.exec(
      alias,
    )
  if (!match || `${aliasPrefix}${match[1]}/${match[2]}`.length === maxAliasBytes) return undefined
  const texts = match[3]!.split(' ').filter(Boolean)
  const ips = texts.map(Ip.tryParse).filter((ip) => ip !== undefined)
  if (ips.length !== texts.length) return undefined
  return { containerId: match[1]!, ifname: match[2]!, ips, network: match[4] ?? ownNetwork }
}
