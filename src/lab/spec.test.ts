import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../model/errors.ts'
import { faultRules } from './faults.ts'
import { isLabName, isNodeName, type LabSpec, nodeAddress } from './layout.ts'
import { nameOfPools, poolsFor, readPools } from './pools.ts'
import {
  BACKENDS,
  makeSpec,
  nameOfWords,
  netConfigFor,
  wantedOf,
  wantedPaths,
  withNewAddress,
  withNode,
  wordsFor,
} from './spec.ts'

const wish = { name: 'lab', nodes: 3, subnets: 2, ipv6: true, netConfig: netConfigFor('vxlan', true) }

test('names: no lab is a prefix of another, no node is called as a place of the underlay', () => {
  assert.ok(isLabName('lab') && isLabName('a1'))
  for (const bad of ['', '1a', 'a-b', 'Lab', 'test', 'a'.repeat(17), '../x']) assert.equal(isLabName(bad), false, bad)
  assert.ok(isNodeName('n1') && isNodeName('edge-1'))
  for (const bad of ['', 'fabric', 'router', 'outside', 'pod', 'pod-1', 'net0', 'lo', 'a'.repeat(14), 'a/b', 'A'])
    assert.equal(isNodeName(bad), false, bad)
})

test('nodes take turns on the subnets; a new one has an index of its own; addresses follow', () => {
  const spec = makeSpec(wish)
  assert.deepEqual(
    spec.nodes.map((node) => [node.name, String(nodeAddress(node, 4)), String(nodeAddress(node, 6))]),
    [
      ['n1', '172.30.0.11', 'fd00:172:30::b'],
      ['n2', '172.30.1.12', 'fd00:172:30:1::c'],
      ['n3', '172.30.0.13', 'fd00:172:30::d'],
    ],
  )
  const grown = withNode({ ...spec, nodes: spec.nodes.slice(2) }, {})
  assert.equal(grown.node.name, 'n4')
  const without = (from: LabSpec, name: string) => ({ ...from, nodes: from.nodes.filter((node) => node.name !== name) })
  const again = withNode(without(withNewAddress(spec, 'n3').spec, 'n3'), { name: 'n3' })
  assert.deepEqual([again.node.name, again.node.index], ['n3', 5], 'neither index of the n3 before')
  assert.equal(withNode({ ...without(spec, 'n2'), lastIndex: 200 }, {}).node.index, 2, 'all are used up')
  assert.throws(() => withNode(spec, { name: 'n2' }), /n2: is there already/)
  assert.throws(() => withNode(spec, { subnet: 2 }), /--subnet: must be a whole number from 0 to 1/)
})

test('wrong wishes are refused before anything is made, by the name of the option or key', () => {
  const refused = (change: object, pattern: RegExp) =>
    assert.throws(
      () => makeSpec({ ...wish, ...change }),
      (error) => error instanceof ConfigError && pattern.test(error.message),
    )
  refused({ name: 'a b' }, /--name/)
  refused({ nodes: 0 }, /--nodes/)
  refused({ subnets: 99 }, /--subnets/)
  refused({ mtuBytes: 100 }, /--mtu/)
  refused({ netConfig: '{"Network":"10.244.0.0/16","Backend":{"Type":"wings"}}' }, /Backend\.Type.*wings/)
  assert.throws(() => netConfigFor('wings', true), /is not one of vxlan, vxlan-direct, host-gw, udp, ipip,/)
})

test('a net-conf.json says by which paths nodes send once they have arrived', () => {
  const paths = (backend: string) => wantedPaths(netConfigFor(backend, false))
  assert.deepEqual(paths('vxlan'), { backend: 'vxlan', type: 'vxlan', paths: ['vxlan/1/8472'] })
  assert.deepEqual(paths('vxlan-direct'), {
    backend: 'vxlan-direct',
    type: 'vxlan',
    paths: ['vxlan/1/8472', 'host-gw'],
  })
  assert.deepEqual(paths('host-gw').paths, ['host-gw'])
  assert.deepEqual(paths('udp').paths, ['udp/8285'])
  assert.deepEqual(paths('ipip-direct').paths, ['ipip', 'host-gw'])
  assert.deepEqual(paths('kube-router-subnet').paths, ['tun/ipip', 'host-gw'])
  assert.deepEqual(paths('kube-router-fou').paths, ['tun/fou/5555'])
  for (const backend of Object.keys(BACKENDS)) {
    assert.equal(paths(backend).backend, backend)
    assert.equal(wantedPaths(netConfigFor(backend, true)).backend, backend)
  }
})

test('the short names of pools say what the pools have, and the pools say their short name', () => {
  const of = (backend: string, ipv6 = true, subnets = 1) => {
    const words = wordsFor(backend, { ipv6, subnets })
    assert.equal(words.netConfig, undefined)
    assert.equal(nameOfWords(words), backend)
    return wantedOf(words).calico?.toSorted().join(' ')
  }
  assert.equal(of('calico-ipip', false), 'calico/ipip')
  assert.equal(of('calico-ipip'), 'calico/ipip calico/plain')
  assert.equal(of('calico-ipip', true, 2), 'calico/ipip calico/plain calico/vxlan-v6/4096/4789')
  assert.equal(of('calico-ipip-cross', false), 'calico/ipip calico/plain')
  assert.equal(of('calico-vxlan'), 'calico/vxlan-v6/4096/4789 calico/vxlan/4096/4789')
  assert.equal(of('calico-vxlan-cross', false), 'calico/plain calico/vxlan/4096/4789')
  assert.equal(of('calico-plain', true, 2), 'calico/plain')
  const both = {
    ...wordsFor('host-gw', { ipv6: false, subnets: 1 }),
    pools: poolsFor('calico-ipip', { ipv6: false, subnets: 1 }),
  }
  assert.equal(nameOfWords(both), 'calico-ipip+host-gw')
  const disabled = both.pools.map((pool) => ({ ...pool, spec: { ...pool.spec, disabled: true } }))
  assert.equal(nameOfPools(disabled), undefined)
  assert.equal(nameOfWords({ ...both, pools: disabled }), 'host-gw')
})

test('pools are read from manifests of both versions; what is none is refused by file or object and key', () => {
  const spec = 'spec: { cidr: 192.168.0.0/16, ipipMode: CrossSubnet, natOutgoing: true }'
  const manifest = (version: string, name: string) =>
    `apiVersion: ${version}\nkind: IPPool\nmetadata: { name: ${name} }\n${spec}\n`
  const read = readPools(
    `${manifest('projectcalico.org/v3', 'a')}---\n${manifest('crd.projectcalico.org/v1', 'b')}---\n`,
    'my.yaml',
  )
  assert.deepEqual(
    read.map(({ apiVersion, metadata }) => [apiVersion, metadata.name]),
    [
      ['crd.projectcalico.org/v1', 'a'],
      ['crd.projectcalico.org/v1', 'b'],
    ],
  )
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: read })
  assert.deepEqual(readPools(list, 'list.json'), read)
  const refused = (text: string, pattern: RegExp) =>
    assert.throws(
      () => readPools(text, 'my.yaml'),
      (error) => error instanceof ConfigError && pattern.test(error.message),
    )
  refused('', /my\.yaml: \(whole\): has no IPPool/)
  refused('a: [', /my\.yaml: \(whole\): is no YAML/)
  refused('3', /my\.yaml: kind: undefined/)
  refused('{ apiVersion: v1, kind: Pod }', /my\.yaml: kind: "Pod" of "v1" is no IPPool/)
  refused(manifest('projectcalico.org/v3', 'a').replace('CrossSubnet', 'Sometimes'), /IPPool a: spec\.ipipMode/)
})

test('faults are one replaced table; a split pair is kept apart on a bridge and across the router', () => {
  const none = { isolated: [], split: [], loss: {}, delay: {}, apiDown: false }
  assert.doesNotMatch(faultRules(makeSpec(wish), none), /drop|reject/)
  const text = faultRules(makeSpec(wish), {
    ...none,
    isolated: ['n3'],
    split: [['n1', 'n2']],
    loss: { n1: 2.5 },
    apiDown: true,
  })
  for (const rule of [
    'iifname "n3" drop',
    'oifname "n3" drop',
    'iifname "n1" oifname "n2" drop',
    'iifname "n2" oifname "n1" drop',
    'ip saddr 172.30.0.11 ip daddr 172.30.1.12 drop',
    'ip6 saddr fd00:172:30:1::c ip6 daddr fd00:172:30::b drop',
    'iifname "n1" numgen random mod 10000 < 250 drop',
    'iifname != "lo" tcp dport 6443 reject with tcp reset',
  ])
    assert.ok(text.includes(rule), rule)
})
