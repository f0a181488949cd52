/**
 * A cluster in, command lines out (testdata/pools-*.txt; UPDATE=1 rewrites them), and random histories: what is wanted in the
 * end depends on what the cluster is like in the end, and on nothing before.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { defaultFelixSettings } from '../config/calico/felix.ts'
import type { BlockRoutes, CalicoNode, FelixSettings, IpPool } from '../model/calico.ts'
import type { NodeContext, NodeInfo } from '../model/cluster.ts'
import { formatOp } from '../model/format.ts'
import { type KernelKey, type KernelObject, keyOf } from '../model/kernel-object.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { PoolPlanner } from './pool-planner.ts'

/** A planner with a kernel and a store that take everything at once. */
class Node {
  readonly fragments = new Map<string, readonly KernelObject[]>()
  readonly planner: PoolPlanner
  #written = ''

  constructor(missing?: ReadonlyMap<'ipip', string>) {
    const settings = { nodeName: 'n1', fullyRandom: true, ...(missing && { missing }) }
    this.planner = new PoolPlanner(settings, (source) => this.fragments.has(source))
  }

  /** Until there is nothing more to do: peers are taken to have everything that they say. */
  rest(): void {
    for (let round = 0, quiet = 0; round < 60; round++) {
      const { planner } = this
      const { set, removed } = planner.plan()
      for (const source of removed) this.fragments.delete(source)
      for (const { source, objects } of set) this.fragments.set(source, objects)
      planner.noteSettled()
      planner.noteDry(planner.waning)
      const said = planner.announcement()
      const text = JSON.stringify(said)
      const isNews = said !== undefined && text !== this.#written
      if (isNews) {
        this.#written = text
        planner.addPending(said.weft)
        planner.setAnnounced(said.weft)
      }
      quiet = set.length + removed.length > 0 || isNews ? 0 : quiet + 1
      if (quiet > 2) return
    }
    assert.fail('the planner does not come to rest')
  }

  get objects(): Map<KernelKey, KernelObject> {
    const out = new Map<KernelKey, KernelObject>()
    for (const [source, objects] of this.fragments)
      for (const object of objects) {
        const key = keyOf(object)
        const other = out.get(key)
        if (other) assert.deepEqual(object, other, `${source} wants ${key} differently`)
        out.set(key, object)
      }
    return out
  }

  get lines(): string[] {
    return [...this.objects.values()].map((object) =>
      formatOp({ verb: object.kind === 'sysctl' ? 'set' : 'add', object }),
    )
  }
}

const self: NodeContext = {
  name: 'n1',
  podCidrs: [],
  external: {
    device: 'eth0',
    mtuBytes: 1500,
    addresses: [
      { ip: Ip.parse('172.30.0.1'), prefixLength: 24 },
      { ip: Ip.parse('fd00:172:30::1'), prefixLength: 64 },
    ],
  },
  publicIp: Ip.parse('172.30.0.1'),
  calico: {
    ipv4: { ip: Ip.parse('172.30.0.1'), prefixLength: 24 },
    ipv6: { ip: Ip.parse('fd00:172:30::1'), prefixLength: 64 },
    ipv4IpipTunnelAddr: Ip.parse('172.26.0.1'),
    ipv4VxlanTunnelAddr: Ip.parse('172.26.0.0'),
    ipv6VxlanTunnelAddr: Ip.parse('fd00:26::'),
  },
}

const pool = (name: string, cidr: string, rest: Partial<IpPool> = {}): IpPool => ({
  name,
  cidr: Cidr.parse(cidr),
  blockSize: cidr.includes(':') ? 122 : 26,
  ipipMode: 'Never',
  vxlanMode: 'Never',
  geneveMode: 'Never',
  natOutgoing: true,
  disabled: false,
  disableBgpExport: false,
  nodeSelector: 'all()',
  allowedUses: ['Workload', 'Tunnel'],
  assignmentMode: 'Automatic',
  ...rest,
})

const allPaths = [
  'calico/plain',
  'calico/ipip',
  'calico/vxlan/4096/4789',
  'calico/vxlan-v6/4096/4789',
  'calico/geneve/4096/6081',
]

/** Node n of underlay subnet k; a weft node that takes in everything, or a real Calico node without a status. */
function peer(n: number, k: number, isWeft = true, calico: Partial<CalicoNode> = {}): NodeInfo {
  return {
    name: `n${n}`,
    addresses: [Ip.parse(`172.30.${k}.${n}`)],
    podCidrs: [],
    calico: {
      ipv4: { ip: Ip.parse(`172.30.${k}.${n}`), prefixLength: 24 },
      ipv6: { ip: Ip.parse(k ? `fd00:172:30:${k}::${n}` : `fd00:172:30::${n}`), prefixLength: 64 },
      ipv4VxlanTunnelAddr: Ip.parse(`172.26.${n}.0`),
      ipv6VxlanTunnelAddr: Ip.parse(`fd00:26:0:${n}::`),
      ...calico,
    },
    ...(isWeft && { weft: { accepts: allPaths, sends: [] } }),
  }
}

const block = (cidr: string, node?: string, borrowed: Record<string, string> = {}): BlockRoutes => ({
  cidr: Cidr.parse(cidr),
  ...(node !== undefined && { node }),
  borrowed: Object.entries(borrowed).map(([ip, borrower]) => ({ ip: Ip.parse(ip), node: borrower })),
})

function fill(
  planner: PoolPlanner,
  felix: FelixSettings,
  pools: readonly IpPool[],
  peers: readonly NodeInfo[],
  blocks: readonly BlockRoutes[],
): void {
  planner.setFelix(felix)
  planner.setNode(self)
  for (const each of pools) planner.setPool(each)
  for (const each of peers) planner.setPeer(each)
  for (const each of blocks) planner.setRoutes(each)
}

function golden(name: string, text: string): void {
  const file = new URL(`testdata/pools-${name}.txt`, import.meta.url)
  if (process.env.UPDATE === '1') {
    mkdirSync(new URL('testdata/', import.meta.url), { recursive: true })
    writeFileSync(file, text)
  }
  assert.equal(text, readFileSync(file, 'utf8'))
}

/** Everything but packet rules, which rules.txt shows once. */
function show(node: Node, of: (line: string) => boolean = (line) => !/^nft /.test(line)): string {
  const { planner } = node
  const problems = [...planner.problems.values()]
    .flat()
    .map(({ node: name, key, problem }) => `! ${name}: ${key}: ${problem}`)
  const pools = [...planner.poolProblems].map(([name, problem]) => `! IPPool ${name}: ${problem}`)
  const said = `# ${JSON.stringify(planner.announcement())} MTU ${planner.mtuBytes}`
  return `${[...node.lines.filter(of), ...pools, ...problems, said].join('\n')}\n`
}

const peers = [peer(2, 0), peer(3, 7), peer(4, 7, false)]
const blocks = [
  block('172.26.0.0/26', 'n1', { '172.26.0.9': 'n2', '172.26.0.10': 'n1' }),
  block('172.26.1.0/26', 'n2', { '172.26.1.5': 'n1', '172.26.1.6': 'n3' }),
  block('172.26.2.0/26', 'n3'),
  block('172.26.3.0/26', 'n4'),
  block('172.26.4.0/26', undefined, { '172.26.4.1': 'n2' }),
  block('fd00:26::/122', 'n1'),
  block('fd00:26:0:2::/122', 'n2'),
  block('fd00:26:0:3::/122', 'n3'),
]
const v6 = pool('six', 'fd00:26::/48', { natOutgoing: false })

test('each mode as command lines', () => {
  for (const [name, v4Mode, v6Mode] of [
    ['never', {}, {}],
    ['ipip-always', { ipipMode: 'Always' }, {}],
    ['ipip-cross-subnet', { ipipMode: 'CrossSubnet' }, {}],
    ['vxlan-always', { vxlanMode: 'Always' }, { vxlanMode: 'Always' }],
    ['vxlan-cross-subnet', { vxlanMode: 'CrossSubnet' }, { vxlanMode: 'CrossSubnet' }],
    ['geneve-always', { geneveMode: 'Always' }, { geneveMode: 'Always' }],
  ] as const) {
    const node = new Node()
    fill(
      node.planner,
      defaultFelixSettings,
      [pool('four', '172.26.0.0/16', v4Mode), { ...v6, ...v6Mode }],
      peers,
      blocks,
    )
    node.rest()
    assert.ok(node.planner.isComplete && node.planner.transition?.settled, name)
    golden(name, show(node))
  }
})

test('packet rules as nft lines', () => {
  const node = new Node()
  const felix: FelixSettings = {
    ...defaultFelixSettings,
    natOutgoingExclusions: 'IPPoolsAndHostIPs',
    natPortRange: { first: 1024, last: 2047 },
    natOutgoingInterfaceFilter: 'eth+',
    externalNodes: [Cidr.parse('192.0.2.0/24')],
  }
  const pools = [
    pool('four', '172.26.0.0/16', { vxlanMode: 'Always' }),
    pool('old', '172.27.0.0/16', { ipipMode: 'CrossSubnet', disabled: true }),
    pool('inner', '10.9.0.0/16', { natOutgoing: false }),
    v6,
  ]
  fill(node.planner, felix, pools, peers, blocks)
  node.planner.setOtherNetworks([Cidr.parse('10.244.0.0/16'), Cidr.parse('172.26.128.0/17')])
  node.rest()
  golden(
    'rules',
    show(node, (line) => /^nft /.test(line)),
  )
})

test('settings of FelixConfiguration: devices, MTUs, priorities, a source', () => {
  const node = new Node()
  const felix: FelixSettings = {
    ...defaultFelixSettings,
    vxlanPort: 4790,
    vxlanVni: 7,
    vxlanMtuBytes: 1400,
    ipipEnabled: true,
    ipipMtuBytes: 1300,
    ipv4NormalRoutePriority: 900,
    deviceRouteSourceAddress: Ip.parse('172.30.0.1'),
    ipForwarding: false,
    ipv6Support: false,
  }
  const others = peers.slice(0, 2).map((each) => ({
    ...each,
    weft: { accepts: ['calico/vxlan/7/4790'], sends: ['calico/vxlan/7/4790'] },
  }))
  fill(node.planner, felix, [pool('four', '172.26.0.0/16', { vxlanMode: 'Always' }), v6], others, blocks)
  node.rest()
  golden('settings', show(node))
})

test('what is wrong with a peer costs that peer', () => {
  const node = new Node(new Map([['ipip', 'this kernel has no IPIP']]))
  const ip = (text: string) => ({ ip: Ip.parse(text), prefixLength: 24 })
  const bad = [
    peer(2, 0),
    peer(3, 7, true, { ipv4: ip('172.30.0.1') }),
    { ...peer(4, 7, true, { ipv4: ip('172.30.0.2') }), createdAtSeconds: 2 },
    peer(5, 7, true, { ipv4: ip('172.26.0.7') }),
    peer(6, 7, true, { ipv4: ip('127.0.0.1') }),
    peer(7, 7, true, { ipv4VxlanTunnelAddr: Ip.parse('172.26.2.0') }),
    peer(8, 7, true, { ipv4VxlanTunnelAddr: Ip.parse('172.26.0.0') }),
    { name: 'n9', addresses: [], podCidrs: [], weft: { accepts: allPaths, sends: allPaths } },
    { name: 'n10', addresses: [], podCidrs: [], calico: { ipv4: ip('172.30.7.10') } },
  ].map((each, at) => ({ createdAtSeconds: 1, ...each, uid: `${at}` })) as NodeInfo[]
  const pools = [
    pool('four', '172.26.0.0/16', { vxlanMode: 'Always' }),
    pool('tunnelled', '172.27.0.0/16', { ipipMode: 'Always' }),
    pool('plain', '172.28.0.0/16'),
  ]
  fill(node.planner, defaultFelixSettings, pools, bad, [])
  for (let n = 2; n <= 10; n++) node.planner.setRoutes(block(`172.26.${n}.0/26`, `n${n}`))
  node.planner.setRoutes(block('172.27.2.0/26', 'n2'))
  node.planner.setRoutes(block('172.28.10.0/26', 'n10'))
  node.rest()
  golden(
    'refusals',
    show(node, (line) => / route /.test(line)),
  )
  // The older of the two is gone: its address is free.
  node.planner.removePeer('n2')
  node.rest()
  assert.equal(node.planner.problems.get('n4'), undefined)
  assert.equal(node.planner.problems.get('n7'), undefined)
})

const generator = (seed: number) => {
  let state = seed >>> 0 || 1
  return (n: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % n
  }
}

test('what is wanted in the end depends on the last state alone', () => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed}`)
  const random = generator(seed)
  const pick = <T>(from: readonly T[]): T => from[random(from.length)]!
  const modes: readonly Partial<IpPool>[] = [
    {},
    { ipipMode: 'Always' },
    { ipipMode: 'CrossSubnet' },
    { vxlanMode: 'Always' },
    { vxlanMode: 'CrossSubnet' },
    { geneveMode: 'Always' },
    { natOutgoing: false },
  ]
  for (let walk = 0; walk < 60; walk++) {
    const node = new Node()
    let felix = defaultFelixSettings
    const [pools, nodes, routes] = [
      new Map<string, IpPool>(),
      new Map<string, NodeInfo>(),
      new Map<string, BlockRoutes>(),
    ]
    fill(node.planner, felix, [], [], [])
    for (let step = 0; step < 60; step++) {
      const dice = random(20)
      if (dice < 3) {
        const [name, cidr] = pick([
          ['a', '172.26.0.0/16'],
          ['b', '172.27.0.0/16'],
          ['six', 'fd00:26::/48'],
        ] as const)
        const fresh = pool(name, cidr, pick(modes))
        pools.set(name, fresh)
        node.planner.setPool(fresh)
      } else if (dice < 4) {
        const name = pick(['a', 'b', 'six'])
        pools.delete(name)
        node.planner.removePool(name)
      } else if (dice < 9) {
        const n = 2 + random(5)
        const fresh = peer(
          n,
          random(2),
          random(3) > 0,
          random(6) > 0 ? {} : { ipv4: { ip: Ip.parse('172.30.0.1'), prefixLength: 24 } },
        )
        nodes.set(fresh.name, fresh)
        node.planner.setPeer(fresh)
      } else if (dice < 11) {
        const name = `n${2 + random(5)}`
        nodes.delete(name)
        node.planner.removePeer(name)
      } else if (dice < 16) {
        const [a, b, c] = [1 + random(6), 1 + random(6), random(8)]
        const cidr = pick([`172.26.${c}.0/26`, `172.27.${c}.0/26`, `fd00:26:0:${c}::/122`, `172.26.${c}.7/32`])
        const lent = cidr.endsWith('/26') && random(2) ? { [cidr.replace('.0/26', '.7')]: `n${b}` } : {}
        const fresh = block(cidr, random(5) ? `n${a}` : undefined, lent)
        routes.set(cidr, fresh)
        node.planner.setRoutes(fresh)
      } else if (dice < 18) {
        const cidr = pick([...routes.keys(), '172.26.0.0/26'])
        routes.delete(cidr)
        node.planner.removeRoutes(Cidr.parse(cidr))
      } else if (dice < 19) {
        felix = { ...defaultFelixSettings, ipv6Support: random(3) > 0, ipv4NormalRoutePriority: 1024 + random(2) }
        node.planner.setFelix(felix)
      } else node.rest()
    }
    node.rest()
    const anew = new Node()
    fill(anew.planner, felix, [...pools.values()], [...nodes.values()], [...routes.values()])
    anew.rest()
    assert.deepEqual(node.lines.sort(), anew.lines.sort(), `walk ${walk}`)
    assert.deepEqual([...node.planner.problems].sort(), [...anew.planner.problems].sort())
    assert.deepEqual(node.planner.announcement(), anew.planner.announcement())
    const states = [...node.fragments].filter(([, objects]) => objects.length > 0).map(([source]) => source)
    assert.deepEqual(
      states.sort(),
      [...anew.fragments]
        .filter(([, objects]) => objects.length > 0)
        .map(([source]) => source)
        .sort(),
    )
  }
})
