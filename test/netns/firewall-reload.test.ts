/**
 * What `nft list ruleset` prints of weft's table, `nft -f` takes back: a host's rules may be saved and loaded with weft's among
 * them. The agent knows its sets again, and puts its own rules in place of those that nft compiles otherwise.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Applier } from '../../src/apply/applier.ts'
import { planFirewallSkeleton, planHostPorts, planPeerElements } from '../../src/datapath/firewall/firewall.ts'
import { formatOp } from '../../src/model/format.ts'
import type { ObjectKind } from '../../src/model/kernel-object.ts'
import type { Fragment } from '../../src/model/kernel-state.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

const kinds: readonly (readonly ObjectKind[])[] = [['nft-table', 'nft-set', 'nft-counter', 'nft-chain', 'nft-element']]

const fragment: Fragment = {
  source: 'everything',
  objects: [
    ...planFirewallSkeleton({
      clusterCidrs: ['10.244.0.0/16', '10.100.0.0/25', 'fd00:244::/56', 'fd00:99::/112'].map(Cidr.parse),
      localCidrs: ['10.244.1.0/24', '10.244.4.0/22', '10.100.0.16/28', 'fd00:244:0:1::/64', 'fd00:99::10/124'].map(
        Cidr.parse,
      ),
      masquerade: true,
      tunnels: [
        { type: 'vxlan', device: 'flannel.1', port: 8472 },
        { type: 'vxlan', device: 'flannel.2', port: 4789 },
        { type: 'udp', device: 'flannel0', port: 8285 },
      ],
    }),
    ...planPeerElements({
      addresses: ['172.30.0.2', 'fd00:172::2'].map(Ip.parse),
      podCidrs: ['10.244.2.0/24', '10.244.8.0/23', '10.100.0.32/32', 'fd00:244:0:2::/64', 'fd00:99::20/124'].map(
        Cidr.parse,
      ),
    }),
    ...planHostPorts({ ips: ['10.244.1.7', 'fd00:244:0:1::7'].map(Ip.parse) }, [
      { protocol: 'tcp', hostPort: 8080, containerPort: 80 },
      { protocol: 'udp', hostPort: 53, containerPort: 5353, hostIp: Ip.parse('172.30.0.1') },
    ]).filter(({ kind }) => kind !== 'sysctl'),
  ],
}

test('the table that nft lists loads back the same, and weft knows it again', async () => {
  const space = new TestNamespace()
  try {
    const written = async () => {
      const ops: string[] = []
      const applier = new Applier(space.kernel, { kinds, onReport: (report) => ops.push(...report.ops.map(formatOp)) })
      applier.set(fragment)
      applier.markComplete()
      await applier.start()
      await applier.settle()
      assert.deepEqual(applier.failures(), [])
      await applier.close()
      return ops
    }
    assert.ok((await written()).length > 0)
    const list = () => space.run('nft --stateless list ruleset')
    const listed = list()
    space.run(`nft flush ruleset && nft -f - <<'END'\n${listed}\nEND`)
    assert.equal(sortElements(list()), sortElements(listed))
    // Sets and elements are what they were. nft compiles some rules in other words, which weft writes over with its own.
    assert.deepEqual(
      (await written()).filter((op) => !op.startsWith('nft add chain inet weft ')),
      [],
    )
    assert.equal(sortElements(list()), sortElements(listed))
    assert.deepEqual(await written(), [])
  } finally {
    space.delete()
  }
})

/** Elements of a hash have no order. */
const sortElements = (text: string): string =>
  text.replace(/elements = \{([^}]*)\}/gs, (_, inner: string) => inner.trim().split(/,\s+/).sort().join(', '))
