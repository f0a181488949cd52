/**
 * A wall clock that jumps: nothing of a pod's life may hang on the time of day. The server's process runs with a `Date`
 * that is a day ahead at one look and a day behind at the next.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Answer, CniNode, cannotRun } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
const jumpingClock = `
  const RealDate = Date
  let days = 1
  const jump = () => (days = -days) * 86_400_000
  globalThis.Date = class extends RealDate {
    constructor(...given) { given.length ? super(...given) : super(RealDate.now() + jump()) }
    static now() { return RealDate.now() + jump() }
  }`

let node: CniNode
const options = process.env.NODE_OPTIONS

before(async () => {
  if (skip) return
  node = new CniNode({ podCidrs: ['10.77.0.0/29'], clusterNetworks: [] })
  process.env.NODE_OPTIONS = `--import data:text/javascript,${encodeURIComponent(jumpingClock)}`
  await node.start()
})
after(async () => {
  if (options === undefined) delete process.env.NODE_OPTIONS
  else process.env.NODE_OPTIONS = options
  if (!skip) await node.delete()
})

function ok(answer: Answer): Answer {
  assert.equal(answer.exitCode, 0, answer.stdout)
  return answer
}

test('the clock jumps a day either way: addresses rotate, come free, and devices are drained', { skip }, async () => {
  using pod = new TestNamespace()
  const addresses: string[] = []
  // Twice around a subnet of five addresses: none is given again while another is free, none is lost.
  for (let round = 0; round < 10; round++) {
    const containerId = `clock-${round}`
    addresses.push(ok(await node.call('ADD', { containerId, netns: pod.path })).json.ips[0].address)
    ok(await node.call('DEL', { containerId, netns: pod.path }))
    await node.drained()
  }
  assert.equal(new Set(addresses.slice(0, 5)).size, 5)
  assert.deepEqual(addresses.slice(5), addresses.slice(0, 5))
  ok(await node.call('ADD', { containerId: 'lives', netns: pod.path }))
  await node.stop('SIGKILL')
  // A device that is gone may not have left the journal before the kill: then its end is noted now.
  const { finished = 0, ...found } = await node.start()
  assert.ok(finished <= 1, `${finished} finished`)
  assert.deepEqual(found, { kept: 1, undone: 0, freed: 0, adopted: 0 })
  pod.run('ping -c1 -W5 10.77.0.1')
  ok(await node.call('DEL', { containerId: 'lives' }))
  await node.drained()
})
