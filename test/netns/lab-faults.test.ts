/**
 * Every command of `weft lab fault`: what breaks, what must go on meanwhile, and that pods of two nodes talk again afterwards.
 * The last test compares what was tried with what the help lists.
 */
import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import type { LabStatus } from '../../src/lab/daemon-commands.ts'
import { netnsPath } from '../../src/lab/layout.ts'
import { findProcessesIn, identify, isAlive, waitUntil } from '../../src/lab/process.ts'
import { nothingLeft, TestLab } from './test-lab.ts'

const lab = new TestLab()
const tried = new Set<string>()
const address: Record<string, string> = {}

before(async () => {
  await lab.up('--nodes', '2')
  for (const [pod, node] of [
    ['a', 'n1'],
    ['b', 'n2'],
  ] as const)
    address[pod] = (await lab.server(pod, node)).ip
})
afterEach(() => lab.weft('fault', 'heal'))
after(async () => {
  await lab.down()
  assert.deepEqual(lab.leftovers(), nothingLeft)
})

function fault(kind: string, ...rest: readonly string[]): Promise<string> {
  tried.add(kind)
  return lab.weft('fault', kind, ...rest)
}
const heal = (): Promise<string> => fault('heal')

const status = async (): Promise<LabStatus> => JSON.parse(await lab.weft('status', '--json'))
const agentPid = async (node: string): Promise<number | undefined> =>
  (await status()).nodes.find(({ name }) => name === node)?.agentPid
const ready = (what: string): string => lab.kubectl('wait', '--for=condition=Ready', what, '--timeout=60s')
const talks = async (why: string): Promise<void> => {
  assert.ok(await lab.pings('a', address.b!), `a reaches b ${why}`)
  assert.ok(await lab.pings('b', address.a!), `b reaches a ${why}`)
}
/** A bare pod, not waited for. */
const startPod = (name: string, nodeName: string): string =>
  lab.apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { nodeName, terminationGracePeriodSeconds: 0, containers: [{ name: 'main', image: 'weft/server' }] },
  })
const podIp = (name: string): string => lab.kubectl('get', 'pod', name, '-o', 'jsonpath={.status.podIP}')

test('kill-agent: pods talk on, the agent comes back', async () => {
  const before = await agentPid('n1')
  await fault('kill-agent', 'n1')
  await talks('while the agent starts again')
  let now: number | undefined
  while (now === undefined || now === before) now = await agentPid('n1')
  startPod('after-kill', 'n1')
  ready('pod/after-kill')
  assert.ok(await lab.pings('b', podIp('after-kill')))
  lab.kubectl('delete', 'pod', 'after-kill')
})

test('kill-agent --keep-down: a new pod waits and says why; start-agent ends it', async () => {
  await fault('kill-agent', 'n1', '--keep-down')
  assert.equal(await agentPid('n1'), undefined)
  startPod('late', 'n1')
  await lab.reaches('pod/late', '.status.containerStatuses[0].state.waiting.reason', 'ContainerCreating')
  await talks('without an agent on n1')
  await fault('start-agent', 'n1')
  ready('pod/late')
  assert.ok(await lab.pings('b', podIp('late')))
  lab.kubectl('delete', 'pod', 'late')
})

test('stop-agent freezes: pods talk on, a new pod waits; start-agent thaws the same process', async () => {
  const pid = await agentPid('n2')
  await fault('stop-agent', 'n2')
  startPod('frozen', 'n2')
  await talks('while the agent of n2 is frozen')
  assert.equal(lab.kubectl('get', 'pod', 'frozen', '-o', 'jsonpath={.status.podIP}'), '')
  await fault('start-agent', 'n2')
  assert.equal(await agentPid('n2'), pid)
  ready('pod/frozen')
  assert.ok(await lab.pings('a', podIp('frozen')))
  lab.kubectl('delete', 'pod', 'frozen')
  await assert.rejects(fault('stop-agent', 'n9'), /no node "n9"; it has n1, n2/)
})

test('partition of a pair: those two nodes part, both stay Ready; heal joins them', async () => {
  assert.match(await fault('partition', 'n1', 'n2'), /n1 and n2 cannot reach each other/)
  assert.equal(await lab.pings('a', address.b!), false)
  assert.deepEqual((await status()).faults, ['n1 and n2 apart'])
  ready('nodes/n1')
  ready('nodes/n2')
  await heal()
  assert.deepEqual((await status()).faults, [])
  await talks('after heal')
})

test('partition of a node: it goes NotReady, its own pod runs on; heal brings all back', async () => {
  await fault('partition', 'n2')
  assert.equal(await lab.pings('a', address.b!), false)
  lab.kubectl('wait', '--for=condition=Ready=Unknown', 'node/n2', '--timeout=60s')
  await heal()
  ready('node/n2')
  ready('pod/b')
  await talks('after heal')
})

test('loss: all of it, a part of it, and what is no share', async () => {
  await fault('loss', 'n2', '100')
  assert.equal(await lab.pings('a', address.b!), false)
  await fault('loss', 'n2', '30')
  const flood = (text: string) => /(\d+) packets transmitted, (\d+) received/.exec(text)!.slice(1).map(Number)
  const [sent, received] = flood(
    await lab.weft('exec', 'a', '--', 'sh', '-c', `ping -nq -c 300 -i 0.002 -W 1 ${address.b} || true`),
  )
  // Each packet crosses the fault twice: 0.7² of 300 is 147, and six standard deviations are 52.
  assert.equal(sent, 300)
  assert.ok(received! > 95 && received! < 199, `${received} of 300 came back`)
  await assert.rejects(fault('loss', 'n2', '101'), /more than 0 and at most 100 percent/)
  await heal()
  await talks('after heal')
})

test('delay: where the kernel has netem packets take longer, elsewhere it says so and changes nothing', async () => {
  const round = async () =>
    Number(/time=([\d.]+) ms/.exec(await lab.weft('exec', 'a', '--', 'ping', '-n', '-c', '1', address.b!))?.[1])
  try {
    await fault('delay', 'n2', '40')
  } catch (error) {
    assert.match(String(error), /this kernel has no netem \(CONFIG_NET_SCH_NETEM\)/)
    assert.deepEqual((await status()).faults, [])
    await talks('after a refused fault')
    return
  }
  assert.ok((await round()) >= 40)
  await heal()
  assert.ok((await round()) < 40)
  await talks('after heal')
})

test('api-down: nodes go silent, pods talk on, what changed meanwhile arrives after heal', async () => {
  await fault('api-down')
  for (const node of ['n1', 'n2']) lab.kubectl('wait', '--for=condition=Ready=Unknown', `node/${node}`, '--timeout=60s')
  await talks('without the API')
  startPod('missed', 'n1')
  await heal()
  for (const what of ['node/n1', 'node/n2', 'pod/missed', 'pod/a', 'pod/b']) ready(what)
  assert.ok(await lab.pings('b', podIp('missed')))
  await lab.weft('switch', 'host-gw')
  await talks('over another data path')
  await lab.weft('switch', 'vxlan')
  lab.kubectl('delete', 'pod', 'missed')
})

test('reboot-node: pods start again in new namespaces, nothing of before runs, addresses do not leak', async () => {
  const place = netnsPath(lab.name, 'n2')
  const old = findProcessesIn(lab.name, [place])
  const count = old.length
  assert.ok(count > 0)
  await fault('reboot-node', 'n2')
  assert.ok(await waitUntil(() => !old.some(isAlive), 5000))
  await lab.reaches('pod/b', '.status.containerStatuses[0].restartCount', '1')
  for (const what of ['node/n2', 'pod/b']) ready(what)
  address.b = podIp('b')
  await talks('after the reboot')
  const devices = await lab.weft('node', 'exec', 'n2', '--', 'bridge', 'link', 'show', 'master', 'cni0')
  assert.equal(devices.trim().split('\n').length, 1, 'one pod, one port')
})

test('add-node and drop-node: a joined node talks; of a dropped one nothing is left', async () => {
  assert.match(await fault('add-node'), /node n3 joined/)
  ready('node/n3')
  const { ip } = await lab.server('c', 'n3')
  assert.ok(await lab.pings('a', ip))
  const running = findProcessesIn(lab.name, [netnsPath(lab.name, 'n3')])
  await fault('drop-node', 'n3')
  assert.ok(await waitUntil(() => !running.some(isAlive), 5000), 'its agent ended with it')
  assert.equal(
    lab.leftovers().namespaces.some((name) => name.endsWith('-n3')),
    false,
  )
  lab.gone('pod/c')
  await talks('after n3 is gone')
})

test('kill-daemon: pods talk on, up takes over', async () => {
  const daemon = identify(lab.daemonPid)!
  await fault('kill-daemon')
  assert.ok(await waitUntil(() => !isAlive(daemon), 5000))
  await assert.rejects(lab.weft('status'), /does not run/)
  await lab.up()
  await talks('under the next daemon')
})

test('every fault that the help lists was tried', async () => {
  const help = await lab.weft('fault', '--help')
  const listed = [...help.matchAll(/^ {2}([a-z-]+) .*[<[]/gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== 'help')
  assert.ok(listed.length >= 11, help)
  assert.deepEqual([...tried].sort(), listed.sort())
})
