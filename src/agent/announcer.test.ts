import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import type { NodeReport } from '../cluster/cluster.ts'
import { Announcer } from './announcer.ts'

test('two agents of one name do not answer each other as fast as they can; other words go at once', async () => {
  mock.timers.enable({ apis: ['setTimeout'] })
  const reports: NodeReport[] = []
  let writes = 0
  let asked = 0
  const quiet = { debug() {}, info() {}, warn() {}, error() {} }
  const announcer = new Announcer({
    nodeName: 'n1',
    source: {
      announce: async () => {
        writes++
      },
      report: (report: NodeReport) => reports.push(report),
    } as never,
    log: quiet,
    onWrite() {},
    onWritten: () => {
      asked++
    },
  })
  const ours = { weft: { accepts: ['host-gw'], sends: ['host-gw'] } }
  const theirs = { name: 'n1', addresses: [], podCidrs: [], weft: { accepts: [], sends: [] } }
  const say = async (words: typeof ours) => {
    announcer.hear(theirs)
    announcer.say(words)
    await new Promise(setImmediate)
  }
  for (let round = 0; round < 50; round++) await say(ours)
  assert.equal(writes, 4, 'the first, and three more')
  assert.deepEqual(
    reports.map(({ reason }) => reason),
    ['NodeNameTaken'],
  )
  const before = asked
  mock.timers.tick(1000)
  assert.equal(asked, before + 1, 'it is time to look again')
  await say({ weft: { accepts: ['host-gw', 'vxlan/1/8472'], sends: ['host-gw'] } })
  assert.equal(writes, 5)
  announcer.close()
  mock.timers.reset()
})
