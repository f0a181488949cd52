import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultIpamSettings } from '../../config/calico/ipam-settings.ts'
import { BlockDraft, newBlock } from '../../ipam/block.ts'
import { spareAttributes } from '../../ipam/spares.ts'
import { poolOf } from '../../ipam/stores/ipam-store-suite.ts'
import type { Held, IpamBlock } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { check, leaksOf } from './check.ts'
import { formatCount, type ShowInput, showBorrowed, showConfiguration, showIp, showUtilization } from './show.ts'

const blockOf = (cidr: string, owner: string, uses: readonly Readonly<Record<string, string>>[]): Held<IpamBlock> => {
  const draft = new BlockDraft(
    newBlock({
      cidr: Cidr.parse(cidr),
      owner: { type: 'host', name: owner },
      at: '2026-11-21T09:00:00Z',
      sequenceNumber: 7n,
    }),
  )
  for (const [ordinal, attributes] of uses.entries()) draft.take(ordinal, `k8s-pod-network.${ordinal}`, attributes)
  return { value: draft.finish(), revision: '1' }
}

const input: ShowInput = {
  pools: [poolOf('v6', 'fd00:10:244::/64'), poolOf('v4', '172.26.0.0/24')],
  reservations: [
    { name: 'half', cidrs: [Cidr.parse('172.26.0.128/25'), Cidr.parse('172.26.0.192/26')] },
    { name: 'live', cidrs: [Cidr.parse('172.26.0.1/32')] },
  ],
  settings: { ...defaultIpamSettings, strictAffinity: true, ipCooldownSeconds: 30 },
  blocks: [
    blockOf('172.26.0.0/26', 'n1', [
      { node: 'n1', namespace: 'default', pod: 'web-0' },
      { node: 'n2', namespace: 'default', pod: 'web-1' },
      { type: 'ipipTunnelAddress' },
    ]),
    blockOf('10.9.0.0/26', 'n3', []),
  ],
}

test('pools, blocks under their pools, blocks of no pool; a reserved address in use is counted as both', () => {
  assert.deepEqual(showUtilization(input, true), [
    '+----------+------------------+------------+------------+--------------+-------------------+',
    '| GROUPING |       CIDR       | IPS TOTAL  | IPS IN USE | IPS RESERVED |     IPS FREE      |',
    '+----------+------------------+------------+------------+--------------+-------------------+',
    '| IP Pool  | 172.26.0.0/24    |        256 |     3 (1%) |    129 (50%) |         125 (49%) |',
    '| Block    | 172.26.0.0/26    |         64 |     3 (5%) |       1 (2%) |          61 (95%) |',
    '| IP Pool  | fd00:10:244::/64 | 1.8447e+19 |     0 (0%) |       0 (0%) | 1.8447e+19 (100%) |',
    '| Block    | 10.9.0.0/26      |         64 |     0 (0%) |       0 (0%) |         64 (100%) |',
    '+----------+------------------+------------+------------+--------------+-------------------+',
  ])
  assert.equal(showUtilization(input, false).length, 6)
})

test("five digits, as C's %.5g", () => {
  assert.deepEqual([0, 64, 65_536, 131_072, 99_999.6].map(formatCount), ['0', '64', '65536', '1.3107e+05', '1e+05'])
})

test('an address on another node than its block, and one that says no node', () => {
  assert.deepEqual(showBorrowed(input), [
    '+------------+----------------+---------------+-------------+------+---------------+',
    '|     IP     | BORROWING-NODE |     BLOCK     | BLOCK OWNER | TYPE | ALLOCATED-TO  |',
    '+------------+----------------+---------------+-------------+------+---------------+',
    '| 172.26.0.1 | n2             | 172.26.0.0/26 | n1          | pod  | default/web-1 |',
    '+------------+----------------+---------------+-------------+------+---------------+',
    '',
    'Note: 1 addresses do not say which node has them; whether they are borrowed is not known.',
  ])
})

test('who has an address', () => {
  assert.deepEqual(showIp(input, Ip.parse('172.26.0.1')), [
    'IP 172.26.0.1 is in use',
    'Handle ID: k8s-pod-network.1',
    'Active Owner Attributes:',
    '  namespace: default',
    '  node: n2',
    '  pod: web-1',
    'Block: 172.26.0.0/26 of n1',
  ])
  for (const free of ['172.26.0.9', '172.26.0.200', '192.0.2.1'])
    assert.deepEqual(showIp(input, Ip.parse(free)), [`${free} is not assigned`])
})

test('an address that cools down says since when', () => {
  const draft = new BlockDraft(input.blocks[0]!.value)
  draft.release([0], { nowMilliseconds: Date.parse('2026-11-21T10:00:00Z'), seconds: 60 })
  const blocks = [{ value: draft.finish(), revision: '2' }]
  assert.equal(
    showIp({ blocks }, Ip.parse('172.26.0.0'))[0],
    'IP 172.26.0.0 was released at 2026-11-21T10:00:00Z and cools down',
  )
})

test('the settings', () => {
  assert.ok(showConfiguration(input).includes('| StrictAffinity     | true  |'))
  assert.ok(showConfiguration(input).includes('| IPCooldownSeconds  | 30    |'))
})

test('an address that is kept ready for pods says so, and no report calls it leaked while its node exists', () => {
  const owner = { node: 'n1', journal: 'j', run: 'r' }
  const block = blockOf('172.26.0.0/26', 'n1', [
    spareAttributes(owner),
    { node: 'n1', pod: 'gone', namespace: 'default' },
  ])
  assert.equal(showIp({ blocks: [block] }, Ip.parse('172.26.0.0'))[0], 'IP 172.26.0.0 is kept ready for pods of n1')
  const checked = (nodes: string[]) =>
    check({ ...input, blocks: [block], affinities: [], handles: [], nodes: new Set(nodes), inUse: [], now: 0 }, 'v', {
      allIps: false,
      problemIps: false,
    })
  const leaks = (nodes: string[]) => leaksOf(JSON.stringify(checked(nodes).report)).addresses.map(({ ip }) => ip)
  assert.ok(checked(['n1']).lines.includes('Nodes keep 1 of them ready for pods.'))
  assert.deepEqual(leaks(['n1']), ['172.26.0.1'])
  assert.deepEqual(leaks([]), ['172.26.0.0', '172.26.0.1'])
})
