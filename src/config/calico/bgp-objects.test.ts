/** BGPConfiguration, BGPPeer and BGPFilter as their parsers read them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../../model/errors.ts'
import { parseBgpConfiguration } from './bgp-configuration.ts'
import { parseBgpFilter } from './bgp-filter.ts'
import type { BgpKind } from './bgp-keys.ts'
import { parseBgpPeer } from './bgp-peer.ts'
import { bgpCases } from './definitions/bgp-cases.ts'

const parsers: Readonly<Record<BgpKind, (object: unknown) => { readonly warnings: readonly string[] }>> = {
  BGPConfiguration: parseBgpConfiguration,
  BGPPeer: parseBgpPeer,
  BGPFilter: parseBgpFilter,
}

for (const { kind, what, name = kind === 'BGPConfiguration' ? 'default' : 'x', spec, refused } of bgpCases)
  test(`${kind}: ${what}`, () => {
    const object = { metadata: { name }, spec }
    if (!refused) return void parsers[kind](object)
    assert.throws(
      () => parsers[kind](object),
      (error: ConfigError) => {
        assert.ok(error instanceof ConfigError, `${error}`)
        assert.equal(error.object, `${kind} ${name}`)
        assert.ok(error.key.includes(refused.key), error.message)
        assert.match(error.message, refused.says)
        return true
      },
    )
  })

const plain = (value: unknown) => JSON.parse(JSON.stringify(value))

test('what is left out has Calico’s defaults', () => {
  assert.deepEqual(plain(parseBgpConfiguration({ metadata: { name: 'default' }, spec: {} }).configuration), {
    name: 'default',
    nodeToNodeMesh: true,
    clusterIps: [],
    externalIps: [],
    loadBalancerIps: [],
    aggregateLoadBalancerIps: true,
    bindMode: 'None',
    ignoredInterfaces: [],
    ipv4NormalRoutePriority: 1024,
    ipv6NormalRoutePriority: 1024,
  })
  const { peer } = parseBgpPeer({ metadata: { name: 'tor' }, spec: { peerIP: '192.0.2.1', asNumber: '1.10' } })
  assert.deepEqual(plain(peer), {
    name: 'tor',
    peer: { address: '192.0.2.1' },
    asn: 65546,
    nextHopMode: 'Auto',
    keepOriginalNextHop: false,
    sourceAddress: 'UseNodeIP',
    allowedLocalAsns: 0,
    filters: [],
    reversePeering: 'Auto',
    failureDetection: 'None',
    restartMode: 'GracefulRestart',
  })
})

test('communities by name and by value, each once; durations as Go writes them', () => {
  const { configuration } = parseBgpConfiguration({
    metadata: { name: 'default' },
    spec: {
      nodeMeshMaxRestartTime: '1m30.4s',
      communities: [{ name: 'blue', value: '64512:0300' }],
      prefixAdvertisements: [{ cidr: '10.0.0.0/8', communities: ['64512:300', 'blue', '1:2:3'] }],
    },
  })
  assert.equal(configuration.meshRestartSeconds, 90)
  assert.deepEqual(configuration.prefixAdvertisements![0]!.communities, ['1:2:3', '64512:300'])
})

test('keys that have no effect are told', () => {
  const warningsOf = (kind: BgpKind, spec: unknown, name = 'default') =>
    parsers[kind]({ metadata: { name }, spec }).warnings
  assert.deepEqual(warningsOf('BGPConfiguration', { ServiceClusterIPs: [{ cidr: '10.96.0.0/12' }] }), [
    'BGPConfiguration default: spec.ServiceClusterIPs: is not known to weft and has no effect',
  ])
  assert.deepEqual(warningsOf('BGPConfiguration', { programClusterRoutes: 'Enabled' }), [
    'BGPConfiguration default: programClusterRoutes: does not apply: weft makes the routes to blocks itself, of what pools, ' +
      'blocks and BGP say, and no two parts of it fight',
  ])
  assert.deepEqual(warningsOf('BGPConfiguration', { asNumber: 1, nodeToNodeMeshEnabled: false }, 'node.a'), [
    'BGPConfiguration node.a: spec.nodeToNodeMeshEnabled: counts in the object default alone',
  ])
  assert.deepEqual(warningsOf('BGPPeer', { localWorkloadSelector: 'all()', asNumber: 1 }, 'pods'), [
    'BGPPeer pods: localWorkloadSelector: does not apply: pods are no peers of weft',
  ])
  assert.deepEqual(warningsOf('BGPFilter', { exportV4: [{ action: 'Accept', as: 1 }] }, 'f'), [
    'BGPFilter f: spec.exportV4[0].as: is not known to weft and has no effect',
  ])
})
