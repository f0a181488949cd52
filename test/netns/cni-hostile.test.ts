/**
 * Requests that nobody should send, by the real plugin: each is refused with a code and leaves nothing, and the next good
 * one works.
 */
import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { CniNode, cannotRun, fails, ok, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
let node: CniNode
let pod: TestNamespace
let count = 0

before(async () => {
  if (skip) return
  node = new CniNode()
  await node.start()
  pod = new TestNamespace()
})
after(async () => {
  if (skip) return
  pod.delete()
  await node.delete()
})
/** Whatever was refused: no device, no record of it, and a good request is served. */
afterEach(async () => {
  if (skip) return
  await node.drained()
  assert.doesNotMatch(pod.run('ip -o link'), /eth/)
  ok(await node.call('ADD', { containerId: 'good', netns: pod.path }))
  ok(await node.call('DEL', { containerId: 'good' }))
})

const good = weftConfig('1.0.0')
const add = (config: object, more: object = {}) =>
  node.call('ADD', { containerId: `bad${++count}`, netns: pod.path, config, ...more })

test('CNI_ARGS of a hundred kilobytes, and a hundred of other variables', { skip }, async () => {
  fails(await add(good, { args: `IgnoreUnknown=1;X=${'y'.repeat(100_000)}` }), 4, /longer than 8192/)
  fails(await add(good, { args: ';'.repeat(100_000) }), 4, /longer than 8192/)
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`CNI_X${n}`, 'y'.repeat(1000)]))
  fails(await add(good, { environment: many }), 4, /More than 64/)
})

test('names of interfaces that the kernel would read otherwise', { skip }, async () => {
  for (const ifname of [
    '..',
    '.',
    'sixteen-letters-',
    'eth0/x',
    'eth0:1',
    'eth 0',
    'eth\n0',
    'éth0',
    'eth%d',
    '%d',
    '%s%n',
  ])
    fails(await add(good, { ifname }), 4, /CNI_IFNAME/)
  ok(await add(good, { containerId: 'odd', ifname: '$(reboot)`\'"' }))
  ok(await node.call('DEL', { containerId: 'odd', ifname: '$(reboot)`\'"' }))
  ok(await node.call('DEL', { containerId: 'odd', ifname: 'eth%d' }))
})

test('container ids with slashes, dots and lengths', { skip }, async () => {
  for (const containerId of ['a/b', '/a', '../../etc', '.hidden', '-a', 'a b', 'a\nb', 'ä', 'x'.repeat(257)])
    fails(await add(good, { containerId }), 4, /CNI_CONTAINERID/)
  const longest = `${'x'.repeat(255)}y`
  ok(await add(good, { containerId: longest }))
  fails(await add(good, { containerId: longest }), 104, /attached already/)
  ok(await node.call('DEL', { containerId: longest }))
  ok(await node.call('DEL', { containerId: 'never-seen' }))
})

test('port mappings out of range, of no protocol, twice in one pod', { skip }, async () => {
  const ports = (...portMappings: object[]) => add({ ...good, runtimeConfig: { portMappings } })
  const one = { hostPort: 8080, containerPort: 80, protocol: 'tcp' }
  for (const [bad, key] of [
    [{ hostPort: -1 }, 'hostPort'],
    [{ hostPort: 65536 }, 'hostPort'],
    [{ hostPort: 80.5 }, 'hostPort'],
    [{ hostPort: '80' }, 'hostPort'],
    [{ containerPort: 0 }, 'containerPort'],
    [{ containerPort: 1e308 }, 'containerPort'],
    [{ protocol: 'icmp' }, 'protocol'],
    [{ protocol: 'constructor' }, 'protocol'],
    [{ hostIP: 'localhost' }, 'hostIP'],
    [{ hostIP: '10.0.0.1; drop' }, 'hostIP'],
  ] as const)
    fails(await ports(one, { ...one, ...bad }), 7, new RegExp(`portMappings\\[1\\]\\.${key}`))
  fails(await ports(...Array.from({ length: 1025 }, () => one)), 7, /more than 1024/)
  fails(await ports(one, { ...one, containerPort: 81 }), 106, /^Host port tcp 8080 is asked for twice$/)
  ok(await ports(one, one))
  ok(await node.call('DEL', { containerId: `bad${count}` }))
})

test('a host port of another pod: the answer names the pod', { skip }, async () => {
  using first = new TestNamespace()
  const portMappings = [{ hostPort: 8443, containerPort: 443, protocol: 'udp', hostIP: '192.0.2.7' }]
  const config = { ...good, runtimeConfig: { portMappings } }
  const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=front-0'
  ok(await node.call('ADD', { containerId: 'front', netns: first.path, config, args }))
  const says = /^Host port 192\.0\.2\.7 udp 8443 is taken by pod shop\/front-0, eth0 of container front$/
  fails(await add(config), 106, says)
  await node.stop('SIGKILL')
  await node.start()
  fails(await add(config), 106, says)
  ok(await node.call('DEL', { containerId: 'front' }))
  ok(await add(config))
  ok(await node.call('DEL', { containerId: `bad${count}` }))
})

test('a prevResult made up', { skip }, async () => {
  const chained = (prevResult: unknown, more: object = {}) => add({ ...good, prevResult, ...more })
  const runtimeConfig = { portMappings: [{ hostPort: 8080, containerPort: 80 }] }
  for (const [bad, code, says] of [
    ['x', 6, /prevResult/],
    [[], 6, /prevResult/],
    [{ cniVersion: '9' }, 1, /prevResult: cniVersion/],
    [{ ips: 'x' }, 7, /prevResult\.ips/],
    [{ ips: [{ address: '10.0.0.1' }] }, 7, /prevResult\.ips\[0\]\.address/],
    [{ ips: [{ address: '10.0.0.1/33' }] }, 7, /prevResult\.ips\[0\]\.address/],
    [{ ips: [{ address: '10.0.0.1/24', interface: 7 }] }, 7, /interface/],
    [{ ips: [{ address: '10.0.0.1/24', interface: -1 }] }, 7, /interface/],
    [{ ips: Array.from({ length: 257 }, () => ({ address: '10.0.0.1/24' })) }, 7, /more than 256/],
    [{ interfaces: [{ name: 'x'.repeat(65) }] }, 7, /interfaces\[0\]\.name/],
    [{ interfaces: Array.from({ length: 65 }, () => ({ name: 'x' })) }, 7, /more than 64/],
    [{ routes: [{ dst: 'default' }] }, 7, /prevResult\.routes\[0\]\.dst/],
    [{ routes: [{ dst: '0.0.0.0/0', gw: 'x' }] }, 7, /prevResult\.routes\[0\]\.gw/],
    [{ dns: { nameservers: 'x' } }, 7, /nameservers/],
  ] as const)
    fails(await chained(bad, { runtimeConfig }), code, says)
  const strangers = { interfaces: [{ name: 'eth0', sandbox: '/etc/passwd' }], ips: [{ address: '127.0.0.1/8' }] }
  fails(
    await chained(strangers, { runtimeConfig: { bandwidth: { ingressRate: 8000 } } }),
    7,
    /no veth device of the node leads to it/,
  )
  const answer = ok(await chained(JSON.parse('{"__proto__":{"ips":[{"address":"10.0.0.1/24"}]},"ips":[]}')))
  assert.equal(answer.json.ips, undefined)
  fails(
    await node.call('CHECK', { containerId: 'nobody', netns: pod.path, config: { ...good, prevResult: {} } }),
    103,
    /not attached/,
  )
  fails(await node.call('CHECK', { containerId: 'nobody', netns: pod.path }), 7, /prevResult: is missing/)
})

test('GC with garbage takes nothing away', { skip }, async () => {
  using kept = new TestNamespace()
  ok(await node.call('ADD', { containerId: 'kept', netns: kept.path }))
  const gc = (list: unknown) => node.call('GC', { config: weftConfig('1.1.0', { 'cni.dev/valid-attachments': list }) })
  for (const list of [
    'x',
    {},
    [1],
    [null],
    [{}],
    [{ containerID: 'kept' }],
    [{ containerID: 'kept', ifname: '' }],
    [{ containerID: '../kept', ifname: 'eth0' }],
    [{ containerID: 'kept', ifname: 'eth0' }, 'x'],
  ])
    assert.notEqual((await gc(list)).exitCode, 0, JSON.stringify(list))
  fails(await node.call('GC', { config: weftConfig('1.0.0') }), 1, /does not know GC/)
  ok(await gc(Array.from({ length: 20_000 }, (_, n) => ({ containerID: n === 7 ? 'kept' : `c${n}`, ifname: 'eth0' }))))
  assert.equal(node.devices().length, 1)
  kept.run('ping -c 1 -W 5 10.77.0.1')
  ok(await node.call('GC', { config: weftConfig('1.1.0', { name: 'another', 'cni.dev/valid-attachments': [] }) }))
  assert.equal(node.devices().length, 1, "another network's list is about that network")
  ok(await gc(null))
  await node.drained()
})
