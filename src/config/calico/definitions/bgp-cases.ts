/**
 * BGP objects that are taken and that are refused, for every judge there is: the parsers, the lab's API server and
 * Kubernetes' own. Tests run one list against all three.
 */
import type { BgpKind } from '../bgp-keys.ts'

export interface BgpCase {
  readonly kind: BgpKind
  readonly what: string
  /** Left out: `default` of a BGPConfiguration, any name of the others. */
  readonly name?: string
  readonly spec: Readonly<Record<string, unknown>>
  /** What of it the answer says: part of the key, and of the message. Left out: it is taken. */
  readonly refused?: { readonly key: string; readonly says: RegExp }
  /** The schema cannot say it: only the parser refuses. */
  readonly parserOnly?: true
}

const configuration = (what: string, spec: BgpCase['spec'], more: Partial<BgpCase> = {}): BgpCase => ({
  kind: 'BGPConfiguration',
  what,
  spec,
  ...more,
})
const peer = (what: string, spec: BgpCase['spec'], more: Partial<BgpCase> = {}): BgpCase => ({
  kind: 'BGPPeer',
  what,
  spec,
  ...more,
})
const refused = (key: string, says: RegExp, more: Partial<BgpCase> = {}): Partial<BgpCase> => ({
  refused: { key, says },
  ...more,
})
const parserOnly = { parserOnly: true } as const

/** A filter of one rule. */
const rule = (what: string, one: BgpCase['spec'], more: Partial<BgpCase> = {}, list = 'exportV4'): BgpCase => ({
  kind: 'BGPFilter',
  what,
  spec: { [list]: [one] },
  ...more,
})

const everyRule = {
  cidr: '10.0.0.0/8',
  matchOperator: 'In',
  prefixLength: { min: 16, max: 24 },
  source: 'RemotePeers',
  interface: 'eth*',
  peerType: 'eBGP',
  communities: { values: ['65000:100'] },
  asPathPrefix: [65000, 65001],
  priority: 1024,
  action: 'Accept',
  operations: [
    { addCommunity: { value: '65000:1:2' } },
    { prependASPath: { prefix: [65000, 65000] } },
    { setPriority: { value: 512 } },
  ],
}

export const bgpCases: readonly BgpCase[] = [
  configuration('nothing', {}),
  configuration('everything', {
    logSeverityScreen: 'Info',
    nodeToNodeMeshEnabled: true,
    nodeMeshMaxRestartTime: '120s',
    nodeMeshPassword: { secretKeyRef: { name: 'bgp-secrets', key: 'mesh' } },
    asNumber: 4200000000,
    serviceLoadBalancerIPs: [{ cidr: '203.0.113.0/24' }, { cidr: '2001:db8:1::/64' }],
    serviceExternalIPs: [{ cidr: '198.51.100.7/32' }, {}],
    serviceClusterIPs: [{ cidr: '10.96.0.0/12' }],
    serviceLoadBalancerAggregation: 'Disabled',
    communities: [{ name: 'bgp-large-community', value: '64512:300:100' }],
    prefixAdvertisements: [{ cidr: '10.244.0.0/16', communities: ['bgp-large-community', '64512:120'] }],
    listenPort: 1179,
    bindMode: 'NodeIP',
    ignoredInterfaces: ['docker0', 'br-*'],
    ipv4NormalRoutePriority: 1024,
    ipv6NormalRoutePriority: 2048,
    programClusterRoutes: 'Enabled',
    localWorkloadPeeringIPV4: '169.254.9.9',
  }),
  configuration('one node', { asNumber: 64514, listenPort: 1180 }, { name: 'node.worker-1' }),
  configuration("Calico's example of reflectors", { nodeToNodeMeshEnabled: false, asNumber: 65009 }),
  configuration(
    'another name',
    {},
    { name: 'other', ...refused('', /only the objects named default|must be default/) },
  ),
  configuration(
    'a mesh password without a mesh',
    {
      nodeToNodeMeshEnabled: false,
      nodeMeshPassword: { secretKeyRef: { name: 'a', key: 'b' } },
    },
    refused('nodeMeshPassword', /nodeToNodeMeshEnabled is false/),
  ),
  configuration(
    'a restart time without a mesh',
    { nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: '2m0s' },
    refused('nodeMeshMaxRestartTime', /nodeToNodeMeshEnabled is false/),
  ),
  configuration(
    'a restart time that is none',
    { nodeMeshMaxRestartTime: 'long' },
    refused('nodeMeshMaxRestartTime', /duration/),
  ),
  configuration(
    'a restart time longer than the protocol says',
    { nodeMeshMaxRestartTime: '2h' },
    refused('nodeMeshMaxRestartTime', /from 0s to 4095s/, parserOnly),
  ),
  configuration(
    'communities that nobody uses',
    { communities: [{ name: 'a', value: '1:2' }] },
    refused('communities', /uses none of them/),
  ),
  configuration(
    'a community that is none',
    {
      communities: [{ name: 'a', value: 'x' }],
      prefixAdvertisements: [{ cidr: '10.0.0.0/8', communities: ['a'] }],
    },
    refused('communities[0].value', /should match|must be a community/),
  ),
  configuration(
    'a community too large',
    {
      communities: [{ name: 'a', value: '65536:1' }],
      prefixAdvertisements: [{ cidr: '10.0.0.0/8', communities: ['a'] }],
    },
    refused('communities[0].value', /16 bits each/, parserOnly),
  ),
  configuration(
    'a name of a community that is nobody’s',
    { prefixAdvertisements: [{ cidr: '10.0.0.0/8', communities: ['b'] }] },
    refused('prefixAdvertisements[0].communities[0]', /not one of communities by its name/, parserOnly),
  ),
  configuration(
    'a block with host bits',
    { serviceClusterIPs: [{ cidr: '10.96.0.1/12' }] },
    refused('serviceClusterIPs[0].cidr', /host bits/, parserOnly),
  ),
  configuration(
    'a block that is none',
    { serviceClusterIPs: [{ cidr: 'ten' }] },
    refused('serviceClusterIPs[0].cidr', /cidr|prefix length/i),
  ),
  configuration('port 0', { listenPort: 65536 }, refused('listenPort', /65535/)),
  configuration(
    'a severity that is none',
    { logSeverityScreen: 'Loud' },
    refused('logSeverityScreen', /should match|must be one of/),
  ),
  configuration('a bind mode that is none', { bindMode: 'All' }, refused('bindMode', /None.*NodeIP/)),
  configuration('an AS number that is none', { asNumber: 4294967295 }, refused('asNumber', /4294967294|reserved/)),

  peer('a ToR for every node', { peerIP: '192.0.2.1', asNumber: 64567 }),
  peer('everything', {
    node: 'worker-1',
    peerIP: '[2001:db8::1]:1179',
    asNumber: 64567,
    localASNumber: 64513,
    nextHopMode: 'Self',
    password: { secretKeyRef: { name: 'bgp-secrets', key: 'tor', optional: true } },
    sourceAddress: 'None',
    maxRestartTime: '300s',
    keepaliveTime: '20s',
    numAllowedLocalASNumbers: 1,
    ttlSecurity: 1,
    reachableBy: '2001:db8:1::1',
    filters: ['a', 'b'],
    reversePeering: 'Manual',
    failureDetectionMode: 'BFDIfDirectlyConnected',
    restartMode: 'LongLivedGracefulRestart',
  }),
  peer('reflectors', { nodeSelector: 'all()', peerSelector: "route-reflector == 'true'" }),
  peer('a peer of our own AS', { peerIP: '192.0.2.1:1179' }),
  peer('a pod', { localWorkloadSelector: "app == 'router'", asNumber: 64600 }),
  peer('nobody', {}, refused('peerIP', /one of the two says with whom/)),
  peer(
    'a node and a selector',
    { node: 'a', nodeSelector: 'all()', peerIP: '192.0.2.1' },
    refused('nodeSelector', /beside node/),
  ),
  peer(
    'an address and a selector',
    { peerIP: '192.0.2.1', peerSelector: 'all()' },
    refused('peerSelector', /beside peerIP/),
  ),
  peer('an AS number of nodes', { peerSelector: 'all()', asNumber: 1 }, refused('asNumber', /beside peerSelector/)),
  peer(
    'an address of a pod',
    { localWorkloadSelector: 'all()', asNumber: 1, peerIP: '192.0.2.1' },
    refused('peerIP', /beside localWorkloadSelector/),
  ),
  peer('a pod without an AS number', { localWorkloadSelector: 'all()' }, refused('asNumber', /needs one/)),
  peer(
    'a way to nowhere',
    { peerSelector: 'all()', reachableBy: '192.0.2.9' },
    refused('reachableBy', /where peerIP is/),
  ),
  peer(
    'a way of another family',
    { peerIP: '192.0.2.1', reachableBy: '2001:db8::1' },
    refused('reachableBy', /another family/),
  ),
  peer('a way that is none', { peerIP: '192.0.2.1', reachableBy: 'there' }, refused('reachableBy', /address/)),
  peer('an address that is none', { peerIP: 'tor.example' }, refused('peerIP', /address:port/)),
  peer('an address with a prefix', { peerIP: '192.0.2.1/24' }, refused('peerIP', /address:port/)),
  peer('an address of nobody', { peerIP: '224.0.0.5' }, refused('peerIP', /nobody's address/, parserOnly)),
  peer('a port too large', { peerIP: '192.0.2.1:70000' }, refused('peerIP', /address:port/, parserOnly)),
  peer(
    'two words for one thing',
    { peerIP: '192.0.2.1', keepOriginalNextHop: true, nextHopMode: 'Keep' },
    refused('keepOriginalNextHop', /beside nextHopMode/),
  ),
  peer('a duration that is none', { peerIP: '192.0.2.1', keepaliveTime: '20' }, refused('keepaliveTime', /duration/)),
  peer('hops beyond all', { peerIP: '192.0.2.1', ttlSecurity: 255 }, refused('ttlSecurity', /254/)),
  peer(
    'a selector that is none',
    { peerIP: '192.0.2.1', nodeSelector: "rack = 'a'" },
    refused('nodeSelector', /is no selector/, parserOnly),
  ),
  peer(
    'an AS number that is reserved',
    { peerIP: '192.0.2.1', asNumber: 23456 },
    refused('asNumber', /reserved/, parserOnly),
  ),
  peer(
    'a Secret without a key',
    { peerIP: '192.0.2.1', password: { secretKeyRef: { name: 'a' } } },
    refused('password.secretKeyRef.key', /Required value|must be a key/),
  ),

  { kind: 'BGPFilter', what: 'nothing', spec: {} },
  rule('everything', everyRule),
  rule(
    'everything of IPv6',
    { ...everyRule, cidr: '2001:db8::/32', prefixLength: { min: 48, max: 64 } },
    {},
    'importV6',
  ),
  rule('every route', { action: 'Reject' }, {}, 'importV4'),
  rule(
    'no action',
    { cidr: '10.0.0.0/8', matchOperator: 'In' },
    refused('exportV4[0].action', /Required value|is missing/),
  ),
  rule('no operator', { cidr: '10.0.0.0/8', action: 'Accept' }, refused('exportV4[0]', /matchOperator/)),
  rule('no cidr', { matchOperator: 'In', action: 'Accept' }, refused('exportV4[0]', /cidr/)),
  rule('lengths of nothing', { prefixLength: { min: 8 }, action: 'Accept' }, refused('exportV4[0]', /needs a cidr/)),
  rule(
    'the other family',
    { cidr: '::/0', matchOperator: 'In', action: 'Accept' },
    refused('exportV4[0].cidr', /IPv4/),
  ),
  rule(
    'the other family of IPv6',
    { cidr: '10.0.0.0/8', matchOperator: 'In', action: 'Accept' },
    refused('importV6[0].cidr', /IPv6/),
    'importV6',
  ),
  rule(
    'host bits',
    { cidr: '10.0.0.1/8', matchOperator: 'In', action: 'Accept' },
    refused('exportV4[0].cidr', /host bits/),
  ),
  rule(
    'a length beyond all',
    { cidr: '10.0.0.0/8', matchOperator: 'In', prefixLength: { max: 33 }, action: 'Accept' },
    refused('exportV4[0].prefixLength.max', /32/),
  ),
  rule(
    'no length at all',
    { cidr: '10.0.0.0/8', matchOperator: 'In', prefixLength: { min: 9, max: 8 }, action: 'Accept' },
    refused('exportV4[0].prefixLength', /no prefix is both/),
  ),
  rule(
    'two communities',
    { communities: { values: ['1:1', '1:2'] }, action: 'Accept' },
    refused('exportV4[0].communities.values', /1 item|at most 1|Too many/),
  ),
  rule(
    'a community that is none',
    { communities: { values: ['1:65536'] }, action: 'Accept' },
    refused('exportV4[0].communities.values[0]', /should match|must be a community/),
  ),
  rule(
    'changes of what is rejected',
    { action: 'Reject', operations: [{ setPriority: { value: 1 } }] },
    refused('exportV4[0]', /operations.* go with the action Accept/),
  ),
  rule(
    'two changes in one',
    { action: 'Accept', operations: [{ setPriority: { value: 1 }, addCommunity: { value: '1:1' } }] },
    refused('exportV4[0].operations[0]', /at most 1|one alone|Too many/),
  ),
  rule(
    'no change in one',
    { action: 'Accept', operations: [{}] },
    refused('exportV4[0].operations[0]', /at least 1|one alone/),
  ),
  rule(
    'no priority',
    { action: 'Accept', operations: [{ setPriority: { value: 0 } }] },
    refused('exportV4[0].operations[0].setPriority.value', /1/),
  ),
  rule(
    'a long way',
    { action: 'Accept', operations: [{ prependASPath: { prefix: Array.from({ length: 11 }, () => 1) } }] },
    refused('exportV4[0].operations[0].prependASPath.prefix', /10/),
  ),
  rule(
    'a source that is none',
    { action: 'Accept', source: 'Everywhere' },
    refused('exportV4[0].source', /RemotePeers/),
  ),
  rule(
    'a device that is none',
    { action: 'Accept', interface: 'a b' },
    refused('exportV4[0].interface', /name of a device/, parserOnly),
  ),
]
