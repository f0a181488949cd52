/**
 * Routed pods with addresses of pools: what is written on pod and namespace, in both directions; handles; a store that is away.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type CallOptions, CniNode, cannotRun, fails, ok, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'
import type { PodClusterNews } from './pod-cluster.ts'

const skip = cannotRun
const calico = (key: string) => `cni.projectcalico.org/${key}`
const word = (key: string, value: unknown) => ({
  [calico(key)]: typeof value === 'string' ? value : JSON.stringify(value),
})
const routed = {
  pools: ['172.26.0.0/16', 'fd00:172:26::/112'],
  sourceSpoofing: 'Disabled' as const,
  pods: {
    'default/plain': {},
    'default/one-family': word('ipFamilies', ['IPv4']),
    'default/fixed': { ...word('ipAddrs', ['172.26.3.4']), ...word('hwAddr', '1c:0c:0a:c0:ff:ee') },
    'default/elsewhere': word('ipv4pools', ['no-such-pool']),
    'default/bypass': word('ipAddrsNoIpam', ['198.51.100.7']),
    'default/floating': word('floatingIPs', ['203.0.113.9']),
    'default/garbage': word('ipAddrs', '{"a":'),
    'default/huge': word('ipAddrs', 'x'.repeat(5000)),
    'default/mac': word('hwAddr', 'ff:ff:ff:ff:ff:ff'),
    'default/gateway': word('allowedSourcePrefixes', ['203.0.113.0/24', '2001:db8:9::/64']),
    tenant: word('ipFamilies', ['IPv6']),
    'tenant/inherits': {},
  },
}

let node: CniNode
before(async () => {
  if (skip) return
  node = new CniNode({ podCidrs: [], routed, skeleton: false })
  await node.start()
  node.namespace.run('ip addr add 192.0.2.1/32 dev lo && ip addr add 2001:db8::1/128 dev lo nodad')
})
after(async () => {
  if (!skip) await node.delete()
})

const callOf = (name: string, id: string, space: TestNamespace, config?: object): CallOptions => {
  const [namespace, pod] = name.includes('/') ? name.split('/') : ['default', name]
  return {
    containerId: id,
    netns: space.path,
    args: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${pod}`,
    ...(config ? { config } : {}),
  }
}
const tell = async () => (await node.order({ tell: 'cluster' })) as unknown as PodClusterNews
/** Asks until it is so: nobody tells when the store has been written. */
async function told(what: string, isSo: (news: PodClusterNews) => boolean): Promise<void> {
  const deadline = Date.now() + 20_000
  for (let news = await tell(); !isSo(news); news = await tell()) {
    if (Date.now() > deadline) assert.fail(`${what}: ${JSON.stringify(news)}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
const addressesOf = (result: { ips: { address: string }[] }) => result.ips.map(({ address }) => address)

async function withPod(run: (space: TestNamespace) => Promise<void>): Promise<void> {
  const space = new TestNamespace()
  try {
    await run(space)
  } finally {
    space.delete()
  }
}

test("addresses of both families, under the container's handle; told on the pod, and taken back", { skip }, () =>
  withPod(async (space) => {
    const { json } = ok(await node.call('ADD', callOf('plain', 'c1', space)))
    const [v4, v6] = addressesOf(json)
    assert.match(v4!, /^172\.26\.\d+\.\d+\/32$/)
    assert.match(v6!, /^fd00:172:26::.*\/128$/)
    space.run('ping -c 1 -W 5 192.0.2.1 && ping -c 1 -W 5 2001:db8::1')
    const { given, written } = await tell()
    assert.deepEqual([...(given['k8s-pod-network.c1'] ?? [])].sort(), [v4, v6].map((a) => a!.split('/')[0]).sort())
    assert.deepEqual(written['default/plain'], {
      [calico('podIP')]: v4,
      [calico('podIPs')]: `${v4},${v6}`,
      [calico('containerID')]: 'c1',
    })
    assert.match(
      node.namespace.run(`ip -d link show ${json.interfaces[0].name}`),
      /alias weft-pod:c1\/eth0 172\.26\..* routed=pool/,
    )
    ok(await node.call('DEL', callOf('plain', 'c1', space)))
    await node.drained()
    await told('the addresses are given back', (news) => Object.keys(news.given).length === 0)
    assert.equal((await tell()).written['default/plain']?.[calico('podIP')], '')
  }),
)

test('what pods and namespaces ask for', { skip }, () =>
  withPod(async (space) => {
    const given = async (name: string, id: string) => {
      const { json } = ok(await node.call('ADD', callOf(name, id, space)))
      ok(await node.call('DEL', callOf(name, id, space)))
      await node.drained()
      return json
    }
    assert.deepEqual(
      addressesOf(await given('one-family', 'w1')).map((address) => address.split('/')[1]),
      ['32'],
    )
    const fixed = await given('fixed', 'w2')
    assert.deepEqual(addressesOf(fixed), ['172.26.3.4/32'])
    assert.equal(fixed.interfaces[1].mac, '1c:0c:0a:c0:ff:ee')
    assert.deepEqual(
      addressesOf(await given('tenant/inherits', 'w3')).map((address) => address.split('/')[1]),
      ['128'],
    )
    for (const strange of ['../etc', 'DEFAULT/plain', `default/${'x'.repeat(300)}`, 'a b/c?d'])
      assert.equal((await given(strange, 'w5')).ips.length, 2, strange)
    const nobody = await given('default/unheard-of', 'w4')
    assert.equal(nobody.ips.length, 2, 'a pod that the API does not have')
  }),
)

test('what cannot be: each refusal names pod and key, and leaves nothing behind', { skip }, () =>
  withPod(async (space) => {
    const cases: [string, number, RegExp][] = [
      ['elsewhere', 100, /no-such-pool/],
      ['bypass', 7, /Pod default\/bypass: cni\.projectcalico\.org\/ipAddrsNoIpam .*ip_addrs_no_ipam/],
      ['floating', 7, /Pod default\/floating: cni\.projectcalico\.org\/floatingIPs is not supported/],
      ['garbage', 7, /Pod default\/garbage.*ipAddrs.*is not JSON/],
      ['huge', 7, /Pod default\/huge.*ipAddrs.*longer than/],
      ['mac', 7, /Pod default\/mac.*hwAddr/],
    ]
    for (const [name, code, message] of cases)
      fails(await node.call('ADD', callOf(name, `r-${name}`, space)), code, message)
    await node.drained()
    assert.doesNotMatch(space.run('ip -o link'), /eth0/)
    await told('nothing stays given', (news) => Object.keys(news.given).length === 0)
    const allowed = weftConfig('1.1.0', {
      type: 'calico',
      ipam: { type: 'calico-ipam' },
      feature_control: { ip_addrs_no_ipam: true },
    })
    const { json } = ok(await node.call('ADD', callOf('bypass', 'r-ok', space, allowed)))
    assert.deepEqual(addressesOf(json), ['198.51.100.7/32'])
    await withPod(async (other) => {
      fails(
        await node.call('ADD', callOf('bypass', 'r-twice', other, allowed)),
        100,
        /is in use by pod default\/bypass/,
      )
    })
    space.run('ping -c 1 -W 5 192.0.2.1')
    ok(await node.call('DEL', callOf('bypass', 'r-ok', space)))
    await node.drained()
  }),
)

test('the same container again: what it had is given back first, and an address in use is refused', { skip }, () =>
  withPod(async (space) => {
    const first = addressesOf(ok(await node.call('ADD', callOf('fixed', 'again', space))).json)
    await withPod(async (other) => {
      fails(await node.call('ADD', callOf('fixed', 'another', other)), 100, /172\.26\.3\.4/)
    })
    ok(await node.call('DEL', callOf('fixed', 'again', space)))
    assert.deepEqual(addressesOf(ok(await node.call('ADD', callOf('fixed', 'again', space))).json), first)
    ok(await node.call('DEL', callOf('fixed', 'again', space)))
    await node.drained()
  }),
)

test(
  'a store that is away: ADD says try again, DEL goes through and gives back later, over a kill as well',
  { skip },
  () =>
    withPod(async (space) => {
      ok(await node.call('ADD', callOf('plain', 'held', space)))
      await node.order({ store: 'away' })
      await withPod(async (other) => {
        fails(await node.call('ADD', callOf('plain', 'refused', other)), 11, /cannot be read now/)
        fails(await node.call('ADD', { containerId: 'refused2', netns: other.path }), 11, /pools cannot be asked now/)
      })
      ok(await node.call('DEL', callOf('plain', 'held', space)))
      await node.drained()
      assert.ok((await tell()).given['k8s-pod-network.held'], 'nobody could be told')
      fails(await node.call('ADD', { containerId: 'held', netns: space.path }), 11, /not given back yet/)
      await node.order({ store: 'back' })
      await told('given back later', (news) => !news.given['k8s-pod-network.held'])

      ok(await node.call('ADD', callOf('plain', 'killed', space)))
      await node.order({ store: 'away' })
      ok(await node.call('DEL', callOf('plain', 'killed', space)))
      await node.drained()
      await node.stop('SIGKILL')
      const report = await node.start()
      assert.equal(report.finished! >= 1, true, JSON.stringify(report))
      await told('given back by the next life', (news) => news.released.includes('k8s-pod-network.killed'))
      await node.stop()
      assert.equal(
        Object.values(await node.start()).reduce((sum, count) => sum + count, 0),
        0,
        'the journal has nothing left',
      )
    }),
)

test('DEL of a container that nobody knows gives back what a pool has for it', { skip }, async () => {
  ok(await node.call('DEL', { containerId: 'from-before' }))
  await told('given back', (news) => news.released.includes('k8s-pod-network.from-before'))
})

test('allowedSourcePrefixes count when workloadSourceSpoofing is Any, for living pods as well', { skip }, () =>
  withPod(async (space) => {
    const { json } = ok(await node.call('ADD', callOf('gateway', 'g1', space)))
    const device = json.interfaces[0].name
    node.namespace.run(`ip route add 203.0.113.0/24 dev ${device} && ip -6 route add 2001:db8:9::/64 dev ${device}`)
    space.run('ip addr add 203.0.113.7/32 dev eth0 && ip addr add 2001:db8:9::7/128 dev eth0 nodad')
    space.run('ip addr add 198.51.100.7/32 dev eth0')
    const reaches = (source: string, target: string) => space.succeeds(`ping -c 1 -W 1 -I ${source} ${target}`)
    assert.deepEqual([reaches('203.0.113.7', '192.0.2.1'), reaches('2001:db8:9::7', '2001:db8::1')], [false, false])
    await node.order({ routed: { ...routed, sourceSpoofing: 'Any' } })
    assert.deepEqual([reaches('203.0.113.7', '192.0.2.1'), reaches('2001:db8:9::7', '2001:db8::1')], [true, true])
    assert.equal(reaches('198.51.100.7', '192.0.2.1'), false)
    await node.stop('SIGKILL')
    await node.start({ routed: { ...routed, sourceSpoofing: 'Any' } })
    assert.deepEqual([reaches('203.0.113.7', '192.0.2.1'), reaches('2001:db8:9::7', '2001:db8::1')], [true, true])
    await node.order({ routed })
    assert.deepEqual([reaches('203.0.113.7', '192.0.2.1'), reaches('2001:db8:9::7', '2001:db8::1')], [false, false])
    ok(await node.call('DEL', callOf('gateway', 'g1', space)))
    await node.drained()
  }),
)

test('addresses that are kept ready: given while the store is away, and the store told later; none is left without pods', {
  skip,
}, async () => {
  const own = new CniNode({ podCidrs: [], routed: { ...routed, spareAddresses: 4 }, skeleton: false })
  const spaces = Array.from({ length: 3 }, () => new TestNamespace())
  const [a, b, c] = spaces as [TestNamespace, TestNamespace, TestNamespace]
  const call = (id: string, { path: netns }: TestNamespace): CallOptions => ({ containerId: id, netns })
  const news = async () => (await own.order({ tell: 'cluster' })) as unknown as PodClusterNews
  try {
    await own.start()
    ok(await own.call('ADD', call('a', a)))
    assert.equal(Object.values((await news()).given).flat().length, 10, 'two of a pod, four of each pool')
    await own.order({ store: 'away' })
    const { json } = ok(await own.call('ADD', call('b', b)))
    assert.equal(addressesOf(json).length, 2)
    // Whoever may have wishes must be asked about.
    const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=plain'
    fails(await own.call('ADD', { ...call('c', c), args }), 11, /cannot be read now/)
    await own.order({ store: 'back' })
    await own.order({ settle: true })
    const { given } = await news()
    assert.deepEqual(
      given['k8s-pod-network.b'],
      addressesOf(json).map((text) => text.split('/')[0]),
    )
    ok(await own.call('ADD', call('c', c)))
    for (const [id, space] of [
      ['a', a],
      ['b', b],
      ['c', c],
    ] as const)
      ok(await own.call('DEL', call(id, space)))
    const deadline = Date.now() + 20_000
    while (Object.keys((await news()).given).length > 0)
      if (Date.now() > deadline) assert.fail(JSON.stringify(await news()))
      else await new Promise((resolve) => setTimeout(resolve, 20))
  } finally {
    await own.delete()
    for (const space of spaces) space.delete()
  }
})
