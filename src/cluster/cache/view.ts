/**
 * What an agent knew of its cluster, as a file: this node, its peers and the network configuration, so that an agent that
 * starts while the store is away has something to work from.
 *
 *   weft-cluster-view 1 <time> <SHA-256 of the time and the body>\n{"node":…,"store":…,"network":…,"written":[…],"nodes":[…]}
 *
 * The file is replaced by renaming and checked whole before anything of it is believed: another version, another node's,
 * another store's, a torn or an edited one is refused with the reason. The words in it are as foreign as they were when the
 * store said them, and pass the same checks behind this one.
 */
import type { CalicoNode } from '../../model/calico.ts'
import type { FlannelLease, NodeInfo, WeftNodeStatus } from '../../model/cluster.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import { type NodeWishes, wiringChoices } from '../cluster.ts'
import { parseStatus } from '../kubernetes/annotations.ts'
import { MAX_SEALED_BYTES, parseSealed, readSealed, type Seal, type SealedText, writeSealed } from './sealed-file.ts'

export const VIEW_VERSION = 1
const seal: Seal = { kind: 'weft-cluster-view', version: VIEW_VERSION, what: 'the view of a cluster' }
/** A view larger than this is neither written nor read. */
export const MAX_VIEW_BYTES = MAX_SEALED_BYTES
const MAX_NODES = 20_000
const MAX_WRITTEN = 16

/** Whose view of what: a view of another identity is not read. */
export interface ViewIdentity {
  readonly node: string
  /** Kind, addresses and prefix of the store. */
  readonly store: string
}

export interface RememberedNode {
  readonly node: NodeInfo
  readonly wishes: NodeWishes
}

export interface ClusterView {
  /** ISO 8601, for people. */
  readonly savedAt: string
  readonly network?: { readonly text: string; readonly object: string }
  /** Statuses of this node that were being written and had not come back from the store. */
  readonly written: readonly WeftNodeStatus[]
  readonly nodes: readonly RememberedNode[]
}

/** The body of the file: everything but the time. Equal views have equal bodies. */
export const formatViewBody = (identity: ViewIdentity, view: Omit<ClusterView, 'savedAt'>): string =>
  JSON.stringify({ ...identity, network: view.network, written: view.written, nodes: view.nodes })

/** Replaces the file; readers see the old one or the new. Throws what the file system says. Mode 0600. */
export const writeView = (path: string, savedAt: string, body: string): void =>
  writeSealed(path, seal, { savedAt, body })

/** Undefined when there is no file; throws with the reason when it cannot be believed. */
export function readView(path: string, identity: ViewIdentity): ClusterView | undefined {
  const sealed = readSealed(path, seal)
  return sealed && parseBody(sealed, identity)
}

/** Reads what `writeView` wrote. Throws with what is wrong. */
export const parseView = (text: string, identity: ViewIdentity): ClusterView =>
  parseBody(parseSealed(text, seal), identity)

function parseBody({ savedAt, body }: SealedText, identity: ViewIdentity): ClusterView {
  const fields = asFields(JSON.parse(body))
  if (fields.node !== identity.node) throw new Error(`it is that of node ${String(fields.node).slice(0, 64)}`)
  if (fields.store !== identity.store) throw new Error('it is that of another store')
  const network = fields.network === undefined ? undefined : asFields(fields.network)
  return {
    savedAt,
    ...(network ? { network: { text: asText(network.text), object: asText(network.object) } } : {}),
    written: asList(fields.written, MAX_WRITTEN).map((status) => parseStatus(JSON.stringify(status))),
    nodes: asList(fields.nodes, MAX_NODES).map((entry) => parseRemembered(asFields(entry))),
  }
}

/** Keys in the order that sources give them, so that equal nodes have equal texts. */
function parseRemembered(fields: Fields): RememberedNode {
  const node = asFields(fields.node)
  const { createdAtSeconds, lease, weft, calico, labels } = node
  return {
    node: {
      name: asText(node.name),
      ...(node.uid === undefined ? {} : { uid: asText(node.uid) }),
      ...(typeof createdAtSeconds === 'number' ? { createdAtSeconds } : {}),
      addresses: asList(node.addresses, 64).map((text) => Ip.parse(asText(text))),
      podCidrs: asList(node.podCidrs, 64).map((text) => Cidr.parse(asText(text))),
      ...(lease === undefined ? {} : { lease: parseLease(asFields(lease)) }),
      ...(weft === undefined ? {} : { weft: parseStatus(JSON.stringify(weft)) }),
      ...(calico === undefined ? {} : { calico: parseCalico(asFields(calico)) }),
      ...(labels === undefined ? {} : { labels: parseLabels(asFields(labels)) }),
    },
    wishes: parseWishes(asFields(fields.wishes)),
  }
}

function parseWishes(fields: Fields): NodeWishes {
  const addresses = (['publicIp', 'publicIpv6', 'publicIpOverwrite', 'publicIpv6Overwrite'] as const)
    .filter((key) => fields[key] !== undefined)
    .map((key) => [key, Ip.parse(asText(fields[key]))])
  const wiring = wiringChoices.find((choice) => choice === fields.wiring)
  return { ...Object.fromEntries(addresses), ...(wiring ? { wiring } : {}) }
}

function parseLease({ publicIp, publicIpv6, backendType, backendData, backendV6Data }: Fields): FlannelLease {
  return {
    backendType: asText(backendType),
    ...(publicIp === undefined ? {} : { publicIp: Ip.parse(asText(publicIp)) }),
    ...(publicIpv6 === undefined ? {} : { publicIpv6: Ip.parse(asText(publicIpv6)) }),
    ...(backendData === undefined ? {} : { backendData }),
    ...(backendV6Data === undefined ? {} : { backendV6Data }),
  }
}

const asIp = (value: unknown): Ip => Ip.parse(asText(value))
const asMac = (value: unknown): Mac => Mac.parse(asText(value))

function asInterface(value: unknown): { readonly ip: Ip; readonly prefixLength: number } {
  const { ip, prefixLength } = asFields(value)
  return { ip: asIp(ip), prefixLength: asNumber(prefixLength) }
}

const calicoWords: { readonly [K in keyof CalicoNode]-?: (value: unknown) => NonNullable<CalicoNode[K]> } = {
  ipv4: asInterface,
  ipv6: asInterface,
  asNumber,
  routeReflectorClusterId: asText,
  ipv4IpipTunnelAddr: asIp,
  ipv4VxlanTunnelAddr: asIp,
  ipv6VxlanTunnelAddr: asIp,
  vxlanTunnelMac: asMac,
  vxlanTunnelMacV6: asMac,
}

const parseCalico = (fields: Fields): CalicoNode =>
  Object.fromEntries(
    Object.entries(calicoWords).flatMap(([key, read]) => (fields[key] === undefined ? [] : [[key, read(fields[key])]])),
  )

const parseLabels = (fields: Fields): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, asText(value)]))

type Fields = Readonly<Record<string, unknown>>

function asFields(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('a part of it is no object')
  return value as Fields
}

function asList(value: unknown, most: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length > most) throw new Error(`a part of it is no list of at most ${most}`)
  return value
}

function asNumber(value: unknown): number {
  if (typeof value !== 'number') throw new Error('a part of it is no number')
  return value
}

function asText(value: unknown): string {
  if (typeof value !== 'string') throw new Error('a part of it is no text')
  return value
}
