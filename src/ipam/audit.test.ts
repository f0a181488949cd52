import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BlockAffinity, Held, IpamBlock, IpamHandle, IpPool } from '../model/calico.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { type AuditInput, audit, type Finding } from './audit.ts'
import { BlockDraft, newBlock } from './block.ts'

const held = <T>(value: T): Held<T> => ({ value, revision: '1' })
const now = Date.parse('2026-11-21T10:00:00Z')

const pool = (name: string, cidr: string, blockSize = 29): IpPool => ({
  name,
  cidr: Cidr.parse(cidr),
  blockSize,
  ipipMode: 'Never',
  vxlanMode: 'Never',
  geneveMode: 'Never',
  natOutgoing: true,
  disabled: false,
  disableBgpExport: false,
  nodeSelector: 'all()',
  allowedUses: ['Workload'],
  assignmentMode: 'Automatic',
})

const block = (cidr: string, node: string, handles: readonly string[] = []): IpamBlock => {
  const draft = new BlockDraft(
    newBlock({
      cidr: Cidr.parse(cidr),
      owner: { type: 'host', name: node },
      at: '2026-11-21T09:00:00Z',
      sequenceNumber: 7n,
    }),
  )
  for (const [ordinal, handle] of handles.entries())
    draft.take(ordinal, handle, { node, namespace: 'default', pod: `pod-${handle}` })
  return draft.finish()
}

const affinity = (cidr: string, node: string, state: BlockAffinity['state'] = 'confirmed'): BlockAffinity => ({
  owner: { type: 'host', name: node },
  cidr: Cidr.parse(cidr),
  state,
  deleted: false,
})

const handle = (handleId: string, blocks: Readonly<Record<string, number>>): IpamHandle => ({
  handleId,
  blocks,
  deleted: false,
})

/** A sound cluster: two nodes, a block each, three pods; one of them has an object for its handle. */
const sound: AuditInput = {
  pools: [pool('p', '172.26.0.0/24')],
  reservations: [],
  settings: { strictAffinity: false, maxBlocksPerHost: 0, autoAllocateBlocks: true, ipCooldownSeconds: 0 },
  blocks: [block('172.26.0.0/29', 'n1', ['a', 'b']), block('172.26.0.8/29', 'n2', ['c'])].map(held),
  affinities: [affinity('172.26.0.0/29', 'n1'), affinity('172.26.0.8/29', 'n2')].map(held),
  handles: [handle('a', { '172.26.0.0/29': 1 })].map(held),
  nodes: new Set(['n1', 'n2']),
  inUse: ['172.26.0.0', '172.26.0.1', '172.26.0.8'].map((ip, i) => ({
    ip: Ip.parse(ip),
    holder: `Workload(default/${i})`,
  })),
  now,
}

const more = <T>(values: readonly Held<T>[], ...added: readonly T[]): Held<T>[] => [...values, ...added.map(held)]
const said = (findings: readonly Finding[]) =>
  findings.filter(({ kind }) => kind !== 'handle-missing').map(({ kind, message }) => `${kind}: ${message}`)

const use = (ip: string, holder: string) => ({ ip: Ip.parse(ip), holder })
const released = (after: number): IpamBlock => {
  const draft = new BlockDraft(sound.blocks[0]!.value)
  draft.release([1], { nowMilliseconds: now + after, seconds: 60 })
  return draft.finish()
}

test('in a sound cluster nothing is found but handles without an object, which is no problem', () => {
  const findings = audit(sound)
  assert.deepEqual(
    findings.map(({ kind }) => kind),
    ['handle-missing', 'handle-missing'],
  )
})

const cases: readonly [injected: string, change: Partial<AuditInput>, found: readonly string[]][] = [
  [
    'a pod that is gone',
    { inUse: sound.inUse.slice(1) },
    ['leaked-address: 172.26.0.0 is allocated (pod default/pod-a, node n1, handle a) and nobody uses it'],
  ],
  [
    'a reservation over a live address',
    { reservations: [{ name: 'r', cidrs: [Cidr.parse('172.26.0.8/31')] }] },
    ['reserved-address: 172.26.0.8 is reserved, and allocated since before (pod default/pod-c, node n2, handle c)'],
  ],
  [
    'two pods with one address',
    { inUse: [...sound.inUse, use('172.26.0.8', 'Workload(x/y)')] },
    ['duplicate-use: 172.26.0.8 is used by Workload(default/2) and by Workload(x/y)'],
  ],
  [
    'a pod whose address nobody gave',
    { inUse: [...sound.inUse, use('172.26.0.9', 'Workload(x/y)'), use('10.0.0.1', 'Workload(x/z)')] },
    [
      'not-allocated: 172.26.0.9 is used by Workload(x/y) and not allocated',
      'not-in-pool: 10.0.0.1 is used by Workload(x/z) and in no pool',
    ],
  ],
  [
    'handles that count wrongly',
    { handles: [handle('a', { '172.26.0.0/29': 2 }), handle('z', { '172.26.0.0/29': 1 })].map(held) },
    [
      'handle-without-addresses: handle z has no address in any block',
      'handle-count: handle a counts 2 addresses in 172.26.0.0/29, and has 1',
    ],
  ],
  [
    'a block whose tables are damaged',
    { blocks: more(sound.blocks.slice(0, 1), { ...sound.blocks[1]!.value, unallocated: [1, 2, 3] }) },
    [
      'damaged-block: block 172.26.0.8/29 is damaged: ordinal 4 is neither allocated nor unallocated; ' +
        'ordinal 5 is neither allocated nor unallocated; ordinal 6 is neither allocated nor unallocated; ' +
        'ordinal 7 is neither allocated nor unallocated',
    ],
  ],
  [
    'an object that cannot be read',
    { unreadable: [{ message: 'IPAMBlock x: allocations: has 3 entries for 8 addresses' }] },
    ['unreadable-object: IPAMBlock x: allocations: has 3 entries for 8 addresses'],
  ],
  [
    'a release by a clock that was ahead',
    { blocks: more(sound.blocks.slice(1), released(3_600_000)), inUse: [sound.inUse[0]!, sound.inUse[2]!] },
    ['future-release: 172.26.0.1 was released at 2026-11-21T11:00:00Z, which is not yet: a clock is wrong'],
  ],
  [
    'an address that cools down',
    { blocks: more(sound.blocks.slice(1), released(-1000)), inUse: [sound.inUse[0]!, sound.inUse[2]!] },
    [],
  ],
  [
    'a pool that is gone',
    { pools: [] },
    [
      'block-outside-pools: block 172.26.0.0/29 is in no pool',
      'block-outside-pools: block 172.26.0.8/29 is in no pool',
    ],
  ],
  [
    'another blockSize',
    { pools: [pool('p', '172.26.0.0/24', 28)] },
    [
      'block-size: block 172.26.0.0/29 is not a /28 as pool p makes them now',
      'block-size: block 172.26.0.8/29 is not a /28 as pool p makes them now',
    ],
  ],
  [
    'a block over another',
    {
      blocks: more(sound.blocks, block('172.26.0.8/30', 'n1', ['d'])),
      affinities: more(sound.affinities, affinity('172.26.0.8/30', 'n1')),
    },
    [
      'duplicate-allocation: 172.26.0.8 is allocated in 172.26.0.8/29 and in 172.26.0.8/30',
      'block-size: block 172.26.0.8/30 is not a /29 as pool p makes them now',
      'overlapping-blocks: blocks 172.26.0.8/29 and 172.26.0.8/30 overlap',
    ],
  ],
  [
    'a pool over another',
    { pools: [...sound.pools, pool('q', '172.26.0.0/25')] },
    ['overlapping-pools: pools p (172.26.0.0/24) and q (172.26.0.0/25) overlap'],
  ],
  [
    'a block without its affinity',
    { affinities: sound.affinities.slice(1) },
    ['block-without-affinity: block 172.26.0.0/29 is of n1, which has no affinity to it'],
  ],
  [
    'affinities to what is not there, is another’s, is half done',
    {
      affinities: more(
        sound.affinities,
        affinity('172.26.0.16/29', 'n1'),
        affinity('172.26.0.8/29', 'n1'),
        affinity('172.26.0.24/29', 'n1', 'pending'),
      ),
    },
    [
      'affinity-without-block: host:n1 has an affinity to 172.26.0.16/29, which is no block',
      'affinity-mismatch: host:n1 has an affinity to 172.26.0.8/29, which is of host:n2',
      'affinity-unfinished: the affinity of host:n1 to 172.26.0.24/29 is pending',
    ],
  ],
  [
    'a node that is gone',
    { nodes: new Set(['n1']), affinities: more(sound.affinities, affinity('172.26.0.24/29', 'n2', 'pendingDeletion')) },
    [
      'affinity-unfinished: the affinity of host:n2 to 172.26.0.24/29 is pendingDeletion',
      'node-gone: node n2 does not exist and has 172.26.0.8/29, 172.26.0.24/29',
    ],
  ],
]

for (const [injected, change, found] of cases)
  test(`found: ${injected}`, () => {
    assert.deepEqual(said(audit({ ...sound, ...change })), found)
  })
