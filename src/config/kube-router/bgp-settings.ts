/**
 * kube-router's flags of BGP: the same names, defaults and limits.
 *
 * Sources: kube-router pkg/options/options.go (names, defaults), pkg/controllers/routing/network_routes_controller.go (limits
 * of hold time and AS numbers), pkg/bgp/peer_config.go (as many passwords and ports as peers, or none; reserved AS numbers),
 * pkg/bgp/bfd.go.
 */
import { decodeUtf8 } from '../../bytes/text.ts'
import { DEFAULT_ASN, DEFAULT_BGP_PORT } from '../../model/bgp.ts'
import { ConfigError } from '../../model/errors.ts'
import { Ip } from '../../net/ip.ts'

/** The flags without their dashes. */
export const BGP_KEYS = [
  'advertise-cluster-ip',
  'advertise-external-ip',
  'advertise-loadbalancer-ip',
  'advertise-pod-cidr',
  'bfd-desired-min-tx-interval',
  'bfd-detection-multiplier',
  'bfd-port',
  'bfd-required-min-rx-interval',
  'bgp-graceful-restart',
  'bgp-graceful-restart-deferral-time',
  'bgp-graceful-restart-time',
  'bgp-holdtime',
  'bgp-port',
  'cluster-asn',
  'enable-bfd',
  'enable-ibgp',
  'nodes-full-mesh',
  'override-nexthop',
  'peer-router-asns',
  'peer-router-ips',
  'peer-router-multihop-ttl',
  'peer-router-passwords',
  'peer-router-ports',
  'router-id',
] as const
export type BgpKey = (typeof BGP_KEYS)[number]

export interface KubeRouterPeer {
  readonly address: Ip
  readonly asn: number
  readonly port: number
  readonly password?: string
  readonly localAddress?: Ip
  readonly bfd?: KubeRouterBfd
}

export interface KubeRouterBfd {
  readonly port: number
  readonly detectMultiplier: number
  readonly minReceiveMs: number
  readonly minTransmitMs: number
}

export interface KubeRouterBgpSettings {
  readonly clusterAsn: number
  /** Every node is a peer of every other; otherwise those with the same AS are, and each node states its own. */
  readonly fullMesh: boolean
  readonly internalPeers: boolean
  /** Peers of every node. Of a node's own annotations none counts where there are any. */
  readonly peers: readonly KubeRouterPeer[]
  readonly multihopTtl: number
  readonly overrideNextHop: boolean
  /** `generate`, or an IPv4 address; undefined: the node's. */
  readonly routerId?: string
  readonly port: number
  readonly holdSeconds: number
  /** undefined: off. */
  readonly gracefulRestart?: { readonly restartSeconds: number; readonly deferralSeconds: number }
  readonly advertisePodCidr: boolean
  readonly advertiseClusterIp: boolean
  readonly advertiseExternalIp: boolean
  readonly advertiseLoadBalancerIp: boolean
}

const MAX_PEERS = 100
export const MAX_PASSWORD_BYTES = 80

/** Values are text, lists of text, or what the command line made of them; undefined: not given. Throws ConfigError. */
export type BgpFlagReader = (key: BgpKey) => unknown

/** Throws ConfigError naming the flag. */
export function parseBgpFlags(get: BgpFlagReader): KubeRouterBgpSettings {
  const flags = new Flags(get)
  const routerId = flags.text('router-id')
  if (routerId !== undefined && routerId !== 'generate' && Ip.tryParse(routerId)?.family !== 4)
    throw flags.error('router-id', `must be an IPv4 address or generate, not ${quoted(routerId)}`)
  const clusterAsn = flags.integer('cluster-asn', 0, 4294967294) || DEFAULT_ASN
  if (!isPrivate(clusterAsn))
    throw flags.error(
      'cluster-asn',
      `${clusterAsn} is not one of the private numbers, 64512–65535 and 4200000000–4294967294`,
    )
  return {
    clusterAsn,
    fullMesh: flags.flag('nodes-full-mesh') ?? true,
    internalPeers: flags.flag('enable-ibgp') ?? true,
    peers: readPeers(flags),
    multihopTtl: flags.integer('peer-router-multihop-ttl', 0, 255) ?? 0,
    overrideNextHop: flags.flag('override-nexthop') ?? false,
    ...(routerId !== undefined && { routerId }),
    port: flags.integer('bgp-port', 1, 65535) ?? DEFAULT_BGP_PORT,
    holdSeconds: flags.seconds('bgp-holdtime', 3, 65535) ?? 90,
    ...(flags.flag('bgp-graceful-restart') && {
      gracefulRestart: {
        restartSeconds: flags.seconds('bgp-graceful-restart-time', 0, 4095) ?? 90,
        deferralSeconds: flags.seconds('bgp-graceful-restart-deferral-time', 0, 65535) ?? 360,
      },
    }),
    advertisePodCidr: flags.flag('advertise-pod-cidr') ?? true,
    advertiseClusterIp: flags.flag('advertise-cluster-ip') ?? false,
    advertiseExternalIp: flags.flag('advertise-external-ip') ?? false,
    advertiseLoadBalancerIp: flags.flag('advertise-loadbalancer-ip') ?? false,
  }
}

function readPeers(flags: Flags): readonly KubeRouterPeer[] {
  const bfd: KubeRouterBfd | undefined = flags.flag('enable-bfd')
    ? {
        port: flags.integer('bfd-port', 1, 65535) ?? 3784,
        detectMultiplier: flags.integer('bfd-detection-multiplier', 1, 255) ?? 3,
        minReceiveMs: flags.integer('bfd-required-min-rx-interval', 1, 4294967) ?? 1000,
        minTransmitMs: flags.integer('bfd-desired-min-tx-interval', 1, 4294967) ?? 1000,
      }
    : undefined
  return readPeerLists(
    {
      addresses: flags.list('peer-router-ips'),
      asns: flags.list('peer-router-asns'),
      ports: flags.list('peer-router-ports'),
      passwords: flags.list('peer-router-passwords'),
      localAddresses: [],
    },
    {
      addresses: '--peer-router-ips',
      asns: '--peer-router-asns',
      ports: '--peer-router-ports',
      passwords: '--peer-router-passwords',
      localAddresses: '',
    },
    'weft agent',
    bfd,
  )
}

type PeerList = 'addresses' | 'asns' | 'ports' | 'passwords' | 'localAddresses'

/** Peers as lists of one value each, as flags and the older annotations have them. An empty item stands for none. */
export function readPeerLists(
  lists: Readonly<Record<PeerList, readonly string[]>>,
  keys: Readonly<Record<PeerList, string>>,
  object: string,
  bfd?: KubeRouterBfd,
): readonly KubeRouterPeer[] {
  const error = (list: PeerList, problem: string) => new ConfigError(object, keys[list], problem)
  const { addresses } = lists
  if (addresses.length > MAX_PEERS)
    throw error('addresses', `has ${addresses.length} peers; at most ${MAX_PEERS} are read`)
  for (const list of ['asns', 'ports', 'passwords', 'localAddresses'] as const) {
    const count = lists[list].length
    if (count !== addresses.length && (count > 0 || list === 'asns'))
      throw error(list, `has ${count} values for ${addresses.length} peers; an empty one stands for none`)
  }
  return addresses.map((text, index) => {
    const address = parsePeerAddress(text, (problem) => error('addresses', problem))
    const port = lists.ports[index] || `${DEFAULT_BGP_PORT}`
    const passwordText = lists.passwords[index]
    const localText = lists.localAddresses[index]
    const password = passwordText
      ? decodePassword(passwordText, () => error('passwords', 'item is no base64 of 1 to 80 bytes'))
      : undefined
    const localAddress = localText
      ? parsePeerAddress(localText, (problem) => error('localAddresses', problem))
      : undefined
    if (localAddress && localAddress.family !== address.family)
      throw error('localAddresses', `${localAddress} is of another family than the peer ${address}`)
    return {
      address,
      asn: parsePeerAsn(lists.asns[index]!, (problem) => error('asns', problem)),
      port: parsePort(port, (problem) => error('ports', problem)),
      ...(password !== undefined && { password }),
      ...(localAddress && { localAddress }),
      ...(bfd && { bfd }),
    }
  })
}

type Refuse = (problem: string) => ConfigError

export const quoted = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)

export function parsePeerAddress(text: string, refuse: Refuse): Ip {
  const ip = Ip.tryParse(text.trim())
  if (!ip || ip.isAny || ip.isMulticast) throw refuse(`must be a peer's address, not ${quoted(text)}`)
  return ip
}

export function parsePort(text: string, refuse: Refuse): number {
  const port = /^\d{1,5}$/.test(text.trim()) ? Number(text) : 0
  if (port < 1 || port > 65535) throw refuse(`must be a port, not ${quoted(text)}`)
  return port
}

/** Numbers that are reserved are refused, as by kube-router. */
export function parsePeerAsn(text: string, refuse: Refuse): number {
  const asn = /^\d{1,10}$/.test(text.trim()) ? Number(text) : 0
  const isFree =
    (asn >= 1 && asn <= 63999 && asn !== 23456) || (asn >= 64512 && asn <= 65534) || (asn >= 131072 && asn < 4294967295)
  if (!isFree) throw refuse(`must be an AS number that is not reserved, not ${quoted(text)}`)
  return asn
}

const isPrivate = (asn: number): boolean => (asn >= 64512 && asn <= 65535) || (asn >= 4200000000 && asn <= 4294967294)

/** Base64 of UTF-8. The text stands in no message: it is a password. */
export function decodePassword(text: string, refuse: () => ConfigError): string {
  const plain = text.trim()
  if (plain.length > 2 * MAX_PASSWORD_BYTES || !/^[A-Za-z0-9+/]+={0,2}$/.test(plain)) throw refuse()
  const bytes = Uint8Array.from(base64Bytes(plain))
  const password = decodeUtf8(bytes)
  if (bytes.length < 1 || bytes.length > MAX_PASSWORD_BYTES || password.includes('\ufffd')) throw refuse()
  return password
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

/** Six bits a character; what is left over at the end is padding. */
function base64Bytes(text: string): readonly number[] {
  const bytes: number[] = []
  let word = 0
  let bits = 0
  for (const character of text.replace(/=+$/, '')) {
    word = ((word << 6) | DIGITS.indexOf(character)) & 0x3fff
    bits += 6
    if (bits < 8) continue
    bits -= 8
    bytes.push((word >>> bits) & 255)
  }
  return bytes
}

class Flags {
  readonly #get: BgpFlagReader

  constructor(get: BgpFlagReader) {
    this.#get = get
  }

  error(key: BgpKey, problem: string): ConfigError {
    return new ConfigError('weft agent', `--${key}`, problem)
  }

  text(key: BgpKey): string | undefined {
    const value = this.#get(key)
    return value === undefined || value === '' ? undefined : String(value)
  }

  integer(key: BgpKey, least: number, most: number): number | undefined {
    const text = this.text(key)
    if (text === undefined) return undefined
    if (!/^\d{1,10}$/.test(text) || Number(text) < least || Number(text) > most)
      throw this.error(key, `must be a whole number from ${least} to ${most}, not ${quoted(text)}`)
    return Number(text)
  }

  flag(key: BgpKey): boolean | undefined {
    const text = this.text(key)
    if (text === undefined || text === 'true' || text === 'false') return text === undefined ? text : text === 'true'
    throw this.error(key, `must be true or false, not ${quoted(text)}`)
  }

  /** Go's text of a duration, or plain seconds. */
  seconds(key: BgpKey, least: number, most: number): number | undefined {
    const text = this.text(key)
    if (text === undefined) return undefined
    const [, hours, minutes, seconds] = /^(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s?)?$/.exec(text) ?? []
    const total = Number(hours ?? 0) * 3600 + Number(minutes ?? 0) * 60 + Number(seconds ?? 0)
    const isSaid = hours !== undefined || minutes !== undefined || seconds !== undefined
    if (!isSaid || total < least || total > most)
      throw this.error(key, `must be a duration from ${least}s to ${most}s, such as 90s or 6m, not ${quoted(text)}`)
    return total
  }

  /** Items may stand in one text, with commas between. */
  list(key: BgpKey): readonly string[] {
    const value = this.#get(key)
    if (value === undefined || value === '') return []
    return (Array.isArray(value) ? value : [value]).flatMap((item) => String(item).split(','))
  }
}
