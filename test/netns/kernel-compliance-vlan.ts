/**
 * What every Kernel must do with the VLANs of bridges: a part of the compliance suite, for kernels whose bridges know any.
 */
import assert from 'node:assert/strict'
import type { Kernel } from '../../src/kernel/kernel.ts'
import type { BridgeVlan, Link } from '../../src/model/link.ts'
import { add, bridge, type Check, codes, remove, set, succeed } from './kernel-compliance-subject.ts'

const vlan = (device: string, id: number, rest: Partial<BridgeVlan> = {}): BridgeVlan => ({
  kind: 'bridge-vlan',
  device,
  vlan: id,
  ...rest,
})

/** `device id flags`, of the devices named. */
async function vlans(kernel: Kernel, ...devices: string[]): Promise<string[]> {
  return (await kernel.read('bridge-vlan'))
    .filter(({ device }) => devices.includes(device))
    .map(({ device, vlan: id, self, pvid, untagged }) =>
      [device, id, self && 'self', pvid && 'pvid', untagged && 'untagged'].filter(Boolean).join(' '),
    )
    .sort()
}

export function checkVlans(check: Check): void {
  check('a port is in VLAN 1, and then in those it is given', async ({ kernel }) => {
    const [refusal] = await kernel.execute([add(bridge('br0', { settings: { vlanFiltering: true } }))])
    // This kernel's bridges know no VLANs; those of the guests do.
    if (refusal) return assert.equal(refusal.code, 'EOPNOTSUPP')
    const v0: Link = { kind: 'link', name: 'v0', type: 'veth', master: 'br0', settings: { peer: { name: 'v1' } } }
    await succeed(kernel, add(v0))
    assert.deepEqual(await vlans(kernel, 'br0', 'v0'), ['br0 1 self pvid untagged', 'v0 1 pvid untagged'])
    await succeed(
      kernel,
      add(vlan('v0', 7, { pvid: true, untagged: true })),
      add(vlan('v0', 20)),
      add(vlan('br0', 7, { self: true })),
    )
    assert.deepEqual(await vlans(kernel, 'br0', 'v0'), [
      'br0 1 self pvid untagged',
      'br0 7 self',
      'v0 1 untagged',
      'v0 20',
      'v0 7 pvid untagged',
    ])
    await succeed(kernel, add(vlan('v0', 20)), set(vlan('v0', 20, { untagged: true })), remove(vlan('v0', 1)))
    assert.deepEqual(await vlans(kernel, 'v0'), ['v0 20 untagged', 'v0 7 pvid untagged'])
    assert.deepEqual(await codes(kernel, remove(vlan('v0', 1)), remove(vlan('v0', 4000))), [undefined, undefined])
    assert.deepEqual(await codes(kernel, add(vlan('nope', 7)), add(vlan('v0', 4095))), ['ENODEV', 'EINVAL'])
    await succeed(kernel, set({ kind: 'link', name: 'v0', type: 'veth', master: null }))
    assert.deepEqual(await vlans(kernel, 'v0'), [])
    assert.deepEqual(await codes(kernel, add(vlan('v0', 7))), ['EOPNOTSUPP'])
    await succeed(kernel, set({ kind: 'link', name: 'v0', type: 'veth', master: 'br0' }))
    assert.deepEqual(await vlans(kernel, 'v0'), ['v0 1 pvid untagged'])
  })
}
