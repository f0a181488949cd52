/**
 * A lab's specification: made from what the user typed, kept on disk, checked when read.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { parseNetConf } from '../config/flannel/net-conf.ts'
import { pathOf } from '../datapath/path.ts'
import { pathsOf } from '../datapath/transition.ts'
import { type BackendConfig, routesDirectly } from '../model/backend.ts'
import { ConfigError } from '../model/errors.ts'
import type { KubeObject } from './api/interfaces.ts'
import {
  isLabName,
  isNodeName,
  type LabSpec,
  labPaths,
  labRoots,
  MAX_NODES,
  MAX_SUBNETS,
  type NodeSpec,
  POD_CIDRS,
} from './layout.ts'
import { nameOfPools, POOL_BACKENDS, pathsOfPools, poolsFor } from './pools.ts'

/** What a cluster is told of its pod network, in the words of one dialect or of both. */
export interface NetworkWords {
  /** The text of flannel's net-conf.json. */
  readonly netConfig?: string
  /** Calico's IPPools. */
  readonly pools?: readonly KubeObject[]
}

/** The short names of data paths of net-conf.json that `up` and `switch` take, and the Backend object for each. */
export const BACKENDS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  vxlan: { Type: 'vxlan' },
  'vxlan-direct': { Type: 'vxlan', DirectRouting: true },
  'host-gw': { Type: 'host-gw' },
  udp: { Type: 'udp' },
  ipip: { Type: 'ipip' },
  'ipip-direct': { Type: 'ipip', DirectRouting: true },
  'kube-router': { Type: 'kube-router', 'overlay-type': 'full' },
  'kube-router-subnet': { Type: 'kube-router', 'overlay-type': 'subnet' },
  'kube-router-fou': { Type: 'kube-router', 'overlay-type': 'full', 'overlay-encap': 'fou' },
}

/** All short names, of both dialects. */
export const backendNames: readonly string[] = [...Object.keys(BACKENDS), ...Object.keys(POOL_BACKENDS)]

const unknownBackend = (backend: string): ConfigError =>
  new ConfigError('--backend', backend, `is not one of ${backendNames.join(', ')}`)

/** net-conf.json for a backend of flannel's by its short name. Throws ConfigError for a name that is none. */
export function netConfigFor(backend: string, ipv6: boolean): string {
  const Backend = BACKENDS[backend]
  if (!Backend) throw unknownBackend(backend)
  return JSON.stringify(
    {
      Network: String(POD_CIDRS.v4),
      // flannel's ipip carries IPv4 alone.
      ...(ipv6 && Backend.Type !== 'ipip' ? { EnableIPv6: true, IPv6Network: String(POD_CIDRS.v6) } : {}),
      Backend,
    },
    undefined,
    2,
  )
}

/** What a cluster is told for a short name of either dialect. Throws ConfigError for a name that is none. */
export function wordsFor(backend: string, lab: { readonly ipv6: boolean; readonly subnets: number }): NetworkWords {
  if (POOL_BACKENDS[backend]) return { pools: poolsFor(backend, lab) }
  return { netConfig: netConfigFor(backend, lab.ipv6) }
}

/** What a net-conf.json asks of the nodes. Throws ConfigError as an agent would. */
export interface WantedPaths {
  /** Short name of the data path. */
  readonly backend: string
  /** flannel's word for it, as nodes announce it. */
  readonly type: string
  /** Ids of the paths that every node uses once it has arrived. */
  readonly paths: readonly string[]
}

export function wantedPaths(netConfig: string, object = 'net-conf.json'): WantedPaths {
  const { backend } = parseNetConf(netConfig, object).config
  const direct = routesDirectly(backend)
  return { backend: shortName(backend), type: backend.type, paths: pathsOf({ path: pathOf(backend), direct }) }
}

function shortName(backend: BackendConfig): string {
  const direct = routesDirectly(backend)
  if (backend.type !== 'kube-router') return `${backend.type}${direct ? '-direct' : ''}`
  return `kube-router${backend.encap === 'fou' ? '-fou' : ''}${direct ? '-subnet' : ''}`
}

/** What each dialect asks of the nodes; one of which nothing is said is left out. Throws ConfigError as an agent would. */
export interface Wanted {
  readonly flannel?: WantedPaths
  /** Ids of paths. */
  readonly calico?: readonly string[]
}

export const wantedOf = ({ netConfig, pools }: NetworkWords): Wanted => ({
  ...(netConfig === undefined ? {} : { flannel: wantedPaths(netConfig) }),
  ...(pools === undefined ? {} : { calico: pathsOfPools(pools) }),
})

/** Short name of what new pods are given: `calico-ipip`, `vxlan`; that of both dialects, joined by `+`, where both have a say. */
export function nameOfWords({ netConfig, pools = [] }: NetworkWords): string {
  const names = [nameOfPools(pools), ...(netConfig === undefined ? [] : [nameOfNetConfig(netConfig)])]
  return names.filter((name) => name !== undefined).join('+') || 'none'
}

function nameOfNetConfig(text: string): string {
  try {
    return wantedPaths(text).backend
  } catch {
    return 'unreadable'
  }
}

export interface LabWish extends NetworkWords {
  readonly name: string
  readonly nodes: number
  readonly subnets: number
  readonly ipv6: boolean
  readonly mtuBytes?: number
  readonly kubernetes?: boolean
  readonly agents?: boolean
}

const within = (flag: string, value: number, low: number, high: number): void => {
  if (!Number.isInteger(value) || value < low || value > high)
    throw new ConfigError('weft lab up', flag, `must be a whole number from ${low} to ${high}`)
}

/** Nodes n1, n2, … spread over the subnets in turn. Throws ConfigError. */
export function makeSpec(wish: LabWish): LabSpec {
  if (!isLabName(wish.name))
    throw new ConfigError(
      'weft lab up',
      '--name',
      `${JSON.stringify(wish.name)}: up to 16 small letters and digits, a letter first`,
    )
  within('--nodes', wish.nodes, 1, MAX_NODES)
  within('--subnets', wish.subnets, 1, MAX_SUBNETS)
  if (wish.mtuBytes !== undefined) within('--mtu', wish.mtuBytes, 1280, 65535)
  wantedOf(wish)
  return {
    name: wish.name,
    subnets: wish.subnets,
    ipv6: wish.ipv6,
    ...(wish.mtuBytes === undefined ? {} : { mtuBytes: wish.mtuBytes }),
    ...(wish.netConfig === undefined ? {} : { netConfig: wish.netConfig }),
    ...(wish.pools === undefined ? {} : { pools: wish.pools }),
    ...(wish.kubernetes === undefined ? {} : { kubernetes: wish.kubernetes }),
    ...(wish.agents === undefined ? {} : { agents: wish.agents }),
    nodes: Array.from({ length: wish.nodes }, (_, i) => ({
      name: `n${i + 1}`,
      index: i + 1,
      subnet: i % wish.subnets,
    })),
    lastIndex: wish.nodes,
  }
}

/** An index that no node has had, or when all are used up the lowest that none has. Throws ConfigError. */
function freshIndex({ nodes, lastIndex = 0 }: LabSpec): number {
  const used = nodes.map(({ index }) => index)
  const next = Math.max(lastIndex, ...used) + 1
  const free = Array.from({ length: MAX_NODES }, (_, i) => i + 1).find((index) => !used.includes(index))
  const index = next <= MAX_NODES ? next : free
  if (index === undefined) throw new ConfigError('weft lab', 'nodes', `there are ${MAX_NODES} already`)
  return index
}

/** The spec with one more node. Throws ConfigError. */
export function withNode(
  spec: LabSpec,
  wish: { readonly name?: string; readonly subnet?: number },
): { spec: LabSpec; node: NodeSpec } {
  const index = freshIndex(spec)
  const node = { name: wish.name ?? `n${index}`, index, subnet: wish.subnet ?? (index - 1) % spec.subnets }
  if (!isNodeName(node.name))
    throw new ConfigError(
      'fault add-node',
      'NODE',
      `${JSON.stringify(node.name)}: up to 13 small letters, digits and dashes`,
    )
  if (spec.nodes.some((each) => each.name === node.name))
    throw new ConfigError('fault add-node', node.name, 'is there already')
  within('--subnet', node.subnet, 0, spec.subnets - 1)
  return { spec: { ...spec, nodes: [...spec.nodes, node], lastIndex: index }, node }
}

/** The spec with a node at another address of its subnet. Throws ConfigError. */
export function withNewAddress(spec: LabSpec, name: string): { spec: LabSpec; node: NodeSpec } {
  const standing = spec.nodes.find((each) => each.name === name)
  if (!standing) throw new ConfigError('node', name, `lab ${spec.name} has no such node`)
  const index = freshIndex(spec)
  const node = { ...standing, index }
  const nodes = spec.nodes.map((each) => (each === standing ? node : each))
  return { spec: { ...spec, nodes, lastIndex: index }, node }
}

export function writeSpec(spec: LabSpec): void {
  const paths = labPaths(spec.name)
  mkdirSync(paths.store, { recursive: true, mode: 0o700 })
  // Two commands at once may write the same lab: each has a file of its own until the rename.
  const written = `${paths.spec}.${process.pid}`
  writeFileSync(written, JSON.stringify(spec, undefined, 2))
  renameSync(written, paths.spec)
}

/** The spec of a lab that was made on this machine; undefined when there is none. */
export function readSpec(lab: string): LabSpec | undefined {
  const path = labPaths(lab).spec
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as LabSpec) : undefined
}

/** Names of all labs that left something in the lab directories. */
export function labNames(): string[] {
  const names = [labRoots.store, labRoots.run].flatMap((root) => (existsSync(root) ? readdirSync(root) : []))
  return [...new Set(names)].filter(isLabName).sort()
}
