/**
 * A node that gets another pod CIDR while its pods run: they keep their gateway, and with the last of them it goes.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { waitUntil } from '../../src/lab/process.ts'
import { CniNode, cannotRun, ok } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
const former = ['10.77.0.0/24', 'fd00:77::/64']
const present = ['10.77.5.0/24', 'fd00:77:0:5::/64']
let node: CniNode
before(() => {
  if (!skip) node = new CniNode()
})
after(async () => {
  if (!skip) await node.delete()
})

const addresses = (): string[] =>
  node.namespace
    .run('ip -o addr show dev cni0 scope global')
    .split('\n')
    .flatMap((line) => /inet6? (\S+)/.exec(line)?.[1] ?? [])
    .sort()

const gatewaysOf = (cidrs: readonly string[]): string[] =>
  cidrs.map((cidr) => cidr.replace(/::\//, '::1/').replace(/\.0\//, '.1/'))

const foreign = '192.168.99.1/24'

test('gateways of a former pod CIDR stay with its pods, and go with the last', { skip }, async () => {
  const [first, second, third] = [new TestNamespace(), new TestNamespace(), new TestNamespace()]
  const add = async (containerId: string, pod: TestNamespace) =>
    ok(await node.call('ADD', { containerId, netns: pod.path })).json.ips as { address: string }[]
  try {
    await node.start({ podCidrs: former })
    await add('first', first)
    await add('second', second)
    node.namespace.run(`ip addr add ${foreign} dev cni0`)
    await node.stop('SIGKILL')

    await node.start({ podCidrs: present })
    assert.deepEqual(addresses(), [...gatewaysOf([...former, ...present]), foreign].sort())
    first.run('ping -c 1 -W 5 10.77.0.1 && ping -c 1 -W 5 fd00:77::1')
    const [given] = await add('third', third)
    assert.match(given!.address, /^10\.77\.5\./)
    third.run('ping -c 1 -W 5 10.77.5.1')

    ok(await node.call('DEL', { containerId: 'first', netns: first.path }))
    second.run('ping -c 1 -W 5 10.77.0.1')
    ok(await node.call('DEL', { containerId: 'second', netns: second.path }))
    const left = [...gatewaysOf(present), foreign].sort().join()
    assert.ok(await waitUntil(() => addresses().join() === left, 10_000), addresses().join())
    third.run('ping -c 1 -W 5 10.77.5.1')
  } finally {
    for (const pod of [first, second, third]) pod.delete()
  }
})

test('what nobody needs any more goes at the start', { skip }, async () => {
  await node.stop('SIGKILL')
  const third = ['10.77.6.0/24', 'fd00:77:0:6::/64']
  ok(await node.start({ podCidrs: present }).then(() => node.call('DEL', { containerId: 'third' })))
  await node.stop()
  await node.start({ podCidrs: third })
  assert.deepEqual(addresses(), [...gatewaysOf(third), foreign].sort())
})
