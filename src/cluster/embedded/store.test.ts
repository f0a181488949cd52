/** One suite over both journals, and what only the disk can show: a killed process loses nothing acknowledged. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ExpiredError, type Journal, VersionConflictError } from './journal.ts'
import { LmdbJournal } from './lmdb-journal.ts'
import { MemoryJournal } from './memory-journal.ts'
import { ObjectStore, type StoreEvent } from './store.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-store-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const object = (name: string, value: unknown = 1) => ({ metadata: { name, namespace: 'a' }, value })
let next = 0

/** A journal kind, and how to open the same one again. */
const kinds: readonly [string, () => () => Journal][] = [
  [
    'memory',
    () => {
      const journal = new MemoryJournal()
      return () => journal
    },
  ],
  [
    'lmdb',
    () => {
      const path = join(folder, String(next++))
      return () => new LmdbJournal(path)
    },
  ],
]

for (const [kind, make] of kinds) {
  test(`${kind}: whole numbers keep all their digits over a restart`, async () => {
    const open = make()
    const value = { count: 1763761234567890123n, text: '1763761234567890123' }
    const store = await ObjectStore.open(open())
    store.put('blocks', 'a', 'b', object('b', value), 0)
    await store.close()
    const again = await ObjectStore.open(open())
    assert.deepEqual(again.get('blocks', 'a', 'b')?.value, value)
    await again.close()
  })

  test(`${kind}: versions grow, conditions hold, lists are in order`, async () => {
    const store = await ObjectStore.open(make()())
    const b = store.put('pods', 'a', 'b', object('b'), 0)
    const a = store.put('pods', 'a', 'a', object('a'), 0)
    store.put('pods', 'b', 'a', object('a'))
    assert.equal(b.metadata.resourceVersion, '1')
    assert.equal(a.metadata.resourceVersion, '2')
    assert.throws(() => store.put('pods', 'a', 'a', object('a'), 0), VersionConflictError)
    assert.throws(() => store.put('pods', 'a', 'a', object('a'), 1), VersionConflictError)
    store.put('pods', 'a', 'a', object('a', 2), 2)
    assert.deepEqual(
      store.list('pods').map((o) => o.metadata.name),
      ['a', 'b', 'a'],
    )
    assert.deepEqual(
      store.list('pods', 'a').map((o) => o.value),
      [2, 1],
    )
    assert.throws(() => store.remove('pods', 'a', 'a', 2), VersionConflictError)
    assert.equal(store.remove('pods', 'a', 'a')?.metadata.resourceVersion, '5')
    assert.equal(store.remove('pods', 'a', 'a'), undefined)
    assert.equal(store.resourceVersion, 5)
    await store.close()
  })

  test(`${kind}: watchers see each change once, after its commit, from where they ask`, async () => {
    const store = await ObjectStore.open(make()())
    store.put('pods', 'a', 'a', object('a'))
    store.put('nodes', '', 'n', object('n'))
    await store.committed()
    const seen: string[] = []
    const note = (event: StoreEvent) => seen.push(`${event.type} ${event.name} ${event.resourceVersion}`)
    const watch = store.watch('pods', 0, note)
    assert.deepEqual(seen, ['ADDED a 1'])
    store.put('pods', 'a', 'a', object('a', 2))
    store.watch('pods', store.resourceVersion, note)
    assert.equal(seen.length, 1)
    await store.committed()
    assert.deepEqual(seen, ['ADDED a 1', 'MODIFIED a 3'])
    watch.close()
    store.remove('pods', 'a', 'a')
    await store.committed()
    assert.deepEqual(seen.slice(2), ['DELETED a 4'])
    await store.close()
  })

  test(`${kind}: a restart keeps objects, versions and the window`, async () => {
    const open = make()
    const first = await ObjectStore.open(open())
    for (let n = 0; n < 20; n++) first.put('pods', 'a', `p${n % 5}`, object(`p${n % 5}`, n))
    first.remove('pods', 'a', 'p0')
    await first.close()
    const second = await ObjectStore.open(open())
    assert.equal(second.resourceVersion, 21)
    assert.equal(second.list('pods').length, 4)
    const seen: StoreEvent[] = []
    second.watch('pods', 18, (event) => seen.push(event))
    assert.deepEqual(
      seen.map((event) => [event.type, event.resourceVersion, event.previous?.value]),
      [
        ['MODIFIED', 19, 13],
        ['MODIFIED', 20, 14],
        ['DELETED', 21, 15],
      ],
    )
    assert.equal(second.put('pods', 'a', 'new', object('new')).metadata.resourceVersion, '22')
    await second.close()
  })

  test(`${kind}: versions before the window are refused, also after a restart`, async () => {
    const open = make()
    const store = await ObjectStore.open(open(), { windowEvents: 10 })
    for (let n = 0; n < 200; n++) {
      store.put('pods', 'a', 'p', object('p', n))
      if (n % 7 === 0) await store.committed()
    }
    await store.committed()
    assert.equal(store.compactedVersion, 190)
    assert.throws(() => store.watch('pods', 189, () => {}), ExpiredError)
    let count = 0
    store.watch('pods', 190, () => count++)
    assert.equal(count, 10)
    store.compact()
    assert.throws(() => store.watch('pods', 199, () => {}), ExpiredError)
    store.watch('pods', 200, () => {})
    await store.close()
    const again = await ObjectStore.open(open(), { windowEvents: 10 })
    assert.throws(() => again.watch('pods', 199, () => {}), ExpiredError)
    await again.close()
  })
}

test('lmdb: kill -9 at any moment loses nothing that was acknowledged and repeats no version', async () => {
  const path = join(folder, 'killed')
  const writer = fileURLToPath(new URL('./testdata/writer.ts', import.meta.url))
  let highest = 0
  for (let round = 0; round < 3; round++) {
    const child = spawn(process.execPath, ['--import', 'tsx', writer, path], { stdio: ['ignore', 'pipe', 'inherit'] })
    const acknowledged = new Map<string, number>()
    const target = 50 + round * 37
    let count = 0
    for await (const line of createInterface({ input: child.stdout })) {
      const [name, version] = line.split(' ') as [string, string]
      if (Number(version) <= highest && count === 0) assert.fail(`version ${version} was given out twice`)
      acknowledged.set(name, Number(version))
      if (++count === target) child.kill('SIGKILL')
    }
    const store = await ObjectStore.open(new LmdbJournal(path))
    for (const [name, version] of acknowledged) {
      const found = store.get('pods', 'a', name)
      assert.ok(found && Number(found.metadata.resourceVersion) >= version, `${name} ${version}`)
      highest = Math.max(highest, version)
    }
    assert.ok(store.resourceVersion >= highest)
    highest = store.resourceVersion
    await store.close()
  }
})
