/**
 * A whole lab in another kernel, with Calico's pools in IPIP: what people look at to understand it is there, device by device
 * and packet by packet, and the pool's mode is changed under a running ping. n1 and n3 share a subnet; n2 is behind the router.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { askControl } from '../../src/lab/control.ts'
import { labPaths, netnsPath } from '../../src/lab/layout.ts'
import { waitUntil } from '../../src/lab/process.ts'
import { followPacket, type Hop, type WalkEnd } from '../../src/lab/walk.ts'
import { TestLab } from '../netns/test-lab.ts'

const lab = new TestLab()
const ends: Record<string, WalkEnd> = {}
const placed = { a: 'n1', b: 'n1', c: 'n2', d: 'n3' } as const
type Pod = keyof typeof placed
const nodeAddresses = { n1: '172.30.0.11', n2: '172.30.1.12', n3: '172.30.0.13' } as const

before(async () => {
  await lab.up('--nodes', '3', '--subnets', '2', '--backend', 'calico-ipip', '--no-ipv6')
  for (const [pod, node] of Object.entries(placed)) {
    const { ip } = await lab.server(pod, node)
    const place = await askControl<{ netnsPath: string }>(labPaths(lab.name).control, {
      command: 'locate',
      target: pod,
    })
    ends[pod] = { pod, node, netnsPath: place.netnsPath, ip }
  }
})
after(() => lab.down())

const run = (netns: string, ...argv: readonly string[]): string =>
  execFileSync('nsenter', [`--net=${netns}`, ...argv], { encoding: 'utf8' })
const inPod = (pod: Pod, ...argv: readonly string[]): string => run(ends[pod]!.netnsPath, ...argv)
const onNode = (node: string, ...argv: readonly string[]): string => run(netnsPath(lab.name, node), ...argv)
const ipOf = (pod: Pod): string => ends[pod]!.ip
/** Lines without what differs between kernels and tools at their ends. */
const lines = (text: string): string[] => text.split('\n').flatMap((line) => line.trim() || [])

/** Calico's name of the node's end. */
const hostDevice = (pod: Pod): string => `cali${createHash('sha1').update(`default.${pod}`).digest('hex').slice(0, 11)}`
/** The block that an address is in. */
const blockOf = (ip: string): string => ip.replace(/\d+$/, (last) => `${Number(last) & ~63}/26`)

/** What `tcpdump -penn` prints of the first packets, while one pod pings another. */
async function dump(
  node: string,
  device: string,
  filter: string,
  packets: number,
  from: Pod,
  to: Pod,
): Promise<string[]> {
  const words = ['tcpdump', '-penn', '-l', '-c', `${packets}`, '-i', device, filter]
  const child = spawn('nsenter', [`--net=${netnsPath(lab.name, node)}`, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const timer = setTimeout(() => child.kill(), 60_000)
  const ended = once(child, 'close')
  for (let said = ''; !said.includes('listening on'); ) said += String((await once(child.stderr, 'data'))[0])
  inPod(from, 'ping', '-n', '-c', '2', '-W', '10', ipOf(to))
  await ended
  clearTimeout(timer)
  return lines(text)
}

async function walk(from: Pod, to: Pod): Promise<Hop[]> {
  const { hops, answered } = await followPacket(lab.name, ends[from]!, ends[to]!)
  assert.ok(answered, `${from} → ${to} is answered`)
  return hops
}
const devices = (hops: readonly Hop[]): string[] => hops.map(({ device, place }) => `${device}@${place}`)
const onWire = (hops: readonly Hop[]): Hop[] =>
  hops.filter(({ device, place }) => device === 'eth0' && /^node/.test(place))

test('a pod has its address alone, a gateway that is nobody, and room for the outer header', () => {
  const text = inPod('a', 'ip', 'address', 'show', 'eth0')
  assert.match(text, /^\d+: eth0@if\d+: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1480 /m)
  assert.ok(text.includes(`inet ${ipOf('a')}/32 scope global eth0`), text)
  assert.match(ipOf('a'), /^172\.26\./)
  assert.deepEqual(lines(inPod('a', 'ip', 'route')), [
    'default via 169.254.1.1 dev eth0',
    '169.254.1.1 dev eth0 scope link',
  ])
  assert.match(
    inPod('a', 'ip', '-details', 'link', 'show', 'tunl0'),
    /<NOARP> .*state DOWN[\s\S]*link\/ipip 0\.0\.0\.0/,
  )
})

test('kubectl shows the same from inside', () => {
  const text = lab.kubectl('exec', 'a', '--', 'ip', 'route')
  assert.deepEqual(lines(text), ['default via 169.254.1.1 dev eth0', '169.254.1.1 dev eth0 scope link'])
})

test('the other end of the pair is found by iflink and by the route to the pod', () => {
  for (const pod of ['a', 'b'] as const) {
    const [, own, far] = /^(\d+): eth0@if(\d+):/m.exec(inPod(pod, 'ip', 'link', 'show', 'eth0'))!
    assert.match(
      onNode('n1', 'ip', 'link', 'show', hostDevice(pod)),
      new RegExp(`^${far}: ${hostDevice(pod)}@if${own}:`, 'm'),
    )
    const route = lines(onNode('n1', 'ip', 'route')).filter((line) => line.startsWith(`${ipOf(pod)} `))
    assert.deepEqual(route, [`${ipOf(pod)} dev ${hostDevice(pod)} proto 119 scope link`])
  }
})

test('169.254.1.1 has a standing neighbour, and the node answers for it when that is taken away', () => {
  assert.match(inPod('a', 'ip', 'neighbour', 'show', '169.254.1.1'), /dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT/)
  inPod('b', 'ip', 'neighbour', 'delete', '169.254.1.1', 'dev', 'eth0')
  inPod('b', 'ping', '-n', '-c', '1', '-W', '10', ipOf('a'))
  assert.match(inPod('b', 'ip', 'neighbour', 'show', '169.254.1.1'), /lladdr ee:ee:ee:ee:ee:ee (REACHABLE|STALE|DELAY)/)
})

test('on one node a packet goes from the one pair to the other by the routes of the node', async () => {
  const mac = (pod: Pod): string => /link\/ether (\S+)/.exec(inPod(pod, 'ip', 'link', 'show', 'eth0'))![1]!
  const [from] = await dump('n1', hostDevice('a'), 'icmp', 1, 'a', 'b')
  assert.match(from!, new RegExp(`${mac('a')} > ee:ee:ee:ee:ee:ee, .* ${ipOf('a')} > ${ipOf('b')}: ICMP echo request`))
  const [to] = await dump('n1', hostDevice('b'), 'icmp', 1, 'a', 'b')
  assert.match(to!, new RegExp(`ee:ee:ee:ee:ee:ee > ${mac('b')}, .* ${ipOf('a')} > ${ipOf('b')}: ICMP echo request`))
  const hops = await walk('a', 'b')
  assert.deepEqual(devices(hops), [
    'eth0@pod a',
    `${hostDevice('a')}@node n1`,
    `${hostDevice('b')}@node n1`,
    'eth0@pod b',
  ])
  assert.equal(hops.at(-1)!.ttl, 63)
})

test('IPIP always: every block of another node is a route through tunl0, and the own one leads nowhere else', () => {
  const routes = lines(onNode('n1', 'ip', 'route'))
  for (const pod of ['c', 'd'] as const)
    assert.ok(
      routes.includes(`${blockOf(ipOf(pod))} via ${nodeAddresses[placed[pod]]} dev tunl0 proto 119 onlink`),
      routes.join('\n'),
    )
  assert.ok(routes.includes(`blackhole ${blockOf(ipOf('a'))} proto 119`), routes.join('\n'))
  assert.match(
    onNode('n1', 'ip', 'address', 'show', 'tunl0'),
    /mtu 1480 [\s\S]*inet 172\.26\.\d+\.\d+\/32 scope global tunl0/,
  )
})

test('IPIP always: bare on tunl0, on the wire one IP packet in another, between the nodes', async () => {
  const outer = `${nodeAddresses.n1} > ${nodeAddresses.n2}`
  const inner = `${ipOf('a')} > ${ipOf('c')}`
  const [wire] = await dump('n1', 'eth0', `host ${nodeAddresses.n2} and ip proto 4`, 1, 'a', 'c')
  assert.match(wire!, new RegExp(`^\\S+ \\S+ > \\S+, ethertype IPv4 .*: ${outer}: .*${inner}: ICMP echo request`))
  const [tunnel] = await dump('n1', 'tunl0', `host ${ipOf('c')}`, 1, 'a', 'c')
  assert.match(tunnel!, new RegExp(`${inner}: ICMP echo request`))
  assert.ok(!tunnel!.includes(nodeAddresses.n2), tunnel)
  const hops = await walk('a', 'c')
  assert.deepEqual(
    devices(hops).filter((each) => !/@(fabric|router)$/.test(each)),
    [
      'eth0@pod a',
      `${hostDevice('a')}@node n1`,
      'tunl0@node n1',
      'eth0@node n1',
      'eth0@node n2',
      'tunl0@node n2',
      `${hostDevice('c')}@node n2`,
      'eth0@pod c',
    ],
  )
  for (const hop of onWire(hops)) assert.equal(hop.encapsulation, `IPIP, ${nodeAddresses.n1} → ${nodeAddresses.n2}`)
})

/** Ten pings a second while the pool is changed; ends when the routes are there. Gives how many were lost. */
async function changePool(patch: object, isThere: (routes: readonly string[]) => boolean): Promise<number> {
  const ping = spawn(
    'nsenter',
    [`--net=${ends.a!.netnsPath}`, 'ping', '-n', '-q', '-i', '0.1', '-W', '10', ipOf('d')],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  let text = ''
  ping.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const ended = once(ping, 'close')
  lab.kubectl('patch', 'ippool', 'default-ipv4-ippool', '--type=merge', '-p', JSON.stringify({ spec: patch }))
  const there = () => ['n1', 'n3'].every((node) => isThere(lines(onNode(node, 'ip', 'route'))))
  assert.ok(await waitUntil(there, 60_000, 50), onNode('n1', 'ip', 'route'))
  ping.kill('SIGINT')
  await ended
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(text)!
  assert.ok(Number(sent) > 0)
  // One may be on its way when ping is stopped.
  return Math.max(0, Number(sent) - Number(received) - 1)
}

test('CrossSubnet by kubectl: bare to the node on the same subnet, IPIP through the router, no ping lost', async () => {
  const direct = (routes: readonly string[]) =>
    routes.some((line) => /^172\.26\.\S+ via 172\.30\.0\.1[13] dev eth0 proto 119/.test(line))
  assert.equal(await changePool({ ipipMode: 'CrossSubnet' }, direct), 0)
  const near = await walk('a', 'd')
  for (const hop of onWire(near)) assert.equal(hop.encapsulation, undefined)
  assert.ok(!devices(near).some((each) => each.startsWith('tunl0')))
  for (const hop of onWire(await walk('a', 'c'))) assert.match(hop.encapsulation ?? 'bare', /^IPIP/)
})

test('Never by kubectl: two layers of addresses become one, and pods have the MTU of the underlay', async () => {
  const plain = (routes: readonly string[]) => routes.every((line) => !line.includes('tunl0'))
  assert.equal(await changePool({ ipipMode: 'Never' }, plain), 0)
  const [wire] = await dump('n1', 'eth0', `host ${ipOf('d')}`, 1, 'a', 'd')
  assert.match(wire!, new RegExp(`: ${ipOf('a')} > ${ipOf('d')}: ICMP echo request`))
  assert.ok(!wire!.includes(nodeAddresses.n3), wire)
  for (const hop of onWire(await walk('a', 'd'))) assert.equal(hop.encapsulation, undefined)
})

test('Always again, while pings go on', async () => {
  const wrapped = (routes: readonly string[]) =>
    routes.some((line) => /^172\.26\.\S+ via 172\.30\.0\.1[13] dev tunl0 proto 119 onlink/.test(line))
  assert.equal(await changePool({ ipipMode: 'Always' }, wrapped), 0)
  for (const hop of onWire(await walk('a', 'd'))) assert.match(hop.encapsulation ?? 'bare', /^IPIP/)
})
