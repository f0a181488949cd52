/**
 * flannel's words on a Node object, and weft's one beside them, read and written.
 *
 *   <prefix>/kube-subnet-manager "true"   backend-type "vxlan"   backend-data {"VNI":1,"VtepMAC":"…"}   backend-v6-data
 *   <prefix>/public-ip, public-ipv6       written by the node;   node-public-ip(v6), public-ip(v6)-overwrite are wishes
 *   weft.dev/node-status                  {"accepts":["vxlan/1/8472"],"sends":["host-gw"],"endpoints":{…}}
 *   weft.dev/wiring                       auto, bridge or routed: an administrator's
 *   projectcalico.org/…                   what Calico's nodes say of themselves (config/calico/node-annotations.ts)
 *
 * Anybody who may write Node objects wrote these: every length is bounded, and what cannot be read becomes a problem of
 * that node alone.
 *
 * Sources: flannel Documentation/kubernetes.md "Annotations", pkg/subnet/kube/annotations.go (names).
 */
import {
  formatNodeAnnotations,
  nodeAnnotationKeys,
  ownNodeAnnotationKeys,
  parseNodeAnnotations,
} from '../../config/calico/node-annotations.ts'
import type { FlannelLease, NodeInfo, WeftNodeStatus } from '../../model/cluster.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { type Announcement, type NodeWishes, type WiringChoice, wiringChoices } from '../cluster.ts'
import type { RawObject } from './informer.ts'
import { POD_CIDR_ANNOTATION, podCidrTexts, tryPodCidr } from './pod-cidr-texts.ts'

export const STATUS_ANNOTATION = 'weft.dev/node-status'
export const WIRING_ANNOTATION = 'weft.dev/wiring'

const MAX_TEXT = 4096
const MAX_ADDRESSES = 32
const MAX_CIDRS = 8
/** Lengths that the API itself allows: `<prefix of 253>/<name of 63>`. */
const MAX_LABELS = 1024
const MAX_LABEL_KEY = 317
const MAX_LABEL_VALUE = 63

/** Where Calico keeps the labels that it gave a node itself, as JSON; those of the Node object count more. */
const CALICO_LABELS = 'projectcalico.org/labels'

const SPEC_POD_CIDRS = 'spec.podCIDRs'

const leaseKeys = [
  'kube-subnet-manager',
  'backend-type',
  'backend-data',
  'backend-v6-data',
  'public-ip',
  'public-ipv6',
  'node-public-ip',
  'node-public-ipv6',
  'public-ip-overwrite',
  'public-ipv6-overwrite',
] as const
type LeaseKey = (typeof leaseKeys)[number]
const wholeKeys: readonly string[] = [STATUS_ANNOTATION, WIRING_ANNOTATION, ...nodeAnnotationKeys]
const announced: readonly LeaseKey[] = leaseKeys.slice(0, leaseKeys.indexOf('node-public-ip'))

/** All that is kept of a Node object. */
export interface ProjectedNode {
  readonly name: string
  readonly uid?: string
  /** Unix seconds. */
  readonly createdAtSeconds?: number
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
  /** Where they stand, unless in the spec. */
  readonly podCidrsKey?: string
  readonly labels: Readonly<Record<string, string>>
  /** Annotations under the prefix by their short name, the status and Calico's words under their whole names. */
  readonly annotations: Readonly<Record<string, string>>
}

type Json = Readonly<Record<string, unknown>>
const asJson = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {})
const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

/** The prefix as keys are written: flannel adds a slash, or a dash to a prefix that holds one already. */
export function annotationKey(prefix: string, key: string): string {
  if (prefix.endsWith('/') || prefix.endsWith('-')) return `${prefix}${key}`
  return prefix.includes('/') ? `${prefix}-${key}` : `${prefix}/${key}`
}

/** Cuts a Node object down. Never throws. */
export function projectNode(object: RawObject, prefix: string): ProjectedNode {
  const metadata = asJson(object.metadata)
  const spec = asJson(object.spec)
  const given = asJson(metadata.annotations)
  const annotations: Record<string, string> = {}
  const keep = (name: string, key: string) => {
    const value = given[key]
    if (typeof value === 'string') annotations[name] = value.slice(0, MAX_TEXT + 1)
  }
  for (const key of leaseKeys) keep(key, annotationKey(prefix, key))
  for (const key of wholeKeys) keep(key, key)
  const createdAt = Date.parse(String(metadata.creationTimestamp)) / 1000
  const { key: podCidrsKey, texts } = podCidrTexts(given, spec)
  if (podCidrsKey !== POD_CIDR_ANNOTATION) keep(POD_CIDR_ANNOTATION, POD_CIDR_ANNOTATION)
  return {
    name: String(metadata.name),
    ...(typeof metadata.uid === 'string' ? { uid: metadata.uid.slice(0, 64) } : {}),
    ...(Number.isFinite(createdAt) ? { createdAtSeconds: createdAt } : {}),
    addresses: asList(asJson(object.status).addresses)
      .map(asJson)
      .filter((entry) => entry.type === 'InternalIP' && typeof entry.address === 'string')
      .slice(0, MAX_ADDRESSES)
      .map((entry) => String(entry.address).slice(0, 64)),
    podCidrs: texts
      .slice(0, MAX_CIDRS)
      .map((text) => (podCidrsKey === SPEC_POD_CIDRS ? text : `${tryPodCidr(text) ?? text}`).slice(0, 64)),
    ...(podCidrsKey === SPEC_POD_CIDRS ? {} : { podCidrsKey }),
    labels: { ...labelsOf(parseJson(given[CALICO_LABELS])), ...labelsOf(metadata.labels) },
    annotations,
  }
}

/** What of it are labels. */
function labelsOf(value: unknown): Record<string, string> {
  const pairs = Object.entries(asJson(value)).filter(
    ([key, text]) => key.length <= MAX_LABEL_KEY && typeof text === 'string' && text.length <= MAX_LABEL_VALUE,
  )
  return Object.fromEntries(pairs.slice(0, MAX_LABELS)) as Record<string, string>
}

function parseJson(text: unknown): unknown {
  if (typeof text !== 'string') return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export interface ParsedNode {
  readonly node: NodeInfo
  readonly wishes: NodeWishes
  readonly problems: readonly ConfigError[]
}

/** Reads what was kept. A part that is wrong is left out and named in `problems`; a lease with a wrong part is left out whole. */
export function parseNode(projected: ProjectedNode, prefix: string): ParsedNode {
  const object = `Node ${projected.name}`
  const problems: ConfigError[] = []
  const attempt = <T>(key: string, read: () => T): T | undefined => {
    try {
      return read()
    } catch (cause) {
      problems.push(new ConfigError(object, key, (cause as Error).message, { cause }))
      return undefined
    }
  }
  const { annotations } = projected
  const value = <T>(key: LeaseKey, read: (text: string) => T): T | undefined => {
    const text = annotations[key]
    if (text === undefined || text === '') return undefined
    return attempt(annotationKey(prefix, key), () => {
      if (text.length > MAX_TEXT) throw new Error(`is longer than ${MAX_TEXT} characters`)
      return read(text)
    })
  }
  const address = (key: LeaseKey, family: Family) => value(key, (text) => parseAddress(text, family))
  const lease = parseLease(annotations, value, address, problems)
  const status = annotations[STATUS_ANNOTATION]
  const weft = status === undefined ? undefined : attempt(STATUS_ANNOTATION, () => parseStatus(status))
  const calico = parseNodeAnnotations(annotations, (key, cause) =>
    problems.push(new ConfigError(object, key, cause.message, { cause })),
  )
  const wishes = {
    publicIp: address('node-public-ip', 4),
    publicIpv6: address('node-public-ipv6', 6),
    publicIpOverwrite: address('public-ip-overwrite', 4),
    publicIpv6Overwrite: address('public-ipv6-overwrite', 6),
    wiring: annotations[WIRING_ANNOTATION]
      ? attempt(WIRING_ANNOTATION, () => parseWiring(annotations[WIRING_ANNOTATION]!))
      : undefined,
  }
  const podCidrs = readPodCidrs(projected, attempt)
  const addresses = projected.addresses.map((text) => attempt('status.addresses', () => Ip.parse(text)))
  return {
    node: {
      name: projected.name,
      ...(projected.uid === undefined ? {} : { uid: projected.uid }),
      ...(projected.createdAtSeconds === undefined ? {} : { createdAtSeconds: projected.createdAtSeconds }),
      addresses: addresses.filter((ip) => ip !== undefined),
      podCidrs: podCidrs.filter((cidr) => cidr !== undefined),
      ...(lease ? { lease } : {}),
      ...(weft ? { weft } : {}),
      ...(calico ? { calico } : {}),
      ...(Object.keys(projected.labels).length > 0 ? { labels: projected.labels } : {}),
    },
    wishes: defined(wishes),
    problems,
  }
}

/** What is written for one node by hand is named when it cannot be read. */
function readPodCidrs(
  { podCidrs, podCidrsKey, annotations }: ProjectedNode,
  attempt: <T>(key: string, read: () => T) => T | undefined,
): (Cidr | undefined)[] {
  const parse = (text: string): Cidr => {
    const cidr = tryPodCidr(text)
    if (!cidr) throw new Error(`${JSON.stringify(text.slice(0, 64))} is no block of addresses`)
    return cidr
  }
  const unread = annotations[POD_CIDR_ANNOTATION]
  if (unread) attempt(POD_CIDR_ANNOTATION, () => parse(unread))
  return podCidrs.map((text) =>
    podCidrsKey === undefined
      ? attempt(SPEC_POD_CIDRS, () => Cidr.parse(text))
      : attempt(podCidrsKey, () => parse(text)),
  )
}

function parseLease(
  annotations: Readonly<Record<string, string>>,
  value: <T>(key: LeaseKey, read: (text: string) => T) => T | undefined,
  address: (key: LeaseKey, family: Family) => Ip | undefined,
  problems: readonly ConfigError[],
): FlannelLease | undefined {
  if (annotations['kube-subnet-manager'] !== 'true') return undefined
  const before = problems.length
  const named = value('backend-type', (text) => {
    if (!/^[a-z0-9-]{1,32}$/.test(text))
      throw new Error(`${JSON.stringify(text.slice(0, 64))} is not the name of a backend`)
    return text
  })
  // flannel's udp backend alone does not say its name (pkg/backend/udp/udp_amd64.go).
  const backendType = annotations['backend-type'] === '' ? 'udp' : named
  const publicIp = address('public-ip', 4)
  const publicIpv6 = address('public-ipv6', 6)
  const backendData = value('backend-data', (text) => JSON.parse(text) as unknown)
  const backendV6Data = value('backend-v6-data', (text) => JSON.parse(text) as unknown)
  if (problems.length > before || backendType === undefined) return undefined
  return {
    backendType,
    ...defined({ publicIp, publicIpv6 }),
    ...(backendData === undefined || backendData === null ? {} : { backendData }),
    ...(backendV6Data === undefined || backendV6Data === null ? {} : { backendV6Data }),
  }
}

function parseWiring(text: string): WiringChoice {
  const found = wiringChoices.find((choice) => choice === text)
  if (!found) throw new Error(`${JSON.stringify(text.slice(0, 32))} is none of ${wiringChoices.join(', ')}`)
  return found
}

/** Reads weft's own annotation. Throws with what is wrong. */
export function parseStatus(text: string): WeftNodeStatus {
  if (text.length > MAX_TEXT) throw new Error(`is longer than ${MAX_TEXT} characters`)
  const fields = asJson(JSON.parse(text))
  const names = (key: string): string[] => {
    const list = asList(fields[key])
    if (list.length > 16 || !list.every((name) => typeof name === 'string' && /^[a-z0-9/.-]{1,64}$/.test(name)))
      throw new Error(`${key} is not a list of at most 16 data path names`)
    return list as string[]
  }
  const endpoints = fields.endpoints
  if (endpoints !== undefined && (typeof endpoints !== 'object' || endpoints === null || Array.isArray(endpoints)))
    throw new Error('endpoints is not an object')
  return {
    accepts: names('accepts'),
    sends: names('sends'),
    ...(endpoints === undefined ? {} : { endpoints: endpoints as Readonly<Record<string, unknown>> }),
  }
}

/** The annotations that an announcement is, named as ProjectedNode names them; null removes one that does not hold. */
export const formatAnnouncement = ({ lease, weft, calico }: Announcement): Record<string, string | null> => ({
  ...(lease === undefined ? {} : lease === null ? noLease : formatLease(lease)),
  ...(calico === undefined ? {} : formatNodeAnnotations(calico)),
  [STATUS_ANNOTATION]: JSON.stringify(weft),
})

const noLease: Readonly<Record<string, null>> = Object.fromEntries(announced.map((key) => [key, null]))

function formatLease(lease: FlannelLease): Record<string, string | null> {
  return {
    'kube-subnet-manager': 'true',
    'backend-type': lease.backendType,
    'backend-data': lease.publicIp || !lease.publicIpv6 ? JSON.stringify(lease.backendData ?? null) : null,
    'backend-v6-data': lease.publicIpv6 ? JSON.stringify(lease.backendV6Data ?? null) : null,
    'public-ip': lease.publicIp ? `${lease.publicIp}` : null,
    'public-ipv6': lease.publicIpv6 ? `${lease.publicIpv6}` : null,
  }
}

/** Every key that an agent may have announced by; an administrator's wishes are not among them. */
export const announcedKeys = (prefix: string): readonly string[] => [
  ...announced.map((key) => annotationKey(prefix, key)),
  STATUS_ANNOTATION,
  ...ownNodeAnnotationKeys,
]

/** The same under the names that the Node object has them by. */
export const annotationsByKey = (short: Record<string, string | null>, prefix: string): Record<string, string | null> =>
  Object.fromEntries(
    Object.entries(short).map(([key, text]) => [wholeKeys.includes(key) ? key : annotationKey(prefix, key), text]),
  )

function parseAddress(text: string, family: Family): Ip {
  const ip = Ip.parse(text)
  if (ip.family !== family) throw new Error(`${text} is not an IPv${family} address`)
  if (ip.isAny || ip.isMulticast || ip.isLoopback) throw new Error(`${text} cannot be a node's address`)
  return ip
}

/** The object without its undefined values. */
function defined<T extends Record<string, unknown>>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>
  }
}
