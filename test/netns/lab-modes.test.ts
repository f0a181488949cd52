import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { askControl } from '../../src/lab/control.ts'
import { labPaths } from '../../src/lab/layout.ts'
import { followPacket, type Hop, type WalkEnd } from '../../src/lab/walk.ts'
import { TestLab } from './test-lab.ts'

const lab = new TestLab()
const ends: Record<string, WalkEnd> = {}
const ips6: Record<string, string> = {}

/** n1 and n3 share a subnet; n2 is behind the router. */
before(async () => {
  await lab.up('--nodes', '3', '--subnets', '2', '--backend', 'vxlan')
  for (const [pod, node] of [
    ['a', 'n1'],
    ['b', 'n2'],
    ['c', 'n3'],
  ] as const) {
    const { ip, ip6 } = await lab.server(pod, node)
    const { netnsPath } = await askControl<{ netnsPath: string }>(labPaths(lab.name).control, {
      command: 'locate',
      target: pod,
    })
    ends[pod] = { pod, node, netnsPath, ip }
    ips6[pod] = ip6!
  }
})
after(() => lab.down())

const walk = async (from: string, to: string): Promise<Hop[]> => {
  const { hops, answered } = await followPacket(lab.name, ends[from]!, ends[to]!)
  assert.ok(
    answered,
    `${from} → ${to} is answered: ${JSON.stringify(hops, (_key, value) => (typeof value === 'bigint' ? Number(value) : value))}`,
  )
  return hops
}
const onWire = (hops: readonly Hop[]): Hop[] => hops.filter((hop) => hop.device === 'eth0' && /^node/.test(hop.place))
const switchTo = (backend: string) => lab.weft('switch', backend)

test('vxlan: every packet between nodes travels in VXLAN, through the router too', async () => {
  for (const to of ['b', 'c']) {
    const hops = await walk('a', to)
    assert.equal(hops[0]?.place, 'pod a')
    assert.equal(hops[0]?.ttl, 64)
    assert.equal(hops.at(-1)?.place, `pod ${to}`)
    assert.equal(hops.at(-1)?.ttl, 62)
    assert.ok(hops.some((hop) => hop.device === 'cni0') && hops.some((hop) => hop.device === 'flannel.1'))
    assert.equal(onWire(hops).length, 2)
    for (const hop of onWire(hops)) assert.match(hop.encapsulation ?? 'bare', /VXLAN VNI 1/)
    assert.ok(await lab.pings('a', ips6[to]!), `IPv6 to ${to}`)
  }
})

test('vxlan-direct: bare on one subnet, in VXLAN across the router', async () => {
  await switchTo('vxlan-direct')
  for (const hop of onWire(await walk('a', 'c'))) assert.equal(hop.encapsulation, undefined)
  for (const hop of onWire(await walk('a', 'b'))) assert.match(hop.encapsulation ?? 'bare', /VXLAN VNI 1/)
  for (const to of ['b', 'c']) assert.ok(await lab.pings('a', ips6[to]!), `IPv6 to ${to}`)
})

test('host-gw: bare on one subnet; across the router, which knows no pod route, it fails', async () => {
  await switchTo('host-gw')
  const hops = await walk('a', 'c')
  for (const hop of onWire(hops)) assert.equal(hop.encapsulation, undefined)
  assert.ok(!hops.some((hop) => hop.device === 'flannel.1'))
  assert.equal(await lab.pings('a', ends.b!.ip), false)
  assert.ok(await lab.pings('a', ips6.c!))
})

test('udp: every packet between nodes travels in UDP datagrams on port 8285', async () => {
  await switchTo('udp')
  for (const to of ['b', 'c'])
    for (const hop of onWire(await walk('a', to))) assert.match(hop.encapsulation ?? 'bare', /UDP.* 8285/)
})

test('the same node: bridged, TTL untouched', async () => {
  const { ip } = await lab.server('d', 'n1')
  const { netnsPath } = await askControl<{ netnsPath: string }>(labPaths(lab.name).control, {
    command: 'locate',
    target: 'd',
  })
  ends.d = { pod: 'd', node: 'n1', netnsPath, ip }
  const hops = await walk('a', 'd')
  assert.equal(hops.at(-1)?.ttl, 64)
  assert.ok(hops.every((hop) => !hop.encapsulation))
})
