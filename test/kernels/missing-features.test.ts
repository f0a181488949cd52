/**
 * A kernel without VXLAN, nftables, bridges and TUN devices: the probe says so, and each operation that needs one of them
 * fails with the operator's own line and the kernel's reason, while the others go on.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { probeKernel } from '../../src/kernel/probe.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { TestNamespace } from '../netns/namespace.ts'

test('the probe says what is missing', async () => {
  const { links, nftables } = await probeKernel()
  const missing = [links, nftables].flatMap((group) =>
    Object.entries(group).flatMap(([name, has]) => (has ? [] : name)),
  )
  const all = ['bridge', 'vxlan', 'tun', ...Object.keys(nftables)]
  assert.deepEqual(missing.sort(), all.sort())
})

test('what needs a missing feature is refused by name, the rest is done', async () => {
  using space = new TestNamespace()
  const ops: readonly KernelOp[] = [
    { verb: 'add', object: { kind: 'link', name: 'cni0', type: 'bridge' } },
    { verb: 'add', object: { kind: 'link', name: 'flannel.1', type: 'vxlan', settings: { vni: 1, port: 8472 } } },
    { verb: 'add', object: { kind: 'link', name: 'flannel0', type: 'tun', settings: { mode: 'tun' } } },
    { verb: 'add', object: { kind: 'nft-table', family: 'inet', name: 'weft' } },
    { verb: 'add', object: { kind: 'link', name: 'd0', type: 'dummy', up: true } },
    {
      verb: 'add',
      object: { kind: 'route', destination: Cidr.parse('10.9.0.0/16'), hops: [{ device: 'd0' }], protocol: 119 },
    },
  ]
  const results = await space.kernel.execute(ops)
  const said = results.map((result) => result?.message)
  assert.match(said[0]!, /^Cannot ip link add cni0 type bridge: .*\(EOPNOTSUPP\)/)
  assert.match(said[1]!, /^Cannot ip link add flannel\.1 type vxlan .*\(EOPNOTSUPP\)/)
  assert.match(said[2]!, /^Cannot .*flannel0.*\((ENODEV|ENOENT|ENXIO)\)/)
  assert.match(said[3]!, /^Cannot nft add table inet weft: .*\(EOPNOTSUPP\)/)
  assert.deepEqual(said.slice(4), [undefined, undefined])
  assert.match(space.run('ip route'), /^10\.9\.0\.0\/16 dev d0/)
})
