/**
 * weft's nftables table under somebody else's hands: what is flushed, deleted or added is put right, rules that stayed keep
 * their counters, a restarted agent finds nothing to do, and what a node or a pod costs is its own elements.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { Applier, type ApplyReport } from '../../src/apply/applier.ts'
import {
  type FirewallOptions,
  planFirewallSkeleton,
  planHostPorts,
  planPeerElements,
} from '../../src/datapath/firewall/firewall.ts'
import { formatOp } from '../../src/model/format.ts'
import type { ObjectKind } from '../../src/model/kernel-object.ts'
import type { Fragment } from '../../src/model/kernel-state.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

const kinds: readonly (readonly ObjectKind[])[] = [['nft-table', 'nft-set', 'nft-counter', 'nft-chain', 'nft-element']]

const options: FirewallOptions = {
  clusterCidrs: [Cidr.parse('10.244.0.0/16'), Cidr.parse('fd00:244::/56')],
  localCidrs: [Cidr.parse('10.244.1.0/24'), Cidr.parse('fd00:244:0:1::/64')],
  masquerade: true,
  tunnels: [{ type: 'vxlan', device: 'flannel.1', port: 8472 }],
}
const skeleton: Fragment = { source: 'firewall', objects: planFirewallSkeleton(options) }
const peer = (n: number): Fragment => ({
  source: `node/n${n}`,
  objects: planPeerElements({
    addresses: [Ip.parse(`172.30.0.${n}`)],
    podCidrs: [Cidr.parse(`10.244.${n}.0/24`), Cidr.parse(`fd00:244:0:${n.toString(16)}::/64`)],
  }),
})
/** A node whose subnets have other lengths than most. */
const unusual: Fragment = {
  source: 'node/n9',
  objects: planPeerElements({
    addresses: [Ip.parse('172.30.0.9'), Ip.parse('fd00:172::9')],
    podCidrs: [Cidr.parse('10.244.128.0/23'), Cidr.parse('fd00:244:0:9::/80')],
  }),
}
const pod: Fragment = {
  source: 'pod/a',
  objects: planHostPorts({ ips: [Ip.parse('10.244.1.7')] }, [
    { protocol: 'tcp', hostPort: 8080, containerPort: 80, hostIp: Ip.parse('172.30.0.1') },
  ]),
}

let space: TestNamespace
let reports: ApplyReport[]
let wake = () => {}
let applier: Applier
beforeEach(async () => {
  space = new TestNamespace()
  await start()
})
afterEach(async () => {
  await applier.close()
  space.delete()
})

async function start(): Promise<void> {
  reports = []
  applier = new Applier(space.kernel, {
    kinds,
    onReport: (report) => {
      reports.push(report)
      wake()
    },
  })
  applier.set(skeleton, peer(2), peer(3), unusual, pod)
  applier.markComplete()
  await applier.start()
  await applier.settle()
  assert.deepEqual(applier.failures(), [])
}

/** The table without the order of things that have none. */
const listing = (): string =>
  space
    .run('nft --stateless list table inet weft 2>&1 || true')
    .replace(/elements = \{([^}]*)\}/gs, (_, inner: string) => inner.trim().split(/,\s+/).sort().join(', '))
    .split('\n')
    .sort()
    .join('\n')
const written = (): string[] => reports.flatMap((report) => report.ops).map(formatOp)

/** Waits, pass by pass of the applier, until the listing is what it was. */
async function until(wanted: string): Promise<void> {
  const end = performance.now() + 20_000
  for (;;) {
    const next = new Promise<void>((resolve) => {
      wake = resolve
      setTimeout(resolve, 500).unref()
    })
    if (listing() === wanted) return
    assert.ok(performance.now() < end, `waited in vain:\n${listing()}`)
    await next
  }
}

test('what others do to the table is undone', async () => {
  const whole = listing()
  for (const harm of [
    'nft flush ruleset',
    'nft delete table inet weft',
    'nft flush chain inet weft postrouting',
    'nft delete element inet weft origins4 { 172.30.0.2 . 0xac1e00 }',
    'nft delete element inet weft origins4 { 172.30.0.3 . 0xaf403 }',
    'nft flush set inet weft origin-ranges4',
    'nft flush chain inet weft vxlan-8472',
    'nft delete element inet weft hostport-addresses4 { 172.30.0.1 . tcp . 8080 }',
    'nft flush set inet weft cluster6',
    'nft insert rule inet weft guard drop',
    'nft add element inet weft origins4 { 9.9.9.9 . 0x90909 }',
    'nft add element inet weft origin-ranges4 { 9.9.9.9 . 0xaf40200-0xaf402ff }',
  ]) {
    space.run(harm)
    await until(whole)
  }
})

test('a restarted agent finds everything in place and writes nothing', async () => {
  await applier.close()
  using fresh = new FreshNamespaceView(space)
  const seen: ApplyReport[] = []
  const second = new Applier(fresh.kernel, { kinds, onReport: (report) => seen.push(report) })
  second.set(skeleton, peer(2), peer(3), unusual, pod)
  second.markComplete()
  await second.start()
  await second.settle()
  assert.deepEqual(seen.flatMap((report) => report.ops).map(formatOp), [])
  await second.close()
})

test('a node or a tunnel more costs what it adds, and rules that stay keep their handles', async () => {
  const handles = () => new Set(space.run('nft -a list chain inet weft guard').match(/handle \d+/g))
  const before = handles()
  reports.length = 0
  applier.set(peer(4))
  await applier.settle()
  assert.deepEqual(written().sort(), [
    'nft add element inet weft origins4 { 172.30.0.4 . 0xac1e00 comment "the node itself" }',
    'nft add element inet weft origins4 { 172.30.0.4 . 0xaf404 comment "10.244.4.0/24" }',
  ])
  applier.remove('node/n4')
  applier.set({
    source: 'firewall',
    objects: planFirewallSkeleton({
      ...options,
      tunnels: [...options.tunnels, { type: 'udp', device: 'flannel0', port: 8285 }],
    }),
  })
  await applier.settle()
  assert.deepEqual(applier.failures(), [])
  const after = handles()
  for (const handle of before) assert.ok(after.has(handle), handle)
  assert.ok(after.size > before.size)
  assert.match(space.run('nft list chain inet weft untracked'), /th dport 8285 meta l4proto udp ip daddr/)
  applier.set(skeleton)
  await applier.settle()
  assert.equal(space.run('nft list table inet weft').includes('8285'), false)
})

test('the table of an agent with other sets and chains is taken over, before and after the sweep', async () => {
  const whole = listing()
  await applier.close()
  space.run(`nft flush ruleset; nft -f - <<'END'
table inet weft {
	set origins4 {
		type ipv4_addr . ipv4_addr
		flags interval
		elements = { 172.30.0.2 . 10.244.2.0/24 }
	}
	chain vxlan-4789 {
		ip saddr . ip daddr @origins4 accept
		ip saddr . ip saddr != @origins4 counter drop
	}
	chain guard {
		type filter hook prerouting priority raw
		udp dport 4789 jump vxlan-4789
	}
}
END`)
  using fresh = new FreshNamespaceView(space)
  const second = new Applier(fresh.kernel, { kinds })
  second.set(skeleton, peer(2), peer(3), unusual, pod)
  await second.start()
  await second.settle()
  assert.deepEqual(second.failures(), [])
  assert.match(space.run('nft list chain inet weft vxlan-4789'), /\{\s+counter packets \d+ bytes \d+ drop\s+\}/)
  second.markComplete()
  await second.settle()
  assert.equal(listing(), whole)
  await second.close()
})

/** The same namespace through other eyes: another process. */
class FreshNamespaceView {
  readonly kernel
  constructor(of: TestNamespace) {
    this.kernel = of.kernel.open(of.path)
  }
  [Symbol.dispose](): void {
    this.kernel.close()
  }
}
