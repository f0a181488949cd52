/**
 * Calico's objects and a cluster's nodes, blocks and Services, compiled into what the speaker of one node is told. The same
 * objects give the same plan, in whatever order they come.
 *
 * Sources: Calico confd/pkg/backends/calico/bgp_processor.go (populateNodeConfig, buildPeerFromData),
 * node/filesystem/etc/calico/confd/templates/bird.cfg.template; RFC 4456 (cluster id), RFC 5082.
 */
import { encodeUtf8 } from '../../bytes/text.ts'
import {
  DEFAULT_ASN,
  DEFAULT_BGP_PORT,
  LOCAL_PREFERENCE_OF_PRIORITY_0,
  type LocalRoute,
  type PeerConfig,
  type SpeakerConfig,
} from '../../model/bgp.ts'
import { type BgpNode, type BgpPlan, type BgpService, nodeAddressOf } from '../../model/bgp-cluster.ts'
import type { BlockRoutes, IpPool } from '../../model/calico.ts'
import type { BgpConfiguration, BgpFilter, BgpPeer, SecretKey } from '../../model/calico-bgp.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { leakGuard, ownershipOf } from '../bgp/leak-guard.ts'
import {
  ANY_HOPS_TTL,
  byName,
  capabilitiesOf,
  DEFAULT_DEFERRAL_SECONDS,
  DEFAULT_HOLD_SECONDS,
  DEFAULT_RESTART_SECONDS,
  directBfd,
  familyOf,
  hostPrefix,
  LONG_LIVED_STALE_SECONDS,
  MAX_PATHS,
  peerNameOf,
  restartOf,
  routerIdOf,
  timersOf,
} from '../bgp/peer-settings.ts'
import { defaultBgpConfiguration } from './bgp-configuration.ts'
import { type NodeNumbers, type Peering, peeringsOf } from './bgp-peerings.ts'
import { EXPORT_POLICY, exportPolicy, exportSets, filterPolicies, filterPolicyName } from './bgp-policies.ts'
import { serviceBlocks, serviceRoutes } from './bgp-services.ts'

/** TCP_MD5SIG_MAXKEYLEN. */
const MAX_PASSWORD_BYTES = 80

export interface CalicoBgpInput {
  /** Name of this node. */
  readonly node: string
  readonly nodes: ReadonlyMap<string, BgpNode>
  /** By name: `default`, `node.NAME`. */
  readonly configurations: ReadonlyMap<string, BgpConfiguration>
  readonly peers: ReadonlyMap<string, BgpPeer>
  readonly filters: ReadonlyMap<string, BgpFilter>
  readonly pools: readonly IpPool[]
  readonly blocks: readonly BlockRoutes[]
  readonly services: readonly BgpService[]
  /** undefined: the Secret or the key is not there (yet). */
  password(secret: SecretKey): string | undefined
  /** calico/node's CALICO_ROUTER_ID: an IPv4 address, or `hash`. */
  readonly routerId?: string
}

/** Names of the Secrets that objects refer to: those to follow. */
export function secretsOf({
  configurations,
  peers,
}: Pick<CalicoBgpInput, 'configurations' | 'peers'>): ReadonlySet<string> {
  const references = [
    configurations.get('default')?.meshPassword,
    ...[...peers.values()].map(({ password }) => password),
  ]
  return new Set(references.flatMap((secret) => secret?.name ?? []))
}

/** What is the same for every peer of this node. */
interface Common {
  readonly input: CalicoBgpInput
  readonly self: BgpNode
  readonly asn: number
  readonly configuration: BgpConfiguration
  readonly policyNames: ReadonlySet<string>
  readonly problems: ConfigError[]
}

const noPlan = (problem: ConfigError): BgpPlan => ({
  speaker: undefined,
  localRoutes: [],
  notProgrammed: [],
  problems: [problem],
})

export function planCalicoBgp(input: CalicoBgpInput): BgpPlan {
  const self = input.nodes.get(input.node)
  if (!self) return noPlan(new ConfigError(`Node ${input.node}`, '(whole)', 'is not known: it speaks no BGP'))
  if (!self.ipv4 && !self.ipv6)
    return noPlan(new ConfigError(`Node ${self.name}`, 'status.addresses', 'has none: it speaks no BGP'))
  const routerId = readRouterId(self, input.routerId)
  if (routerId instanceof ConfigError) return noPlan(routerId)
  const configuration = configurationOf(input)
  const numbers = numbersOf(input)
  const policies = [
    leakGuard,
    ...filterPolicies([...input.filters.values()].sort((a, b) => (a.name < b.name ? -1 : 1))),
    exportPolicy(configuration, self.reflectorClusterId !== undefined),
  ]
  const common: Common = {
    input,
    self,
    asn: numbers.asnOf(self),
    configuration,
    policyNames: new Set(policies.map(({ name }) => name)),
    problems: [],
  }
  const peerings = peeringsOf(self, input.nodes, [...input.peers.values()], configuration.nodeToNodeMesh, numbers)
  const peers = peerings.flatMap((peering) => peerOf(peering, common) ?? []).sort(byName)
  const speaker: SpeakerConfig = {
    asn: common.asn,
    routerId,
    ...(self.reflectorClusterId !== undefined && { clusterId: self.reflectorClusterId }),
    listen: { port: numbers.portOf(self), addresses: listenAddresses(self, configuration) },
    peers,
    dynamicPeers: [],
    multipath: { maxPaths: MAX_PATHS, asPathRelax: false },
    policies,
    prefixSets: exportSets(input.pools, configuration),
    ownership: ownershipOf(input.blocks, input.nodes),
    externalNeedsPolicy: false,
    deferralSeconds: DEFAULT_DEFERRAL_SECONDS,
  }
  return {
    speaker,
    localRoutes: localRoutesOf(common),
    notProgrammed: serviceBlocks(configuration).map(String).sort(),
    problems: common.problems,
  }
}

/** What concerns several sessions of an object is told once. */
function note(problems: ConfigError[], problem: ConfigError): void {
  if (!problems.some(({ message }) => message === problem.message)) problems.push(problem)
}

/** `default`, with what this node's own object says in its stead. */
function configurationOf({ node, configurations }: CalicoBgpInput): BgpConfiguration {
  const all = configurations.get('default') ?? defaultBgpConfiguration
  const { asn, listenPort, logSeverity, prefixAdvertisements } = configurations.get(`node.${node}`) ?? {}
  return {
    ...all,
    ...(asn !== undefined && { asn }),
    ...(listenPort !== undefined && { listenPort }),
    ...(logSeverity !== undefined && { logSeverity }),
    ...(prefixAdvertisements && { prefixAdvertisements }),
  }
}

function numbersOf({ configurations }: CalicoBgpInput): NodeNumbers {
  const all = configurations.get('default')
  const defaultAsn = all?.asn ?? DEFAULT_ASN
  const own = (node: BgpNode) => configurations.get(`node.${node.name}`)
  return {
    defaultAsn,
    asnOf: (node) => node.asn ?? own(node)?.asn ?? defaultAsn,
    portOf: (node) => own(node)?.listenPort ?? all?.listenPort ?? DEFAULT_BGP_PORT,
  }
}

function readRouterId(self: BgpNode, asked: string | undefined): string | ConfigError {
  if (asked === 'hash') return routerIdOf(self.name)
  if (asked === undefined || asked === '') return self.ipv4 ? `${self.ipv4.ip}` : routerIdOf(self.name)
  const ip = Ip.tryParse(asked)
  if (ip?.family === 4 && !ip.isAny) return `${ip}`
  return new ConfigError('CALICO_ROUTER_ID', '(whole)', `must be an IPv4 address or hash, not ${JSON.stringify(asked)}`)
}

const listenAddresses = ({ ipv4, ipv6 }: BgpNode, { bindMode }: BgpConfiguration): readonly string[] =>
  bindMode === 'NodeIP' ? [ipv4, ipv6].flatMap((address) => (address ? [`${address.ip}`] : [])) : []

/** undefined: the session waits for its password, which `problems` says. */
function peerOf(peering: Peering, common: Common): PeerConfig | undefined {
  const { address, port, asn, object, node } = peering
  const { self, configuration } = common
  const own = nodeAddressOf(self, address.family)!
  const localAsn = object?.localAsn
  const isInternal = asn === (localAsn ?? common.asn)
  const secret = object ? object.password : configuration.meshPassword
  const password = secret && common.input.password(secret)
  const trouble = secret && passwordTrouble(secret, password)
  if (trouble !== undefined) {
    const [where, key] = object
      ? [`BGPPeer ${object.name}`, 'spec.password']
      : ['BGPConfiguration default', 'spec.nodeMeshPassword']
    note(common.problems, new ConfigError(where, key, `${trouble}: the session waits for it`))
    return undefined
  }
  const hops = object?.ttlSecurityHops
  const isReflected = isInternal && self.reflectorClusterId !== undefined
  const hasOtherCluster = node?.reflectorClusterId !== self.reflectorClusterId
  return {
    name: peerNameOf(address, port),
    ...(node && { description: `node ${node.name}` }),
    origin: object ? `BGPPeer ${object.name}` : 'mesh',
    address: `${address}`,
    port,
    remoteAsn: asn,
    ...(localAsn !== undefined && { localAsn }),
    ...(object?.sourceAddress !== 'None' && { localAddress: `${own.ip}` }),
    // In a mesh one end calls, the lesser address as text: Calico's nodes have the same rule.
    passive: object === undefined && `${address}` > `${own.ip}`,
    ...(password !== undefined && { password }),
    ...(hops === undefined ? { multihopTtl: ANY_HOPS_TTL } : { ttlSecurityHops: hops }),
    timers: timersOf(DEFAULT_HOLD_SECONDS, object?.keepaliveSeconds),
    families: [familyOf(address.family, policiesOf(peering, isInternal, common))],
    capabilities: capabilitiesOf(self.name),
    gracefulRestart: restartOf(
      (object ? object.maxRestartSeconds : configuration.meshRestartSeconds) ?? DEFAULT_RESTART_SECONDS,
      object?.restartMode === 'LongLivedGracefulRestart' ? LONG_LIVED_STALE_SECONDS : 0,
    ),
    reflectorClient: isReflected && hasOtherCluster,
    allowedLocalAsns: object?.allowedLocalAsns ?? 0,
    ...(object?.failureDetection === 'BFDIfDirectlyConnected' && isBeside(own, address) && { bfd: directBfd }),
    ...(object?.reachableBy && { reachableBy: `${object.reachableBy}` }),
  }
}

const isBeside = ({ ip, prefixLength }: NonNullable<BgpNode['ipv4']>, address: Ip): boolean =>
  prefixLength !== undefined && Cidr.of(ip, prefixLength).contains(address)

/** Why a session cannot have its password; undefined: it can, or does without. */
function passwordTrouble({ name, key, optional }: SecretKey, password: string | undefined): string | undefined {
  if (password === undefined) return optional ? undefined : `Secret ${name} has no key ${key} (yet)`
  const { length } = encodeUtf8(password)
  if (length >= 1 && length <= MAX_PASSWORD_BYTES) return undefined
  return `key ${key} of Secret ${name} has ${length} bytes; TCP takes 1 to ${MAX_PASSWORD_BYTES}`
}

/**
 * The guard stands where next hops come through unchanged: at sessions with nodes of the same AS, unless one end is told to put
 * itself there.
 */
function policiesOf({ object, node, address }: Peering, isInternal: boolean, { policyNames, problems, input }: Common) {
  const { family } = address
  const filters = object?.filters ?? []
  for (const [index, name] of filters.entries())
    if (!input.filters.has(name))
      note(
        problems,
        new ConfigError(`BGPPeer ${object!.name}`, `spec.filters[${index}]`, `there is no BGPFilter ${name}`),
      )
  const names = (direction: 'import' | 'export') =>
    filters.map((name) => filterPolicyName(name, direction, family)).filter((name) => policyNames.has(name))
  const isGuarded = node !== undefined && isInternal && object?.nextHopMode !== 'Self'
  return {
    importPolicies: [...(isGuarded ? [leakGuard.name] : []), ...names('import')],
    exportPolicies: [...names('export'), EXPORT_POLICY],
    importDefault: 'accept' as const,
    exportDefault: 'reject' as const,
    nextHop: nextHopOf(object, isInternal),
  }
}

function nextHopOf(object: BgpPeer | undefined, isInternal: boolean): 'auto' | 'self' | 'keep' {
  if (object?.nextHopMode === 'Self') return 'self'
  if (object?.nextHopMode === 'Keep' || (object?.keepOriginalNextHop && !isInternal)) return 'keep'
  return 'auto'
}

/** By prefix; of two for one prefix the first by kind: blocks, addresses, Services. */
function localRoutesOf({ self, configuration, input }: Common): readonly LocalRoute[] {
  const routes: LocalRoute[] = []
  for (const { cidr, node, borrowed } of input.blocks) {
    if (node === self.name) routes.push({ prefix: `${cidr}`, kind: 'block' })
    for (const { ip, node: holder } of borrowed)
      if (holder === self.name) routes.push({ prefix: hostPrefix(ip), kind: 'borrowed' })
  }
  const services = [...input.services].sort((a, b) =>
    `${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1,
  )
  routes.push(...serviceRoutes(configuration, self, services))
  const byPrefix = new Map<string, LocalRoute>()
  for (const route of routes) if (!byPrefix.has(route.prefix)) byPrefix.set(route.prefix, route)
  const priorities = { 4: configuration.ipv4NormalRoutePriority, 6: configuration.ipv6NormalRoutePriority }
  return [...byPrefix.values()]
    .map((route) => ({ route, cidr: Cidr.parse(route.prefix) }))
    .sort((a, b) => a.cidr.compare(b.cidr))
    .map(({ route, cidr }) => ({
      ...route,
      localPreference: LOCAL_PREFERENCE_OF_PRIORITY_0 - priorities[cidr.family],
    }))
}
