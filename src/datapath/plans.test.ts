import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import type { BackendConfig, VxlanConfig } from '../model/backend.ts'
import type { FlannelLease, NodeContext, NodeInfo } from '../model/cluster.ts'
import { formatOp } from '../model/format.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import { datapathOf } from './datapath.ts'
import { otherTunnelName, tunnelName } from './kube-router/tunnel-name.ts'
import { configOfPath, detourOf, exclude, pathOf } from './path.ts'
import { linkLocalOf, vtepMac } from './vxlan/vtep.ts'

/** A cluster in, command lines out, compared with what stands in testdata/. UPDATE=1 writes it anew. */
function golden(name: string, text: string): void {
  const file = new URL(`testdata/${name}.txt`, import.meta.url)
  if (process.env.UPDATE === '1') {
    mkdirSync(new URL('testdata/', import.meta.url), { recursive: true })
    writeFileSync(file, text)
  }
  assert.equal(text, readFileSync(file, 'utf8'))
}

const sha256Of = (text: string): string => createHash('sha256').update(text).digest('hex')

const vxlan: VxlanConfig = { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: false }

const self: NodeContext = {
  name: 'n1',
  uid: '6a1e8c1e-0000-4000-8000-000000000001',
  podCidrs: [Cidr.parse('10.244.1.0/24'), Cidr.parse('fd00:10:244:1::/64')],
  external: {
    device: 'eth0',
    mtuBytes: 1500,
    addresses: [
      { ip: Ip.parse('172.30.0.1'), prefixLength: 24 },
      { ip: Ip.parse('fd00:172:30::1'), prefixLength: 64 },
    ],
  },
  publicIp: Ip.parse('172.30.0.1'),
  publicIpv6: Ip.parse('fd00:172:30::1'),
}

function peer(n: number, k: number, lease: Partial<FlannelLease> = {}): NodeInfo {
  const mac = (family: number) => `0e:00:00:00:0${family}:0${n}`
  return {
    name: `n${n}`,
    addresses: [],
    podCidrs: [Cidr.parse(`10.244.${n}.0/24`), Cidr.parse(`fd00:10:244:${n}::/64`)],
    lease: {
      publicIp: Ip.parse(`172.30.${k}.${n}`),
      publicIpv6: Ip.parse(k ? `fd00:172:30:${k}::${n}` : `fd00:172:30::${n}`),
      backendType: 'vxlan',
      backendData: { VNI: 1, VtepMAC: mac(4) },
      backendV6Data: { VNI: 1, VtepMAC: mac(6) },
      ...lease,
    },
  }
}

function lines(config: BackendConfig, node: NodeContext, peers: readonly NodeInfo[]): string {
  const path = datapathOf(config)
  const out: string[] = []
  const put = (title: string, objects: Parameters<typeof formatOp>[0]['object'][]) => {
    out.push(`# ${title}`)
    for (const object of objects) out.push(formatOp({ verb: object.kind === 'sysctl' ? 'set' : 'add', object }))
  }
  const local = path.local(config, node)
  put(local.source, [...local.objects])
  for (const other of peers) {
    const from = path.from(config, node, other)
    const toward = path.toward(config, node, other, { direct: true })
    if (from.objects.length > 0) put(from.source, [...from.objects])
    put(toward.fragment.source, [...toward.fragment.objects])
    for (const { node: name, key, problem } of toward.problems) out.push(`! ${name}: ${key}: ${problem}`)
  }
  const { data, v6Data } = path.endpoint(config, node)
  out.push(
    `# backend-data ${JSON.stringify(data)} backend-v6-data ${JSON.stringify(v6Data)} MTU ${path.mtuBytes(config, node)}`,
  )
  return `${out.join('\n')}\n`
}

const cluster = [peer(2, 0), peer(3, 7)]

test('plans as command lines', () => {
  golden('host-gw', lines({ type: 'host-gw' }, self, cluster))
  golden('vxlan', lines(vxlan, self, cluster))
  golden('direct-routing', lines({ ...vxlan, directRouting: true }, self, cluster))
  golden(
    'vxlan-options',
    lines(
      { ...vxlan, vni: 7, port: 4789, mtuBytes: 9000, gbp: true, learning: true },
      { ...self, podCidrs: self.podCidrs.slice(0, 1) },
      [],
    ),
  )
  golden('udp', lines({ type: 'udp', port: 8285 }, self, cluster))
  golden(
    'ipip',
    lines({ type: 'ipip', directRouting: true }, { ...self, podCidrs: self.podCidrs.slice(0, 1) }, cluster),
  )
  const overlay = { type: 'kube-router', overlay: 'full', encap: 'ipip', port: 5555, autoMtu: true } as const
  golden('kube-router', lines(overlay, self, cluster))
  golden('kube-router-fou', lines({ ...overlay, encap: 'fou', overlay: 'subnet' }, self, cluster))
})

test("tunnels have kube-router's names, and of two that are alike the second has another", () => {
  // As sha256sum prints them of 1921685051 and fd001723072.
  assert.equal(tunnelName(Ip.parse('192.168.50.51')), `tun-${sha256Of('1921685051').slice(0, 11)}`)
  assert.equal(tunnelName(Ip.parse('fd00:172:30:7::2')), `tun-${sha256Of('fd001723072').slice(0, 11)}`)
  const [first, second] = [Ip.parse('10.1.11.5'), Ip.parse('10.11.1.5')]
  assert.equal(tunnelName(first), tunnelName(second))
  const config = { type: 'kube-router', overlay: 'full', encap: 'ipip', port: 5555, autoMtu: true } as const
  const owners = new Map<string, string>()
  const ownsName = (device: string, name: string): boolean => {
    if (!owners.has(device)) owners.set(device, name)
    return owners.get(device) === name
  }
  const devices = [first, second].map((publicIp, i) => {
    const { fragment } = datapathOf(config).toward(config, self, peer(i + 2, 0, { publicIp }), { ownsName })
    return fragment.objects.find((object) => object.kind === 'link')!.name
  })
  assert.deepEqual(devices, [tunnelName(first), otherTunnelName(second)])
  assert.notEqual(devices[0], devices[1])
})

test('words of a peer that make no sense cost that peer alone, with the reason', () => {
  const out: string[] = []
  for (const lease of [
    { backendData: undefined },
    { backendData: null },
    { backendData: 'x' },
    { backendData: [] },
    { backendData: { VNI: 1 } },
    { backendData: { VNI: 2, VtepMAC: '0e:00:00:00:04:02' } },
    { backendData: { VNI: 'x', VtepMAC: '0e:00:00:00:04:02' } },
    { backendData: { VNI: 1, VtepMAC: 'ff:ff:ff:ff:ff:ff' } },
    { backendData: { VNI: 1, VtepMAC: '00:00:00:00:00:00' } },
    { backendData: { VNI: 1, VtepMAC: 'y'.repeat(10_000) } },
    { backendData: { VtepMAC: '0e:00:00:00:04:02' } },
  ]) {
    const { fragment, problems } = datapathOf(vxlan).toward(
      vxlan,
      { ...self, podCidrs: self.podCidrs.slice(0, 1) },
      peer(2, 0, lease),
    )
    out.push(
      `${JSON.stringify(lease).slice(0, 70)}: ${fragment.objects.length} objects ${problems.map(({ key, problem }) => `${key} ${problem}`)}`,
    )
  }
  golden('refusals', `${out.join('\n')}\n`)
})

test('in a switch from one VNI to another the words for each stand side by side', () => {
  const to = { ...vxlan, vni: 9 }
  const switching: NodeInfo = {
    ...peer(2, 0),
    weft: {
      accepts: ['vxlan/1/8472', 'vxlan/9/8472'],
      sends: ['vxlan/1/8472', 'vxlan/9/8472'],
      endpoints: {
        'vxlan/9/8472': {
          data: { VNI: 9, VtepMAC: '0e:99:00:00:04:02' },
          v6Data: { VNI: 9, VtepMAC: '0e:99:00:00:06:02' },
        },
      },
    },
  }
  for (const [config, mac] of [
    [vxlan, '0e:00:00:00:04:02'],
    [to, '0e:99:00:00:04:02'],
  ] as const) {
    const { fragment, problems } = datapathOf(config).toward(config, self, switching)
    assert.deepEqual(problems, [])
    const fdb = fragment.objects.find((object) => object.kind === 'fdb')
    assert.equal(`${fdb?.mac}`, mac)
  }
})

test('a stored MAC is kept; without one it follows from the node and differs by node and family', () => {
  const stored = { ...self, lease: { backendType: 'vxlan', backendData: { VNI: 1, VtepMAC: '0e:aa:bb:cc:dd:ee' } } }
  assert.equal(`${vtepMac(vxlan, stored, 4)}`, '0e:aa:bb:cc:dd:ee')
  assert.equal(`${vtepMac({ ...vxlan, vni: 2 }, stored, 4)}`, `${vtepMac({ ...vxlan, vni: 2 }, self, 4)}`)
  const macs = new Set<string>()
  for (let i = 0; i < 20_000; i++)
    for (const family of [4, 6] as const) {
      const mac = vtepMac(vxlan, { ...self, uid: `uid-${i}` }, family)
      assert.ok(!mac.isMulticast)
      macs.add(`${mac}`)
    }
  assert.equal(macs.size, 40_000)
  assert.equal(`${vtepMac(vxlan, self, 4)}`, `${vtepMac(vxlan, { ...self }, 4)}`)
  assert.equal(`${linkLocalOf(Mac.parse('34:56:78:9a:bc:de'))}`, 'fe80::3656:78ff:fe9a:bcde')
})

test('path ids name what both ends must agree on, and nothing else is one', () => {
  const overlay = { type: 'kube-router', overlay: 'full', encap: 'fou', port: 5555, autoMtu: true } as const
  for (const config of [
    { type: 'host-gw' },
    vxlan,
    { ...vxlan, gbp: true, vni: 0 },
    { type: 'udp', port: 1 },
    { type: 'ipip', directRouting: false },
    overlay,
    { ...overlay, port: 65535 },
    { ...overlay, encap: 'ipip' },
  ] as const)
    assert.deepEqual(configOfPath(pathOf(config)), config)
  for (const bad of [
    '',
    'vxlan',
    'vxlan/1',
    'vxlan/16777216/1',
    'vxlan/01/8472',
    'vxlan/1/0',
    'vxlan/1/65536',
    'udp/0',
    'udp/1/gbp',
    'host-gw/',
    'wireguard/1',
    'ipip/1',
    'tun',
    'tun/fou',
    'tun/fou/1023',
    'tun/fou/65536',
    'tun/fou/05555',
    'tun/ipip/5555',
    ' udp/1',
  ])
    assert.equal(configOfPath(bad), undefined, bad)
  assert.ok(
    exclude('vxlan/1/8472', 'vxlan/1/4789') &&
      exclude('udp/4789', 'vxlan/1/4789') &&
      exclude('vxlan/1/8472', 'vxlan/2/8472/gbp'),
  )
  assert.ok(exclude('tun/fou/5555', 'vxlan/1/5555') && exclude('udp/5555', 'tun/fou/5555'))
  assert.ok(
    !exclude('tun/fou/5555', 'tun/fou/5556') &&
      !exclude('tun/ipip', 'tun/fou/5555') &&
      !exclude('ipip', 'tun/ipip') &&
      !exclude('vxlan/1/8472', 'vxlan/2/8472') &&
      !exclude('host-gw', 'udp/1') &&
      !exclude('udp/1', 'udp/1') &&
      !exclude('udp/1', 'udp/2'),
  )
  for (const goal of ['vxlan/1/8472', 'vxlan/9999/4789', 'vxlan/0/1/gbp', 'vxlan/9999999/65535', 'vxlan/1/9999']) {
    const detour = configOfPath(detourOf(goal)!)
    const config = configOfPath(goal)
    assert.ok(config?.type === 'vxlan' && detour?.type === 'vxlan' && detour.vni !== config.vni, goal)
    assert.deepEqual([detour.port, detour.gbp, detour.vni < 10_000], [config.port, config.gbp, true])
  }
  assert.equal(detourOf('udp/8285') ?? detourOf('host-gw'), undefined)
})
