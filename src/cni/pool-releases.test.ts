import assert from 'node:assert/strict'
import { test } from 'node:test'
import { StoreAwayError } from '../ipam/stores/ipam-store.ts'
import type { PoolAddresses } from '../ipam/stores/pool-addresses.ts'
import type { Entry } from './journal.ts'
import type { Log } from './network.ts'
import { PoolReleases } from './pool-releases.ts'

const quiet: Log = { debug() {}, info() {}, warn() {}, error() {} }
const entryOf = (handle: string, id = 1): Entry => ({
  attachment: {
    id,
    role: 'routed',
    network: 'weft',
    containerId: handle,
    ifname: 'eth0',
    netnsPath: '',
    pool: '',
    ips: [],
    hostDevice: '',
    handle,
  },
  state: 'deleting',
})

/** Pools whose every release waits to be answered. */
function pools() {
  const asked: { handle: string; answer: (error?: Error) => void }[] = []
  const addresses: PoolAddresses = {
    assign: async () => [],
    release: (handle) =>
      new Promise((resolve, reject) => asked.push({ handle, answer: (error) => (error ? reject(error) : resolve()) })),
  }
  return { asked, addresses }
}
const turn = () => new Promise((resolve) => setImmediate(resolve))

test('what waits is given back once there is somebody to ask, a few at a time', async () => {
  const done: string[] = []
  const releases = new PoolReleases(quiet, ({ attachment }) => done.push(attachment.containerId))
  for (let n = 0; n < 40; n++) releases.add(entryOf(`h${n}`))
  assert.equal(releases.length, 40)
  assert.equal(await releases.settle('h0'), false, 'nobody can be asked')
  assert.equal(await releases.settle('other'), true)
  const { asked, addresses } = pools()
  releases.setAddresses(addresses)
  assert.equal(asked.length, 16)
  for (let n = 0; n < 40; n++) {
    asked[n]!.answer()
    await turn()
  }
  assert.equal(new Set(done).size, 40)
  assert.equal(releases.length, 0)
  await releases.stop()
})

test('a refusal is tried again; who needs it now may ask at once', async () => {
  const done: number[] = []
  const releases = new PoolReleases(quiet, ({ attachment }) => done.push(attachment.id))
  const { asked, addresses } = pools()
  releases.setAddresses(addresses)
  releases.add(entryOf('h', 1))
  const early = releases.settle('h')
  asked[0]!.answer(new StoreAwayError('away'))
  await turn()
  asked[1]!.answer(new StoreAwayError('away'))
  assert.equal(await early, false)
  const settling = releases.settle('h')
  await turn()
  // One that comes while the release is on its way is not part of it.
  releases.add(entryOf('h', 2))
  asked[2]!.answer()
  assert.equal(await settling, true)
  assert.deepEqual(done, [1])
  assert.ok(releases.has('h'))
  const last = releases.settle('h')
  await turn()
  asked[3]!.answer()
  assert.equal(await last, true)
  assert.deepEqual(done, [1, 2])
  await releases.stop()
})
