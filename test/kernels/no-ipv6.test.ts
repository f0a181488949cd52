/**
 * A kernel booted with `ipv6.disable=1`, as hardened hosts are: dumps of the family fall back to all families or are
 * refused, and there is nothing under net/ipv6. IPv4 works as ever.
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { Applier } from '../../src/apply/applier.ts'
import { planFirewallSkeleton } from '../../src/datapath/firewall/firewall.ts'
import { formatObject } from '../../src/model/format.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { TestNamespace } from '../netns/namespace.ts'

test('the kernel has no IPv6', () => {
  assert.ok(!existsSync('/proc/sys/net/ipv6'))
})

test('each object is read once, and the family that is not there has none', async () => {
  using space = new TestNamespace()
  space.run('ip link set lo up && ip link add d0 type dummy && ip addr add 10.1.2.3/24 dev d0 && ip link set d0 up')
  space.run('ip neigh add 10.1.2.9 lladdr 02:00:00:00:00:09 dev d0 nud permanent')
  for (const kind of ['address', 'route', 'rule', 'neighbour'] as const) {
    const lines = (await space.kernel.read(kind)).map(formatObject)
    assert.ok(lines.length > 0, `no ${kind}`)
    assert.deepEqual([...new Set(lines)], lines)
  }
})

test('an applier sets up routes and packet rules', async () => {
  using space = new TestNamespace()
  space.run('ip link set lo up && ip link add d0 type dummy && ip addr add 10.1.2.3/24 dev d0 && ip link set d0 up')
  const applier = new Applier(space.kernel)
  applier.set(
    {
      source: 'route',
      objects: [{ kind: 'route', destination: Cidr.parse('10.9.0.0/16'), hops: [{ device: 'd0' }], protocol: 119 }],
    },
    {
      source: 'firewall',
      objects: planFirewallSkeleton({
        clusterCidrs: [Cidr.parse('10.244.0.0/16')],
        localCidrs: [Cidr.parse('10.244.1.0/24')],
        masquerade: true,
        tunnels: [{ type: 'vxlan', device: 'flannel.1', port: 8472 }],
      }),
    },
  )
  await applier.start()
  await applier.settle()
  assert.deepEqual(applier.failures(), [])
  assert.match(space.run('ip route'), /^10\.9\.0\.0\/16 dev d0 proto 119/m)
  assert.match(space.run('nft list table inet weft'), /masquerade/)
  await applier.close()
})
