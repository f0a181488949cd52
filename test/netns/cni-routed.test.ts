/**
 * Routed pods: what Calico's users see in the pod and on the node, with real packets. Addresses are of the node's pod CIDRs here;
 * those of pools are in cni-routed-pools.test.ts.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { waitUntil } from '../../src/lab/process.ts'
import { type Answer, CniNode, cannotRun, ok } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
let node: CniNode
before(async () => {
  if (skip) return
  node = new CniNode({ routed: {} })
  await node.start()
  host('ip addr add 192.0.2.1/32 dev lo && ip addr add 2001:db8::1/128 dev lo nodad')
})
after(async () => {
  if (!skip) await node.delete()
})

interface Pod {
  readonly space: TestNamespace
  readonly id: string
  readonly device: string
  readonly v4: string
  readonly v6: string
  readonly answer: Answer
}

const argsOf = (name: string, namespace = 'default') =>
  `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name}`

async function addPod(name: string, id = `c-${name}`, config?: object): Promise<Pod> {
  const space = new TestNamespace()
  const answer = ok(
    await node.call('ADD', { containerId: id, netns: space.path, args: argsOf(name), ...(config ? { config } : {}) }),
  )
  const { interfaces, ips } = answer.json
  const [v4, v6] = ips.map(({ address }: { address: string }) => address.split('/')[0])
  return { space, id, device: interfaces[0].name, v4, v6, answer }
}

async function removePod({ space, id }: Pod): Promise<void> {
  ok(await node.call('DEL', { containerId: id, netns: space.path }))
  space.delete()
}

const host = (command: string): string => node.namespace.run(command)
const counted = (name: string): number =>
  Number(/packets (\d+)/.exec(host(`nft list counter inet weft ${name}`))?.[1] ?? -1)

test('the shape: names, addresses, routes, neighbours, in the words of ip', { skip }, async () => {
  const pod = await addPod('fileserver-7cb9d7d4d-mssdr')
  try {
    assert.equal(pod.device, 'calie64b9fa939d')
    assert.match(pod.space.run('ip -o -4 addr show dev eth0'), new RegExp(`inet ${pod.v4}/32 scope global eth0`))
    assert.match(pod.space.run('ip -o -6 addr show dev eth0'), new RegExp(`inet6 ${pod.v6}/128 scope global`))
    assert.deepEqual(
      pod.space
        .run('ip route')
        .trim()
        .split('\n')
        .map((line) => line.trim()),
      ['default via 169.254.1.1 dev eth0', '169.254.1.1 dev eth0 scope link'],
    )
    assert.match(pod.space.run('ip -6 route'), /default via fe80::ecee:eeff:feee:eeee dev eth0/)
    assert.match(pod.space.run('ip neigh'), /169\.254\.1\.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT/)
    assert.match(pod.space.run('ip -6 neigh'), /fe80::ecee:eeff:feee:eeee dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT/)
    assert.match(host(`ip route show ${pod.v4}`), new RegExp(`^${pod.v4} dev ${pod.device} proto 119 scope link`))
    assert.match(host(`ip -6 route show ${pod.v6}`), new RegExp(`^${pod.v6} dev ${pod.device} proto 119`))
    assert.match(host(`ip -d link show ${pod.device}`), /ee:ee:ee:ee:ee:ee.*addrgenmode none/s)
    assert.equal(host(`cat /proc/sys/net/ipv4/conf/${pod.device}/rp_filter`).trim(), '1')
    const { interfaces, ips, routes } = pod.answer.json
    assert.deepEqual(
      interfaces.map(({ name }: { name: string }) => name),
      [pod.device, 'eth0'],
    )
    assert.deepEqual(
      ips.map(({ address, gateway, interface: at }: Record<string, unknown>) => [address, gateway, at]),
      [
        [`${pod.v4}/32`, '169.254.1.1', 1],
        [`${pod.v6}/128`, 'fe80::ecee:eeff:feee:eeee', 1],
      ],
    )
    assert.deepEqual(routes, [
      { dst: '169.254.1.1/32' },
      { dst: '0.0.0.0/0', gw: '169.254.1.1' },
      { dst: 'fe80::ecee:eeff:feee:eeee/128' },
      { dst: '::/0', gw: 'fe80::ecee:eeff:feee:eeee' },
    ])
    assert.equal(node.devices().includes('cni0'), false)
    assert.doesNotMatch(host('ip -o link'), /cni0/)
  } finally {
    await removePod(pod)
  }
  await node.drained()
  assert.doesNotMatch(host('ip route; ip -6 route'), new RegExp(pod.device))
  assert.ok(
    await waitUntil(() => !host('nft list table inet weft').includes('calico'), 5000),
    host('nft list table inet weft'),
  )
})

test('pods reach each other and the node, which needs no default route', { skip }, async () => {
  const [one, two] = [await addPod('one'), await addPod('two')]
  try {
    assert.equal(host('ip route show default'), '')
    for (const ip of [two.v4, two.v6]) one.space.run(`ping -c 1 -W 5 ${ip}`)
    host(`ping -c 1 -W 5 ${one.v4} && ping -c 1 -W 5 ${one.v6}`)
  } finally {
    await removePod(one)
    await removePod(two)
  }
})

test('who flushes the neighbour is answered, by ARP and by neighbour discovery, without a default route on the node', {
  skip,
}, async () => {
  const [one, two] = [await addPod('one'), await addPod('two')]
  try {
    for (const setting of ['0', '1']) {
      // strictARP of an IPVS proxy sets this.
      host(`echo ${setting} > /proc/sys/net/ipv4/conf/all/arp_ignore`)
      one.space.run('ip neigh flush dev eth0 nud permanent; ip -6 neigh flush dev eth0 nud permanent')
      assert.doesNotMatch(one.space.run('ip neigh; ip -6 neigh'), /PERMANENT/)
      one.space.run(`ping -c 1 -W 5 ${two.v4} && ping -c 1 -W 5 ${two.v6}`)
      assert.match(one.space.run('ip neigh show 169.254.1.1'), /ee:ee:ee:ee:ee:ee/)
      assert.match(one.space.run('ip -6 neigh show fe80::ecee:eeff:feee:eeee'), /ee:ee:ee:ee:ee:ee/)
    }
  } finally {
    host('echo 0 > /proc/sys/net/ipv4/conf/all/arp_ignore')
    await removePod(one)
    await removePod(two)
  }
})

test('packets under other sources are dropped and counted, in both families', { skip }, async () => {
  const [one, two] = [await addPod('one'), await addPod('two')]
  try {
    for (const [mine, theirs, spoof] of [
      [one.v4, two.v4, '10.77.0.200/32'],
      [one.v6, two.v6, 'fd00:77::dead/128'],
    ] as const) {
      const before = counted('calico-forged-pod-source')
      const source = spoof.split('/')[0]
      one.space.run(`ip addr add ${spoof} dev eth0 nodad`)
      assert.equal(one.space.succeeds(`ping -c 2 -i 0.2 -W 1 -I ${source} ${theirs}`), false)
      assert.equal(counted('calico-forged-pod-source'), before + 2)
      one.space.run(`ping -c 1 -W 5 -I ${mine} ${theirs}`)
      assert.equal(counted('calico-forged-pod-source'), before + 2)
    }
    const before = counted('forged-loopback')
    one.space.run(
      'ip route add 127.9.9.9 via 169.254.1.1 dev eth0 table 100; ip rule add pref 1 to 127.9.9.9 lookup 100',
    )
    host(`echo 1 > /proc/sys/net/ipv4/conf/${one.device}/route_localnet`)
    one.space.run('echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet')
    one.space.succeeds(`ip route del local 127.0.0.0/8 dev lo table local; ping -c 1 -W 1 -I ${one.v4} 127.9.9.9`)
    assert.ok(counted('forged-loopback') > before)
  } finally {
    await removePod(one)
    await removePod(two)
  }
})

test('a new MTU reaches both ends of living pods', { skip }, async () => {
  const pod = await addPod('one')
  try {
    await node.order({ mtuBytes: 1380 })
    assert.match(host(`ip link show ${pod.device}`), /mtu 1380/)
    assert.match(pod.space.run('ip link show eth0'), /mtu 1380/)
    await node.order({ mtuBytes: 1450 })
  } finally {
    await removePod(pod)
  }
})
