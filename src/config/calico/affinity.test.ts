import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import type { BlockOwner } from '../../model/calico.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import {
  decodeAffinitySpec,
  decodeAffinityValue,
  decodeHandleSpec,
  decodeHandleValue,
  encodeAffinitySpec,
  encodeAffinityValue,
  encodeHandleSpec,
  encodeHandleValue,
} from './affinity.ts'
import {
  affinityLabels,
  affinityName,
  cidrName,
  etcdKeys,
  handleName,
  parseAffinityKey,
  parseBlockKey,
  parseHandleKey,
} from './store-names.ts'

const cidr = Cidr.parse('172.26.40.128/26')
const v6 = Cidr.parse('fd00:10:244::40/122')
const owner: BlockOwner = { type: 'host', name: 'node-1' }

test('an affinity, in both shapes and back', () => {
  const affinity = { owner, cidr, state: 'pending', deleted: false } as const
  const spec = { state: 'pending', node: 'node-1', type: 'host', cidr: '172.26.40.128/26', deleted: 'false' }
  assert.deepEqual(encodeAffinitySpec(affinity), spec)
  assert.deepEqual(decodeAffinitySpec(spec, 'BlockAffinity x'), affinity)
  assert.deepEqual(encodeAffinityValue(affinity), { state: 'pending', deleted: false })
  assert.deepEqual(decodeAffinityValue({ state: 'pending', deleted: false }, { owner, cidr }, 'key'), affinity)
})

test('what older releases wrote of affinities is read', () => {
  const old = decodeAffinitySpec({ node: 'n', cidr: '10.0.0.0/26', deleted: '' }, 'x')
  assert.deepEqual([old.owner.type, old.state, old.deleted], ['host', 'confirmed', false])
  assert.equal(decodeAffinityValue(undefined, { owner, cidr }, 'x').state, 'confirmed')
  assert.equal(decodeAffinitySpec({ node: 'n', cidr: '10.0.0.0/26', deleted: true }, 'x').deleted, true)
})

test('affinities and handles that cannot be read are named', () => {
  const refused = (run: () => unknown, key: string) =>
    assert.throws(run, (error: ConfigError) => error instanceof ConfigError && error.key === key)
  const spec = { node: 'n', cidr: '10.0.0.0/26', state: 'confirmed', deleted: 'false' }
  refused(() => decodeAffinitySpec({ ...spec, state: 'sure' }, 'x'), 'state')
  refused(() => decodeAffinitySpec({ ...spec, deleted: 'no' }, 'x'), 'deleted')
  refused(() => decodeAffinitySpec({ ...spec, type: 'ghost' }, 'x'), 'type')
  refused(() => decodeAffinitySpec({ ...spec, node: undefined }, 'x'), 'node')
  refused(() => decodeAffinitySpec({ ...spec, cidr: '10.0.0.1/26' }, 'x'), 'cidr')
  refused(() => decodeAffinityValue([], { owner, cidr }, 'x'), '(whole)')
  refused(() => decodeHandleSpec({ block: {} }, 'x'), 'handleID')
  refused(() => decodeHandleValue({ block: { ten: 1 } }, 'h', 'x'), 'block')
  refused(() => decodeHandleValue({ block: { '10.0.0.0/26': -1 } }, 'h', 'x'), 'block.10.0.0.0/26')
  refused(() => decodeHandleValue({ block: [] }, 'h', 'x'), 'block')
})

test('a handle, in both shapes and back', () => {
  const handle = { handleId: 'k8s-pod-network.AB', blocks: { '10.0.0.0/26': 2 }, deleted: false }
  assert.deepEqual(decodeHandleSpec(encodeHandleSpec(handle), 'x'), handle)
  assert.deepEqual(encodeHandleSpec(handle), {
    handleID: 'k8s-pod-network.AB',
    block: { '10.0.0.0/26': 2 },
    deleted: false,
  })
  assert.deepEqual(decodeHandleValue(encodeHandleValue(handle), handle.handleId, 'x'), handle)
})

test('names of objects are Calico’s', () => {
  const sha256Hex = (text: string) => createHash('sha256').update(text).digest('hex')
  assert.equal(cidrName(cidr), '172-26-40-128-26')
  assert.equal(cidrName(v6), 'fd00-10-244--40-122')
  assert.equal(affinityName(owner, cidr, { sha256Hex }), 'node-1-172-26-40-128-26')
  assert.equal(handleName('k8s-pod-network.AB'), 'k8s-pod-network.ab')
  const long = affinityName({ type: 'host', name: 'n'.repeat(253) }, cidr, { sha256Hex })
  assert.equal(long.length, 252)
  assert.ok(long.endsWith(`-172-26-40-128-26-${sha256Hex(`${'n'.repeat(253)}+172-26-40-128-26`).slice(0, 11)}`))
  assert.deepEqual(affinityLabels(owner, v6, { sha3Base32: (text) => `#${text}` }), {
    'projectcalico.org/hostname-hash': '#node-1',
    'projectcalico.org/affinity-type': 'host',
    'projectcalico.org/ip-version': '6',
  })
})

test('keys of etcd are Calico’s, both ways', () => {
  assert.equal(etcdKeys.block(cidr), '/calico/ipam/v2/assignment/ipv4/block/172.26.40.128-26')
  assert.equal(etcdKeys.affinity(owner, v6), '/calico/ipam/v2/host/node-1/ipv6/block/fd00:10:244::40-122')
  assert.equal(etcdKeys.handle('h.1'), '/calico/ipam/v2/handle/h.1')
  for (const each of [cidr, v6]) {
    assert.ok(parseBlockKey(etcdKeys.block(each))?.equals(each))
    const parsed = parseAffinityKey(etcdKeys.affinity({ type: 'virtual', name: 'load-balancer' }, each))
    assert.deepEqual(parsed?.owner, { type: 'virtual', name: 'load-balancer' })
    assert.ok(parsed?.cidr.equals(each))
  }
  assert.equal(parseHandleKey(etcdKeys.handle('h.1')), 'h.1')
  for (const key of [
    '/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-26',
    '/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-26',
    '/calico/ipam/v2/assignment/ipv4/block/',
    '/calico/ipam/v2/config',
  ])
    assert.equal(parseBlockKey(key), undefined, key)
  assert.equal(parseAffinityKey('/calico/ipam/v2/host/a/b/ipv4/block/10.0.0.0-26'), undefined)
  assert.equal(parseHandleKey('/calico/ipam/v2/handle/a/b'), undefined)
})
