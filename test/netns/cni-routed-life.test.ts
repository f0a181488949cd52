/**
 * What happens to routed pods over time: other hands, kills, a lost journal, pods made anew under one name, a node whose wiring
 * changes, further interfaces, host ports and limits, two hundred at once.
 */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { waitUntil } from '../../src/lab/process.ts'
import { CniNode, cannotRun, fails, ok, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
let node: CniNode
const spaces: TestNamespace[] = []
before(async () => {
  if (skip) return
  node = new CniNode({ routed: {} })
  await node.start()
  node.namespace.run('ip addr add 192.0.2.1/32 dev lo && ip addr add 2001:db8::1/128 dev lo nodad')
})
afterEach(() => {
  for (const space of spaces.splice(0)) space.delete()
})
after(async () => {
  if (!skip) await node.delete()
})

const newSpace = (): TestNamespace => {
  const space = new TestNamespace()
  spaces.push(space)
  return space
}
const host = (command: string): string => node.namespace.run(command)
const argsOf = (pod: string) => `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod}`

interface Pod {
  readonly space: TestNamespace
  readonly id: string
  readonly device: string
  readonly v4: string
  readonly v6: string
  // biome-ignore lint/suspicious/noExplicitAny: a result, looked into key by key
  readonly result: any
}

async function addPod(name: string, id = `c-${name}`, config?: object): Promise<Pod> {
  const space = newSpace()
  const { json } = ok(
    await node.call('ADD', { containerId: id, netns: space.path, args: argsOf(name), ...(config ? { config } : {}) }),
  )
  const device = json.interfaces.find(({ sandbox }: { sandbox?: string }) => !sandbox && true).name
  const [v4, v6] = json.ips.map(({ address }: { address: string }) => address.split('/')[0])
  return { space, id, device, v4, v6, result: json }
}
const links = (): string => host('ip -o link')
const del = async (...pods: Pod[]) => {
  for (const { id } of pods) ok(await node.call('DEL', { containerId: id }))
  const isThere = ({ device, id }: Pod) => links().includes(device === 'cni0' ? `:${id}/` : device)
  assert.ok(await waitUntil(() => !pods.some(isThere), 20_000), links())
}
const reaches = ({ space }: Pod, { v4, v6 }: Pod): boolean =>
  space.succeeds(`ping -c 1 -W 2 ${v4} && ping -c 1 -W 2 ${v6}`)

test('what another hand takes away is back within a second', { skip }, async () => {
  const [one, two] = [await addPod('one'), await addPod('two')]
  const damages = [
    `ip route del ${two.v4}`,
    `ip -6 route del ${two.v6}`,
    `ip route replace ${two.v4} dev ${one.device} scope link proto 119`,
    `ip link set ${two.device} down`,
    `ip addr flush dev ${one.device}`,
    'nft delete table inet weft',
    `nft delete element inet weft calico-sources4 '{ "${one.device}" . ${one.v4} }'`,
    `sysctl -qw net.ipv4.conf.${one.device}.proxy_arp=0`,
    'ip route del 169.254.1.1 metric 2003134068',
  ]
  for (const damage of damages) {
    host(damage)
    one.space.run('ip neigh flush dev eth0 nud permanent')
    assert.ok(await waitUntil(() => reaches(one, two), 10_000), damage)
    const strict = () => /counter name "calico-forged-pod-source" drop/.test(host('nft list table inet weft'))
    assert.ok(await waitUntil(strict, 5000), damage)
  }
  one.space.run('ip addr add 10.77.0.201/32 dev eth0')
  assert.equal(one.space.succeeds(`ping -c 1 -W 1 -I 10.77.0.201 ${two.v4}`), false, 'the check is back as well')
  await del(one, two)
})

test('CHECK tells what is missing inside the pod and on the node', { skip }, async () => {
  const pod = await addPod('checked')
  const check = () =>
    node.call('CHECK', {
      containerId: pod.id,
      netns: pod.space.path,
      config: weftConfig('1.1.0', { prevResult: pod.result }),
    })
  ok(await check())
  const inside: [string, RegExp, string][] = [
    [
      'ip neigh del 169.254.1.1 dev eth0',
      /no permanent entry of 169\.254\.1\.1/,
      'ip neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee nud permanent dev eth0',
    ],
    [
      'ip neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:01 nud permanent dev eth0',
      /no permanent entry/,
      'ip neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee nud permanent dev eth0',
    ],
    [
      'ip route del default',
      /no route 0\.0\.0\.0\/0 via 169\.254\.1\.1/,
      'ip route add default via 169.254.1.1 dev eth0',
    ],
    [`ip -6 addr del ${pod.v6}/128 dev eth0`, /does not have/, `ip -6 addr add ${pod.v6}/128 dev eth0 nodad`],
  ]
  for (const [damage, message, repair] of inside) {
    pod.space.run(damage)
    fails(await check(), 103, message)
    pod.space.run(repair)
    ok(await check())
  }
  // With nobody to mend it, the node's side counts as well.
  await node.stop('SIGKILL')
  host(`ip link set ${pod.device} address ee:ee:ee:ee:ee:01`)
  await node.start()
  fails(await check(), 103, /ee:ee:ee:ee:ee:01/)
  await del(pod)
})

test('a pod made anew under its name: while the old one goes, and while it still lives', { skip }, async () => {
  const first = await addPod('web-0', 'first')
  ok(await node.call('DEL', { containerId: 'first' }))
  const second = await addPod('web-0', 'second')
  assert.equal(second.device, first.device)
  const variables = host(`cd /proc/sys/net/ipv4 && cat conf/${second.device}/rp_filter conf/${second.device}/proxy_arp`)
  assert.equal(variables, '1\n1\n')
  const third = await addPod('web-0', 'third')
  assert.match(third.device, /^cali[0-9a-f]{11}$/)
  assert.notEqual(third.device, second.device)
  assert.ok(reaches(second, third) && reaches(third, second), 'who still lives goes on')
  await del(second)
  assert.ok(!links().includes(second.device))
  third.space.run('ping -c 1 -W 5 192.0.2.1')
  await node.stop('SIGKILL')
  await node.start()
  const fourth = await addPod('web-0', 'fourth')
  assert.equal(fourth.device, first.device, 'the name is free again')
  assert.ok(reaches(third, fourth))
  await del(third, fourth)
})

test("a device of the pod's name that is another's is left alone", { skip }, async () => {
  // sha1('default.taken')
  host('ip link add cali-theirs type veth peer name other')
  const probe = await addPod('taken', 'probe')
  await del(probe)
  host(`ip link set cali-theirs name ${probe.device} address ee:ee:ee:ee:ee:ee`)
  const pod = await addPod('taken', 'newcomer')
  assert.notEqual(pod.device, probe.device)
  pod.space.run('ping -c 1 -W 5 192.0.2.1')
  assert.ok(links().includes(`${probe.device}@`))
  ok(await node.call('DEL', { containerId: 'newcomer' }))
  assert.ok(links().includes(`${probe.device}@`))
  host('ip link del other')
  await node.drained()
})

test('a kill keeps pods as they are; a lost journal is read from the kernel', { skip }, async () => {
  const [one, two] = [await addPod('one'), await addPod('two')]
  for (const loses of [false, true]) {
    await node.stop('SIGKILL')
    if (loses) rmSync(join(node.folder, 'cni/journal'))
    assert.ok(reaches(one, two), 'without an agent')
    const report = await node.start()
    assert.equal(loses ? report.adopted : report.kept, 2)
    assert.ok(reaches(one, two))
    one.space.run('ip addr add 10.77.0.202/32 dev eth0')
    assert.equal(one.space.succeeds(`ping -c 1 -W 1 -I 10.77.0.202 ${two.v4}`), false)
    one.space.run('ip addr del 10.77.0.202/32 dev eth0')
    const three = await addPod('three')
    assert.ok(![one.v4, two.v4].includes(three.v4))
    await del(three)
  }
  await del(one, two)
  assert.doesNotMatch(host('ip route; ip -6 route'), /proto 119/)
})

test('a node goes from bridge to routed and back: pods keep what they have, and reach each other', {
  skip,
}, async () => {
  await node.order({ routed: null })
  const bridged = await addPod('bridged')
  assert.equal(bridged.device, 'cni0')
  await node.order({ routed: {} })
  const routed = await addPod('routed')
  assert.match(routed.device, /^cali/)
  assert.ok(reaches(bridged, routed) && reaches(routed, bridged))
  const late = await addPod('late')
  assert.ok(reaches(bridged, late) && reaches(late, bridged))
  await node.order({ mtuBytes: 1390 })
  for (const { space } of [bridged, routed]) assert.match(space.run('ip link show eth0'), /mtu 1390/)
  await node.order({ mtuBytes: 1450 })
  await node.stop('SIGKILL')
  await node.start()
  // That a restart loses nothing is for the tests of whole agents to say, under a stream of pings.
  assert.ok(await waitUntil(() => reaches(bridged, routed) && reaches(routed, bridged), 10_000))
  ok(
    await node.call('CHECK', {
      containerId: bridged.id,
      netns: bridged.space.path,
      config: weftConfig('1.1.0', { prevResult: bridged.result }),
    }),
  )
  await del(bridged)
  assert.ok(await waitUntil(() => !links().includes('cni0'), 5000), 'the bridge goes with its last pod')
  assert.ok(reaches(routed, late))
  await node.order({ routed: null })
  const again = await addPod('again')
  assert.equal(again.device, 'cni0')
  assert.ok(reaches(again, routed) && reaches(routed, again))
  await node.order({ routed: {} })
  await del(again, routed, late)
  assert.ok(await waitUntil(() => !links().includes('cni0'), 5000))
})

test('a second interface answers by itself; each goes on its own', { skip }, async () => {
  const pod = await addPod('two-legs')
  const second = ok(
    await node.call('ADD', {
      containerId: pod.id,
      netns: pod.space.path,
      ifname: 'net1',
      args: argsOf('two-legs'),
      config: weftConfig('1.1.0', { name: 'more' }),
    }),
  ).json
  const [v4, v6] = second.ips.map(({ address }: { address: string }) => address.split('/')[0])
  assert.notEqual(second.interfaces[0].name, pod.device)
  host(`ping -c 1 -W 5 ${v4} && ping -c 1 -W 5 ${v6} && ping -c 1 -W 5 ${pod.v4} && ping -c 1 -W 5 ${pod.v6}`)
  pod.space.run(`ping -c 1 -W 5 -I ${v4} 192.0.2.1 && ping -c 1 -W 5 -I ${v6} 2001:db8::1`)
  ok(
    await node.call('CHECK', {
      containerId: pod.id,
      netns: pod.space.path,
      ifname: 'net1',
      config: weftConfig('1.1.0', { name: 'more', prevResult: second }),
    }),
  )
  ok(await node.call('DEL', { containerId: pod.id, ifname: 'net1' }))
  await node.drained(1)
  host(`ping -c 1 -W 5 ${pod.v4}`)
  await del(pod)
})

for (const skeleton of [true, false])
  test(`host ports and limits ${skeleton ? 'beside' : 'without'} a flannel network's rules`, { skip }, async () => {
    await node.stop()
    await node.start({ skeleton })
    const ports = weftConfig('1.1.0', {
      runtimeConfig: {
        portMappings: [{ hostPort: 8088, containerPort: 80, protocol: 'tcp' }],
        bandwidth: { egressRate: 80_000_000, egressBurst: 800_000, ingressRate: 80_000_000, ingressBurst: 800_000 },
      },
    })
    const [server, client] = [await addPod('server', 'c-server', ports), await addPod('client')]
    server.space.run(
      `nohup setsid socat TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0 SYSTEM:'echo $SOCAT_PEERADDR' >/dev/null 2>&1 &`,
    )
    const asks = (from: TestNamespace, to: string) =>
      from.run(`socat -T 5 - TCP:${to}:8088,connect-timeout=5 </dev/null`).trim()
    try {
      assert.ok(await waitUntil(() => server.space.succeeds('ss -ltn | grep -q :80'), 5000))
      assert.match(asks(node.namespace, '192.0.2.1'), /\d/)
      assert.match(asks(node.namespace, '127.0.0.1'), /\d/)
      assert.match(asks(node.namespace, '[2001:db8::1]'), /:/)
      assert.match(asks(client.space, '192.0.2.1'), /\d/)
      assert.match(asks(server.space, '192.0.2.1'), /\d/, 'the pod by its own port')
      assert.match(host(`tc qdisc show dev ${server.device}`), /tbf .*rate 80Mbit/)
      assert.match(host(`tc qdisc show dev ifb${server.device.slice(-8)}`), /tbf .*rate 80Mbit/)
      const clash = newSpace()
      fails(
        await node.call('ADD', { containerId: 'clash', netns: clash.path, config: ports }),
        106,
        /8088 is taken by pod default\/server/,
      )
    } finally {
      server.space.succeeds('kill $(ss -ltnp | sed -n "s/.*pid=\\([0-9]*\\).*/\\1/p" | sort -u)')
      await del(server, client)
    }
    assert.doesNotMatch(host('nft list table inet weft 2>&1 || true'), /8088|hairpin/)
  })

test("Calico's own configuration list", { skip }, async () => {
  const calico = (more: object = {}) => ({
    cniVersion: '0.3.1',
    name: 'k8s-pod-network',
    type: 'calico',
    datastore_type: 'kubernetes',
    nodename: 'somewhere',
    log_level: 'info',
    mtu: 1400,
    ipam: { type: 'host-local', subnet: 'usePodCidr' },
    policy: { type: 'k8s' },
    kubernetes: { kubeconfig: '/etc/cni/net.d/calico-kubeconfig' },
    container_settings: { allow_ip_forwarding: true },
    ...more,
  })
  const pod = await addPod('theirs', 'theirs', calico())
  assert.match(pod.v4, /^10\.77\./)
  assert.match(pod.space.run('ip link show eth0'), /mtu 1400/)
  assert.equal(pod.space.run('cat /proc/sys/net/ipv4/ip_forward').trim(), '1')
  const other = newSpace()
  const refused = async (more: object, message: RegExp) =>
    fails(await node.call('ADD', { containerId: 'refused', netns: other.path, config: calico(more) }), 7, message)
  await refused({ mode: 'vxlan' }, /^mode: "vxlan" is not supported/)
  await refused({ device_type: 'netkit' }, /^device_type: "netkit"/)
  await refused({ ipam: { type: 'calico-ipam', assign_ipv4: 'maybe' } }, /^ipam\.assign_ipv4: must be/)
  await refused({ ipam: { type: 'calico-ipam', ipv6_pools: ['172.26.0.0/16'] } }, /^ipam\.ipv6_pools: /)
  const ranges = calico({ ipam: { type: 'host-local', ranges: [[{ subnet: '10.99.0.0/24' }]] } })
  const ranged = await addPod('ranged', 'ranged', ranges)
  assert.match(ranged.v4, /^10\.99\.0\./)
  ranged.space.run('ping -c 1 -W 5 192.0.2.1')
  await del(pod, ranged)
})

test('two hundred at once, and gone again at once', { skip }, async () => {
  const pods = Array.from({ length: 200 }, (_, index) => ({ id: `crowd-${index}`, space: newSpace() }))
  const added = await Promise.all(
    pods.map(({ id, space }) => node.call('ADD', { containerId: id, netns: space.path, args: argsOf(id) })),
  )
  const addresses = added.map((answer) => ok(answer).json.ips[0].address)
  assert.equal(new Set(addresses).size, 200)
  assert.equal(
    host('ip route')
      .split('\n')
      .filter((line) => / dev cali.* proto 119/.test(line)).length,
    200,
  )
  for (const [index, { space }] of pods.entries())
    if (index % 40 === 0) space.run(`ping -c 1 -W 5 ${addresses[(index + 77) % 200].split('/')[0]}`)
  for (const answer of await Promise.all(pods.map(({ id }) => node.call('DEL', { containerId: id })))) ok(answer)
  await node.drained()
  assert.ok(await waitUntil(() => !/proto 119/.test(host('ip route; ip -6 route')), 5000))
  assert.ok(await waitUntil(() => !host('nft list table inet weft || true').includes('cali'), 5000))
})
