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

test('whatever stands in an object, the answer is a reading or a ConfigError', () => {
  const seed = Number(process.env.SEED ?? 1 + (Date.now() % 1_000_000))
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const odd = [
    null,
    '',
    0,
    -1,
    1.5,
    2 ** 53,
    'x',
    '::',
    '10.0.0.0/8',
    [],
    [null],
    [[]],
    {},
    { cidr: [] },
    true,
    'a'.repeat(5000),
  ]
  const spoil = (value: unknown): unknown => {
    if (random(6) === 0) return odd[random(odd.length)]
    if (Array.isArray(value)) return value.map(spoil)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [random(20) ? key : '__proto__', spoil(inner)]),
    )
  }
  const seen = { read: 0, refused: 0 }
  for (let round = 0; round < 3000; round++) {
    const { kind, name = 'default', spec } = bgpCases[random(bgpCases.length)]!
    try {
      parsers[kind](spoil({ metadata: { name }, spec }))
      seen.read++
    } catch (error) {
      assert.ok(error instanceof ConfigError, `${(error as Error).stack} of seed ${seed}`)
      assert.ok(error.message.length < 1000, error.message)
      seen.refused++
    }
  }
  assert.ok(seen.read > 100 && seen.refused > 100, JSON.stringify(seen))
})
