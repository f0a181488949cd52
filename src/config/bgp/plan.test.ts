/**
 * What a node's speaker is told in the topologies of guides (testdata/*.json; UPDATE=1 rewrites them): kube-router's mesh,
 * Calico's mesh, reflectors, and top-of-rack routers. And that the order in which objects come is nobody's concern.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { parse as parseYaml } from 'yaml'
import type { PeerConfig } from '../../model/bgp.ts'
import type { BgpNode, BgpPlan, BgpService } from '../../model/bgp-cluster.ts'
import type { BlockRoutes, IpPool } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { parseBgpConfiguration } from '../calico/bgp-configuration.ts'
import { parseBgpFilter } from '../calico/bgp-filter.ts'
import { parseBgpPeer } from '../calico/bgp-peer.ts'
import { type CalicoBgpInput, planCalicoBgp, secretsOf } from '../calico/bgp-plan.ts'
import { parsePool } from '../calico/pool.ts'
import { planKubeRouterBgp } from '../kube-router/bgp-plan.ts'
import { type BgpKey, parseBgpFlags } from '../kube-router/bgp-settings.ts'

function node(name: string, ipv4: string, more: Partial<BgpNode> & { ipv6Text?: string } = {}): BgpNode {
  const { ipv6Text, ...rest } = more
  return {
    name,
    labels: {},
    annotations: {},
    ipv4: { ip: Ip.parse(ipv4), prefixLength: 24 },
    ...(ipv6Text !== undefined && { ipv6: { ip: Ip.parse(ipv6Text), prefixLength: 64 } }),
    primaryFamily: 4,
    podCidrs: [],
    ...rest,
  }
}

const mapOf = <T extends { readonly name: string }>(items: readonly T[]) =>
  new Map(items.map((item) => [item.name, item]))

function service(name: string, more: Partial<BgpService> = {}): BgpService {
  return {
    namespace: 'default',
    name,
    type: 'ClusterIP',
    clusterIps: [],
    externalIps: [],
    loadBalancerIps: [],
    externalTrafficPolicy: 'Cluster',
    internalTrafficPolicy: 'Cluster',
    annotations: {},
    isReady: true,
    isReadyHere: false,
    ...more,
  }
}

const ips = (...texts: string[]) => texts.map((text) => Ip.parse(text))
const block = (cidr: string, owner: string, borrowed: BlockRoutes['borrowed'] = []): BlockRoutes => ({
  cidr: Cidr.parse(cidr),
  node: owner,
  borrowed,
})
const pool = (name: string, spec: object): IpPool => parsePool({ metadata: { name }, spec }).pool

interface CalicoObjects {
  readonly configurations?: Readonly<Record<string, object>>
  readonly peers?: Readonly<Record<string, object>>
  readonly filters?: Readonly<Record<string, object>>
}

function calico(
  self: string,
  nodes: readonly BgpNode[],
  objects: CalicoObjects,
  more: Partial<CalicoBgpInput> = {},
): CalicoBgpInput {
  const read = <T>(specs: Readonly<Record<string, object>> | undefined, parse: (object: unknown) => T) =>
    Object.entries(specs ?? {}).map(([name, spec]) => parse({ metadata: { name }, spec }))
  return {
    node: self,
    nodes: mapOf(nodes),
    configurations: mapOf(read(objects.configurations, parseBgpConfiguration).map((each) => each.configuration)),
    peers: mapOf(read(objects.peers, parseBgpPeer).map((each) => each.peer)),
    filters: mapOf(read(objects.filters, parseBgpFilter).map((each) => each.filter)),
    pools: [],
    blocks: [],
    services: [],
    password: () => undefined,
    ...more,
  }
}

const peersOf = (plan: BgpPlan): readonly PeerConfig[] => plan.speaker?.peers ?? []
const namesOf = (plan: BgpPlan) => peersOf(plan).map(({ name }) => name)
const problemsOf = (plan: BgpPlan) => plan.problems.map(({ message }) => message)

function matchesGolden(name: string, plan: BgpPlan): void {
  const path = new URL(`testdata/${name}.json`, import.meta.url)
  const { problems, ...rest } = plan
  const text = `${JSON.stringify({ ...rest, problems: problems.map(({ message }) => message) }, undefined, 2)}\n`
  if (process.env.UPDATE === '1') writeFileSync(path, text)
  assert.ok(existsSync(path), `${path} is missing: UPDATE=1 writes it`)
  assert.equal(text, readFileSync(path, 'utf8'))
}

// ---- kube-router --------------------------------------------------------------------------------------------------------

const flags = (given: Partial<Record<BgpKey, unknown>> = {}) => parseBgpFlags((key) => given[key])
const kubeRouter = (
  self: string,
  nodes: readonly BgpNode[],
  given: Partial<Record<BgpKey, unknown>> = {},
  services: readonly BgpService[] = [],
) => planKubeRouterBgp({ node: self, nodes: mapOf(nodes), settings: flags(given), services, parseYaml })

/** Three nodes of one subnet, a /24 of pods each. */
const meshNodes = [50, 51, 52].map((last, index) =>
  node(`node${index + 1}`, `192.168.50.${last}`, { podCidrs: [Cidr.parse(`10.233.${64 + index}.0/24`)] }),
)

test('a mesh of three nodes by kube-router: AS 64512, graceful restart, pod CIDRs', () => {
  matchesGolden('kube-router-mesh', kubeRouter('node1', meshNodes, { 'bgp-graceful-restart': 'true' }))
})

test('a node of kube-router with everything that annotations say', () => {
  const annotations = {
    'kube-router.io/rr.server': '42',
    'kube-router.io/peers': `
- remoteip: 192.168.50.1
  remoteasn: 64600
  password: c2VjcmV0
  port: 1179
  bfd: {enabled: true, desired_min_tx_interval: 300}
- remoteip: "2001:db8::1"
  remoteasn: 64601
  localip: "2001:db8::50"
`,
    'kube-router.io/path-prepend.as': '65000',
    'kube-router.io/path-prepend.repeat-n': '2',
    'kube-router.io/node.bgp.communities': '64512:100, no-export,  4259840100',
    'kube-router.io/node.bgp.customimportreject': '10.0.0.0/8, 2001:db8:9::/48',
    'kube-router.io/bgp-local-addresses': '192.168.50.50',
  }
  const client = { 'kube-router.io/rr.client': '42' }
  const nodes = [
    node('node1', '192.168.50.50', {
      ipv6Text: '2001:db8::50',
      annotations,
      podCidrs: [Cidr.parse('10.233.64.0/24'), Cidr.parse('fd00:10:233::/64')],
    }),
    node('node2', '192.168.50.51', { annotations: client, podCidrs: [Cidr.parse('10.233.65.0/24')] }),
    node('node3', '192.168.50.52', { podCidrs: [Cidr.parse('10.233.66.0/24')] }),
  ]
  const services = [
    service('web', {
      type: 'LoadBalancer',
      clusterIps: ips('10.96.0.7'),
      externalIps: ips('198.51.100.7'),
      loadBalancerIps: ips('203.0.113.7'),
    }),
    service('local', { externalIps: ips('198.51.100.8'), externalTrafficPolicy: 'Local' }),
    service('quiet', {
      externalIps: ips('198.51.100.9'),
      annotations: { 'kube-router.io/service.advertise.externalip': 'false' },
    }),
  ]
  const given = { 'advertise-external-ip': true, 'advertise-loadbalancer-ip': true, 'override-nexthop': true }
  const plan = kubeRouter('node1', nodes, { ...given, 'peer-router-multihop-ttl': 3 }, services)
  assert.deepEqual(problemsOf(plan), [])
  matchesGolden('kube-router-reflector', plan)
  assert.deepEqual(namesOf(kubeRouter('node2', nodes)), ['192.168.50.50'], 'a client speaks with its reflector alone')
  assert.deepEqual(namesOf(kubeRouter('node3', nodes)), ['192.168.50.50', '192.168.50.51'])
})

test('without a mesh nodes of one AS speak with each other, and who states none speaks with nobody', () => {
  const asn = (number: string) => ({ 'kube-router.io/node.asn': number })
  const nodes = [
    node('a', '192.0.2.1', { annotations: asn('64513') }),
    node('b', '192.0.2.2', { annotations: asn('64513') }),
    node('c', '192.0.2.3', { annotations: asn('64514') }),
    node('d', '192.0.2.4'),
    node('e', '192.0.2.5', { annotations: asn('23456') }),
  ]
  const noMesh = { 'nodes-full-mesh': 'false' }
  assert.deepEqual(namesOf(kubeRouter('a', nodes, noMesh)), ['192.0.2.2'])
  assert.equal(kubeRouter('a', nodes, noMesh).speaker?.asn, 64513)
  assert.deepEqual(namesOf(kubeRouter('c', nodes, noMesh)), [])
  const none = kubeRouter('d', nodes, noMesh)
  assert.equal(none.speaker, undefined)
  assert.match(problemsOf(none)[0]!, /Node d: kube-router\.io\/node\.asn: is missing/)
  assert.equal(kubeRouter('e', nodes, noMesh).speaker, undefined)
})

test('peers of flags stand for those of annotations, with passwords and ports', () => {
  const given = {
    'peer-router-ips': '192.0.2.9,192.0.2.8',
    'peer-router-asns': ['64600', 64601],
    'peer-router-passwords': ',c2VjcmV0',
    'enable-bfd': true,
    'bgp-holdtime': '1m',
  }
  const nodes = [
    node('a', '192.0.2.1', {
      annotations: { 'kube-router.io/peer.ips': '192.0.2.7', 'kube-router.io/peer.asns': '1' },
    }),
  ]
  const [first, second] = peersOf(kubeRouter('a', nodes, given))
  assert.deepEqual([first?.name, first?.password, first?.timers.holdSeconds], ['192.0.2.8', 'secret', 60])
  assert.deepEqual([second?.name, second?.password, second?.bfd?.detectMultiplier], ['192.0.2.9', undefined, 3])
  assert.deepEqual(namesOf(kubeRouter('a', nodes)), ['192.0.2.7'])
})

test('flags and annotations that cannot be used are named, without a password in any word', () => {
  const refusals: readonly [Partial<Record<BgpKey, unknown>>, RegExp][] = [
    [{ 'bgp-holdtime': '1s' }, /--bgp-holdtime: must be a duration from 3s/],
    [{ 'cluster-asn': '1' }, /--cluster-asn: 1 is not one of the private numbers/],
    [{ 'router-id': '::1' }, /--router-id: must be an IPv4 address or generate/],
    [{ 'peer-router-ips': '192.0.2.1' }, /--peer-router-asns: has 0 values for 1 peers/],
    [
      { 'peer-router-ips': '192.0.2.1', 'peer-router-asns': '65535' },
      /--peer-router-asns: must be an AS number that is not reserved/,
    ],
    [
      { 'peer-router-ips': '192.0.2.1', 'peer-router-asns': '1', 'peer-router-passwords': 'sec ret' },
      /--peer-router-passwords: item is no base64 of 1 to 80 bytes$/,
    ],
    [{ 'enable-ibgp': 'yes' }, /--enable-ibgp: must be true or false/],
  ]
  for (const [given, expected] of refusals) assert.throws(() => flags(given), expected)
  const annotations = {
    'kube-router.io/peers': '- {remoteip: 192.0.2.9, remoteasn: 64600, password: "no secret"}',
    'kube-router.io/node.bgp.communities': 'x',
    'kube-router.io/node.bgp.customimportreject': '10.0.0.1/8',
    'kube-router.io/path-prepend.as': '65000',
    'kube-router.io/rr.server': '300.0.0.1',
  }
  const plan = kubeRouter('a', [node('a', '192.0.2.1', { annotations })])
  assert.deepEqual(problemsOf(plan).sort(), [
    'Node a: kube-router.io/node.bgp.communities: "x" is no community of 32 bits',
    'Node a: kube-router.io/node.bgp.customimportreject: "10.0.0.1/8" is no prefix',
    'Node a: kube-router.io/path-prepend.repeat-n: is missing: path-prepend.as needs it',
    'Node a: kube-router.io/peers: [0].password: is no base64 of 1 to 80 bytes',
    'Node a: kube-router.io/rr.server: must be a cluster id, a number or an IPv4 address, not "300.0.0.1"',
  ])
  assert.ok(plan.speaker, 'the rest of the node speaks')
})

// ---- Calico -------------------------------------------------------------------------------------------------------------

/** Four nodes as in the guide on reflectors, the pool that their blocks are of, and a block each. */
const guideNodes = [
  node('master1', '10.0.0.121'),
  node('worker1', '10.0.0.122', { labels: { 'route-reflector': 'true' }, reflectorClusterId: '244.0.0.1' }),
  node('worker2', '10.0.0.123'),
  node('worker3', '10.0.0.124'),
]
const guideBlocks = guideNodes.map(({ name }, index) => block(`192.168.${index}.0/24`, name))
const guidePools = [pool('default-ipv4-ippool', { cidr: '192.168.0.0/16', blockSize: 24, natOutgoing: true })]
const guide = { pools: guidePools, blocks: guideBlocks }

test('a mesh of Calico, as it is without any object', () => {
  const nodes = guideNodes.map(({ reflectorClusterId: _, ...each }) => each)
  matchesGolden('calico-mesh', planCalicoBgp(calico('worker2', nodes, {}, guide)))
})

const reflected: CalicoObjects = {
  configurations: {
    default: {
      logSeverityScreen: 'Info',
      nodeToNodeMeshEnabled: false,
      asNumber: 65009,
      serviceClusterIPs: [{ cidr: '10.96.0.0/12' }],
    },
  },
  peers: { 'bgppeer-rr': { nodeSelector: 'all()', peerSelector: "route-reflector == 'true'" } },
}

test("the guide's reflector: everybody speaks with it, and it reflects to them", () => {
  matchesGolden('calico-reflector', planCalicoBgp(calico('worker1', guideNodes, reflected, guide)))
  matchesGolden('calico-client', planCalicoBgp(calico('worker2', guideNodes, reflected, guide)))
})

test("the guide's top-of-rack router: eBGP from every node of a rack, no mesh", () => {
  const objects: CalicoObjects = {
    configurations: {
      default: {
        nodeToNodeMeshEnabled: false,
        communities: [{ name: 'pods', value: '65009:100' }],
        prefixAdvertisements: [{ cidr: '192.168.0.0/16', communities: ['pods', '65009:1:2'] }],
        serviceExternalIPs: [{ cidr: '198.51.100.0/24' }],
        serviceLoadBalancerIPs: [{ cidr: '203.0.113.7/32' }, { cidr: '203.0.113.128/25' }],
      },
    },
    peers: {
      'rack1-tor': {
        nodeSelector: "rack == 'rack1'",
        peerIP: '10.0.0.1',
        asNumber: 64601,
        password: { secretKeyRef: { name: 'bgp-secrets', key: 'rack1' } },
        filters: ['no-default', 'no-default'],
        failureDetectionMode: 'BFDIfDirectlyConnected',
        numAllowedLocalASNumbers: 1,
      },
      far: { node: 'worker2', peerIP: '172.16.0.1', asNumber: 64602, failureDetectionMode: 'BFDIfDirectlyConnected' },
      waits: { peerIP: '10.0.0.2', asNumber: 64601, password: { secretKeyRef: { name: 'bgp-secrets', key: 'none' } } },
      pods: { localWorkloadSelector: 'all()', asNumber: 64603 },
    },
    filters: {
      'no-default': {
        importV4: [{ cidr: '0.0.0.0/0', matchOperator: 'Equal', action: 'Reject' }],
        exportV4: [
          { source: 'RemotePeers', action: 'Reject' },
          {
            cidr: '192.168.0.0/16',
            matchOperator: 'In',
            prefixLength: { min: 8, max: 24 },
            peerType: 'eBGP',
            action: 'Accept',
            operations: [{ prependASPath: { prefix: [65009] } }, { setPriority: { value: 100 } }],
          },
        ],
      },
    },
  }
  const nodes = [
    node('worker2', '10.0.0.123', { labels: { rack: 'rack1' }, asn: 65009 }),
    node('worker3', '10.0.0.124', { labels: { rack: 'rack2' } }),
  ]
  const services = [
    service('local', {
      type: 'LoadBalancer',
      clusterIps: ips('10.96.0.7'),
      externalIps: ips('198.51.100.7', '192.0.2.250'),
      loadBalancerIps: ips('203.0.113.129'),
      externalTrafficPolicy: 'Local',
      isReadyHere: true,
    }),
    service('single', { type: 'LoadBalancer', clusterIps: ips('10.96.0.8'), loadBalancerIps: ips('203.0.113.7') }),
    service('elsewhere', {
      clusterIps: ips('10.96.0.9'),
      externalIps: ips('198.51.100.9'),
      externalTrafficPolicy: 'Local',
    }),
  ]
  const plan = planCalicoBgp(
    calico('worker2', nodes, objects, {
      pools: [...guidePools, pool('hidden', { cidr: '172.30.0.0/16', disableBGPExport: true })],
      blocks: [
        block('192.168.2.0/24', 'worker2'),
        block('192.168.3.0/24', 'worker3', [{ ip: Ip.parse('192.168.3.9'), node: 'worker2' }]),
        block('172.30.0.0/26', 'worker2'),
      ],
      services,
      password: ({ key }) => (key === 'rack1' ? 'secret' : undefined),
    }),
  )
  matchesGolden('calico-top-of-rack', plan)
  assert.deepEqual(problemsOf(plan), [
    'BGPPeer waits: spec.password: Secret bgp-secrets has no key none (yet): the session waits for it',
  ])
})

test('the Secrets to follow are those that objects name', () => {
  const secret = (name: string) => ({ secretKeyRef: { name, key: 'k' } })
  const objects: CalicoObjects = {
    configurations: { default: { nodeMeshPassword: secret('mesh') } },
    peers: { a: { peerIP: '192.0.2.1', password: secret('tor') }, b: { peerIP: '192.0.2.2', password: secret('tor') } },
  }
  assert.deepEqual([...secretsOf(calico('n', [], objects))], ['mesh', 'tor'])
  assert.equal(secretsOf(calico('n', [], {})).size, 0)
})

test('a password that TCP does not take is no password, and without one the session waits', () => {
  const plan = (password: string | undefined, optional = false) =>
    planCalicoBgp(
      calico(
        'a',
        [node('a', '192.0.2.1'), node('b', '192.0.2.2')],
        { configurations: { default: { nodeMeshPassword: { secretKeyRef: { name: 's', key: 'k', optional } } } } },
        { password: () => password },
      ),
    )
  const problem = 'BGPConfiguration default: spec.nodeMeshPassword: '
  assert.equal(peersOf(plan('x'.repeat(80)))[0]?.password, 'x'.repeat(80))
  assert.deepEqual(namesOf(plan('x'.repeat(81))), [])
  assert.deepEqual(problemsOf(plan('\u00fc'.repeat(41))), [
    `${problem}key k of Secret s has 82 bytes; TCP takes 1 to 80: the session waits for it`,
  ])
  assert.deepEqual(problemsOf(plan(undefined)), [`${problem}Secret s has no key k (yet): the session waits for it`])
  assert.deepEqual(namesOf(plan(undefined, true)), ['192.0.2.2'])
  assert.deepEqual(namesOf(plan('', true)), [])
})

test('who speaks with whom, by selectors, from both ends', () => {
  const nodes = [
    node('a', '192.0.2.1', { labels: { rack: '1' } }),
    node('b', '192.0.2.2', { labels: { rack: '2' }, ipv6Text: '2001:db8::2' }),
    node('c', '192.0.2.3', { labels: { rack: '2' }, ipv6Text: '2001:db8::3', asn: 64999 }),
  ]
  const off = { default: { nodeToNodeMeshEnabled: false } }
  const names = (self: string, peers: Readonly<Record<string, object>>, configurations: object = off) =>
    peersOf(planCalicoBgp(calico(self, nodes, { configurations: configurations as typeof off, peers }))).map(
      ({ name, origin, remoteAsn }) => `${name} AS ${remoteAsn} ${origin}`,
    )
  const selected = { up: { nodeSelector: "rack == '1'", peerSelector: "rack == '2'" } }
  assert.deepEqual(names('a', selected), ['192.0.2.2 AS 64512 BGPPeer up', '192.0.2.3 AS 64999 BGPPeer up'])
  assert.deepEqual(names('b', selected), ['192.0.2.1 AS 64512 BGPPeer up'], 'from the other end')
  const manual = { up: { ...selected.up, reversePeering: 'Manual' } }
  assert.deepEqual(names('b', manual), [])
  const both = { up: { nodeSelector: "rack == '2'", peerSelector: "rack == '2'" } }
  assert.deepEqual(names('b', both), ['192.0.2.3 AS 64999 BGPPeer up', '2001:db8::3 AS 64999 BGPPeer up'])
  const address = { one: { peerIP: '192.0.2.3', asNumber: 64999 } }
  assert.deepEqual(names('a', address), ['192.0.2.3 AS 64999 BGPPeer one'])
  assert.deepEqual(names('c', address), ['192.0.2.1 AS 64512 BGPPeer one', '192.0.2.2 AS 64512 BGPPeer one'])
  assert.deepEqual(names('c', { one: { peerIP: '192.0.2.3', asNumber: 1 } }), [], 'an AS that is not its own')
  const first = { z: { node: 'a', peerIP: '192.0.2.9', asNumber: 1 }, y: { peerIP: '192.0.2.9', asNumber: 2 } }
  assert.deepEqual(names('a', first), ['192.0.2.9 AS 2 BGPPeer y'], "everybody's goes before one node's")
  const mesh = { default: {}, 'node.b': { listenPort: 1179 } }
  assert.deepEqual(names('a', address, mesh), ['192.0.2.2:1179 AS 64512 mesh', '192.0.2.3 AS 64999 BGPPeer one'])
})

test('one end of a mesh session calls, and reflectors are in no mesh', () => {
  const nodes = [
    node('a', '192.0.2.1'),
    node('b', '192.0.2.2'),
    node('r', '192.0.2.3', { reflectorClusterId: '1.1.1.1' }),
  ]
  const plan = (self: string) => planCalicoBgp(calico(self, nodes, {}))
  assert.deepEqual(
    peersOf(plan('a')).map(({ name, passive }) => [name, passive]),
    [['192.0.2.2', true]],
  )
  assert.deepEqual(
    peersOf(plan('b')).map(({ name, passive }) => [name, passive]),
    [['192.0.2.1', false]],
  )
  assert.deepEqual(namesOf(plan('r')), [])
  assert.equal(plan('r').speaker?.clusterId, '1.1.1.1')
})

test('words of one session: next hops, hops, restart, guard', () => {
  const nodes = [node('a', '192.0.2.1', { reflectorClusterId: '1.1.1.1' }), node('b', '192.0.2.2')]
  const peerWith = (spec: object, objects: CalicoObjects = {}) =>
    peersOf(planCalicoBgp(calico('a', nodes, { ...objects, peers: { p: spec } }, { password: () => 'x' })))[0]!
  const inside = peerWith({ peerIP: '192.0.2.2' })
  assert.deepEqual(inside.families[0]!.importPolicies, ['leak-guard'])
  assert.equal(inside.reflectorClient, true)
  assert.equal(inside.multihopTtl, 64)
  assert.deepEqual(peerWith({ peerIP: '192.0.2.2', nextHopMode: 'Self' }).families[0]!.importPolicies, [])
  const outside = peerWith({ peerIP: '192.0.2.99', asNumber: 1, keepOriginalNextHop: true, ttlSecurity: 2 })
  assert.equal(outside.families[0]!.nextHop, 'keep')
  assert.deepEqual(outside.families[0]!.importPolicies, [])
  assert.equal(outside.reflectorClient, false)
  assert.deepEqual([outside.ttlSecurityHops, outside.multihopTtl], [2, undefined])
  assert.equal(peerWith({ peerIP: '192.0.2.99', keepOriginalNextHop: true }).families[0]!.nextHop, 'auto', 'inside')
  assert.equal(
    peerWith({ peerIP: '192.0.2.99', asNumber: 1, localASNumber: 1 }).reflectorClient,
    true,
    'by localASNumber',
  )
  const long = peerWith({ peerIP: '192.0.2.9', restartMode: 'LongLivedGracefulRestart', maxRestartTime: '5m' })
  assert.deepEqual([long.gracefulRestart.restartSeconds, long.gracefulRestart.longLivedStaleSeconds], [300, 3600])
  assert.equal(peerWith({ peerIP: '192.0.2.9', sourceAddress: 'None' }).localAddress, undefined)
  assert.equal(peerWith({ peerIP: '192.0.2.9', reachableBy: '192.0.2.7' }).reachableBy, '192.0.2.7')
})

test('Services: by policy, blocks and single addresses, and nothing from a node that is excluded', () => {
  const spec = { serviceClusterIPs: [{ cidr: '10.96.0.0/12' }], serviceLoadBalancerIPs: [{ cidr: '203.0.113.0/24' }] }
  const balanced = service('lb', {
    type: 'LoadBalancer',
    clusterIps: ips('10.96.0.1', 'fd00::1'),
    loadBalancerIps: ips('203.0.113.1'),
  })
  const routes = (each: Partial<BgpService>, more: object = {}, labels = {}) =>
    planCalicoBgp(
      calico(
        'a',
        [node('a', '192.0.2.1', { labels })],
        { configurations: { default: { ...spec, ...more } } },
        {
          services: [{ ...balanced, ...each }],
        },
      ),
    ).localRoutes.map(({ prefix }) => prefix)
  const blocks = ['10.96.0.0/12', '203.0.113.0/24']
  assert.deepEqual(routes({}), blocks)
  const local = { externalTrafficPolicy: 'Local', isReadyHere: true } as const
  assert.deepEqual(routes(local), ['10.96.0.0/12', '10.96.0.1/32', '203.0.113.0/24', '203.0.113.1/32'])
  assert.deepEqual(routes({ ...local, isReadyHere: false }), blocks)
  const single = { serviceLoadBalancerAggregation: 'Disabled' }
  assert.deepEqual(routes({}, single), ['10.96.0.0/12', '10.96.0.1/32', '203.0.113.1/32'])
  assert.deepEqual(routes({ isReady: false }, single), ['10.96.0.0/12'])
  assert.deepEqual(routes({ ...local, clusterIps: [] }), blocks, 'headless')
  assert.deepEqual(routes(local, {}, { 'node.kubernetes.io/exclude-from-external-load-balancers': 'true' }), [])
})

test('a node without IPv4 has a router id all the same, and one without any address speaks no BGP', () => {
  const six: BgpNode = { ...node('six', '192.0.2.1', { ipv6Text: '2001:db8::1' }), primaryFamily: 6 }
  const { ipv4: _, ...only } = six
  const routerId = planCalicoBgp(calico('six', [only], {})).speaker!.routerId
  assert.equal(Ip.parse(routerId).family, 4)
  assert.equal(planCalicoBgp(calico('six', [only], {}, { routerId: '1.2.3.4' })).speaker?.routerId, '1.2.3.4')
  assert.match(problemsOf(planCalicoBgp(calico('six', [only], {}, { routerId: 'x' })))[0]!, /must be an IPv4 address/)
  const { ipv6: __, ...none } = only
  assert.match(problemsOf(planCalicoBgp(calico('six', [none], {})))[0]!, /Node six: status\.addresses: has none/)
  assert.equal(planCalicoBgp(calico('gone', [six], {})).speaker, undefined)
})

test('the order in which objects come does not matter', () => {
  const seed = Number(process.env.SEED ?? 1 + (Date.now() % 1_000_000))
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const shuffled = <T>(items: Iterable<T>): T[] =>
    [...items]
      .map((item) => ({ item, at: random(1e9) }))
      .sort((a, b) => a.at - b.at)
      .map(({ item }) => item)
  const nodes = Array.from({ length: 12 }, (_, index) =>
    node(`n${index}`, `192.0.2.${index + 1}`, {
      labels: { rack: `${index % 3}` },
      ...(index % 4 === 0 && { reflectorClusterId: '1.1.1.1' }),
      ...(index % 5 === 0 && { ipv6Text: `2001:db8::${index + 1}` }),
    }),
  )
  const objects: CalicoObjects = {
    configurations: { default: { serviceExternalIPs: [{ cidr: '198.51.100.0/24' }] }, 'node.n1': { asNumber: 65001 } },
    peers: {
      a: { peerSelector: "rack == '0'" },
      b: { nodeSelector: "rack == '0'", peerSelector: "rack == '1'" },
      c: { peerIP: '192.0.2.200', asNumber: 1, filters: ['f', 'missing'] },
      d: { node: 'n3', peerIP: '192.0.2.200', asNumber: 2 },
    },
    filters: { f: { importV4: [{ action: 'Accept' }] }, g: { exportV6: [{ action: 'Reject' }] } },
  }
  const blocks = nodes.map(({ name }, index) => block(`10.244.${index}.0/24`, name))
  const services = ['x', 'y'].map((name) =>
    service(name, {
      clusterIps: ips('10.96.0.1'),
      externalIps: ips('198.51.100.1'),
      externalTrafficPolicy: 'Local',
      isReadyHere: true,
    }),
  )
  const whole = calico('n3', nodes, objects, { ...guide, blocks, services })
  const expected = planCalicoBgp(whole)
  assert.equal(problemsOf(expected).length, 1, `${problemsOf(expected)}`)
  for (let round = 0; round < 50; round++) {
    const mixed: CalicoBgpInput = {
      ...whole,
      nodes: new Map(shuffled(whole.nodes)),
      configurations: new Map(shuffled(whole.configurations)),
      peers: new Map(shuffled(whole.peers)),
      filters: new Map(shuffled(whole.filters)),
      blocks: shuffled(blocks),
      services: shuffled(services),
    }
    assert.deepEqual(planCalicoBgp(mixed), expected, `round ${round} of seed ${seed}`)
    const flat = {
      node: 'node1',
      settings: flags({ 'advertise-external-ip': true }),
      services: shuffled(services),
      parseYaml,
    }
    assert.deepEqual(
      planKubeRouterBgp({ ...flat, nodes: mapOf(shuffled(meshNodes)) }),
      planKubeRouterBgp({ ...flat, nodes: mapOf(meshNodes) }),
    )
  }
})
