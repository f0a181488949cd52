/**
 * Pods in VLANs of one bridge: kept apart, spoken with tags, with a gateway inside, and as the reference plugin does it.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { CniNode, fails, ok, weftConfig } from '../netns/cni-node.ts'
import { TestNamespace } from '../netns/namespace.ts'

const node = new CniNode()
before(async () => {
  await node.start()
})
after(() => node.delete())

const reaches = (pod: TestNamespace, address: string): boolean => pod.succeeds(`ping -n -c 2 -i 0.2 -W 2 ${address}`)

interface VlanReading {
  readonly ifname: string
  readonly vlans: readonly { readonly vlan: number; readonly vlanEnd?: number; readonly flags?: readonly string[] }[]
}
/** `100 PVID Egress Untagged`, … of a port. */
const vlansOf = (port: string): string[] =>
  node.namespace
    .json<VlanReading[]>('bridge -j vlan show')
    .filter(({ ifname }) => ifname === port)
    .flatMap(({ vlans }) =>
      vlans.map(({ vlan, vlanEnd, flags = [] }) => [vlan, vlanEnd, ...flags].filter(Boolean).join(' ')),
    )

/** Addresses of one network for all VLANs: only the VLANs keep them apart. */
const flat = (address: string, more: object) =>
  weftConfig('1.1.0', { bridge: 'flat', ipam: { type: 'static', addresses: [{ address }] }, ...more })

test('pods of one VLAN reach each other, those of another do not; a trunk speaks with tags', async () => {
  using first = new TestNamespace()
  using second = new TestNamespace()
  using stranger = new TestNamespace()
  using trunk = new TestNamespace()
  const add = async (containerId: string, pod: TestNamespace, config: object) =>
    ok(await node.call('ADD', { containerId, netns: pod.path, config })).json
  const result = await add('first', first, flat('10.90.0.1/24', { vlan: 100, preserveDefaultVlan: false }))
  await add('second', second, flat('10.90.0.2/24', { vlan: 100 }))
  await add('stranger', stranger, flat('10.90.0.3/24', { vlan: 200, preserveDefaultVlan: false }))
  const trunkResult = await add(
    'trunk',
    trunk,
    flat('10.91.0.1/24', {
      vlanTrunk: [{ minID: 99, maxID: 101 }, { id: 200 }, { id: 100 }],
      preserveDefaultVlan: false,
    }),
  )
  const port = result.interfaces[1].name
  assert.deepEqual(vlansOf(port), ['100 PVID Egress Untagged'])
  assert.deepEqual(vlansOf(trunkResult.interfaces[1].name).sort(), ['100', '101', '200', '99'])
  assert.ok(reaches(first, '10.90.0.2'))
  assert.ok(!reaches(first, '10.90.0.3'), 'another VLAN is out of reach')
  trunk.run(
    'ip link add link eth0 name eth0.200 type vlan id 200 && ip addr add 10.90.0.9/24 dev eth0.200 && ip link set eth0.200 up',
  )
  assert.ok(reaches(trunk, '10.90.0.3'))
  assert.ok(!reaches(trunk, '10.90.0.1'))

  const check = {
    containerId: 'first',
    netns: first.path,
    config: flat('10.90.0.1/24', { vlan: 100, preserveDefaultVlan: false, prevResult: result }),
  }
  ok(await node.call('CHECK', check))
  node.namespace.run(`bridge vlan add dev ${port} vid 7`)
  fails(await node.call('CHECK', check), 103, /is in VLAN 7/)
  node.namespace.run(`bridge vlan del dev ${port} vid 7 && bridge vlan del dev ${port} vid 100`)
  fails(await node.call('CHECK', check), 103, /is not in VLAN 100/)
  for (const containerId of ['first', 'second', 'stranger', 'trunk']) ok(await node.call('DEL', { containerId }))
  await node.drained()
})

test('a gateway inside each VLAN of one bridge; pods of two VLANs meet there', async () => {
  using red = new TestNamespace()
  using blue = new TestNamespace()
  const config = (vlan: number) =>
    weftConfig('1.1.0', {
      bridge: 'colours',
      vlan,
      preserveDefaultVlan: false,
      isDefaultGateway: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: `10.92.${vlan}.0/24` }], [{ subnet: `fd00:92:${vlan}::/64` }]] },
    })
  const add = async (pod: TestNamespace, vlan: number) =>
    ok(
      await node.call('ADD', {
        containerId: `c${vlan}`,
        netns: pod.path,
        config: { ...config(vlan), name: `v${vlan}` },
      }),
    ).json
  const result = await add(red, 10)
  await add(blue, 20)
  assert.deepEqual(
    result.interfaces.map(({ name }: { name: string }) => name).filter((name: string) => !name.startsWith('veth')),
    ['colours', 'eth0', 'colours.10'],
  )
  for (const [pod, own, far] of [
    [red, 10, 20],
    [blue, 20, 10],
  ] as const) {
    assert.ok(reaches(pod, `10.92.${own}.1`) && reaches(pod, `fd00:92:${own}::1`))
    assert.ok(reaches(pod, `10.92.${far}.2`), 'by the gateway')
  }
  assert.match(red.run('ip neighbour show 10.92.10.1'), new RegExp(result.interfaces[3].mac))
  assert.equal(node.namespace.run('ip -o -4 addr show colours').trim(), '', 'the bridge itself has no address')
  await node.stop('SIGKILL')
  await node.start()
  assert.ok(reaches(red, '10.92.20.2'), 'the table lets the devices in after a restart')
  for (const vlan of [10, 20]) ok(await node.call('DEL', { containerId: `c${vlan}` }))
})

test("a device or a bridge of another's that does not fit is refused and left alone", async () => {
  using pod = new TestNamespace()
  const { namespace } = node
  namespace.run('ip link add plain type bridge && ip link set plain up')
  fails(
    await node.call('ADD', { netns: pod.path, config: flat('10.93.0.1/24', { bridge: 'plain', vlan: 5 }) }),
    101,
    /keeps no VLANs apart/,
  )
  namespace.run('ip link add own type bridge vlan_filtering 1 && ip link add own.5 type dummy')
  const gateway = {
    bridge: 'own',
    vlan: 5,
    isGateway: true,
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.93.0.0/24' }]] },
  }
  fails(
    await node.call('ADD', { netns: pod.path, config: weftConfig('1.1.0', gateway) }),
    101,
    /own\.5: .* is not VLAN 5/,
  )
  assert.equal(namespace.run('ip -o addr show own.5').trim(), '')
  assert.doesNotMatch(pod.run('ip -o link'), /eth0/)
  namespace.run('ip link del own.5')
  ok(await node.call('ADD', { netns: pod.path, config: weftConfig('1.1.0', gateway) }))
  assert.ok(reaches(pod, '10.93.0.1'), "another's bridge that keeps VLANs apart serves")
  ok(await node.call('DEL'))
})

test("ports have the VLANs that Debian's reference plugin gives them", async () => {
  using ours = new TestNamespace()
  using theirs = new TestNamespace()
  const config = { cniVersion: '1.0.0', name: 'parity', bridge: 'parity', vlan: 42, ipam: {} }
  const { json } = ok(
    await node.call('ADD', {
      containerId: 'ours',
      netns: ours.path,
      config: { ...config, ipam: { type: 'static', addresses: [{ address: '10.94.0.1/24' }] } },
    }),
  )
  const reference = JSON.parse(
    execFileSync('ip', ['netns', 'exec', node.namespace.name, '/usr/lib/cni/bridge'], {
      input: JSON.stringify({ ...config, type: 'bridge' }),
      env: {
        ...process.env,
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: 'theirs',
        CNI_IFNAME: 'eth0',
        CNI_NETNS: theirs.path,
        CNI_PATH: '/usr/lib/cni',
      },
      encoding: 'utf8',
    }),
  )
  const theirPort = reference.interfaces[1].name
  assert.deepEqual(vlansOf(json.interfaces[1].name), vlansOf(theirPort))
  theirs.run('ip addr add 10.94.0.2/24 dev eth0')
  assert.ok(reaches(ours, '10.94.0.2'), 'one network, whoever made the port')
  ok(await node.call('DEL', { containerId: 'ours' }))
})
