/**
 * kube-router's flags and annotations, nodes and Services, compiled into what the speaker of one node is told.
 *
 *   with whom   every node (--nodes-full-mesh), or every node of the same AS (node.asn); clients of a reflector with
 *               reflectors alone; the peers of the flags, or without any those of the node's annotations
 *   told        nodes: this node's pod CIDRs. Outside peers: those (--advertise-pod-cidr) and addresses of Services, with
 *               the node's prepended path and communities. From reflectors also what others told
 *   taken       everything but addresses of Services that are told, default routes, and what the node's list rejects
 *
 * Sources: kube-router pkg/controllers/routing/bgp_peers.go (syncInternalPeers, newGlobalPeers), bgp_policies.go,
 * network_routes_controller.go (startBgpServer), pkg/bgp/id.go.
 */
import type { LocalRoute, PeerConfig, PolicyConfig, PolicyRule, PrefixSetConfig, RouteChange } from '../../model/bgp.ts'
import { type BgpNode, type BgpPlan, type BgpService, nodeAddressOf } from '../../model/bgp-cluster.ts'
import type { BlockRoutes } from '../../model/calico.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Family, Ip } from '../../net/ip.ts'
import { leakGuard, ownershipOf } from '../bgp/leak-guard.ts'
import {
  byName,
  capabilitiesOf,
  DEFAULT_DEFERRAL_SECONDS,
  familyOf,
  MAX_PATHS,
  noRestart,
  peerNameOf,
  restartOf,
  routerIdOf,
  timersOf,
} from '../bgp/peer-settings.ts'
import { type KubeRouterNode, type ParseYaml, parseKubeRouterNode, parseKubeRouterRole } from './bgp-node.ts'
import { vipRoutes } from './bgp-services.ts'
import type { KubeRouterBgpSettings, KubeRouterPeer } from './bgp-settings.ts'

export interface KubeRouterBgpInput {
  /** Name of this node. */
  readonly node: string
  readonly nodes: ReadonlyMap<string, BgpNode>
  readonly settings: KubeRouterBgpSettings
  readonly services: readonly BgpService[]
  readonly parseYaml: ParseYaml
}

const IMPORT = 'kube-router-import'
const EXPORT_INSIDE = 'kube-router-export-nodes'
const EXPORT_OUTSIDE = 'kube-router-export-peers'
const SERVICES = 'service-addresses'

/** What is the same for every peer of this node. */
interface Common {
  readonly self: BgpNode
  readonly own: KubeRouterNode
  readonly asn: number
  readonly settings: KubeRouterBgpSettings
  readonly problems: ConfigError[]
}

const FAMILIES = [4, 6] as const

export function planKubeRouterBgp(input: KubeRouterBgpInput): BgpPlan {
  const { settings, nodes } = input
  const self = nodes.get(input.node)
  const refuse = (key: string, problem: string): BgpPlan => ({
    speaker: undefined,
    localRoutes: [],
    notProgrammed: [],
    problems: [new ConfigError(`Node ${input.node}`, key, problem)],
  })
  if (!self) return refuse('(whole)', 'is not known: it speaks no BGP')
  const primary = nodeAddressOf(self, self.primaryFamily)
  if (!primary) return refuse('status.addresses', 'has none: it speaks no BGP')
  const own = parseKubeRouterNode(self.name, self.annotations, input.parseYaml)
  const asn = settings.fullMesh ? settings.clusterAsn : own.asn
  if (asn === undefined)
    return refuse('kube-router.io/node.asn', 'is missing: without --nodes-full-mesh each node states its own')
  const common: Common = { self, own, asn, settings, problems: [...own.problems] }
  const services = [...input.services].sort((a, b) =>
    `${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1,
  )
  const vips = vipRoutes(settings, services)
  const inside = settings.internalPeers ? [...nodes.values()].flatMap((node) => nodePeer(node, common) ?? []) : []
  const outside = outsidePeers(common, inside)
  return {
    speaker: {
      asn,
      routerId: routerIdFor(settings.routerId, self),
      ...(own.reflectorClusterId !== undefined && { clusterId: own.reflectorClusterId }),
      listen: { port: settings.port, addresses: listenAddresses(common).map(String) },
      peers: [...inside, ...outside].sort(byName),
      dynamicPeers: [],
      multipath: { maxPaths: MAX_PATHS, asPathRelax: false },
      policies: policiesOf(common),
      prefixSets: [serviceSet(vips)],
      ownership: ownershipOf(blocksOf(nodes.values()), nodes),
      externalNeedsPolicy: false,
      deferralSeconds: settings.gracefulRestart?.deferralSeconds ?? DEFAULT_DEFERRAL_SECONDS,
    },
    localRoutes: localRoutesOf(self, vips),
    notProgrammed: [],
    problems: common.problems,
  }
}

function routerIdFor(asked: string | undefined, self: BgpNode): string {
  const isOwn = asked === undefined && self.primaryFamily === 4 && self.ipv4
  return isOwn ? `${self.ipv4!.ip}` : asked === undefined || asked === 'generate' ? routerIdOf(self.name) : asked
}

function listenAddresses({ self, own }: Common): readonly Ip[] {
  return own.listenAddresses ?? FAMILIES.flatMap((family) => nodeAddressOf(self, family)?.ip ?? [])
}

/** undefined: no session with this node. */
function nodePeer(node: BgpNode, common: Common): PeerConfig | undefined {
  const { self, own, asn, settings } = common
  const address = nodeAddressOf(node, node.primaryFamily)?.ip
  if (node.name === self.name || !address || node.primaryFamily !== self.primaryFamily) return undefined
  const their = parseKubeRouterRole(node.name, node.annotations)
  if (own.isReflectorClient && their.reflectorClusterId === undefined) return undefined
  if (!settings.fullMesh && their.asn !== asn) return undefined
  const families = FAMILIES.filter((family) => nodeAddressOf(node, family) && nodeAddressOf(self, family))
  return {
    ...peerBase(common, address, settings.port),
    description: `node ${node.name}`,
    origin: settings.fullMesh ? 'mesh' : `nodes of AS ${asn}`,
    remoteAsn: asn,
    localAddress: `${nodeAddressOf(self, self.primaryFamily)!.ip}`,
    families: families.map((family) => familyOf(family, familyPolicies([leakGuard.name, IMPORT], EXPORT_INSIDE))),
    reflectorClient: own.reflectorClusterId !== undefined && their.isReflectorClient,
  }
}

function outsidePeers(common: Common, inside: readonly PeerConfig[]): readonly PeerConfig[] {
  const { self, own, settings, problems } = common
  const [listed, where] = settings.peers.length > 0 ? [settings.peers, '--peer-router-ips'] : [own.peers, 'annotations']
  const names = new Set(inside.map(({ name }) => name))
  const peers: PeerConfig[] = []
  for (const peer of listed) {
    const local = peer.localAddress ?? nodeAddressOf(self, self.primaryFamily)?.ip
    const refuse = (problem: string) =>
      problems.push(new ConfigError(`Node ${self.name}`, where, `peer ${peer.address}: ${problem}`))
    const config = outsidePeer(peer, common, where)
    if (local?.family !== peer.address.family) refuse(`is of another family than our address ${local}`)
    else if (names.has(config.name)) refuse('is there already')
    else peers.push({ ...config, localAddress: `${local}` })
    names.add(config.name)
  }
  return peers
}

function outsidePeer(peer: KubeRouterPeer, common: Common, where: string): PeerConfig {
  const { settings, self } = common
  const { bfd } = peer
  const families = FAMILIES.filter((family) => nodeAddressOf(self, family))
  return {
    ...peerBase(common, peer.address, peer.port),
    origin: where,
    remoteAsn: peer.asn,
    ...(peer.password !== undefined && { password: peer.password }),
    ...(settings.multihopTtl > 1 && { multihopTtl: settings.multihopTtl }),
    families: families.map((family) => familyOf(family, familyPolicies([IMPORT], EXPORT_OUTSIDE))),
    reflectorClient: false,
    ...(bfd && {
      bfd: {
        multihop: false,
        minTransmitMicroseconds: bfd.minTransmitMs * 1000,
        minReceiveMicroseconds: bfd.minReceiveMs * 1000,
        detectMultiplier: bfd.detectMultiplier,
        port: bfd.port,
      },
    }),
  }
}

function peerBase({ self, settings: { gracefulRestart, holdSeconds } }: Common, address: Ip, port: number) {
  return {
    name: peerNameOf(address, port),
    address: `${address}`,
    port,
    passive: false,
    timers: timersOf(holdSeconds),
    capabilities: capabilitiesOf(self.name),
    gracefulRestart: gracefulRestart ? restartOf(gracefulRestart.restartSeconds) : noRestart,
    allowedLocalAsns: 0,
  }
}

const familyPolicies = (importPolicies: readonly string[], exportPolicy: string) => ({
  importPolicies,
  exportPolicies: [exportPolicy],
  importDefault: 'accept' as const,
  exportDefault: 'reject' as const,
  nextHop: 'auto' as const,
})

function policiesOf({ own, settings }: Common): readonly PolicyConfig[] {
  const rule = (
    name: string,
    match: PolicyRule['match'],
    verdict: PolicyRule['verdict'],
    changes: RouteChange[] = [],
  ) => ({
    name,
    match,
    changes,
    verdict,
  })
  const rejected = own.importReject.map((cidr) => ({ prefix: `${cidr}` }))
  const defaults = [
    { prefix: '0.0.0.0/0', maxLength: 0 },
    { prefix: '::/0', maxLength: 0 },
  ]
  const others = own.reflectorClusterId === undefined ? [] : [rule('what others told', { source: 'peers' }, 'accept')]
  const changes = outsideChanges(own, settings)
  return [
    leakGuard,
    {
      name: IMPORT,
      rules: [
        rule('an address of a Service', { prefixes: { set: SERVICES } }, 'reject'),
        rule('a default route', { prefixes: { set: defaults } }, 'reject'),
        ...(rejected.length > 0
          ? [rule('node.bgp.customimportreject', { prefixes: { set: rejected } }, 'reject')]
          : []),
      ],
    },
    {
      name: EXPORT_INSIDE,
      rules: [rule("this node's pod CIDR", { localKinds: ['block'] }, 'accept'), ...others],
    },
    {
      name: EXPORT_OUTSIDE,
      rules: [
        rule(
          'an address of a Service',
          { localKinds: ['cluster-ip', 'external-ip', 'load-balancer-ip'] },
          'accept',
          changes,
        ),
        ...(settings.advertisePodCidr
          ? [rule("this node's pod CIDR", { localKinds: ['block'] }, 'accept', changes)]
          : []),
        ...others,
      ],
    },
  ]
}

function outsideChanges({ prepend, communities }: KubeRouterNode, settings: KubeRouterBgpSettings): RouteChange[] {
  const changes: RouteChange[] = []
  if (prepend) changes.push({ kind: 'prepend-as-path', asns: Array.from({ length: prepend.count }, () => prepend.asn) })
  if (communities.length > 0) changes.push({ kind: 'add-communities', communities })
  if (settings.overrideNextHop) changes.push({ kind: 'set-next-hop', nextHop: 'self' })
  return changes
}

const serviceSet = (vips: readonly LocalRoute[]): PrefixSetConfig => ({
  name: SERVICES,
  ranges: sortedPrefixes(vips).map((prefix) => ({ prefix })),
})

const sortedPrefixes = (routes: readonly LocalRoute[]): readonly string[] =>
  [...new Set(routes.map(({ prefix }) => prefix))]
    .map((prefix) => Cidr.parse(prefix))
    .sort((a, b) => a.compare(b))
    .map(String)

function* blocksOf(nodes: Iterable<BgpNode>): Generator<BlockRoutes> {
  for (const { name, podCidrs } of nodes) for (const cidr of podCidrs) yield { cidr, node: name, borrowed: [] }
}

/** By prefix; of several for one prefix the first. Families that the node has no address of are left out: no next hop. */
function localRoutesOf(self: BgpNode, vips: readonly LocalRoute[]): readonly LocalRoute[] {
  const blocks = self.podCidrs.map((cidr): LocalRoute => ({ prefix: `${cidr}`, kind: 'block' }))
  const byPrefix = new Map<string, LocalRoute>()
  for (const route of [...blocks, ...vips]) if (!byPrefix.has(route.prefix)) byPrefix.set(route.prefix, route)
  const isOurs = (family: Family) => nodeAddressOf(self, family) !== undefined
  return sortedPrefixes([...byPrefix.values()])
    .filter((prefix) => isOurs(Cidr.parse(prefix).family))
    .map((prefix) => byPrefix.get(prefix)!)
}
