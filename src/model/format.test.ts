import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import { formatObject, formatOp } from './format.ts'
import type { KernelOp } from './kernel-state.ts'

const mac = Mac.parse('0a:58:0a:f4:01:02')
const cases: readonly (readonly [KernelOp, string])[] = [
  [
    {
      verb: 'add',
      object: {
        kind: 'link',
        name: 'flannel.1',
        type: 'vxlan',
        settings: { vni: 1, port: 8472, lower: 'eth0', local: Ip.parse('172.30.1.11'), learning: false },
        mtuBytes: 1450,
        alias: 'weft:vxlan',
        up: true,
      },
    },
    'ip link add flannel.1 mtu 1450 alias "weft:vxlan" up type vxlan id 1 dstport 8472 dev eth0 local 172.30.1.11 nolearning',
  ],
  [
    {
      verb: 'set',
      object: { kind: 'link', name: 'vethab', type: 'veth', master: 'cni0', up: true, port: { hairpin: true } },
    },
    'ip link set vethab up master cni0 type bridge_slave hairpin on',
  ],
  [
    {
      verb: 'set',
      object: {
        kind: 'route',
        destination: Cidr.parse('10.244.1.0/24'),
        hops: [{ via: Ip.parse('10.244.1.0'), device: 'flannel.1', onlink: true }],
        protocol: 119,
      },
    },
    'ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto 119',
  ],
  [
    {
      verb: 'add',
      object: {
        kind: 'route',
        destination: Cidr.all(6),
        hops: [
          { via: Ip.parse('fe80::1'), device: 'eth0', weight: 2 },
          { via: Ip.parse('fe80::2'), device: 'eth0' },
        ],
        metric: 1024,
      },
    },
    'ip -6 route add default metric 1024 nexthop via fe80::1 dev eth0 weight 2 nexthop via fe80::2 dev eth0',
  ],
  [
    { verb: 'add', object: { kind: 'route', destination: Cidr.parse('10.0.0.0/8'), type: 'blackhole', hops: [] } },
    'ip route add blackhole 10.0.0.0/8',
  ],
  [
    { verb: 'set', object: { kind: 'neighbour', device: 'flannel.1', ip: Ip.parse('10.244.1.0'), mac } },
    'ip neighbour replace 10.244.1.0 lladdr 0a:58:0a:f4:01:02 dev flannel.1 nud permanent',
  ],
  [
    { verb: 'delete', object: { kind: 'fdb', device: 'flannel.1', mac, remote: Ip.parse('172.30.1.12') } },
    'bridge fdb delete 0a:58:0a:f4:01:02 dev flannel.1 dst 172.30.1.12 self permanent',
  ],
  [
    { verb: 'set', object: { kind: 'bridge-vlan', device: 'veth0', vlan: 7, pvid: true, untagged: true } },
    'bridge vlan add dev veth0 vid 7 pvid untagged',
  ],
  [
    { verb: 'delete', object: { kind: 'bridge-vlan', device: 'br0', vlan: 1, self: true, pvid: true } },
    'bridge vlan delete dev br0 vid 1 self',
  ],
  [
    { verb: 'add', object: { kind: 'rule', family: 4, priority: 100, mark: 0x4000, markMask: 0x4000, table: 77 } },
    'ip rule add priority 100 from all fwmark 0x4000/0x4000 lookup 77',
  ],
  [
    { verb: 'set', object: { kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1' } },
    'sysctl -w net.ipv4.ip_forward=1',
  ],
]

test('operations print as the line that an operator would type', () => {
  for (const [op, text] of cases) assert.equal(formatOp(op), text)
})

test('objects print without a verb', () => {
  assert.equal(
    formatObject({ kind: 'address', device: 'cni0', ip: Ip.parse('10.244.1.1'), prefixLength: 24 }),
    'address 10.244.1.1/24 dev cni0',
  )
  assert.equal(
    formatObject(cases[5]![0].object),
    'neighbour 10.244.1.0 lladdr 0a:58:0a:f4:01:02 dev flannel.1 nud permanent',
  )
})
