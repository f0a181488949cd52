import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatOp } from '../../model/format.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import { formatNftRuleset, isNftObject } from '../../model/nft-format.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { macOf, nodeBridgeAlias, type PodPlan, planBridge, planPair, planPod, planPodRoutes, podMac } from './plan.ts'
import { planSourceCheck, sourceAddressOf } from './source-check.ts'

const lines = (objects: readonly KernelObject[]) => objects.map((object) => formatOp({ verb: 'add', object }))
const gateways = [Ip.parse('10.244.1.1'), Ip.parse('fd00:10:244:1::1')]

test('a MAC is made from the address that is in use on the device', () => {
  assert.equal(`${macOf(Ip.parse('10.244.1.7'))}`, '0a:58:0a:f4:01:07')
  assert.equal(`${macOf(Ip.parse('fd00:10:244:1::7'))}`, '0a:58:ff:44:00:16')
  const both = [Ip.parse('fd00::7'), Ip.parse('10.244.1.7')].map((ip) => ({ ip, prefixLength: 24 }))
  assert.equal(`${podMac(both, new Uint8Array(20))}`, '0a:58:0a:f4:01:07')
  assert.equal(`${podMac([], Uint8Array.of(0xff, 1, 2, 3, 4, 5, 6))}`, 'fe:01:02:03:04:05')
})

test("the bridge, in an operator's words", () => {
  const plan = planBridge({
    name: 'cni0',
    alias: nodeBridgeAlias,
    mtuBytes: 1450,
    gateways: gateways.map((ip) => ({ ip, prefixLength: ip.family === 4 ? 24 : 64 })),
  })
  assert.deepEqual(lines(plan), [
    'ip link add cni0 address 0a:58:0a:f4:01:01 mtu 1450 alias "weft:bridge" up type bridge',
    'ip address add 10.244.1.1/24 broadcast 10.244.1.255 dev cni0',
    'ip address add fd00:10:244:1::1/64 dev cni0 nodad',
    'sysctl -w net.ipv4.ip_forward=1',
    'sysctl -w net.ipv6.conf.all.forwarding=1',
  ])
})

test("a pod, in an operator's words", () => {
  const plan: PodPlan = {
    hostDevice: 'veth5a3e0f91',
    alias: 'weft-pod:c/eth0',
    hostMac: macOf(Ip.parse('1.2.3.4')),
    bridge: 'cni0',
    mtuBytes: 1450,
    hairpin: true,
    isolated: false,
    podDevice: 'eth0',
    netnsPath: '/run/netns/pod',
    mac: macOf(Ip.parse('10.244.1.7')),
    ips: [
      { ip: Ip.parse('10.244.1.7'), prefixLength: 24 },
      { ip: Ip.parse('fd00:10:244:1::7'), prefixLength: 64 },
    ],
    routes: planPodRoutes(gateways, [Cidr.parse('10.244.0.0/16'), Cidr.parse('fd00:10:244::/48')], true),
    enableDad: false,
    podDown: false,
  }
  assert.deepEqual(lines([planPair(plan), ...planPod(plan)]), [
    'ip link add veth5a3e0f91 address 0a:58:01:02:03:04 mtu 1450 alias "weft-pod:c/eth0" master cni0 addrgenmode none up type veth peer name eth0 address 0a:58:0a:f4:01:07 mtu 1450 netns /run/netns/pod type bridge_slave hairpin on',
    'ip link add eth0 up type veth',
    'ip address add 10.244.1.7/24 broadcast 10.244.1.255 dev eth0',
    'ip address add fd00:10:244:1::7/64 dev eth0 nodad',
    'ip route add default via 10.244.1.1 dev eth0',
    'ip route add 10.244.0.0/16 via 10.244.1.1 dev eth0',
    'ip -6 route add default via fd00:10:244:1::1 dev eth0',
    'ip -6 route add fd00:10:244::/48 via fd00:10:244:1::1 dev eth0',
  ])
  assert.deepEqual(planPod({ ...plan, podDown: true }), [])
  assert.deepEqual(planPodRoutes(gateways, [], false), [])
})

test('the check of a port is its own two elements in a table that all of them share', () => {
  const mac = macOf(Ip.parse('10.244.1.7'))
  const [first, second] = ['veth5a3e0f91', 'veth77c0a9d2'].map((port) => planSourceCheck(port, mac))
  assert.deepEqual(first!.slice(0, -2), second!.slice(0, -2))
  assert.equal(
    formatNftRuleset(first!.filter(isNftObject)),
    `table bridge weft {
	counter spoofed {
	}

	set guarded-ports {
		type ifname
		elements = { "veth5a3e0f91" }
	}

	set port-addresses {
		type ifname . ether_addr
		elements = { "veth5a3e0f91" . 0a:58:0a:f4:01:07 }
	}

	chain source-check {
		type filter hook prerouting priority dstnat; policy accept;
		iifname @guarded-ports iifname . ether saddr != @port-addresses counter name "spoofed" drop comment "a pod sends under its own hardware address"
	}
}
`,
  )
  const elements = first!.filter((object) => object.kind === 'nft-element')
  assert.equal(sourceAddressOf('veth5a3e0f91', elements), `${mac}`)
  assert.equal(sourceAddressOf('veth77c0a9d2', elements), undefined)
})
