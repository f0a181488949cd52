/**
 * What weft's table does to real packets: the masquerade table row by row, port mappings from everywhere, forged packets
 * dropped and counted. Both families. `10.244.0.0/16` is the pod network, of which the node has .1 and a peer has .2.
 *
 *      pods a .1.2, b .1.3                       pod q .2.2
 *          │ cni0 .1.1                              │
 *        node 172.30.0.1 ── fabric (bridge) ── peer 172.30.0.2
 *                              │
 *                        client 172.30.0.9
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { after, afterEach, before, test } from 'node:test'
import {
  type FirewallOptions,
  type HostPort,
  innerCounter,
  loopbackCounter,
  ownSourceCounter,
  planFirewallSkeleton,
  planHostPorts,
  planPeerElements,
  strangerCounter,
} from '../../src/datapath/firewall/firewall.ts'
import { readNftCounters } from '../../src/kernel/linux/drivers/nft.ts'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { Mac } from '../../src/net/mac.ts'
import { TestNamespace } from './namespace.ts'

const options: FirewallOptions = {
  clusterCidrs: [Cidr.parse('10.244.0.0/16'), Cidr.parse('fd00:244::/56')],
  localCidrs: [Cidr.parse('10.244.1.0/24'), Cidr.parse('fd00:244:0:1::/64')],
  masquerade: true,
  tunnels: [
    { type: 'vxlan', device: 'flannel.1', port: 8472 },
    { type: 'udp', device: 'flannel0', port: 8285 },
  ],
}
const peerMac = Mac.parse('02:00:00:00:00:02')
const peerElements = planPeerElements({
  addresses: [Ip.parse('172.30.0.2'), Ip.parse('fd00:172::2')],
  podCidrs: [Cidr.parse('10.244.2.0/24'), Cidr.parse('fd00:244:0:2::/64')],
})
/** The client as a node with subnets of its own, for the tests that need a third one. */
const otherElements = planPeerElements({
  addresses: [Ip.parse('172.30.0.9'), Ip.parse('fd00:172::9')],
  podCidrs: [Cidr.parse('10.244.3.0/24'), Cidr.parse('fd00:244:0:3::/64')],
})

type Place = 'fabric' | 'node' | 'peer' | 'client' | 'a' | 'b' | 'q'
const places = {} as Record<Place, TestNamespace>

/** A veth pair between two places, by `ip` in one go. */
function cable(a: Place, aName: string, b: Place, bName: string): void {
  const [from, to] = [places[a].name, places[b].name]
  execFileSync('ip', ['link', 'add', aName, 'netns', from, 'type', 'veth', 'peer', 'name', bName, 'netns', to])
}

function setUp(): void {
  for (const name of ['fabric', 'node', 'peer', 'client', 'a', 'b', 'q'] as const) places[name] = new TestNamespace()
  const quiet = 'sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0;'
  for (const space of Object.values(places)) space.run(quiet)
  places.fabric.run('ip link add br0 type bridge; ip link set br0 up')
  for (const [i, host] of (['node', 'peer', 'client'] as const).entries()) {
    cable(host, 'eth0', 'fabric', `port${i}`)
    places.fabric.run(`ip link set port${i} master br0 up`)
    const last = { node: 1, peer: 2, client: 9 }[host]
    places[host].run(
      `ip addr add 172.30.0.${last}/24 dev eth0; ip addr add fd00:172::${last}/64 dev eth0 nodad; ip link set eth0 up`,
    )
  }
  for (const [host, subnet, pods] of [
    ['node', 1, ['a', 'b']],
    ['peer', 2, ['q']],
  ] as const) {
    places[host].run(
      `sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1;
       ip link add cni0 type bridge; ip addr add 10.244.${subnet}.1/24 dev cni0;
       ip addr add fd00:244:0:${subnet}::1/64 dev cni0 nodad; ip link set cni0 up`,
    )
    for (const [i, pod] of pods.entries()) {
      cable(pod, 'eth0', host, `veth-${pod}`)
      places[host].run(`ip link set veth-${pod} master cni0 up; bridge link set dev veth-${pod} hairpin on`)
      places[pod].run(
        `ip addr add 10.244.${subnet}.${i + 2}/24 dev eth0; ip addr add fd00:244:0:${subnet}::${i + 2}/64 dev eth0 nodad;
         ip link set eth0 up; ip route add default via 10.244.${subnet}.1; ip -6 route add default via fd00:244:0:${subnet}::1`,
      )
    }
  }
  // Everybody has routes to the pods by the node; the peer's pods are reached by the peer from the node alone.
  places.node.run('ip route add 10.244.2.0/24 via 172.30.0.2; ip -6 route add fd00:244:0:2::/64 via fd00:172::2')
  places.peer.run('ip route add 10.244.1.0/24 via 172.30.0.1; ip -6 route add fd00:244:0:1::/64 via fd00:172::1')
  places.client.run('ip route add 10.244.0.0/16 via 172.30.0.1; ip -6 route add fd00:244::/56 via fd00:172::1')
}

async function apply(verb: 'add' | 'set' | 'delete', objects: readonly KernelObject[]): Promise<void> {
  for (const result of await places.node.kernel.execute(objects.map((object) => ({ verb, object }))))
    if (result) throw result
}

const servers: ChildProcess[] = []
/** Servers that answer with the client's address as they saw it. */
function serve(place: Place, port: number): void {
  for (const listen of [`TCP6-LISTEN:${port},fork,reuseaddr,ipv6only=0`, `UDP6-RECVFROM:${port},fork,ipv6only=0`])
    servers.push(
      spawn('ip', ['netns', 'exec', places[place].name, 'socat', listen, `SYSTEM:echo ${place} $SOCAT_PEERADDR`], {
        stdio: 'ignore',
      }),
    )
}

/** What the server says, asked from a place; tries until it answers. IPv4 peers show as mapped addresses there. */
async function ask(place: Place, protocol: 'tcp' | 'udp', target: string, port: number): Promise<string> {
  const host = target.includes(':') ? `[${target}]` : target
  const to = `${protocol.toUpperCase()}${target.includes(':') ? '6' : '4'}:${host}:${port}`
  for (let attempt = 0; attempt < 40; attempt++) {
    try {
      const answer = places[place].run(`echo hello | timeout 1 socat -T 0.3 - ${to}`).trim()
      if (answer) return answer.replace(/\[(.*)\]/, (_, ip: string) => plain(ip))
    } catch {
      // Not listening yet.
    }
  }
  return 'no answer'
}

/** One try: for what must fail. */
const answers = (place: Place, target: string, port: number): boolean =>
  places[place].succeeds(`echo hello | timeout 1 socat -T 0.3 - TCP4:${target}:${port},connect-timeout=0.3 | grep -q .`)

function plain(text: string): string {
  const ip = Ip.parse(text)
  return ip.w0 === 0 && ip.w1 === 0 && ip.w2 === 0xffff ? `${Ip.v4(ip.w3)}` : `${ip}`
}

async function counted(name: string): Promise<bigint> {
  const reading = (await readNftCounters(places.node.kernel)).find((counter) => counter.name === name)
  return reading?.packets ?? -1n
}

before(async () => {
  setUp()
  await apply('add', planFirewallSkeleton(options))
  await apply('add', peerElements)
  for (const place of ['a', 'b', 'q', 'client', 'node'] as const) serve(place, 80)
})
after(() => {
  for (const server of servers) server.kill()
  for (const space of Object.values(places)) space.delete()
})

test('pod to pod on another node keeps its source', async () => {
  assert.equal(await ask('a', 'tcp', '10.244.2.2', 80), 'q 10.244.1.2')
  assert.equal(await ask('a', 'udp', 'fd00:244:0:2::2', 80), 'q fd00:244:0:1::2')
})

test('pod to elsewhere leaves with the node’s address', async () => {
  assert.equal(await ask('a', 'tcp', '172.30.0.9', 80), 'client 172.30.0.1')
  assert.equal(await ask('a', 'udp', 'fd00:172::9', 80), 'client fd00:172::1')
})

test('elsewhere to this node’s pods keeps its source', async () => {
  assert.equal(await ask('client', 'tcp', '10.244.1.2', 80), 'a 172.30.0.9')
  assert.equal(await ask('client', 'udp', 'fd00:244:0:1::2', 80), 'a fd00:172::9')
})

test('elsewhere to other nodes’ pods, through this node, leaves with the node’s address', async () => {
  assert.equal(await ask('client', 'tcp', '10.244.2.2', 80), 'q 172.30.0.1')
  assert.equal(await ask('client', 'udp', 'fd00:244:0:2::2', 80), 'q fd00:172::1')
})

test('what kube-proxy marked is left alone, and nothing is translated with masquerading off', async () => {
  places.client.run('ip route replace 10.244.1.0/24 via 172.30.0.1')
  places.node.run(
    `nft 'add table inet other; add chain inet other marking { type filter hook prerouting priority -150; };
     add rule inet other marking ip saddr 10.244.1.3 meta mark set 0x4000'`,
  )
  assert.equal(await ask('b', 'tcp', '172.30.0.9', 80), 'client 10.244.1.3')
  places.node.run('nft delete table inet other')
  assert.equal(await ask('b', 'tcp', '172.30.0.9', 80), 'client 172.30.0.1')

  const chains = (settings: FirewallOptions) =>
    planFirewallSkeleton(settings).filter(({ kind }) => kind === 'nft-chain')
  await apply('set', chains({ ...options, masquerade: false }))
  assert.equal(await ask('b', 'tcp', '172.30.0.9', 80), 'client 10.244.1.3')
  await apply('set', chains(options))
  assert.equal(await ask('b', 'tcp', '172.30.0.9', 80), 'client 172.30.0.1')
})

const mappings: readonly HostPort[] = [
  { protocol: 'tcp', hostPort: 8080, containerPort: 80 },
  { protocol: 'udp', hostPort: 8053, containerPort: 80 },
  { protocol: 'tcp', hostPort: 9090, containerPort: 80, hostIp: Ip.parse('172.30.0.1') },
  { protocol: 'tcp', hostPort: 9191, containerPort: 80, hostIp: Ip.parse('172.30.0.77') },
  { protocol: 'sctp', hostPort: 7000, containerPort: 7000 },
]
const mapped = planHostPorts({ ips: [Ip.parse('10.244.1.2'), Ip.parse('fd00:244:0:1::2')] }, mappings)

test('a port mapping answers from outside, from the node, from pods and from the mapped pod itself', async () => {
  await apply(
    'set',
    mapped.filter(({ kind }) => kind === 'sysctl'),
  )
  await apply(
    'add',
    mapped.filter(({ kind }) => kind !== 'sysctl'),
  )
  assert.equal(await ask('client', 'tcp', '172.30.0.1', 8080), 'a 172.30.0.9')
  assert.equal(await ask('client', 'tcp', 'fd00:172::1', 8080), 'a fd00:172::9')
  assert.equal(await ask('client', 'udp', '172.30.0.1', 8053), 'a 172.30.0.9')
  assert.equal(await ask('client', 'udp', 'fd00:172::1', 8053), 'a fd00:172::9')
  assert.equal(await ask('node', 'tcp', '172.30.0.1', 8080), 'a 172.30.0.1')
  assert.equal(await ask('node', 'tcp', 'fd00:172::1', 8080), 'a fd00:172::1')
  assert.equal(await ask('node', 'tcp', '127.0.0.1', 8080), 'a 10.244.1.1')
  assert.equal(await ask('node', 'udp', '127.0.0.1', 8053), 'a 10.244.1.1')
  assert.equal(await ask('b', 'tcp', '172.30.0.1', 8080), 'a 10.244.1.1')
  assert.equal(await ask('b', 'udp', 'fd00:172::1', 8053), 'a fd00:244:0:1::1')
  assert.equal(await ask('a', 'tcp', '172.30.0.1', 8080), 'a 10.244.1.1')
  assert.equal(await ask('a', 'tcp', '10.244.1.1', 8080), 'a 10.244.1.1')
  assert.equal(await ask('q', 'tcp', '172.30.0.1', 8080), 'a 10.244.2.2')
  // Ports that nobody mapped stay the node's own.
  assert.equal(await ask('b', 'tcp', '172.30.0.1', 80), 'node 10.244.1.3')
})

test('a mapping of one host address answers there only, and never captures traffic that passes', async () => {
  assert.equal(await ask('client', 'tcp', '172.30.0.1', 9090), 'a 172.30.0.9')
  assert.ok(!answers('a', '10.244.1.1', 9090))
  // 172.30.0.77 is somebody else's: the mapping must not catch what pods send there.
  places.client.run('ip addr add 172.30.0.77/24 dev eth0')
  servers.push(
    spawn('ip', ['netns', 'exec', places.client.name, 'socat', 'TCP4-LISTEN:9191,fork,reuseaddr', 'SYSTEM:echo true'], {
      stdio: 'ignore',
    }),
  )
  assert.equal(await ask('b', 'tcp', '172.30.0.77', 9191), 'true')
})

test('a mapping is gone with its elements', async () => {
  await apply(
    'delete',
    mapped.filter(({ kind }) => kind !== 'sysctl'),
  )
  assert.ok(!answers('client', '172.30.0.1', 8080))
})

/** A VXLAN device in a namespace, towards the node. */
const vxlan = (mac: string, address: string): string =>
  `ip link add flannel.1 address ${mac} type vxlan id 1 dstport 8472 nolearning dev eth0;
   ip addr add ${address}/32 dev flannel.1; ip link set flannel.1 up;
   ip neigh replace 10.244.1.0 lladdr 02:00:00:00:00:01 dev flannel.1;
   bridge fdb append 02:00:00:00:00:01 dev flannel.1 dst 172.30.0.1;
   ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink`

afterEach(() => {
  for (const place of ['node', 'peer', 'client'] as const)
    places[place].succeeds('ip link del flannel.1; ip link del flannel-v6.1; true')
  places.node.run('ip route replace 10.244.2.0/24 via 172.30.0.2')
})

test('tunnel packets from no known node are dropped and counted', async () => {
  places.node.run(
    `ip link add flannel.1 address 02:00:00:00:00:01 type vxlan id 1 dstport 8472 nolearning dev eth0;
     ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up;
     ip neigh replace 10.244.2.0 lladdr ${peerMac} dev flannel.1; bridge fdb append ${peerMac} dev flannel.1 dst 172.30.0.2;
     ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink`,
  )
  places.peer.run(vxlan(`${peerMac}`, '10.244.2.0'))
  assert.equal(await ask('q', 'tcp', '10.244.1.2', 80), 'a 10.244.2.2')
  assert.equal(await ask('a', 'tcp', '10.244.2.2', 80), 'q 10.244.1.2')

  const before = await counted(strangerCounter)
  // The client knows the peer's MAC and claims its pods, but sends from its own address.
  places.client.run(vxlan(`${peerMac}`, '10.244.2.0'))
  assert.ok(!places.client.succeeds('ping -c 3 -i 0.05 -W 0.3 10.244.1.2'))
  assert.equal((await counted(strangerCounter)) - before, 3n)
  places.client.run('echo x | socat -u - UDP4:172.30.0.1:8285; echo x | socat -u - UDP6:[fd00:172::1]:8285')
  assert.equal((await counted(strangerCounter)) - before, 5n)
})

test('inside a tunnel a pod source must be the sender’s', async () => {
  places.node.run(
    `ip link add flannel.1 address 02:00:00:00:00:01 type vxlan id 1 dstport 8472 nolearning dev eth0;
     ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up`,
  )
  places.peer.run(vxlan(`${peerMac}`, '10.244.2.0'))
  const inner = () => counted(innerCounter)
  const start = await inner()
  // A third node's pod, and a pod of the receiver itself.
  places.peer.run('ip addr add 10.244.3.3/32 dev lo; ip addr add 10.244.1.77/32 dev lo')
  assert.ok(!places.peer.succeeds('ping -c 2 -i 0.05 -W 0.3 -I 10.244.3.3 10.244.1.2'))
  assert.equal((await inner()) - start, 2n)
  assert.ok(!places.peer.succeeds('ping -c 2 -i 0.05 -W 0.3 -I 10.244.1.77 10.244.1.2'))
  assert.equal((await inner()) - start, 4n)
  // Right subnet and right VTEP, but sent by another node.
  await apply('add', otherElements)
  places.client.run(vxlan(`${peerMac}`, '10.244.2.0'))
  assert.ok(!places.client.succeeds('ping -c 2 -i 0.05 -W 0.3 -I 10.244.2.0 10.244.1.2'))
  assert.equal((await inner()) - start, 6n)
  await apply('delete', otherElements)
  // What a node sends as itself is let in, and so is what its pods send.
  assert.ok(places.peer.succeeds('ping -c 2 -i 0.05 -W 1 -I 172.30.0.2 10.244.1.2'))
  assert.ok(places.q.succeeds('ping -c 2 -i 0.05 -W 1 10.244.1.2'))
  assert.equal((await inner()) - start, 6n)
})

test('inside a tunnel subnets of unusual lengths are judged the same', async () => {
  const unusual = planPeerElements({
    addresses: [Ip.parse('172.30.0.9')],
    podCidrs: [Cidr.parse('10.244.64.0/23'), Cidr.parse('10.244.70.32/28')],
  })
  await apply('add', unusual)
  places.node.run(
    `ip link add flannel.1 address 02:00:00:00:00:01 type vxlan id 1 dstport 8472 nolearning dev eth0;
     ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up; ip route replace 10.244.64.0/18 via 172.30.0.9`,
  )
  places.client.run(vxlan('02:00:00:00:00:09', '10.244.64.0'))
  const start = await counted(innerCounter)
  const ping = (source: string) => {
    places.client.run(`ip addr replace ${source}/32 dev lo`)
    const isAnswered = places.client.succeeds(`ping -c 2 -i 0.05 -W 0.5 -I ${source} 10.244.1.2`)
    places.client.run(`ip addr del ${source}/32 dev lo`)
    return isAnswered
  }
  for (const own of ['10.244.65.3', '10.244.70.47']) assert.ok(ping(own), own)
  assert.equal(await counted(innerCounter), start)
  for (const [i, another] of ['10.244.66.3', '10.244.70.48', '10.244.63.255'].entries()) {
    assert.ok(!ping(another), another)
    assert.equal((await counted(innerCounter)) - start, BigInt(2 * (i + 1)))
  }
  places.node.run('ip route del 10.244.64.0/18')
  await apply('delete', unusual)
})

/** The end of an IPv6 tunnel at `address`, with the other end's MAC behind fe80::1. */
const vxlan6 = (device: string, mac: string, address: string, outer: { from: string; to: string; farMac: string }) =>
  `ip link add ${device} address ${mac} type vxlan id 1 dstport 8472 nolearning local ${outer.from} dev eth0;
   ip addr add ${address}/128 dev ${device} nodad; ip link set ${device} up;
   ip neigh replace fe80::1 lladdr ${outer.farMac} dev ${device}; bridge fdb append ${outer.farMac} dev ${device} dst ${outer.to}`

test('inside a tunnel an IPv6 pod source must be the sender’s, and of the family of the tunnel', async () => {
  const nodeMac = '02:00:00:00:00:01'
  const inner = () => counted(innerCounter)
  const start = await inner()
  const toPods = 'ip route replace fd00:244:0:1::2/128 via fe80::1 dev'
  const ping = (source: string) => places.peer.succeeds(`ping -c 2 -i 0.05 -W 0.5 -I ${source} fd00:244:0:1::2`)
  for (const source of ['fd00:244:0:3::3', 'fd00:244:0:1::77', 'fd00:244:0:2::99'])
    places.peer.run(`ip addr replace ${source}/128 dev lo`)

  places.node.run(
    vxlan6('flannel-v6.1', nodeMac, 'fd00:244:0:1::', { from: 'fd00:172::1', to: 'fd00:172::2', farMac: `${peerMac}` }),
  )
  const toNode = { from: 'fd00:172::2', to: 'fd00:172::1', farMac: nodeMac }
  places.peer.run(`${vxlan6('flannel-v6.1', `${peerMac}`, 'fd00:244:0:2::', toNode)}; ${toPods} flannel-v6.1`)
  assert.ok(ping('fd00:244:0:2::99'))
  assert.ok(ping('fd00:172::2'))
  assert.equal(await inner(), start)
  assert.ok(!ping('fd00:244:0:3::3'))
  assert.equal((await inner()) - start, 2n)
  assert.ok(!ping('fd00:244:0:1::77'))
  assert.equal((await inner()) - start, 4n)

  // The peer's own subnet, in a tunnel of the other family.
  for (const place of ['node', 'peer'] as const) places[place].run('ip link del flannel-v6.1')
  places.node.run(
    vxlan6('flannel.1', nodeMac, 'fd00:244:0:1::', { from: '172.30.0.1', to: '172.30.0.2', farMac: `${peerMac}` }),
  )
  const toNode4 = { from: '172.30.0.2', to: '172.30.0.1', farMac: nodeMac }
  places.peer.run(`${vxlan6('flannel.1', `${peerMac}`, 'fd00:244:0:2::', toNode4)}; ${toPods} flannel.1`)
  assert.ok(!ping('fd00:244:0:2::99'))
  assert.equal((await inner()) - start, 6n)
})

test('tunnel packets are not tracked, what is inside is; other packets to those ports are', async () => {
  places.node.run(
    `ip link add flannel.1 address 02:00:00:00:00:01 type vxlan id 1 dstport 8472 nolearning dev eth0;
     ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up;
     ip neigh replace 10.244.2.0 lladdr ${peerMac} dev flannel.1; bridge fdb append ${peerMac} dev flannel.1 dst 172.30.0.2;
     ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink`,
  )
  places.peer.run(vxlan(`${peerMac}`, '10.244.2.0'))
  const tracked = () => places.node.run('cat /proc/net/nf_conntrack').split('\n')
  assert.equal(await ask('q', 'tcp', '10.244.1.2', 80), 'a 10.244.2.2')
  assert.equal(await ask('a', 'tcp', '10.244.2.2', 80), 'q 10.244.1.2')
  assert.ok(tracked().some((line) => line.includes('src=10.244.2.2') && line.includes('dst=10.244.1.2')))
  assert.deepEqual(
    tracked().filter((line) => line.includes('dport=8472')),
    [],
  )
  // To an address that no set knows (yet): an own pod's source inside is enough, in both families.
  places.node.run(
    `bridge fdb append 02:00:00:00:00:09 dev flannel.1 dst 172.30.0.9;
     ip neigh replace 10.244.9.0 lladdr 02:00:00:00:00:09 dev flannel.1; ip route replace 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink;
     ip neigh replace fe80::9 lladdr 02:00:00:00:00:09 dev flannel.1; ip route replace fd00:244:0:9::/64 via fe80::9 dev flannel.1`,
  )
  const wrapped = () => Number(places.node.run('cat /sys/class/net/flannel.1/statistics/tx_packets'))
  const before = wrapped()
  assert.ok(!places.a.succeeds('ping -c 1 -W 0.3 10.244.9.9'))
  assert.ok(!places.a.succeeds('ping -c 1 -W 0.3 fd00:244:0:9::9'))
  assert.ok(wrapped() >= before + 2)
  assert.deepEqual(
    tracked().filter((line) => line.includes('dport=8472')),
    [],
  )
  // What a program of the node sends to such a port is not wrapped, and may be a service's.
  places.node.run('echo x | socat -u - UDP4:172.30.0.9:8472')
  assert.ok(tracked().some((line) => line.includes('src=172.30.0.1 dst=172.30.0.9') && line.includes('dport=8472')))
  // A pod's packet to somebody else's port of that number is masqueraded as any other.
  places.a.run('echo x | socat -u - UDP4:172.30.0.9:8472')
  assert.ok(tracked().some((line) => line.includes('dport=8472') && line.includes('dst=172.30.0.1 ')))
})

test('an own pod address that comes by the wire is dropped and counted, in both families', async () => {
  const start = await counted(ownSourceCounter)
  places.peer.run('ip addr add fd00:244:0:1::77/128 dev lo; ip addr replace 10.244.1.77/32 dev lo')
  assert.ok(!places.peer.succeeds('ping -c 2 -i 0.05 -W 0.3 -I fd00:244:0:1::77 fd00:244:0:1::2'))
  places.peer.run('ip route replace 10.244.1.0/24 via 172.30.0.1')
  assert.ok(!places.peer.succeeds('ping -c 2 -i 0.05 -W 0.3 -I 10.244.1.77 10.244.1.2'))
  assert.equal((await counted(ownSourceCounter)) - start, 4n)
})

test('pods do not reach the node’s loopback addresses', async () => {
  const start = await counted(loopbackCounter)
  places.b.run('ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via 10.244.1.1')
  assert.ok(!answers('b', '127.0.0.1', 80))
  assert.ok((await counted(loopbackCounter)) > start)
})
