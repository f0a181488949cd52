/** Writes without end and prints what is committed; store.test.ts kills it. */
import { LmdbJournal } from '../lmdb-journal.ts'
import { ObjectStore } from '../store.ts'

const store = await ObjectStore.open(new LmdbJournal(process.argv[2]!))
for (let n = 0; ; n++) {
  const name = `p${n % 100}`
  const { metadata } = store.put('pods', 'a', name, { metadata: { name, namespace: 'a' }, n })
  await store.committed()
  process.stdout.write(`${name} ${metadata.resourceVersion}\n`)
}
