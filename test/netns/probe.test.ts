/**
 * The probe agrees with what iproute2 and nft can do on this kernel, and leaves nothing behind.
 */
import assert from 'node:assert/strict'
import { readdirSync, readlinkSync } from 'node:fs'
import { test } from 'node:test'
import { probeKernel } from '../../src/kernel/probe.ts'
import { TestNamespace } from './namespace.ts'

/** Namespaces that this process holds open. */
const heldNamespaces = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('net:')
    } catch {
      return false
    }
  }).length

test('what the probe says is what ip and nft can do', async () => {
  using space = new TestNamespace()
  const features = await probeKernel()
  space.run('ip link add base type veth peer name base-peer')
  const commands: Record<string, string> = {
    dummy: 'ip link add dev probed type dummy',
    geneve: 'ip link add dev probed type geneve id 1 remote 127.0.0.1',
    ipip: 'ip link add dev probed type ipip local 127.0.0.1 remote 127.0.0.1',
    vxlan: 'ip link add dev probed type vxlan id 1 dstport 8472',
    vrf: 'ip link add dev probed type vrf table 10',
    vlan: 'ip link add link base dev probed type vlan id 1',
    macvlan: 'ip link add link base dev probed type macvlan mode bridge',
    ipvlan: 'ip link add link base-peer dev probed type ipvlan mode l3',
    ifb: 'ip link add dev probed type ifb',
    gre: 'ip link add dev probed type gre local 127.0.0.1 remote 127.0.0.1',
    bridge: 'ip link add dev probed type bridge',
    tun: 'ip tuntap add dev probed mode tun',
  }
  for (const [kind, command] of Object.entries(commands)) {
    const can = space.succeeds(command)
    if (can) space.run('ip link del dev probed')
    assert.equal(features.links[kind as keyof typeof features.links], can, kind)
  }
  const rule = (text: string) =>
    space.succeeds(`nft 'add table inet t; add chain inet t c { ${text} }' && nft delete table inet t`)
  assert.equal(features.nftables.fullyRandom, rule('type nat hook postrouting priority 100; masquerade fully-random;'))
  assert.equal(features.nftables.fib, rule('type filter hook prerouting priority 0; fib daddr type local accept;'))
  assert.equal(features.nftables.reject, rule('type filter hook input priority 0; reject;'))
  assert.equal(features.nftables.log, rule('type filter hook input priority 0; log group 1;'))
})

test('the probe’s namespace is gone afterwards', async () => {
  await probeKernel()
  const before = heldNamespaces()
  await probeKernel()
  assert.equal(heldNamespaces(), before)
})
