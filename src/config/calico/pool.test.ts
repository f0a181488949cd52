import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IpPool } from '../../model/calico.ts'
import { ConfigError } from '../../model/errors.ts'
import { poolCases } from './definitions/pool-cases.ts'
import { findOverlaps, GENEVE_MODE_ANNOTATION, parsePool } from './pool.ts'

const objectOf = (spec: unknown, metadata: object = {}) => ({ metadata: { name: 'p', ...metadata }, spec })

for (const { what, spec, change, refused } of poolCases) {
  // What must not change is the store's to keep: a parser sees one object.
  if (change && refused) continue
  test(`a pool: ${what}`, () => {
    const object = objectOf(change ?? spec)
    if (!refused) return void parsePool(object)
    assert.throws(
      () => parsePool(object),
      (error: ConfigError) => {
        assert.ok(error instanceof ConfigError)
        assert.equal(error.object, 'IPPool p')
        assert.ok(error.key.startsWith(refused.field), error.message)
        assert.match(error.message, refused.says)
        return true
      },
    )
  })
}

test('what is left out has Calico’s defaults', () => {
  const { pool, warnings } = parsePool(objectOf({ cidr: '10.0.0.0/16' }, { creationTimestamp: '2026-11-21T00:00:01Z' }))
  assert.deepEqual(warnings, [])
  assert.deepEqual(
    { ...pool, cidr: `${pool.cidr}` },
    {
      name: 'p',
      cidr: '10.0.0.0/16',
      blockSize: 26,
      ipipMode: 'Never',
      vxlanMode: 'Never',
      geneveMode: 'Never',
      natOutgoing: false,
      disabled: false,
      disableBgpExport: false,
      nodeSelector: 'all()',
      allowedUses: ['Workload', 'Tunnel'],
      assignmentMode: 'Automatic',
      createdAtSeconds: Date.parse('2026-11-21T00:00:01Z') / 1000,
    },
  )
  assert.equal(parsePool(objectOf({ cidr: 'fd00::/48' })).pool.blockSize, 122)
})

test('text that is empty counts as missing, as older Calicos write it', () => {
  const { pool } = parsePool(
    objectOf({ cidr: '10.0.0.0/16', ipipMode: '', vxlanMode: '', nodeSelector: '', allowedUses: [] }),
  )
  assert.deepEqual([pool.ipipMode, pool.vxlanMode, pool.nodeSelector], ['Never', 'Never', 'all()'])
  assert.deepEqual(pool.allowedUses, ['Workload', 'Tunnel'])
})

test('GENEVE is asked for by an annotation, and alone', () => {
  const asked = { annotations: { [GENEVE_MODE_ANNOTATION]: 'CrossSubnet' } }
  assert.equal(parsePool(objectOf({ cidr: '10.0.0.0/16' }, asked)).pool.geneveMode, 'CrossSubnet')
  assert.throws(
    () => parsePool(objectOf({ cidr: '10.0.0.0/16', vxlanMode: 'Always' }, asked)),
    /metadata\.annotations\.weft\.dev\/geneve-mode: is CrossSubnet: ipipMode and vxlanMode must then be Never/,
  )
  const wrong = { annotations: { [GENEVE_MODE_ANNOTATION]: 'yes' } }
  assert.throws(() => parsePool(objectOf({ cidr: '10.0.0.0/16' }, wrong)), /must be one of Never, Always, CrossSubnet/)
})

test('keys that nobody knows are told, and Calico’s own of long ago are not', () => {
  const { warnings } = parsePool(
    objectOf({ cidr: '10.0.0.0/16', vlan: 7, ipip: { enabled: true }, 'nat-outgoing': true }),
  )
  assert.deepEqual(warnings, ['IPPool p: spec.vlan: is not known to weft and has no effect'])
})

test('what is no object at all is refused by name', () => {
  for (const value of [null, [], 7, 'pool', {}, { metadata: {} }, { metadata: { name: 7 } }, { metadata: [] }])
    assert.throws(() => parsePool(value), ConfigError)
  for (const spec of [undefined, null, [], 'x', { cidr: {} }, { cidr: ['10.0.0.0/8'] }, { cidr: '1'.repeat(5000) }])
    assert.throws(() => parsePool(objectOf(spec)), ConfigError)
  const many = Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`k${n}`, n]))
  assert.throws(() => parsePool(objectOf(many)), /more than 512 keys/)
  const long = { cidr: '10.0.0.0/16', allowedUses: new Array(11).fill('Workload') }
  assert.throws(() => parsePool(objectOf(long)), /spec\.allowedUses: has 11 items/)
})

const pool = (name: string, cidr: string, createdAtSeconds?: number, disabled = false): IpPool =>
  parsePool({
    metadata: { name, ...(createdAtSeconds && { creationTimestamp: new Date(createdAtSeconds * 1000).toISOString() }) },
    spec: { cidr, disabled },
  }).pool
const named = (pools: readonly IpPool[]) =>
  findOverlaps(pools).map(({ pool: { name }, stands }) => `${name} < ${stands.name}`)

test('of two pools that overlap the older stands, whatever their order and names', () => {
  const old = pool('z', '10.0.0.0/16', 100)
  const young = pool('a', '10.0.128.0/17', 200)
  assert.deepEqual(named([old, young]), ['a < z'])
  assert.deepEqual(named([young, old]), ['a < z'])
  assert.deepEqual(named([pool('z', '10.0.0.0/17', 5), pool('a', '10.0.0.0/16')]), ['a < z'])
  assert.deepEqual(named([pool('b', '10.0.0.0/17', 5), pool('a', '10.0.0.0/17', 5)]), ['b < a'])
})

test('a pool that does not stand keeps nobody out', () => {
  const pools = [pool('a', '10.0.0.0/24', 1), pool('b', '10.0.0.0/16', 2), pool('c', '10.0.9.0/24', 3)]
  assert.deepEqual(named(pools), ['b < a'])
})

test('disabled pools and other families overlap nothing', () => {
  assert.deepEqual(named([pool('a', '10.0.0.0/16', 1, true), pool('b', '10.0.0.0/17', 2)]), [])
  assert.deepEqual(named([pool('a', '0.0.0.0/1', 1), pool('b', '::/1', 2)]), [])
})
