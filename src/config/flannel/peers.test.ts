import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { NodeContext, NodeInfo } from '../../model/cluster.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { parseNetConf } from './net-conf.ts'
import { PeerTable, type PeerVerdict } from './peers.ts'

const { config } = parseNetConf(
  '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/56","Backend":{"Type":"vxlan"}}',
)
const self: NodeContext = {
  name: 'self',
  podCidrs: [Cidr.parse('10.244.1.0/24')],
  external: { device: 'eth0', mtuBytes: 1500, addresses: [{ ip: Ip.parse('172.30.0.1'), prefixLength: 24 }] },
  publicIp: Ip.parse('172.30.0.1'),
}

function node(n: number, change: Partial<NodeInfo> & { subnet?: string; ip?: string; mac?: string } = {}): NodeInfo {
  const {
    subnet = `10.244.${n}.0/24`,
    ip = `172.30.0.${n}`,
    mac = `0e:00:00:00:00:${n.toString(16).padStart(2, '0')}`,
    ...rest
  } = change
  return {
    name: `n${n}`,
    addresses: [],
    podCidrs: [Cidr.parse(subnet)],
    lease: { publicIp: Ip.parse(ip), backendType: 'vxlan', backendData: { VNI: 1, VtepMAC: mac } },
    createdAtSeconds: n,
    ...rest,
  }
}

const said = (verdicts: Iterable<PeerVerdict>): string[] =>
  [...verdicts].map(
    ({ node: { name }, problem }) => `${name}: ${problem ? `${problem.key}: ${problem.problem}` : 'ok'}`,
  )

test('sound peers are believed', () => {
  const table = new PeerTable(config, self)
  assert.deepEqual(said(table.set(node(2))), ['n2: ok'])
  assert.deepEqual(said(table.set(node(3))), ['n3: ok'])
  assert.deepEqual(said(table.set({ name: 'fresh', addresses: [], podCidrs: [] })), ['fresh: ok'])
})

test('a claim of this node’s own, or of something that cannot be a node, is refused', () => {
  const table = new PeerTable(config, self)
  for (const [change, want] of [
    [
      { subnet: '10.244.1.0/24' },
      'spec.podCIDRs: 10.244.1.0/24 overlaps 10.244.1.0/24, which is the subnet of this node self',
    ],
    [
      { subnet: '10.244.0.0/23' },
      'spec.podCIDRs: 10.244.0.0/23 overlaps 10.244.1.0/24, which is the subnet of this node self',
    ],
    [{ subnet: '0.0.0.0/0' }, 'spec.podCIDRs: 0.0.0.0/0 is not a part of the network 10.244.0.0/16'],
    [{ subnet: '10.244.0.0/16' }, 'spec.podCIDRs: 10.244.0.0/16 is not a part of the network 10.244.0.0/16'],
    [{ subnet: '10.9.0.0/24' }, 'spec.podCIDRs: 10.9.0.0/24 is not a part of the network 10.244.0.0/16'],
    [{ subnet: 'fd00:99::/64' }, 'spec.podCIDRs: fd00:99::/64 is not a part of the network fd00:10:244::/56'],
    [{ ip: '172.30.0.1' }, 'public-ip: 172.30.0.1 is an address of this node self'],
    [{ ip: '10.244.7.7' }, 'public-ip: 10.244.7.7 lies in the pod network'],
    [{ ip: '127.0.0.1' }, 'public-ip: 127.0.0.1 is not an address of a node'],
    [{ ip: '224.0.0.9' }, 'public-ip: 224.0.0.9 is not an address of a node'],
  ] as const)
    assert.deepEqual(said(table.set(node(2, change))), [`n2: ${want}`])
  assert.deepEqual(said(table.set(node(2))), ['n2: ok'], 'and mended once it is mended')
})

test('of two with one claim the older keeps it, whoever comes first', () => {
  for (const change of [
    { subnet: '10.244.2.0/24' },
    { subnet: '10.244.2.128/25' },
    { ip: '172.30.0.2' },
    { mac: '0e:00:00:00:00:02' },
  ]) {
    const [older, younger] = [node(2), node(3, change)]
    const [a, b] = [new PeerTable(config, self), new PeerTable(config, self)]
    a.set(older)
    a.set(younger)
    b.set(younger)
    const second = said(b.set(older))
    assert.deepEqual(said(a.verdicts()).sort(), said(b.verdicts()).sort())
    assert.equal(second[0], 'n2: ok')
    assert.match(second[1]!, /^n3: .* belongs to node n2$/)
    assert.deepEqual(said(b.delete('n2')), ['n3: ok'], 'the claim is free once its holder is gone')
  }
})

test('a newcomer that claims a wide block takes nobody’s subnet', () => {
  const table = new PeerTable(config, self)
  for (let n = 2; n < 6; n++) table.set(node(n))
  assert.match(said(table.set(node(9, { subnet: '10.244.4.0/22' })))[0]!, /belongs to node n[45]$/)
  assert.equal(said(table.verdicts()).filter((line) => line.endsWith('ok')).length, 4)
})

test('verdicts depend on the last claims alone, in whatever order they came', () => {
  let state = 77
  const random = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
  for (let round = 0; round < 200; round++) {
    const table = new PeerTable(config, self)
    const told = new Map<string, string>()
    const last = new Map<string, NodeInfo>()
    const note = (verdicts: PeerVerdict[]) => {
      for (const verdict of verdicts) told.set(verdict.node.name, said([verdict])[0]!)
    }
    for (let step = 0; step < 40; step++) {
      const n = 2 + random(6)
      if (random(4) === 0) {
        last.delete(`n${n}`)
        told.delete(`n${n}`)
        note(table.delete(`n${n}`))
        continue
      }
      const info = node(n, {
        subnet: `10.244.${2 + random(4)}.${random(2) * 128}/${random(3) ? 25 : 24}`.replace('.128/24', '.0/24'),
        ip: `172.30.0.${2 + random(8)}`,
      })
      last.set(info.name, info)
      note(table.set(info))
    }
    const fresh = new PeerTable(config, self)
    for (const info of last.values()) fresh.set(info)
    const standing = (verdicts: Iterable<PeerVerdict>) =>
      [...verdicts].map(({ node: { name }, problem }) => `${name} ${problem ? 'no' : 'ok'}`).sort()
    assert.deepEqual(standing(table.verdicts()), standing(fresh.verdicts()))
    const heard = [...told].map(([name, line]) => `${name} ${line.endsWith(': ok') ? 'ok' : 'no'}`).sort()
    assert.deepEqual(heard, standing(fresh.verdicts()), 'every change of a verdict was told')
  }
})
