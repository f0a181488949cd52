/**
 * Options of the reference bridge that keep pods apart or watch them: `macspoofchk`, `promiscMode`. VLANs need a kernel with
 * bridge VLAN filtering: test/kernels/cni-vlan.test.ts.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CniNode, cannotRun, ok, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
let node: CniNode

before(async () => {
  if (skip) return
  node = new CniNode()
  await node.start()
})
after(async () => {
  if (!skip) await node.delete()
})

const reaches = (pod: TestNamespace, address: string): boolean => pod.succeeds(`ping -c 1 -W 1 ${address}`)
const table = (): string => node.namespace.run('nft list table bridge weft 2>&1 || true')
const spoofed = (): number => Number(/counter spoofed \{\s+packets (\d+)/.exec(table())?.[1] ?? Number.NaN)

test('macspoofchk: a pod sends under its own hardware address only; others are not touched', { skip }, async () => {
  using guarded = new TestNamespace()
  using second = new TestNamespace()
  using free = new TestNamespace()
  const config = weftConfig('1.1.0', { macspoofchk: true })
  const { json } = ok(await node.call('ADD', { containerId: 'guarded', netns: guarded.path, config }))
  ok(await node.call('ADD', { containerId: 'second', netns: second.path, config }))
  ok(await node.call('ADD', { containerId: 'free', netns: free.path }))
  const { mac } = json.interfaces[2]
  assert.ok(reaches(guarded, '10.77.0.1') && reaches(second, '10.77.0.1') && reaches(free, '10.77.0.1'))
  assert.ok(reaches(guarded, 'fd00:77::1'))
  assert.equal(spoofed(), 0)

  for (const pod of [guarded, free]) pod.run('ip link set eth0 address 02:00:00:00:be:ef')
  assert.ok(!reaches(guarded, '10.77.0.1'), 'no frame under a strange address gets through')
  assert.ok(spoofed() > 0)
  assert.ok(reaches(free, '10.77.0.1'), 'who did not ask for the check is not checked')
  assert.doesNotMatch(
    node.namespace.run('bridge fdb show br cni0'),
    /02:00:00:00:be:ef dev veth.* master cni0 permanent/,
  )
  guarded.run(`ip link set eth0 address ${mac}`)
  assert.ok(reaches(guarded, '10.77.0.1'))

  const check = { containerId: 'guarded', netns: guarded.path, config: { ...config, prevResult: json } }
  ok(await node.call('CHECK', check))
  await node.stop('SIGKILL')
  guarded.run('ip link set eth0 address 02:00:00:00:be:ef')
  assert.ok(!reaches(guarded, '10.77.0.1'), 'the agent is down, the check is not')
  guarded.run(`ip link set eth0 address ${mac}`)
  await node.start()
  assert.ok(reaches(guarded, '10.77.0.1'))

  ok(await node.call('DEL', { containerId: 'guarded' }))
  assert.doesNotMatch(table(), new RegExp(json.interfaces[1].name))
  assert.match(table(), /guarded-ports/)
  ok(await node.call('DEL', { containerId: 'second' }))
  assert.match(table(), /No such file/, 'the last one takes the table along')
  ok(await node.call('DEL', { containerId: 'free' }))
})

test('macspoofchk: an element taken out by hand is back', { skip }, async () => {
  using pod = new TestNamespace()
  const config = weftConfig('1.1.0', { macspoofchk: true })
  const { json } = ok(await node.call('ADD', { containerId: 'c', netns: pod.path, config }))
  const name = json.interfaces[1].name
  node.namespace.run(`nft delete element bridge weft guarded-ports '{ "${name}" }'`)
  const end = Date.now() + 20_000
  while (!/elements = \{ "veth/.test(table()) && Date.now() < end)
    await new Promise((resolve) => setTimeout(resolve, 20))
  assert.match(table(), new RegExp(`guarded-ports \\{\\s+type ifname\\s+elements = \\{ "${name}" \\}`))
  ok(await node.call('DEL', { containerId: 'c' }))
})

test('promiscMode: the bridge takes every frame, ports do not send back', { skip }, async () => {
  using pod = new TestNamespace()
  const config = weftConfig('1.1.0', {
    bridge: 'promisc0',
    promiscMode: true,
    isGateway: true,
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.88.1.0/24' }]] },
  })
  const both = await node.call('ADD', { netns: pod.path, config: { ...config, hairpinMode: true } })
  assert.equal(both.json.code, 7, both.stdout)
  assert.match(both.json.msg, /hairpinMode.*promiscMode/)
  const { json } = ok(await node.call('ADD', { netns: pod.path, config }))
  assert.match(node.namespace.run('ip link show promisc0'), /PROMISC/)
  assert.match(node.namespace.run(`bridge -d link show dev ${json.interfaces[1].name}`), /hairpin off/)
  assert.ok(reaches(pod, '10.88.1.1'))
  ok(await node.call('DEL'))
})
