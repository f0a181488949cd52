/**
 * The table as text (testdata/firewall.nft; UPDATE=1 rewrites it), and what plans cost.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { keyOf } from '../../model/kernel-object.ts'
import { formatNftRuleset, isNftObject } from '../../model/nft-format.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import {
  type FirewallOptions,
  planFirewallSkeleton,
  planHostPorts,
  planPeerElements,
  planPodDevice,
} from './firewall.ts'

const options: FirewallOptions = {
  clusterCidrs: ['10.244.0.0/16', 'fd00:244::/56'].map(Cidr.parse),
  localCidrs: ['10.244.1.0/24', 'fd00:244:0:1::/64'].map(Cidr.parse),
  masquerade: true,
  tunnels: [
    { type: 'vxlan', device: 'flannel.1', port: 8472 },
    { type: 'udp', device: 'flannel0', port: 8285 },
  ],
}
const peer = {
  addresses: ['172.30.0.2', '172.30.0.2', 'fd00:172::2'].map(Ip.parse),
  podCidrs: ['10.244.2.0/24', 'fd00:244:0:2::/64'].map(Cidr.parse),
}
const pod = { ips: ['10.244.1.7', 'fd00:244:0:1::7'].map(Ip.parse) }

test('the whole table is what the golden file says', () => {
  const hostPorts = planHostPorts(pod, [
    { protocol: 'tcp', hostPort: 8080, containerPort: 80 },
    { protocol: 'udp', hostPort: 53, containerPort: 5353, hostIp: Ip.parse('172.30.0.1') },
    { protocol: 'sctp', hostPort: 9, containerPort: 9, hostIp: Ip.parse('fd00:172::1') },
  ])
  const objects = [...planFirewallSkeleton(options), planPodDevice('br1'), ...planPeerElements(peer), ...hostPorts]
  assert.equal(new Set(objects.map(keyOf)).size, objects.length, 'every object once')
  const text = formatNftRuleset(objects.filter(isNftObject))
  const golden = new URL('testdata/firewall.nft', import.meta.url)
  if (process.env.UPDATE) writeFileSync(golden, text)
  assert.equal(text, readFileSync(golden, 'utf8'))
})

test('settings take rules away', () => {
  const rules = (settings: Partial<FirewallOptions>, name: string) => {
    const chain = planFirewallSkeleton({ ...options, ...settings }).find(
      (object) => object.kind === 'nft-chain' && object.name === name,
    )
    assert.ok(chain?.kind === 'nft-chain')
    return chain.rules.length
  }
  assert.equal(rules({ masquerade: false }, 'postrouting'), 2)
  assert.equal(rules({ tunnels: [] }, 'untracked'), 0)
  assert.equal(rules({}, 'guard') - rules({ tunnels: [] }, 'guard'), 2)
})

test('devices that share a port share its rules', () => {
  const both = {
    ...options,
    tunnels: [...options.tunnels, { type: 'vxlan', device: 'flannel-v6.1', port: 8472 } as const],
  }
  assert.deepEqual(planFirewallSkeleton(both), planFirewallSkeleton(options))
})

test('blocks that another one covers are left out: ranges of a set may not overlap', () => {
  const clusterCidrs = ['10.0.0.0/8', '10.244.0.0/16', '10.0.0.0/8', '192.168.0.0/16'].map(Cidr.parse)
  const keys = planFirewallSkeleton({ ...options, clusterCidrs }).flatMap((object) =>
    object.kind === 'nft-element' && object.set === 'cluster4' ? object.key : [],
  )
  assert.deepEqual(keys, ['10.0.0.0/8', '192.168.0.0/16'])
})

test('the order of settings makes no difference, so that nothing is rewritten for it', () => {
  const turned = {
    ...options,
    tunnels: [...options.tunnels].reverse(),
    clusterCidrs: [...options.clusterCidrs].reverse(),
  }
  const text = (settings: FirewallOptions) => formatNftRuleset(planFirewallSkeleton(settings).filter(isNftObject))
  assert.equal(text(turned), text(options))
})

test('loopback is opened on the pod’s own bridge, and only for mappings that answer there', () => {
  const sysctls = (hostIp?: string) =>
    planHostPorts(
      pod,
      [{ protocol: 'tcp', hostPort: 1, containerPort: 1, ...(hostIp && { hostIp: Ip.parse(hostIp) }) }],
      {
        bridge: 'br1',
      },
    ).filter(({ kind }) => kind === 'sysctl')
  assert.deepEqual(sysctls(), [{ kind: 'sysctl', path: 'net/ipv4/conf/br1/route_localnet', value: '1' }])
  assert.equal(sysctls('127.0.0.1').length, 1)
  assert.equal(sysctls('172.30.0.1').length, 0)
  assert.equal(planHostPorts({ ips: [] }, [{ protocol: 'tcp', hostPort: 1, containerPort: 1 }]).length, 0)
})

test('pods of other networks are left alone by masquerading, and nothing else changes for them', () => {
  const text = (further: Partial<FirewallOptions>) =>
    formatNftRuleset(planFirewallSkeleton({ ...options, ...further }).filter(isNftObject)).split('\n')
  const otherCidrs = ['172.26.0.0/16', '172.26.4.0/24'].map(Cidr.parse)
  const before = new Set(text({}))
  const added = text({ otherCidrs })
    .filter((line) => !before.has(line))
    .map((line) => line.trim().replace(/ comment .*/, ''))
  assert.deepEqual(
    added.filter((line) => line.includes('saddr') || line.includes('daddr')),
    ['ip saddr @others4 return', 'ip daddr @others4 return'],
  )
  assert.ok(added.some((line) => line.includes('172.26.0.0/16') && !line.includes('172.26.4.0/24')))
  assert.deepEqual(text({ masquerade: false, otherCidrs }), text({ masquerade: false }))
})
