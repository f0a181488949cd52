/**
 * Where everything of a lab lives: names of namespaces, directories, addresses. Pure arithmetic over the lab's
 * specification, so that `down` finds all of it by the lab's name alone, also when nothing else is left.
 *
 *     fabric (bridges net0, net1, …; the API server listens here)      outside
 *       net0 172.30.0.0/24 ── n1 n3 …        net1 172.30.1.0/24 ── n2 …     │ 198.51.100.0/24
 *         └───────────── router (172.30.k.1, knows no pod route) ──────────┘
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import type { KubeObject } from './api/interfaces.ts'

/** What the user asked for; kept in the store directory, so that a lab can be resumed after a crash or a reboot. */
export interface LabSpec {
  readonly name: string
  readonly subnets: number
  readonly ipv6: boolean
  /** MTU of every underlay device; 1500 when left out. */
  readonly mtuBytes?: number
  /** The text of net-conf.json as it was last put into the ConfigMap; without it there is no ConfigMap. */
  readonly netConfig?: string
  /** Calico's IPPools as `up` made them. */
  readonly pools?: readonly KubeObject[]
  readonly nodes: readonly NodeSpec[]
  /** The highest index that a node has had; that of `nodes` when left out. */
  readonly lastIndex?: number
  /** Loopback port of the API server, chosen once, so that a kubeconfig stays right over restarts. */
  readonly apiPort?: number
  /** Kubernetes' own programs instead of the lab's lite ones. */
  readonly kubernetes?: boolean
  /** With `kubernetes`: agents as plain processes; without them somebody else brings the nodes' network. */
  readonly agents?: boolean
  /** False when kube-controller-manager is to leave pod CIDRs to somebody else. */
  readonly allocateNodeCidrs?: boolean
}

export interface NodeSpec {
  readonly name: string
  /** Place in the lab, from 1; not given again before all are used up. Decides the host part of its addresses. */
  readonly index: number
  /** Which underlay subnet, from 0. */
  readonly subnet: number
}

export const POD_CIDRS = { v4: Cidr.parse('10.244.0.0/16'), v6: Cidr.parse('fd00:10:244::/56') } as const
export const POD_CIDR_LENGTHS = { v4: 24, v6: 64 } as const
export const SERVICE_CIDRS = { v4: '10.96.0.0/16', v6: 'fd00:10:96::/112' } as const
/** Port of the API server inside the fabric. */
export const FABRIC_API_PORT = 6443
export const MAX_NODES = 200
export const MAX_SUBNETS = 16

/** First host number of a node on its subnet; lower ones are the router (1) and the API server (2). */
const FIRST_NODE_HOST = 10

/** True for names that a lab may have: no dash, so that `weft-<lab>-` is never a prefix of another lab's names. */
export const isLabName = (name: string): boolean => /^[a-z][a-z0-9]{0,15}$/.test(name) && name !== 'test'

/** True for names that a node may have. */
export const isNodeName = (name: string): boolean =>
  /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(name) &&
  name.length <= 13 &&
  !/^(pod(-.*)?|fabric|router|outside|net\d+|lo)$/.test(name)

export const underlaySubnet = (subnet: number, family: 4 | 6): Cidr =>
  Cidr.parse(family === 4 ? `172.30.${subnet}.0/24` : `fd00:172:30:${subnet.toString(16)}::/64`)

export const routerAddress = (subnet: number, family: 4 | 6): Ip => underlaySubnet(subnet, family).base.plus(1)

/** Where nodes reach the API server: the fabric's own address on the first subnet. */
export const apiAddress = (family: 4 | 6): Ip => underlaySubnet(0, family).base.plus(2)

export const nodeAddress = (node: NodeSpec, family: 4 | 6): Ip =>
  underlaySubnet(node.subnet, family).base.plus(FIRST_NODE_HOST + node.index)

export const OUTSIDE = {
  router: { v4: Ip.parse('198.51.100.1'), v6: Ip.parse('2001:db8:51::1') },
  host: { v4: Ip.parse('198.51.100.10'), v6: Ip.parse('2001:db8:51::10') },
  lengths: { v4: 24, v6: 64 },
} as const

const NETNS_DIR = '/run/netns'
const RUN_ROOT = '/run/weft/labs'
const STORE_ROOT = '/var/lib/weft/labs'

export const labRoots = { run: RUN_ROOT, store: STORE_ROOT, netns: NETNS_DIR } as const

export const netnsPrefix = (lab: string): string => `weft-${lab}-`
export const netnsPath = (lab: string, place: string): string => join(NETNS_DIR, `${netnsPrefix(lab)}${place}`)

/** Paths of one lab. Absolute. */
export function labPaths(lab: string) {
  const run = join(RUN_ROOT, lab)
  const store = join(STORE_ROOT, lab)
  return {
    run,
    store,
    spec: join(store, 'lab.json'),
    objects: join(store, 'objects'),
    certificates: join(store, 'pki'),
    kubeconfig: join(run, 'kubeconfig'),
    control: join(run, 'lab.sock'),
    daemonLog: join(run, 'lab.log'),
    daemonPid: join(run, 'lab.pid'),
  }
}

/** Paths of one node. Absolute. */
export function nodePaths(lab: string, node: string) {
  const base = join(RUN_ROOT, lab, 'nodes', node)
  return {
    base,
    run: join(base, 'run'),
    cniBin: join(base, 'cni-bin'),
    cniConf: join(base, 'cni-conf'),
    log: join(base, 'log'),
    agentLog: join(base, 'log', 'agent.log'),
    kubeconfig: join(base, 'kubeconfig'),
    agentState: join(base, 'agent.json'),
    pods: join(base, 'pods'),
    cniCache: join(base, 'cni-cache'),
  }
}

/** Root of the checkout or installation: the nearest directory above this file with weft's package.json. */
export function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (folder !== '/') {
    const manifest = join(folder, 'package.json')
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'weft') return folder
    folder = dirname(folder)
  }
  throw new Error('weft is not inside its own directory: no package.json of that name above the program')
}

/** A program that the build puts into dist/native. Throws when it is not there. */
export function nativeProgram(name: 'weft-cni' | 'weft-pod' | 'weft-tunnel'): string {
  const path = join(projectRoot(), 'dist', 'native', name)
  if (!existsSync(path)) throw new Error(`${path} is missing: run scripts/setup.sh`)
  return path
}
