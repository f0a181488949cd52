import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { decodeLog, RecordLog } from '../ipam/stores/record-log.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { type Attachment, Journal } from './journal.ts'
import { nodePool, Pools } from './pools.ts'

function inFolder(run: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'weft-journal-'))
  try {
    run(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const attachment = (n: number): Omit<Attachment, 'id'> => ({
  role: 'bridge',
  network: 'weft',
  containerId: `c${n}`,
  ifname: 'eth0',
  netnsPath: `/run/netns/${n}`,
  pool: nodePool,
  ips: [{ ip: Ip.parse(`10.1.0.${n}`), prefixLength: 24, set: 0 }],
  hostDevice: `veth${n}`,
  bridge: 'cni0',
  mac: '0a:58:0a:01:00:02',
  portMappings: [{ protocol: 'tcp', hostPort: 8000 + n, containerPort: 80, hostIp: Ip.parse('192.0.2.1') }],
})
const states = (journal: Journal) =>
  [...journal.entries.values()].map(({ attachment: { containerId }, state }) => `${containerId} ${state}`)

test('every state comes back as it was, whichever byte the file ends at', () => {
  inFolder((folder) => {
    const path = join(folder, 'journal')
    const journal = Journal.open(path, 'boot-1')
    const size = () => readFileSync(path).length
    const marks: [number, string[]][] = [[size(), []]]
    const mark = () => marks.push([size(), states(journal)])
    const first = journal.begin(attachment(2))
    mark()
    journal.up(first)
    mark()
    const second = journal.begin(attachment(3))
    mark()
    journal.deleting(first)
    mark()
    journal.gone(first)
    mark()
    journal.up(second)
    mark()
    journal.close()
    const whole = readFileSync(path)
    for (let cut = marks[0]![0]; cut <= whole.length; cut++) {
      writeFileSync(path, whole.subarray(0, cut))
      const again = Journal.open(path, 'boot-1')
      const wanted = marks.filter(([end]) => end <= cut).at(-1)![1]
      assert.deepEqual(states(again), wanted, `cut at ${cut}`)
      // The opening compacted the file: what it wrote says the same.
      again.close()
      const compacted = Journal.open(path, 'boot-1')
      assert.deepEqual(states(compacted), wanted)
      compacted.close()
    }
    writeFileSync(path, whole)
    const last = Journal.open(path, 'boot-1')
    assert.deepEqual([...last.entries.values()][0]!.attachment, { id: 2, ...attachment(3) })
    assert.equal(last.begin(attachment(4)).attachment.id, 3)
    last.close()
  })
})

test('addresses that come later, and sources that are allowed, are read back', () => {
  inFolder((folder) => {
    const path = join(folder, 'journal')
    const journal = Journal.open(path, 'boot-1')
    const { bridge: _, ...rest } = attachment(2)
    const handle = 'k8s-pod-network.c2'
    const allowedSources = [Cidr.parse('203.0.113.0/24')]
    const entry = journal.begin({ ...rest, role: 'routed', pool: '', ips: [], handle, allowedSources })
    const ips = [{ ip: Ip.parse('172.26.0.5'), prefixLength: 32 }]
    journal.give(entry, ips)
    journal.up(entry)
    journal.close()
    for (let round = 0; round < 2; round++) {
      const again = Journal.open(path, 'boot-1')
      const [read] = [...again.entries.values()]
      assert.deepEqual(
        [read!.attachment.ips, read!.attachment.allowedSources, read!.state],
        [ips, allowedSources, 'up'],
      )
      assert.equal(again.livingWith('veth2')?.handle, handle)
      again.close()
    }
  })
})

test('another boot keeps what a pool has to be given back, as deleting, and nothing else', () => {
  inFolder((folder) => {
    const path = join(folder, 'journal')
    const journal = Journal.open(path, 'boot-1')
    journal.up(journal.begin(attachment(2)))
    journal.up(journal.begin({ ...attachment(3), role: 'routed', handle: 'k8s-pod-network.c3' }))
    journal.close()
    for (const boot of ['boot-2', 'boot-3']) {
      const again = Journal.open(path, boot)
      assert.deepEqual(states(again), ['c3 deleting'])
      assert.equal(again.recovery.voided, boot === 'boot-2' ? 1 : 0)
      again.close()
    }
    const last = Journal.open(path, 'boot-3')
    last.gone([...last.entries.values()][0]!)
    last.close()
    assert.deepEqual(states(Journal.open(path, 'boot-3')), [])
  })
})

test('another boot voids the attachments and keeps the rotation', () => {
  inFolder((folder) => {
    const path = join(folder, 'journal')
    const journal = Journal.open(path, 'boot-1')
    for (const n of [2, 3, 4]) journal.up(journal.begin(attachment(n)))
    journal.close()
    const later = Journal.open(path, 'boot-2')
    assert.equal(later.recovery.voided, 3)
    assert.deepEqual(states(later), [])
    const pools = new Pools(later, undefined)
    pools.setNode({ podCidrs: [Cidr.parse('10.1.0.0/24')], clusterNetworks: [], mtuBytes: 1500 })
    assert.equal(`${pools.give(nodePool, undefined, [])[0]!.ip}`, '10.1.0.5')
    later.close()
    const again = Journal.open(path, 'boot-2')
    assert.equal(again.recovery.voided, 0)
    again.close()
  })
})

test('a journal as version 0.1 wrote it is read: this text is never to change', () => {
  inFolder((folder) => {
    const path = join(folder, 'journal')
    copyFileSync(new URL('testdata/journal-0.1', import.meta.url), path)
    const journal = Journal.open(path, '7d0b8a4e-0000-4000-8000-000000000001')
    assert.deepEqual(journal.recovery, { voided: 0, damagedLines: 0, tornBytes: 0, foreign: 0 })
    assert.deepEqual(states(journal), ['c2 up', 'c3 deleting', 'c4 adding'])
    assert.deepEqual([...journal.entries.values()][0]!.attachment, { id: 1, ...attachment(2) })
    assert.deepEqual([...journal.rotation].map(String), ['node/0,10.1.0.4'])
    journal.close()
  })
})

test('what a later version wrote is kept for it and harms nothing: unknown fields, records and addresses', () => {
  inFolder((folder) => {
    const path = join(folder, 'journal')
    const journal = Journal.open(path, 'boot-1')
    journal.up(journal.begin({ ...attachment(2), tenant: 'blue' } as Omit<Attachment, 'id'>))
    journal.close()
    const { log } = RecordLog.open(path)
    const later = [
      { op: 'moved', id: 1, to: 'cni1' },
      { op: 'tenant', name: 'blue' },
      { op: 'add', attachment: { ...attachment(7), id: 9, ips: [{ range: 'blue/7' }], portMappings: [] } },
    ]
    for (const record of later) log.append(record)
    log.close()
    for (let n = 0; n < 3; n++) {
      const again = Journal.open(path, 'boot-1')
      assert.equal(again.recovery.foreign, 3)
      assert.deepEqual(states(again), ['c2 up'])
      const { id, ...rest } = [...again.entries.values()][0]!.attachment
      assert.deepEqual([id, rest], [1, { ...attachment(2), tenant: 'blue' }])
      const passing = again.begin(attachment(3))
      assert.equal(passing.attachment.id, 10 + n)
      again.gone(passing)
      again.close()
    }
    const { records } = decodeLog(readFileSync(path))
    const texts = records.map((record) => JSON.stringify(record))
    for (const record of later) assert.equal(texts.filter((text) => text === JSON.stringify(record)).length, 1)
    const rebooted = Journal.open(path, 'boot-2')
    assert.equal(rebooted.recovery.foreign, 0)
    rebooted.close()
    assert.doesNotMatch(readFileSync(path, 'utf8'), /blue/)
  })
})

test('the file stays in proportion to what lives', () => {
  inFolder((folder) => {
    const path = join(folder, 'journal')
    const journal = Journal.open(path, 'boot-1')
    const kept = journal.begin(attachment(9))
    for (let n = 0; n < 2000; n++) {
      const entry = journal.begin(attachment(2))
      journal.up(entry)
      journal.deleting(entry)
      journal.gone(entry)
    }
    assert.ok(readFileSync(path).length < 400_000)
    assert.deepEqual([...journal.entries.values()], [kept])
    journal.close()
  })
})

test("addresses of the journal, reserved ones and the reference host-local's are not given", () => {
  inFolder((folder) => {
    const journal = Journal.open(join(folder, 'journal'), 'boot-1')
    journal.begin({ ...attachment(3), ips: [{ ip: Ip.parse('10.1.0.3'), prefixLength: 29 }] })
    const hostLocal = mkdtempSync(join(folder, 'networks-'))
    const network = mkdtempSync(join(hostLocal, 'cbr0-'))
    writeFileSync(join(network, '10.1.0.4'), 'someone\r\neth0')
    const pools = new Pools(journal, hostLocal)
    const node = {
      podCidrs: [Cidr.parse('10.1.0.0/29')],
      clusterNetworks: [],
      mtuBytes: 1500,
      reserved: [Ip.parse('10.1.0.5')],
    }
    pools.setNode(node)
    const give = (...wanted: string[]) => `${pools.give(nodePool, undefined, wanted.map(Ip.parse))[0]!.ip}`
    assert.deepEqual([give(), give()], ['10.1.0.2', '10.1.0.6'])
    assert.throws(() => give(), /No free address/)
    rmSync(join(network, '10.1.0.4'))
    assert.equal(give(), '10.1.0.4')
    assert.throws(() => give('10.1.0.3'), /10\.1\.0\.3 is in use/)
    assert.throws(() => give('10.1.0.1'), /gateway/)
    assert.throws(() => give('10.2.0.1'), /not in the ranges/)
    journal.close()
  })
})
