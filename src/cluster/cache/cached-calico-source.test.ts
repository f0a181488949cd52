import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { decodeBlock } from '../../config/calico/block.ts'
import { parsePool } from '../../config/calico/pool.ts'
import type { IpamBlock } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import type { CalicoEvent, CalicoListener, CalicoSource } from '../calico/calico-source.ts'
import { CachedCalicoSource } from './cached-calico-source.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-test-calico-view-'))
after(() => rmSync(folder, { recursive: true, force: true }))
let files = 0

/** A store that says what the test says. */
class ToldSource implements CalicoSource {
  readonly pods = { find: async () => undefined, annotate: () => {} }
  tell: CalicoListener = () => {}
  start(listener: CalicoListener): void {
    this.tell = listener
  }
  reconnect(): void {}
  async close(): Promise<void> {}
}

class Log {
  readonly warnings: string[] = []
  debug(): void {}
  info(): void {}
  error(): void {}
  warn(fields: object, message: string): void {
    this.warnings.push(`${message}: ${JSON.stringify(fields)}`)
  }
}

function open(file: string, node = 'n1') {
  const inner = new ToldSource()
  const log = new Log()
  const told: CalicoEvent[] = []
  const identity = { node, store: 'x' }
  const source = new CachedCalicoSource({ source: inner, file, identity, log, patienceMs: 1 << 30, writeEveryMs: 1 })
  source.start((event) => told.push(event))
  return { source, told, log, tell: (event: CalicoEvent) => inner.tell(event) }
}

const poolOf = (name: string, more = {}): CalicoEvent => ({
  type: 'pool',
  name,
  pool: parsePool({
    metadata: {
      name,
      creationTimestamp: '2026-01-02T03:04:05Z',
      annotations: { 'weft.dev/geneve-mode': 'CrossSubnet' },
    },
    spec: {
      cidr: '172.26.0.0/16',
      natOutgoing: true,
      disableBGPExport: true,
      namespaceSelector: "team == 'a'",
      allowedUses: ['Workload'],
      assignmentMode: 'Manual',
      ...more,
    },
  }).pool,
})

const block = (cidr: string, owner: string, nodes: readonly (string | null)[]): IpamBlock =>
  decodeBlock(
    {
      cidr,
      affinity: owner,
      allocations: nodes.map((node, i) => (node === null ? null : i)),
      unallocated: nodes.flatMap((node, i) => (node === null ? [i] : [])),
      attributes: nodes.map((node) => ({ handle_id: 'h', secondary: node === null ? {} : { node } })),
      sequenceNumber: 1_763_000_000_123_456_789n,
      sequenceNumberForAllocation: {},
    },
    cidr,
  )
const blockEvent = (value: IpamBlock, revision: string): CalicoEvent => ({ type: 'block', held: { value, revision } })

const own = block('172.26.0.0/30', 'host:n1', ['n1', null, 'n2', null])
const others = block('172.26.0.4/30', 'host:n2', ['n2', 'n3', null, 'n2'])
const reservation: CalicoEvent = {
  type: 'reservation',
  name: 'r',
  reservation: { name: 'r', cidrs: [Cidr.parse('172.26.9.9/32')] },
}
const felix: CalicoEvent = { type: 'felix', name: 'default', spec: { vxlanVNI: 4097 } }
const settings: CalicoEvent = {
  type: 'ipam-settings',
  settings: { strictAffinity: true, autoAllocateBlocks: true, maxBlocksPerHost: 4, ipCooldownSeconds: 30 },
}
const down: CalicoEvent = { type: 'connection', up: false, problem: 'away' }

/** A file as an agent leaves it that saw these. */
async function leave(...events: readonly CalicoEvent[]): Promise<string> {
  const file = join(folder, `view-${++files}`)
  const { source, tell } = open(file)
  for (const event of [...events, { type: 'synced' } as const]) tell(event)
  await source.close()
  return file
}

test('the store away: what was known is told, then that it is remembered', async () => {
  const pool = poolOf('pool-a')
  const file = await leave(pool, reservation, felix, settings, blockEvent(own, '7 u'), blockEvent(others, '8 u'))
  const { source, told, tell, log } = open(file)
  assert.equal(told.length, 0)
  tell(down)
  assert.deepEqual(log.warnings, [])
  const [first, ...events] = told
  assert.deepEqual(first, down)
  assert.deepEqual(events.slice(0, 5), [pool, reservation, felix, settings, blockEvent(own, '7 u')])
  const part = events[5] as Extract<CalicoEvent, { type: 'block' }>
  assert.deepEqual(part.held.value.owner, { type: 'host', name: 'n2' })
  assert.deepEqual(part.held.value.allocations, [null, 0, null, null])
  assert.deepEqual(part.held.value.attributes, [{ secondary: { node: 'n3' } }])
  assert.deepEqual(part.held.value.unallocated, [], 'it has nothing to give')
  assert.equal(part.held.revision, '1', 'nobody can write it')
  assert.equal(events[6]!.type, 'remembered')
  assert.equal(events.length, 7)
  tell(down)
  assert.equal(told.length, 9, 'once')
  await source.close()
})

test('the store comes back: what differs, every block, what is gone', async () => {
  const file = await leave(poolOf('a'), poolOf('b'), reservation, felix, blockEvent(own, '7'), blockEvent(others, '8'))
  const { source, told, tell } = open(file)
  tell(down)
  told.length = 0
  const changed = poolOf('b', { disabled: true })
  for (const event of [poolOf('a'), changed, blockEvent(own, '7'), felix, { type: 'synced' } as const]) tell(event)
  assert.deepEqual(told, [
    changed,
    blockEvent(own, '7'),
    { type: 'reservation-gone', name: 'r' },
    { type: 'block-gone', cidr: others.cidr },
    { type: 'synced' },
  ])
  await source.close()
  const again = open(file)
  again.tell(down)
  assert.deepEqual(again.told.slice(1, -1), [poolOf('a'), changed, blockEvent(own, '7'), felix])
  await again.source.close()
})

test('the store answers at once: nothing is remembered; what changes later is in the file', async () => {
  const file = await leave(poolOf('a'), settings)
  const { source, told, tell } = open(file)
  tell(poolOf('b'))
  tell({ type: 'synced' })
  assert.deepEqual(told, [poolOf('b'), { type: 'synced' }])
  tell(blockEvent(others, '9'))
  tell({ type: 'pool-gone', name: 'b' })
  await source.close()
  const { told: later, tell: tellLater, source: last } = open(file)
  tellLater(down)
  assert.deepEqual(
    later.map(({ type }) => type),
    ['connection', 'block', 'remembered'],
  )
  await last.close()
})

test('an object that cannot be read leaves the last good one in the file', async () => {
  const problem = { type: 'pool', name: 'a', problem: new Error('x') } as unknown as CalicoEvent
  const file = await leave(poolOf('a'), problem)
  const { source, told, tell } = open(file)
  tell(down)
  assert.deepEqual(told[1], poolOf('a'))
  await source.close()
})

test('a file that cannot be believed costs a warning', async () => {
  const file = await leave(poolOf('a'))
  const good = readFileSync(file, 'utf8')
  for (const [text, why] of [
    [good.slice(0, -1), /checksum/],
    [good.replace('weft-calico-view 1', 'weft-calico-view 2'), /version 2/],
    ['', /is not the view/],
  ] as const) {
    writeFileSync(file, text)
    const { source, told, tell, log } = open(file)
    tell(down)
    assert.match(log.warnings.join(), why)
    assert.deepEqual(told, [down])
    await source.close()
  }
  writeFileSync(file, good)
  const { source, log } = open(file, 'n2')
  assert.match(log.warnings.join(), /node n1/)
  await source.close()
})
