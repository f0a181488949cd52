/**
 * What nodes and Services say of BGP in kube-router's words: annotations `kube-router.io/…`. What is wrong with one leaves the
 * others alone, and is named.
 *
 * Sources: kube-router pkg/controllers/routing/network_routes_controller.go (startBgpServer, bgpPeerConfigsFromAnnotations),
 * ecmp_vip.go (shouldAdvertiseService), pkg/bgp/peer_config.go and bfd.go (keys of peers), pkg/bgp/id.go (communities).
 */
import { DEFAULT_BGP_PORT } from '../../model/bgp.ts'
import { formatCommunity, parseCommunity } from '../../model/bgp-community.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import {
  decodePassword,
  type KubeRouterBfd,
  type KubeRouterPeer,
  parsePeerAddress,
  parsePeerAsn,
  parsePort,
  quoted,
  readPeerLists,
} from './bgp-settings.ts'

const PREFIX = 'kube-router.io/'

/** Annotations of nodes, without their prefix. */
export const nodeBgpAnnotations = [
  'bgp-local-addresses',
  'node.asn',
  'node.bgp.communities',
  'node.bgp.customimportreject',
  'path-prepend.as',
  'path-prepend.repeat-n',
  'peer.asns',
  'peer.ips',
  'peer.localips',
  'peer.passwords',
  'peer.ports',
  'peers',
  'rr.client',
  'rr.server',
] as const
export type NodeBgpAnnotation = (typeof nodeBgpAnnotations)[number]

/** Annotations of Services. */
export const serviceBgpAnnotations = {
  clusterIp: 'service.advertise.clusterip',
  externalIp: 'service.advertise.externalip',
  loadBalancerIp: 'service.advertise.loadbalancerip',
  local: 'service.local',
  skipLoadBalancerIps: 'service.skiplbips',
} as const

export interface KubeRouterNode {
  readonly asn?: number
  /** Reflects routes of its clients under this cluster id. */
  readonly reflectorClusterId?: string
  /** Speaks with reflectors alone. */
  readonly isReflectorClient: boolean
  readonly peers: readonly KubeRouterPeer[]
  readonly prepend?: { readonly asn: number; readonly count: number }
  readonly communities: readonly string[]
  readonly importReject: readonly Cidr[]
  /** undefined: the node's own addresses. */
  readonly listenAddresses?: readonly Ip[]
  readonly problems: readonly ConfigError[]
}

const MAX_TEXT = 64 * 1024
const MAX_ITEMS = 1000

/** Parses YAML; the pure rooms have no parser of their own. Throws on text that is none. */
export type ParseYaml = (text: string) => unknown

export type KubeRouterRole = Pick<KubeRouterNode, 'asn' | 'reflectorClusterId' | 'isReflectorClient'>

/** What other nodes need to know of one. Never throws; what cannot be read is that node's own to say. */
export const parseKubeRouterRole = (name: string, annotations: Readonly<Record<string, string>>): KubeRouterRole =>
  readRole(new Annotations(name, annotations))

/** Never throws; `problems` names node and annotation. */
export function parseKubeRouterNode(
  name: string,
  annotations: Readonly<Record<string, string>>,
  parseYaml: ParseYaml,
): KubeRouterNode {
  const words = new Annotations(name, annotations)
  const peers =
    words.text('peers') === undefined
      ? words.read('peer.ips', () => readLists(words))
      : words.read('peers', (text, refuse) => parsePeers(text, parseYaml, refuse))
  const prepend = readPrepend(words)
  const listenAddresses = words.read('bgp-local-addresses', (text, refuse) =>
    items(text, refuse).map((item) => parsePeerAddress(item, refuse)),
  )
  return {
    ...readRole(words),
    peers: peers ?? [],
    ...(prepend && { prepend }),
    communities: words.read('node.bgp.communities', parseCommunities) ?? [],
    importReject: words.read('node.bgp.customimportreject', parseCidrs) ?? [],
    ...(listenAddresses?.length && { listenAddresses }),
    problems: words.problems,
  }
}

function readRole(words: Annotations): KubeRouterRole {
  const asn = words.read('node.asn', parsePeerAsn)
  const server = words.read('rr.server', parseClusterId)
  const client = words.read('rr.client', parseClusterId)
  return {
    ...(asn !== undefined && { asn }),
    ...(server !== undefined && { reflectorClusterId: server }),
    isReflectorClient: server === undefined && client !== undefined,
  }
}

/** The annotations of one node. */
class Annotations {
  readonly object: string
  readonly problems: ConfigError[] = []
  readonly #texts: Readonly<Record<string, string>>

  constructor(node: string, texts: Readonly<Record<string, string>>) {
    this.object = `Node ${node}`
    this.#texts = texts
  }

  text(key: NodeBgpAnnotation): string | undefined {
    return this.#texts[PREFIX + key]
  }

  error(key: NodeBgpAnnotation, problem: string): ConfigError {
    return new ConfigError(this.object, PREFIX + key, problem)
  }

  /** undefined when it is missing, or cannot be read and is a problem. */
  read<T>(key: NodeBgpAnnotation, parse: (text: string, refuse: Refuse) => T): T | undefined {
    const text = this.text(key)
    if (text === undefined) return undefined
    const refuse = (problem: string) => this.error(key, problem)
    try {
      if (text.length > MAX_TEXT) throw refuse(`is longer than ${MAX_TEXT} characters`)
      return parse(text.trim(), refuse)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.problems.push(error)
      return undefined
    }
  }
}

type Refuse = (problem: string) => ConfigError

function items(text: string, refuse: Refuse): readonly string[] {
  const list = text.split(',').map((item) => item.trim())
  if (list.length > MAX_ITEMS) throw refuse(`has ${list.length} items; at most ${MAX_ITEMS} are read`)
  return list
}

/** An IPv4 address, or a number of 32 bits that is written as one. */
function parseClusterId(text: string, refuse: Refuse): string {
  const number = /^\d{1,10}$/.test(text) ? Number(text) : -1
  if (number > 0 && number < 2 ** 32) return `${Ip.v4(number)}`
  const ip = Ip.tryParse(text)
  if (ip?.family !== 4 || ip.isAny)
    throw refuse(`must be a cluster id, a number or an IPv4 address, not ${quoted(text)}`)
  return `${ip}`
}

function parseCommunities(text: string, refuse: Refuse): readonly string[] {
  return items(text, refuse).map((item) => {
    const community = parseCommunity(item)
    if (community?.kind !== 'standard') throw refuse(`${quoted(item)} is no community of 32 bits`)
    return formatCommunity(community)
  })
}

function parseCidrs(text: string, refuse: Refuse): readonly Cidr[] {
  return items(text, refuse).map((item) => {
    const cidr = Cidr.tryParse(item)
    if (!cidr) throw refuse(`${quoted(item)} is no prefix`)
    return cidr
  })
}

const MAX_PREPENDED = 25

function readPrepend(words: Annotations): KubeRouterNode['prepend'] {
  const asn = words.read('path-prepend.as', parsePeerAsn)
  const count = words.read('path-prepend.repeat-n', (text, refuse) => {
    if (!/^\d{1,3}$/.test(text) || Number(text) > MAX_PREPENDED)
      throw refuse(`must be a number up to ${MAX_PREPENDED}, not ${quoted(text)}`)
    return Number(text)
  })
  if (asn !== undefined && words.text('path-prepend.repeat-n') === undefined)
    words.problems.push(words.error('path-prepend.repeat-n', 'is missing: path-prepend.as needs it'))
  return asn !== undefined && count ? { asn, count } : undefined
}

/** The older annotations: a list each. */
function readLists(words: Annotations): readonly KubeRouterPeer[] {
  const list = (key: NodeBgpAnnotation) =>
    words
      .text(key)
      ?.split(',')
      .map((item) => item.trim()) ?? []
  return readPeerLists(
    {
      addresses: list('peer.ips'),
      asns: list('peer.asns'),
      ports: list('peer.ports'),
      passwords: list('peer.passwords'),
      localAddresses: list('peer.localips'),
    },
    {
      addresses: `${PREFIX}peer.ips`,
      asns: `${PREFIX}peer.asns`,
      ports: `${PREFIX}peer.ports`,
      passwords: `${PREFIX}peer.passwords`,
      localAddresses: `${PREFIX}peer.localips`,
    },
    words.object,
  )
}

const MAX_PEERS = 100

/** `[{remoteip, remoteasn, localip, password, port, bfd: {…}}]` in YAML. */
function parsePeers(text: string, parseYaml: ParseYaml, refuse: Refuse): readonly KubeRouterPeer[] {
  let list: unknown
  try {
    list = parseYaml(text)
  } catch (cause) {
    throw refuse(`is no YAML: ${(cause as Error).message.split('\n')[0]}`)
  }
  if (list === null || list === undefined) return []
  if (!Array.isArray(list) || list.length > MAX_PEERS) throw refuse(`must be a list of at most ${MAX_PEERS} peers`)
  return list.map((item: unknown, index) => parsePeer(item, (problem) => refuse(`[${index}]${problem}`)))
}

function parsePeer(value: unknown, refuse: Refuse): KubeRouterPeer {
  const peer = fieldsOf(value, refuse)
  const text = (key: string) => (peer[key] === undefined || peer[key] === null ? undefined : String(peer[key]))
  const at =
    (key: string): Refuse =>
    (problem) =>
      refuse(`.${key}: ${problem}`)
  const needed = (key: string) => {
    const found = text(key)
    if (found === undefined) throw refuse(`.${key}: is missing`)
    return found
  }
  const address = parsePeerAddress(needed('remoteip'), at('remoteip'))
  const local = text('localip')
  const localAddress = local ? parsePeerAddress(local, at('localip')) : undefined
  if (localAddress && localAddress.family !== address.family)
    throw refuse(`.localip: ${localAddress} is of another family than the peer ${address}`)
  const password = text('password')
  const bfd = peer.bfd === undefined || peer.bfd === null ? undefined : parseBfd(peer.bfd, at('bfd'))
  return {
    address,
    asn: parsePeerAsn(needed('remoteasn'), at('remoteasn')),
    port: parsePort(text('port') ?? `${DEFAULT_BGP_PORT}`, at('port')),
    ...(password && { password: decodePassword(password, () => refuse('.password: is no base64 of 1 to 80 bytes')) }),
    ...(localAddress && { localAddress }),
    ...(bfd && { bfd }),
  }
}

function fieldsOf(value: unknown, refuse: Refuse): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse(': must be an object')
  return value as Readonly<Record<string, unknown>>
}

function parseBfd(value: unknown, refuse: Refuse): KubeRouterBfd | undefined {
  const fields = fieldsOf(value, refuse)
  const number = (key: string, usual: number, most: number) => {
    const said = fields[key] ?? usual
    if (typeof said !== 'number' || !Number.isInteger(said) || said < 1 || said > most)
      throw refuse(`.${key} must be a whole number from 1 to ${most}`)
    return said
  }
  const bfd = {
    port: number('port', 3784, 65535),
    detectMultiplier: number('detection_multiplier', 3, 255),
    minReceiveMs: number('required_min_rx_interval', 1000, 4294967),
    minTransmitMs: number('desired_min_tx_interval', 1000, 4294967),
  }
  return fields.enabled === true ? bfd : undefined
}
