/**
 * The CNI protocol end to end: the plugin binary, its socket, the server, the kernel.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { CniNode, cannotRun, fails, ok, shimPath, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']
let node: CniNode
let containers = 0
const nextId = () => `container-${++containers}`

before(async () => {
  if (skip) return
  node = new CniNode()
  await node.start()
})
after(async () => {
  if (!skip) await node.delete()
})

for (const version of versions)
  test(`ADD, CHECK and DEL in version ${version}`, { skip }, async () => {
    using pod = new TestNamespace()
    const containerId = nextId()
    const config = weftConfig(version)
    const { json } = ok(await node.call('ADD', { containerId, netns: pod.path, config }))
    assert.equal(json.cniVersion, version)
    const addresses =
      version < '0.3.0' ? [json.ip4.ip, json.ip6.ip] : json.ips.map((ip: { address: string }) => ip.address)
    const held =
      pod.json<{ addr_info: { local: string; prefixlen: number; scope: string }[] }[]>('ip -j addr show eth0')
    const global = held[0]!.addr_info.filter(({ scope }) => scope === 'global')
    assert.deepEqual(
      global.map(({ local, prefixlen }) => `${local}/${prefixlen}`),
      addresses,
    )
    if (version >= '0.3.0') {
      assert.deepEqual(json.interfaces[2].sandbox, pod.path)
      assert.equal(json.ips[0].version, version < '1.0.0' ? '4' : undefined)
      assert.equal(json.interfaces[2].mtu, version >= '1.1.0' ? 1450 : undefined)
    }
    for (const gateway of ['10.77.0.1', 'fd00:77::1']) pod.run(`ping -c1 -W5 ${gateway}`)
    const routes = pod.run('ip route; ip -6 route')
    assert.match(routes, /default via 10\.77\.0\.1 dev eth0/)
    assert.match(routes, /10\.76\.0\.0\/15 via 10\.77\.0\.1/)
    assert.match(routes, /fd00:70::\/28 via fd00:77::1/)
    const check = await node.call('CHECK', { containerId, netns: pod.path, config: { ...config, prevResult: json } })
    if (version < '0.4.0') fails(check, 1, /does not know CHECK/)
    else ok(check)
    assert.equal(ok(await node.call('DEL', { containerId, netns: pod.path, config })).stdout, '')
    assert.equal(ok(await node.call('DEL', { containerId, netns: pod.path, config })).stdout, '')
  })

test('VERSION, STATUS and the plugin without an agent', { skip }, async () => {
  const { json } = ok(await node.call('VERSION', { config: { cniVersion: '1.0.0' } }))
  assert.deepEqual(json, { cniVersion: '1.0.0', supportedVersions: versions })
  assert.equal(ok(await node.call('STATUS')).stdout, '')
  fails(await node.call('STATUS', { config: weftConfig('1.0.0') }), 1, /does not know STATUS/)
  const other = new CniNode({ unready: true })
  try {
    await other.start()
    fails(await other.call('STATUS'), 50, /not known yet/)
    using pod = new TestNamespace()
    fails(await other.call('ADD', { netns: pod.path }), 11, /not known yet/)
    ok(await other.call('DEL', { netns: pod.path }))
    await other.stop('SIGKILL')
    const started = performance.now()
    fails(await other.call('ADD', { netns: pod.path, config: weftConfig('0.4.0') }), 11, /./)
    assert.ok(performance.now() - started < 5000)
  } finally {
    await other.delete()
  }
})

test('a plugin of another version of the protocol is told so', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-cni-other-'))
  const other = join(folder, 'weft-cni')
  const program = readFileSync(shimPath)
  for (let at = program.indexOf('WFT1'); at >= 0; at = program.indexOf('WFT1', at)) program.write('WFT2', at)
  writeFileSync(other, program, { mode: 0o755 })
  const agent = new CniNode({ shimPath: other })
  try {
    await agent.start()
    using pod = new TestNamespace()
    for (const command of ['ADD', 'DEL', 'STATUS'])
      fails(await agent.call(command, { netns: pod.path }), 11, /plugin speaks version "2" .* the agent version "1"/)
    assert.deepEqual(agent.devices(), [])
  } finally {
    await agent.delete()
    rmSync(folder, { recursive: true })
  }
})

test('bad input: each with its code and the key by name', { skip }, async () => {
  using pod = new TestNamespace()
  const netns = pod.path
  const add = (config: object | Buffer, more: object = {}) =>
    node.call('ADD', { containerId: nextId(), netns, config, ...more })
  const good = weftConfig('1.0.0')
  fails(await add(Buffer.from('{"cniVersion":"1.0.0","name":')), 6, /not JSON/)
  fails(await add(Buffer.alloc(0)), 6, /No network configuration/)
  fails(await add(Buffer.from([0xff, 0xfe, 0x00])), 6, /not JSON/)
  fails(await add(Buffer.from('[]')), 6, /must be an object/)
  fails(await add(Buffer.alloc(9 * 1024 * 1024, 0x20)), 6, /./)
  fails(await add({ ...good, cniVersion: '9.9.9' }), 1, /"9\.9\.9" is not supported/)
  fails(await add({ cniVersion: '1.0.0', type: 'weft' }), 7, /name: is missing/)
  fails(await add({ ...good, mtu: 'big' }), 7, /mtu: must be a whole number/)
  fails(await add({ ...good, vlan: 5 }), 7, /vlan: needs addresses of its own/)
  fails(await add({ ...good, vlanTrunk: [{ minID: 5 }] }), 7, /vlanTrunk\[0\]\.maxID: is missing/)
  fails(await add({ ...good, ipam: { type: 'dhcp' } }), 7, /ipam\.type: "dhcp" is not supported/)
  fails(
    await add({ ...good, runtimeConfig: { portMappings: [{ hostPort: 70000 }] } }),
    7,
    /portMappings\[0\]\.hostPort/,
  )
  fails(await add(good, { containerId: '../etc' }), 4, /CNI_CONTAINERID/)
  fails(await add(good, { ifname: 'a/b' }), 4, /CNI_IFNAME/)
  fails(await add(good, { ifname: 'waytoolongforadevice' }), 4, /CNI_IFNAME/)
  ok(await node.call('DEL', { containerId: nextId(), config: { ...good, vlan: 5, mtu: 'big' }, args: 'WHAT=1' }))
  fails(await add(good, { args: 'WHAT=1' }), 4, /unknown "WHAT"/)
  fails(await add(good, { args: 'IP=10.1' }), 4, /IP/)
  fails(await add(good, { netns: '' }), 4, /CNI_NETNS: missing/)
  fails(await add(good, { netns: '/run/netns/weft-test-nothing' }), 3, /no such network namespace/)
  fails(await add(good, { netns: '/etc/passwd' }), 4, /is not a network namespace/)
  fails(await add(good, { netns: '/dev/zero' }), 4, /is not a network namespace/)
  fails(await add(good, { netns: node.namespace.path }), 4, /own network namespace/)
  fails(await node.call('FROB'), 4, /unknown command "FROB"/)
  assert.deepEqual(node.devices(), [])
  assert.doesNotMatch(pod.run('ip -o link'), /eth0/)
})

test('a second ADD is refused and changes nothing; a foreign device of the same name stays', { skip }, async () => {
  using pod = new TestNamespace()
  const containerId = nextId()
  const { json } = ok(await node.call('ADD', { containerId, netns: pod.path }))
  fails(await node.call('ADD', { containerId, netns: pod.path }), 104, /attached already/)
  pod.run('ping -c1 -W5 10.77.0.1')
  ok(await node.call('DEL', { containerId, netns: pod.path }))
  await node.drained()
  const name = json.interfaces[1].name
  node.namespace.run(`ip link add ${name} type veth peer name other`)
  fails(await node.call('ADD', { containerId, netns: pod.path }), 101, new RegExp(`${name}: .* somebody else`))
  ok(await node.call('DEL', { containerId, netns: pod.path }))
  assert.match(node.namespace.run('ip -o link'), new RegExp(`${name}@other`))
  node.namespace.run(`ip link delete ${name}`)
  pod.run('ip link add eth0 type veth peer name eth1')
  fails(await node.call('ADD', { containerId, netns: pod.path }), 101, /eth0: the container has a device of this name/)
  pod.run('ip link delete eth0')
  ok(await node.call('ADD', { containerId, netns: pod.path }))
  ok(await node.call('DEL', { containerId, netns: pod.path }))
})

test('a namespace that is gone before DEL', { skip }, async () => {
  const pod = new TestNamespace()
  const containerId = nextId()
  ok(await node.call('ADD', { containerId, netns: pod.path }))
  const path = pod.path
  pod.delete()
  ok(await node.call('DEL', { containerId, netns: path }))
  ok(await node.call('DEL', { containerId, netns: '' }))
  await node.drained()
})

test('addresses and MACs by request, and what is refused', { skip }, async () => {
  using pod = new TestNamespace()
  using second = new TestNamespace()
  const config = weftConfig('1.0.0', { runtimeConfig: { ips: ['10.77.0.200/24'], mac: 'c2:11:22:33:44:55' } })
  const containerId = nextId()
  const { json } = ok(await node.call('ADD', { containerId, netns: pod.path, config }))
  assert.equal(json.ips[0].address, '10.77.0.200/24')
  assert.equal(json.interfaces[2].mac, 'c2:11:22:33:44:55')
  assert.match(pod.run('ip link show eth0'), /c2:11:22:33:44:55/)
  const other = nextId()
  fails(await node.call('ADD', { containerId: other, netns: second.path, config }), 100, /10\.77\.0\.200 is in use/)
  fails(await node.call('ADD', { containerId: other, netns: second.path, args: 'IP=10.77.0.1' }), 100, /gateway/)
  fails(
    await node.call('ADD', { containerId: other, netns: second.path, args: 'IP=10.9.0.1' }),
    100,
    /not in the ranges/,
  )
  const args = 'IgnoreUnknown=1;K8S_POD_NAME=x;FOO=1;IP=10.77.0.201;MAC=0a:00:00:00:00:09'
  const given = ok(await node.call('ADD', { containerId: other, netns: second.path, args }))
  assert.equal(given.json.ips[0].address, '10.77.0.201/24')
  pod.run('ping -c1 -W5 10.77.0.201')
  ok(await node.call('DEL', { containerId }))
  ok(await node.call('DEL', { containerId: other }))
})

test('a full subnet says so and leaks nothing; freed addresses can be given again', { skip }, async () => {
  const small = new CniNode({ podCidrs: ['10.77.9.0/29'], clusterNetworks: [] })
  const pods = Array.from({ length: 6 }, () => new TestNamespace())
  try {
    await small.start()
    const given: string[] = []
    for (const [n, pod] of pods.slice(0, 5).entries())
      given.push(ok(await small.call('ADD', { containerId: `p${n}`, netns: pod.path })).json.ips[0].address)
    assert.equal(new Set(given).size, 5)
    const last = { containerId: 'p5', netns: pods[5]!.path }
    fails(await small.call('ADD', last), 100, /No free address in 10\.77\.9\.1-10\.77\.9\.6/)
    assert.equal(small.devices().length, 5)
    ok(await small.call('DEL', { containerId: 'p0' }))
    // The address is free once its device is gone: this ADD waits for that.
    assert.equal(ok(await small.call('ADD', last)).json.ips[0].address, given[0])
    ok(await small.call('DEL', last))
    for (let n = 1; n < 5; n++) ok(await small.call('DEL', { containerId: `p${n}` }))
    await small.drained()
  } finally {
    for (const pod of pods) pod.delete()
    await small.delete()
  }
})

test('host-local and static configurations, masquerade, a bridge of their own', { skip }, async () => {
  using pod = new TestNamespace()
  const ipam = {
    type: 'host-local',
    ranges: [[{ subnet: '10.88.0.0/24', rangeStart: '10.88.0.50', rangeEnd: '10.88.0.60', gateway: '10.88.0.254' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '192.0.2.0/24', gw: '10.88.0.9' }],
  }
  const config = weftConfig('1.0.0', { name: 'other', bridge: 'br-other', isGateway: true, ipMasq: true, ipam })
  const containerId = nextId()
  const { json } = ok(await node.call('ADD', { containerId, netns: pod.path, config }))
  assert.deepEqual(json.ips[0], { interface: 2, address: '10.88.0.50/24', gateway: '10.88.0.254' })
  assert.match(pod.run('ip route'), /default via 10\.88\.0\.254[\s\S]*192\.0\.2\.0\/24 via 10\.88\.0\.9/)
  pod.run('ping -c1 -W5 10.88.0.254')
  assert.match(node.namespace.run('nft list table inet weft'), /chain ipmasq-10\.88\.0\.0-24/)
  ok(await node.call('CHECK', { containerId, netns: pod.path, config: { ...config, prevResult: json } }))
  ok(await node.call('DEL', { containerId, netns: pod.path, config }))
  assert.doesNotMatch(node.namespace.run('nft list table inet weft'), /ipmasq/)
  const fixed = weftConfig('1.0.0', {
    name: 'fixed',
    bridge: 'br-fixed',
    ipam: { type: 'static', addresses: [{ address: '10.99.0.7/24', gateway: '10.99.0.1' }] },
  })
  const answer = ok(await node.call('ADD', { containerId, netns: pod.path, config: fixed }))
  assert.equal(answer.json.ips[0].address, '10.99.0.7/24')
  assert.doesNotMatch(node.namespace.run('ip addr show br-fixed'), /10\.99/)
  ok(await node.call('DEL', { containerId, netns: pod.path, config: fixed }))
  const none = weftConfig('1.0.0', { name: 'l2', bridge: 'br-l2', disableContainerInterface: true })
  ok(await node.call('ADD', { containerId, netns: pod.path, config: none }))
  assert.match(pod.run('ip -o link show eth0'), /state DOWN/)
  ok(await node.call('DEL', { containerId, netns: pod.path, config: none }))
  await node.drained()
})

test('CHECK finds each thing that another hand took away', { skip }, async () => {
  using pod = new TestNamespace()
  const breaks: [string, boolean, RegExp][] = [
    ['ip addr del 10.77.0.210/24 dev eth0', true, /does not have 10\.77\.0\.210\/24/],
    ['ip route del 10.76.0.0/15', true, /no route 10\.76\.0\.0\/15/],
    ['ip link set eth0 address 02:00:00:00:00:01', true, /has 02:00:00:00:00:01/],
    ['ip link set $HOST down', false, /is down/],
    ['ip link delete $HOST', false, /is missing/],
  ]
  for (const [command, inPod, message] of breaks) {
    const containerId = nextId()
    const { json } = ok(await node.call('ADD', { containerId, netns: pod.path, args: 'IP=10.77.0.210' }))
    const config = weftConfig('1.1.0', { prevResult: json })
    ok(await node.call('CHECK', { containerId, netns: pod.path, config }))
    const space = inPod ? pod : node.namespace
    space.run(command.replace('$HOST', json.interfaces[1].name))
    fails(await node.call('CHECK', { containerId, netns: pod.path, config }), 103, message)
    ok(await node.call('DEL', { containerId, netns: pod.path }))
    await node.drained()
  }
  fails(await node.call('CHECK', { containerId: nextId(), netns: pod.path }), 7, /prevResult: is missing/)
})

test('GC takes what the runtime does not know, of its own network only', { skip }, async () => {
  using first = new TestNamespace()
  using second = new TestNamespace()
  const [kept, lost] = [nextId(), nextId()]
  ok(await node.call('ADD', { containerId: kept, netns: first.path }))
  ok(await node.call('ADD', { containerId: lost, netns: second.path }))
  ok(await node.call('GC'))
  const valid = { 'cni.dev/valid-attachments': [{ containerID: kept, ifname: 'eth0' }] }
  ok(await node.call('GC', { config: weftConfig('1.1.0', { name: 'another', ...valid }) }))
  assert.equal(node.devices().length, 2)
  ok(await node.call('GC', { config: weftConfig('1.1.0', valid) }))
  first.run('ping -c1 -W5 10.77.0.1')
  ok(await node.call('DEL', { containerId: kept }))
  ok(await node.call('DEL', { containerId: lost }))
  await node.drained()
})

test('a second and a third interface of one container: addresses of their own; routes stay with the first', {
  skip,
}, async () => {
  using pod = new TestNamespace()
  const containerId = nextId()
  const routes = () => pod.run('ip route; ip -6 route').match(/^(default|.* via) .*/gm)
  const interfaces = ['eth0', 'net1', 'net2']
  const answers = []
  for (const ifname of interfaces) {
    const config = weftConfig('1.1.0', ifname === 'net1' ? { isDefaultGateway: false } : {})
    const { json } = ok(await node.call('ADD', { containerId, ifname, netns: pod.path, config }))
    answers.push({ ifname, config, json, routes: routes() })
  }
  const ips = answers.flatMap(({ json }) => json.ips.map(({ address }: { address: string }) => address))
  assert.equal(new Set(ips).size, 6)
  assert.equal(answers[0]!.json.routes.length, 4)
  for (const later of answers.slice(1)) {
    assert.deepEqual(later.json.routes ?? [], [])
    assert.deepEqual(later.routes, answers[0]!.routes)
  }
  for (const { ifname, config, json } of answers)
    ok(await node.call('CHECK', { containerId, ifname, netns: pod.path, config: { ...config, prevResult: json } }))
  for (const ifname of interfaces) ok(await node.call('DEL', { containerId, ifname }))
  await node.drained()
})

test('the bridge deleted, a port unplugged, the gateway removed by hand: mended for living pods', {
  skip,
}, async () => {
  using pod = new TestNamespace()
  const containerId = nextId()
  const { json } = ok(await node.call('ADD', { containerId, netns: pod.path }))
  const host = json.interfaces[1].name
  const gateway = '10.77.0.1/24'
  for (const harm of [
    'ip link delete cni0',
    `ip link set ${host} nomaster`,
    `ip addr del ${gateway} dev cni0`,
    'ip link set cni0 down',
  ]) {
    node.namespace.run(harm)
    pod.run('for i in $(seq 100); do ping -c1 -W1 10.77.0.1 >/dev/null 2>&1 && exit 0; done; exit 1')
  }
  assert.match(node.namespace.run(`bridge -d link show dev ${host}`), /hairpin on/)
  ok(await node.call('DEL', { containerId }))
})

test('a new MTU reaches living pods', { skip }, async () => {
  using pod = new TestNamespace()
  const containerId = nextId()
  const { json } = ok(await node.call('ADD', { containerId, netns: pod.path }))
  await node.order({ mtuBytes: 1380 })
  const mtuOf = (space: TestNamespace, device: string) =>
    space.json<{ mtu: number }[]>(`ip -j link show ${device}`)[0]!.mtu
  assert.deepEqual(
    [mtuOf(pod, 'eth0'), mtuOf(node.namespace, json.interfaces[1].name), mtuOf(node.namespace, 'cni0')],
    [1380, 1380, 1380],
  )
  await node.order({ mtuBytes: 1450 })
  ok(await node.call('DEL', { containerId }))
})

test('200 ADD and 200 DEL at once: no address twice, nothing left', { skip }, async () => {
  const pods = Array.from({ length: 200 }, () => new TestNamespace())
  try {
    const adds = await Promise.all(
      pods.map((pod, n) => node.call('ADD', { containerId: `many-${n}`, netns: pod.path })),
    )
    const given = adds.map((answer) => ok(answer).json.ips[0].address)
    assert.equal(new Set(given).size, 200)
    pods[0]!.run(`ping -c1 -W5 ${given[199].split('/')[0]}`)
    const dels = await Promise.all(pods.map((_, n) => node.call('DEL', { containerId: `many-${n}` })))
    for (const answer of dels) ok(answer)
    await node.drained()
  } finally {
    for (const pod of pods) pod.delete()
  }
})

test('a full disk: ADD is refused whole, DEL goes on', { skip }, async () => {
  const stateDir = mkdtempSync(join(tmpdir(), 'weft-full-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', stateDir])
  const full = new CniNode({ stateDir })
  using pod = new TestNamespace()
  using second = new TestNamespace()
  try {
    await full.start()
    ok(await full.call('ADD', { containerId: 'first', netns: pod.path }))
    // Pages are what tmpfs counts: the journal's last page has room for a few records only.
    writeFileSync(join(stateDir, 'ballast'), Buffer.alloc(4096 * 3 - 1))
    let answer = ok(await full.call('VERSION'))
    let ready = 0
    for (; answer.exitCode === 0 && ready < 40; ready++) {
      answer = await full.call('ADD', { containerId: 'more', netns: second.path })
      ok(await full.call('DEL', { containerId: 'more' }))
    }
    fails(answer, 105, /journal cannot be written/)
    ok(await full.call('DEL', { containerId: 'first' }))
    await full.drained()
    assert.doesNotMatch(second.run('ip -o link'), /eth0/)
    rmSync(join(stateDir, 'ballast'))
    ok(await full.call('ADD', { containerId: 'later', netns: second.path }))
    await full.stop('SIGKILL')
    await full.start()
    ok(await full.call('DEL', { containerId: 'later' }))
    await full.drained()
  } finally {
    await full.delete()
    execFileSync('umount', [stateDir])
    rmSync(stateDir, { recursive: true })
  }
})
