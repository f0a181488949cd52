import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { PoolCluster, type PoolNode, testPool } from './pool-cluster.ts'

/** n1 and n2 stand on one subnet, n3 behind the router. */
const cluster = new PoolCluster([1, 1, 2])
const [n1, n2, n3] = cluster.nodes as [PoolNode, PoolNode, PoolNode]
const pools = (mode: Parameters<typeof testPool>[2], six: Parameters<typeof testPool>[2] = mode) => [
  testPool('four', '172.26.0.0/16', { natOutgoing: true, ...mode }),
  testPool('six', 'fd00:26::/32', { natOutgoing: true, ...six }),
]
const vxlanOf = { four: 'calico/vxlan/4096/4789', six: 'calico/vxlan-v6/4096/4789' } as const

/** Where no router knows the pods, what leaves the subnet is wrapped and what stays is not. */
const crossSubnet = (wrapped: Readonly<Record<string, string>>) => (from: PoolNode, to: PoolNode, pool: string) =>
  from.subnet === to.subnet ? 'calico/plain' : wrapped[pool]!

before(async () => {
  await cluster.start(pools({ vxlanMode: 'CrossSubnet' }))
  await cluster.settled(crossSubnet(vxlanOf), ['four', 'six'])
})
after(() => cluster.close())

const answers = (from: PoolNode, to: string) =>
  assert.match(from.pod.run(`ping -c 2 -i 0.1 -W 3 ${to}`), / 0% packet loss/, `${from.name} to ${to}`)

test('CrossSubnet: plain on the subnet, wrapped beyond the router, both families', () => {
  for (const to of [n2.podIp, n3.podIp, n2.podIpv6, n3.podIpv6]) answers(n1, to)
  for (const from of [n2, n3]) answers(from, n1.podIp)
  const routes = n1.namespace
    .run('ip route show proto 119; ip -6 route show proto 119')
    .split('\n')
    .map((line) => line.trim())
  for (const line of [
    'blackhole 172.26.1.0/26',
    '172.26.2.0/26 via 172.30.1.2 dev eth0',
    '172.26.3.0/26 via 172.26.3.0 dev vxlan.calico onlink',
  ])
    assert.ok(routes.includes(line), `${line} among ${routes.join('\n')}`)
  assert.match(n1.namespace.run('ip -d link show vxlan.calico'), /vxlan id 4096 .*dstport 4789 nolearning/)
  assert.match(n1.namespace.run('ip -o address show dev vxlan.calico'), /inet 172\.26\.1\.0\/32/)
  // The largest packet that pods may send goes through, and says so when it is too large.
  const mtu = n1.planner.mtuBytes!
  assert.equal(mtu, 1430)
  assert.match(n1.pod.run(`ping -M do -s ${mtu - 28} -c 1 -W 3 ${n3.podIp}`), / 0% packet loss/)
})

test('the node itself reaches pods beyond the tunnel by its tunnel address, also where it had chosen another source', () => {
  assert.match(n1.namespace.run(`ping -c 1 -W 3 ${n3.podIp}`), / 0% packet loss/)
  n3.pod.run(
    'nft add table inet seen; nft add chain inet seen in "{ type filter hook input priority 0; }"; nft add set inet seen from "{ type ipv4_addr; flags dynamic; }"; nft add rule inet seen in icmp type echo-request add @from { ip saddr }',
  )
  n1.namespace.run(`ping -c 1 -W 3 -I ${n1.ip} ${n3.podIp}`)
  const seen = n3.pod.run('nft list set inet seen from')
  n3.pod.run('nft delete table inet seen')
  assert.match(seen, /172\.26\.1\.0/)
  assert.doesNotMatch(seen, /172\.30\.1\.1/)
})

test("natOutgoing: pods keep their addresses among pools, and have the node's elsewhere", () => {
  const seenBy = (place: { run(command: string): string }, act: () => void): string => {
    place.run(
      'nft add table inet seen; nft add chain inet seen in "{ type filter hook input priority 0; }"; nft add set inet seen from "{ type ipv4_addr; flags dynamic; }"; nft add rule inet seen in icmp type echo-request add @from { ip saddr }',
    )
    act()
    const text = place.run('nft list set inet seen from')
    place.run('nft delete table inet seen')
    return text
  }
  const elsewhere = () => answers(n1, '172.30.1.254')
  assert.match(seenBy(cluster.router, elsewhere), /172\.30\.1\.1\b/)
  assert.match(
    seenBy(n2.pod, () => answers(n1, n2.podIp)),
    /172\.26\.1\.5/,
  )
  assert.match(
    seenBy(n3.pod, () => answers(n1, n3.podIp)),
    /172\.26\.1\.5/,
  )
  // To another node's own address too, unless nodes are excluded.
  assert.match(
    seenBy(n2.namespace, () => answers(n1, n2.ip)),
    /172\.30\.1\.1\b/,
  )
})

test('natOutgoingExclusions, natOutgoingAddress and natPortRange', async () => {
  n1.namespace.run('ip addr add 172.30.1.77/24 dev eth0')
  cluster.setFelix({
    natOutgoingExclusions: 'IPPoolsAndHostIPs',
    natOutgoingAddress: Ip.parse('172.30.1.77'),
    natPortRange: { first: 20_000, last: 20_003 },
  })
  await cluster.programmed()
  cluster.router.run(
    'nft add table inet seen; nft add chain inet seen in "{ type filter hook input priority 0; }"; nft add set inet seen from "{ type ipv4_addr . inet_service; flags dynamic; }"; nft add rule inet seen in tcp flags syn add @from { ip saddr . tcp sport }',
  )
  for (let i = 0; i < 3; i++) n1.pod.succeeds('timeout 1 bash -c "exec 3<>/dev/tcp/172.30.1.254/9"')
  const seen = cluster.router.run('nft list set inet seen from')
  cluster.router.run('nft delete table inet seen')
  assert.match(seen, /172\.30\.1\.77 \. 2000[0-3]/)
  assert.doesNotMatch(seen, /172\.30\.1\.1 |172\.26/)
  // A node's own address sees the pod itself.
  n2.namespace.run('ip route show 172.26.1.0/26')
  answers(n1, n2.ip)
  cluster.setFelix({})
  await cluster.programmed()
  n1.namespace.run('ip addr del 172.30.1.77/24 dev eth0')
})

/** What a stranger with the right VNI, MACs and routes sends to a pod by a tunnel; counted by the pod. */
function forge(setUp: string, device: string): { arrived: number; dropped: number } {
  const dropped = () =>
    Number(/packets (\d+)/.exec(n1.namespace.run('nft list counter inet weft calico-forged-tunnel-source'))![1])
  const before = dropped()
  n1.pod.run(
    'nft add table inet seen; nft add counter inet seen pings; nft add chain inet seen in "{ type filter hook input priority 0; }"; nft add rule inet seen in ip saddr 172.26.9.9 counter name pings',
  )
  cluster.router.run(setUp)
  cluster.router.run(
    `ip addr add 172.26.9.9/32 dev ${device} && ip link set ${device} up && ip route add ${n1.podIp}/32 dev ${device} src 172.26.9.9`,
  )
  const mac = n1.namespace.json<{ address: string }[]>('ip -j link show vxlan.calico')[0]!.address
  cluster.router.succeeds(`ip neigh add ${n1.podIp} lladdr ${mac} dev ${device} nud permanent`)
  cluster.router.succeeds(`ping -c 3 -i 0.05 -W 1 ${n1.podIp}`)
  cluster.router.run(`ip link del ${device} 2>/dev/null || (ip addr flush dev ${device}; ip link set ${device} down)`)
  const arrived = Number(/packets (\d+)/.exec(n1.pod.run('nft list counter inet seen pings'))![1])
  n1.pod.run('nft delete table inet seen')
  return { arrived, dropped: dropped() - before }
}

/** A device that has come up says more by itself than what is asked of it. */
function assertStopped({ arrived, dropped }: ReturnType<typeof forge>): void {
  assert.equal(arrived, 0)
  assert.ok(dropped >= 3, `${dropped} were counted`)
}

test('tunnel packets of strangers are dropped and counted; those of external nodes come in', async () => {
  const vxlan = `ip link add forged type vxlan id 4096 dstport 4789 remote ${n1.ip} local 172.30.1.254 dev br1`
  assertStopped(forge(vxlan, 'forged'))
  cluster.setFelix({ externalNodes: [Cidr.parse('172.30.1.254/32')] })
  await cluster.programmed()
  assert.deepEqual(forge(vxlan, 'forged'), { arrived: 3, dropped: 0 })
  cluster.setFelix({})
  await cluster.programmed()
})

test('a borrowed address is reached on the node that has it, from everywhere', async () => {
  // n3 borrows an address of n2's block.
  const address = '172.26.2.9'
  n3.pod.run(`ip addr add ${address}/32 dev eth0`)
  n3.namespace.run(`ip route add ${address} dev cali3 scope link`)
  for (const { planner } of cluster.nodes)
    planner.setRoutes({
      cidr: Cidr.parse('172.26.2.0/26'),
      node: 'n2',
      borrowed: [{ ip: Ip.parse(address), node: 'n3' }],
    })
  await cluster.programmed()
  answers(n1, address)
  answers(n2, address)
  assert.match(n2.namespace.run(`ip route get ${address}`), /dev vxlan\.calico/)
  for (const { planner } of cluster.nodes)
    planner.setRoutes({ cidr: Cidr.parse('172.26.2.0/26'), node: 'n2', borrowed: [] })
  await cluster.programmed()
  assert.equal(n1.namespace.run(`ip route show ${address} proto 119`), '')
})
