import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatOp } from '../../model/format.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import { formatNftRuleset, isNftObject } from '../../model/nft-format.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import { planHostSide, planPodRoutes, planRoutedPair, planRoutedPod, planSourceRouting } from './plan.ts'
import { allowedPrefixesOf, planSourceCheck } from './source-check.ts'

const lines = (objects: readonly KernelObject[]) => objects.map((object) => formatOp({ verb: 'add', object }))
const device = 'calie64b9fa939d'
const ips = [Ip.parse('172.26.40.146'), Ip.parse('fd00:172:26::92')]

test("a routed pod, in an operator's words", () => {
  const pair = planRoutedPair({
    hostDevice: device,
    alias: 'weft-pod:c1/eth0',
    mtuBytes: 1480,
    podDevice: 'eth0',
    netnsPath: '/run/netns/pod',
    mac: Mac.parse('26:05:c7:19:a8:cf'),
  })
  assert.deepEqual(lines([pair, ...planRoutedPod('eth0', ips), ...planPodRoutes('eth0', ips)]), [
    'ip link add calie64b9fa939d address ee:ee:ee:ee:ee:ee mtu 1480 alias "weft-pod:c1/eth0" addrgenmode none up type veth peer name eth0 address 26:05:c7:19:a8:cf mtu 1480 netns /run/netns/pod',
    'ip link add eth0 up type veth',
    'sysctl -w net.ipv6.conf.eth0.disable_ipv6=0',
    'ip address add 172.26.40.146/32 dev eth0',
    'ip address add fd00:172:26::92/128 dev eth0 nodad',
    'ip neighbour add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent',
    'ip neighbour add fe80::ecee:eeff:feee:eeee lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent',
    'ip route add 169.254.1.1/32 dev eth0 scope link',
    'ip route add default via 169.254.1.1 dev eth0',
    'ip -6 route add fe80::ecee:eeff:feee:eeee/128 dev eth0',
    'ip -6 route add default via fe80::ecee:eeff:feee:eeee dev eth0',
  ])
  const forwarding = (forwards: boolean) => lines(planRoutedPod('eth0', ips, { forwards })).slice(-2)
  assert.deepEqual(forwarding(true), ['sysctl -w net.ipv4.ip_forward=1', 'sysctl -w net.ipv6.conf.all.forwarding=1'])
  assert.deepEqual(forwarding(false), ['sysctl -w net.ipv4.ip_forward=0', 'sysctl -w net.ipv6.conf.all.forwarding=0'])
})

test("the node's side of it", () => {
  assert.deepEqual(lines(planHostSide(device, ips, false)), [
    'sysctl -w net.ipv4.ip_forward=1',
    'sysctl -w net.ipv4.conf.calie64b9fa939d.rp_filter=1',
    'sysctl -w net.ipv4.conf.calie64b9fa939d.proxy_arp=1',
    'sysctl -w net.ipv4.neigh.calie64b9fa939d.proxy_delay=0',
    'ip route add 169.254.1.1/32 dev lo proto 119 scope link metric 2003134068',
    'ip route add 172.26.40.146/32 dev calie64b9fa939d proto 119 scope link',
    'sysctl -w net.ipv6.conf.all.forwarding=1',
    'ip address add fe80::ecee:eeff:feee:eeee/64 dev calie64b9fa939d nodad',
    'ip -6 route add fd00:172:26::92/128 dev calie64b9fa939d proto 119',
  ])
  const strictness = (other: boolean | undefined) =>
    lines(planHostSide(device, ips, other)).filter((line) => line.includes('rp_filter'))
  assert.deepEqual(strictness(true), [`sysctl -w net.ipv4.conf.${device}.rp_filter=2`])
  assert.deepEqual(strictness(undefined), [])
})

test('a further interface answers by its own way', () => {
  assert.deepEqual(lines(planSourceRouting('net1', [ips[0]!], 10_007)), [
    'ip route add 169.254.1.1/32 dev net1 table 10007 scope link',
    'ip route add default via 169.254.1.1 dev net1 table 10007',
    'ip rule add priority 1007 from 172.26.40.146/32 lookup 10007',
  ])
})

test('the check of sources', () => {
  const allowed = ['203.0.113.0/24', '203.0.113.7/32', '198.51.100.9/32', '2001:db8::/64'].map(Cidr.parse)
  const objects = planSourceCheck(device, ips, allowed).filter(isNftObject)
  const text = formatNftRuleset(objects)
  const chain = /chain calico-source-check \{\n([^}]*)\t\}/.exec(text)?.[1]
  assert.deepEqual(
    chain?.split('\n').map((line) => line.trim().replace(/ comment .*/, '')),
    [
      'type filter hook prerouting priority raw - 10; policy accept;',
      'iifname != @calico-pods return',
      'ip daddr 127.0.0.0/8 counter name "forged-loopback" drop',
      'iifname . ip saddr @calico-sources4 return',
      'iifname . ip6 saddr @calico-sources6 return',
      'ip6 saddr fe80::/10 return',
      'ip6 saddr :: return',
      'iifname . ip saddr @calico-source-ranges4 return',
      'iifname . ip6 saddr @calico-source-ranges6 return',
      'counter name "calico-forged-pod-source" drop',
      '',
    ],
  )
  for (const key of ['172.26.40.146', '203.0.113.0/24', '198.51.100.9', 'fd00:172:26::92', '2001:db8::/64'])
    assert.ok(text.includes(`"calie64b9fa939d" . ${key}`), key)
  assert.equal(text.includes('203.0.113.7'), false)
  const elements = objects.filter((object) => object.kind === 'nft-element')
  assert.deepEqual(allowedPrefixesOf(device, elements).map(String), [
    '198.51.100.9/32',
    '203.0.113.0/24',
    '2001:db8::/64',
  ])
  assert.deepEqual(allowedPrefixesOf('cali0', elements), [])
})
