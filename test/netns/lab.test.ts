import assert from 'node:assert/strict'
import { readlinkSync } from 'node:fs'
import { test } from 'node:test'
import { identify, isAlive, waitUntil } from '../../src/lab/process.ts'
import { machineState, nothingLeft, TestLab } from './test-lab.ts'

interface Container {
  readonly containerID: string
  readonly restartCount: number
}

const containerIds = (lab: TestLab): Container[] =>
  (
    JSON.parse(lab.kubectl('get', 'pods', '-o', 'json')).items as { status: { containerStatuses: Container[] } }[]
  ).flatMap(({ status }) =>
    status.containerStatuses.map(({ containerID, restartCount }) => ({ containerID, restartCount })),
  )

const podPid = async (lab: TestLab, pod: string): Promise<string> =>
  (await lab.weft('exec', pod, '--', 'readlink', '/proc/self/ns/net')).trim()

test('up and down touch nothing of the machine and leave nothing', async () => {
  const before = machineState()
  const lab = new TestLab()
  await lab.up('--nodes', '2')
  assert.equal(machineState(), before, 'while it runs')
  await lab.server('a', 'n1')
  await lab.down()
  assert.deepEqual(lab.leftovers(), nothingLeft)
  assert.equal(machineState(), before, 'after it')
})

test('a killed daemon: pods run on, the next one takes them over, down needs none', async () => {
  const lab = new TestLab()
  await lab.up('--nodes', '2')
  const a = await lab.server('a', 'n1')
  const b = await lab.server('b', 'n2')
  const containers = containerIds(lab)
  const namespace = await podPid(lab, 'a')
  const daemon = identify(lab.daemonPid)!
  process.kill(daemon.pid, 'SIGKILL')
  assert.ok(await waitUntil(() => !isAlive(daemon), 5000))
  await lab.up()
  assert.deepEqual(containerIds(lab), containers, 'the same containers, none restarted')
  assert.equal(await podPid(lab, 'a'), namespace)
  assert.ok(await lab.pings('a', b.ip))
  assert.ok(await lab.pings('b', a.ip))
  lab.kubectl('delete', 'pod', 'a', '--wait=true')
  assert.equal(
    lab.leftovers().namespaces.some((name) => readlinkOf(name) === namespace),
    false,
    'an adopted pod can be deleted',
  )
  process.kill(lab.daemonPid, 'SIGKILL')
  await lab.down()
  assert.deepEqual(lab.leftovers(), nothingLeft)
})

function readlinkOf(name: string): string | undefined {
  try {
    return readlinkSync(`/run/netns/${name}`)
  } catch {
    return undefined
  }
}

test('two labs side by side know nothing of each other', async () => {
  const one = new TestLab()
  const two = new TestLab()
  await Promise.all([one.up('--nodes', '1'), two.up('--nodes', '2', '--no-ipv6')])
  await Promise.all([one.server('a', 'n1'), two.server('b', 'n2')])
  assert.match(one.kubectl('get', 'pods', '-o', 'name'), /^pod\/a\n$/)
  assert.match(two.kubectl('get', 'pods', '-o', 'name'), /^pod\/b\n$/)
  await one.down()
  assert.deepEqual(one.leftovers(), nothingLeft)
  assert.match(two.kubectl('get', 'pod', 'b', '-o', 'jsonpath={.status.phase}'), /Running/)
  await two.weft('exec', 'b', '--', 'true')
  await two.down()
})

test('a node that is cut off goes NotReady and comes back; an added node joins; a dropped one is gone', async () => {
  const lab = new TestLab()
  await lab.up('--nodes', '2')
  const a = await lab.server('a', 'n1')
  await lab.server('b', 'n2')
  await lab.weft('fault', 'partition', 'n2')
  lab.kubectl('wait', '--for=condition=Ready=Unknown', 'node/n2', '--timeout=60s')
  assert.equal(await lab.pings('b', a.ip), false)
  await lab.weft('fault', 'heal')
  lab.kubectl('wait', '--for=condition=Ready', 'node/n2', '--timeout=60s')
  lab.kubectl('wait', '--for=condition=Ready', 'pod/b', '--timeout=60s')
  assert.ok(await lab.pings('b', a.ip))
  await lab.weft('fault', 'add-node')
  lab.kubectl('wait', '--for=condition=Ready', 'node/n3', '--timeout=60s')
  await lab.server('c', 'n3')
  assert.ok(await lab.pings('c', a.ip))
  await lab.weft('fault', 'drop-node', 'n2')
  assert.doesNotMatch(lab.kubectl('get', 'nodes', '-o', 'name'), /n2/)
  lab.gone('pod/b')
  assert.ok(await lab.pings('c', a.ip))
  await lab.down()
  assert.deepEqual(lab.leftovers(), nothingLeft)
})
