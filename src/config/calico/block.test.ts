import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatJson, parseJson } from '../../bytes/json.ts'
import { ConfigError } from '../../model/errors.ts'
import { decodeBlock, decodeBlockHead, encodeBlock } from './block.ts'

/** As Calico writes it: etcd's value, with a counter that no double holds. */
const etcdText =
  '{"cidr":"172.26.40.128/30","affinity":"host:node-1","affinity_claim_time":"2026-11-21T22:00:00Z",' +
  '"allocations":[0,null,1,2],"unallocated":[1],"attributes":[' +
  '{"handle_id":"k8s-pod-network.0f","secondary":{"namespace":"default","node":"node-1","pod":"web-0"}},' +
  '{"handle_id":"ipip-tunnel-addr-node-2","secondary":{"node":"node-2","type":"ipipTunnelAddress"}},' +
  '{"handle_id":"k8s-pod-network.1f","secondary":{"pod":"web-1"},"alternateOwnerAttrs":{"pod":"web-2"},' +
  '"releasedAt":"2026-11-21T22:01:00Z"}],"sequenceNumber":1763761234567890123,' +
  '"sequenceNumberForAllocation":{"0":1763761234567890121,"2":1763761234567890122},"deleted":false}'

const block = (change: object = {}) => ({ ...(parseJson(etcdText) as Record<string, unknown>), ...change })
const decode = (change: object = {}) => decodeBlock(block(change), 'IPAMBlock x')

test("etcd's value is read and written again as it was", () => {
  const decoded = decode()
  assert.deepEqual(decoded.owner, { type: 'host', name: 'node-1' })
  assert.deepEqual(decoded.allocations, [0, null, 1, 2])
  assert.equal(decoded.sequenceNumber, 1763761234567890123n)
  assert.equal(decoded.sequenceNumberForAllocation[2], 1763761234567890122n)
  assert.deepEqual(decoded.attributes[2], {
    handleId: 'k8s-pod-network.1f',
    secondary: { pod: 'web-1' },
    releasedAt: '2026-11-21T22:01:00Z',
    further: { alternateOwnerAttrs: { pod: 'web-2' } },
  })
  const again = parseJson(formatJson(encodeBlock(decoded, 'etcd')))
  assert.deepEqual(again, block({ strictAffinity: false }))
})

test('in Kubernetes the time has another name, and an owner that is missing is left out', () => {
  const spec = encodeBlock(decode(), 'kubernetes')
  assert.equal(spec.affinityClaimTime, '2026-11-21T22:00:00Z')
  assert.equal('affinity_claim_time' in spec, false)
  assert.deepEqual(decodeBlock(spec, 'IPAMBlock x'), decode())
  const { owner: _, ownedSince: __, ...nobodys } = decode()
  assert.equal('affinity' in encodeBlock(nobodys, 'kubernetes'), false)
  assert.equal(encodeBlock(nobodys, 'etcd').affinity, null)
  assert.equal(decode({ affinity: null }).owner, undefined)
  assert.equal(decode({ affinity: null, hostAffinity: 'n9' }).owner?.name, 'n9')
})

test('fields of other versions live on', () => {
  const decoded = decode({ tomorrow: { x: [1] } })
  assert.deepEqual(decoded.further, { tomorrow: { x: [1] } })
  assert.deepEqual(encodeBlock(decoded, 'etcd').tomorrow, { x: [1] })
})

test('the order of free addresses is healed: each once, none forgotten, none in use', () => {
  assert.deepEqual(decode({ allocations: [null, 0, null, null], unallocated: [3, 3, 1, 0] }).unallocated, [3, 0, 2])
  assert.deepEqual(decode({ unallocated: null }).unallocated, [1])
})

const corrupt: readonly (readonly [what: string, change: object, key: string, says: RegExp])[] = [
  ['allocations too short', { allocations: [0, null] }, 'allocations', /has 2 entries for 4 addresses/],
  ['allocations too long', { allocations: [null, null, null, null, null] }, 'allocations', /has 5 entries/],
  ['no allocations', { allocations: undefined }, 'allocations', /has no entries/],
  ['an unknown attribute', { allocations: [3, null, 1, 2] }, 'allocations[0]', /is 3, but there are 3 attributes/],
  ['a negative attribute', { allocations: [-1, null, 1, 2] }, 'allocations[0]', /is -1/],
  ['an attribute as text', { allocations: ['0', null, 1, 2] }, 'allocations[0]', /is "0"/],
  ['a free address outside', { unallocated: [4] }, 'unallocated[0]', /is 4: the block has 4 addresses/],
  ['a free address as text', { unallocated: ['1'] }, 'unallocated[0]', /is "1"/],
  ['no CIDR', { cidr: undefined }, 'cidr', /is missing/],
  ['host bits', { cidr: '172.26.40.129/30' }, 'cidr', /host bits/],
  ['a block too large', { cidr: '172.26.0.0/16' }, 'cidr', /larger than a block can be/],
  ['a whole family', { cidr: '::/0' }, 'cidr', /larger than a block can be/],
  ['an owner of no kind', { affinity: 'node-1' }, 'affinity', /must be host:NODE or virtual:USE/],
  ['an owner with a path', { affinity: 'host:../x' }, 'affinity', /must be host:NODE/],
  ['an attribute that is no object', { attributes: [null, {}, {}] }, 'attributes[0]', /must be an object/],
  ['too many attributes', { attributes: new Array(9000).fill({}) }, 'attributes', /at most 8192/],
  [
    'words that are no text',
    { attributes: [{ secondary: { pod: 7 } }, {}, {}] },
    'attributes[0].secondary.pod',
    /must be text/,
  ],
  ['a count below zero', { sequenceNumber: -1 }, 'sequenceNumber', /from 0 to 2\^64-1/],
  ['a count of 65 bits', { sequenceNumber: 2n ** 64n }, 'sequenceNumber', /from 0 to 2\^64-1/],
  ['a count as text', { sequenceNumber: '7' }, 'sequenceNumber', /from 0/],
  ['half a count', { sequenceNumber: 1.5 }, 'sequenceNumber', /from 0/],
  [
    'counts of no address',
    { sequenceNumberForAllocation: { 4: 1 } },
    'sequenceNumberForAllocation',
    /"4" is no ordinal/,
  ],
  ['counts by name', { sequenceNumberForAllocation: { a: 1 } }, 'sequenceNumberForAllocation', /"a" is no ordinal/],
  ['counts as a list', { sequenceNumberForAllocation: [1] }, 'sequenceNumberForAllocation', /must be an object/],
  ['deleted as text', { deleted: 'true' }, 'deleted', /true or false/],
]

for (const [what, change, key, says] of corrupt)
  test(`a corrupt block is named: ${what}`, () => {
    assert.throws(
      () => decode(change),
      (error: ConfigError) => {
        assert.ok(error instanceof ConfigError)
        assert.deepEqual([error.object, error.key], ['IPAMBlock x', key])
        assert.match(error.message, says)
        return true
      },
    )
  })

test('whose a corrupt block is can still be told', () => {
  const { cidr, owner } = decodeBlockHead(block({ allocations: [] }), 'IPAMBlock x')
  assert.deepEqual([`${cidr}`, owner?.name], ['172.26.40.128/30', 'node-1'])
})

test('whatever stands there, a block or a ConfigError comes out', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const junk = [null, undefined, 0, -1, 1.5, 1e300, '', 'x', '0', true, [], {}, [null], { a: 1 }, 2n ** 70n, Number.NaN]
  const spoil = (value: unknown): unknown => {
    if (random(6) === 0) return junk[random(junk.length)]
    if (Array.isArray(value)) return value.map(spoil)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, spoil(member)]))
  }
  for (let n = 0; n < 3000; n++) {
    const value = spoil(block())
    try {
      const decoded = decodeBlock(value, 'IPAMBlock x')
      assert.deepEqual(decodeBlock(encodeBlock(decoded, 'etcd'), 'IPAMBlock x'), decoded)
    } catch (error) {
      assert.ok(error instanceof ConfigError, `${error}`)
    }
  }
})
