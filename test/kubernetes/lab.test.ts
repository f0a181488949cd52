import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { after, test } from 'node:test'
import { machineState, nothingLeft, TestLab } from '../netns/test-lab.ts'

const lab = new TestLab()
after(() => lab.down())

const machineBefore = machineState()

/** Cgroups of the lab's machines in any hierarchy. */
const cgroups = (): string[] =>
  readdirSync('/sys/fs/cgroup').flatMap((hierarchy) => {
    const folder = `/sys/fs/cgroup/${hierarchy}`
    return existsSync(`${folder}/cgroup.procs`)
      ? readdirSync(folder).filter((name) => name.startsWith(`weft-${lab.name}-`))
      : []
  })

test('weft lab up --kubernetes brings a real cluster, whose nodes run weft when that is asked for', async () => {
  const said = await lab.weft('up', '--kubernetes', '--agents', '--nodes', '2', '--backend', 'host-gw')
  assert.match(said, /every node is ready/)
  assert.match(lab.kubectl('get', 'nodes'), /n1 +Ready +<none> +\S+ +v1\.\d+\.\d+\nn2 +Ready/)
  assert.match(lab.kubectl('get', '--raw=/version'), /"gitVersion": "v1\./)
  const status = JSON.parse(await lab.weft('status', '--json'))
  assert.equal(status.backend, 'host-gw')
  assert.ok(status.nodes.every(({ ready, agentPid }: { ready: boolean; agentPid: number }) => ready && agentPid > 0))
  assert.notEqual(cgroups().length, 0)
})

test('a command of weft lab node exec is on the machine: its processes, its files, its name', async () => {
  assert.equal((await lab.weft('node', 'exec', 'n2', '--', 'hostname')).trim(), 'n2')
  assert.match(await lab.weft('node', 'exec', 'n2', '--', 'ps', '-e'), /^ +1 \?.* weft-pod\n/m)
  assert.equal((await lab.weft('node', 'exec', 'n2', '--', 'ls', '/etc/cni/net.d')).trim(), '10-weft.conflist')
  await assert.rejects(lab.weft('exec', 'web', '--', 'true'), /use kubectl exec/)
})

test('faults: an agent that is killed is started again, a node that is cut off answers nobody until it heals', async () => {
  const agentOf = async (name: string) =>
    JSON.parse(await lab.weft('status', '--json')).nodes.find((node: { name: string }) => node.name === name).agentPid
  const before = await agentOf('n1')
  await lab.weft('fault', 'kill-agent', 'n1')
  const deadline = performance.now() + 30_000
  for (let now = before; now === before || now === undefined; now = await agentOf('n1'))
    assert.ok(performance.now() < deadline, 'the agent does not come back')
  const ping = () => lab.weft('node', 'exec', 'n1', '--', 'ping', '-c', '1', '-W', '1', '172.30.0.12')
  await ping()
  await lab.weft('fault', 'partition', 'n1')
  await assert.rejects(ping())
  await lab.weft('fault', 'api-down')
  assert.deepEqual(JSON.parse(await lab.weft('status', '--json')).faults, ['n1 cut off', 'API server down'])
  await lab.weft('fault', 'heal')
  await ping()
})

test('killed, the daemon leaves the cluster running; the next one takes it over as it was switched', async () => {
  assert.match(await lab.weft('switch', 'vxlan'), /host-gw → vxlan on all nodes/)
  const agents = async () =>
    JSON.parse(await lab.weft('status', '--json')).nodes.map(({ agentPid }: { agentPid: number }) => agentPid)
  const before = await agents()
  await lab.weft('fault', 'kill-daemon')
  await lab.weft('up')
  assert.deepEqual(await agents(), before)
  assert.equal(JSON.parse(await lab.weft('status', '--json')).backend, 'vxlan')
})

test('down leaves nothing, also while the daemon is dead', async () => {
  await lab.weft('fault', 'kill-daemon')
  await lab.down()
  assert.deepEqual(lab.leftovers(), nothingLeft)
  assert.deepEqual(cgroups(), [])
  assert.equal(machineState(), machineBefore)
})
