/**
 * Two nodes, one pod each: what a mode carries as weft's agent sets it up, packet rules and all, against the same topology
 * built by hand with ip. Two floors by hand: bare, without any rule, and tracked, with one masquerading rule: every pod
 * network that translates addresses pays the second, and what lies between it and weft is weft's own. Rounds go through
 * the sides in turn, forth and back. udp has no twin that ip could build: it is measured by itself here, and against a
 * plain loop in the bench `udp-tunnel`.
 *
 *   npm run bench -- datapath [--rounds N] [--seconds S] [--mode MODE]
 */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { planFirewall, planPeerFirewall, tunnelsOf } from '../../src/agent/peer-firewall.ts'
import { Applier } from '../../src/apply/applier.ts'
import { datapathOf } from '../../src/datapath/datapath.ts'
import type { BackendConfig } from '../../src/model/backend.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { TestTopology } from '../netns/node-topology.ts'
import type { Bench, BenchResult } from './bench.ts'

const run = promisify(execFile)

const modes: Readonly<Record<string, BackendConfig>> = {
  'host-gw': { type: 'host-gw' },
  vxlan: { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: false },
  direct: { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: true },
  udp: { type: 'udp', port: 8285 },
}

const clusterCidrs = ['10.244.0.0/16', 'fd00:10:244::/48'].map(Cidr.parse)
/** The agent's settings where nothing is said. */
const settings = { masquerade: true, fullyRandom: true }

interface Reading {
  readonly tcpGbits: number
  readonly tcp6Gbits: number
  /** CPU time of the whole machine, softirqs included, for a gigabyte of TCP. */
  readonly cpuSecondsPerGb: number
  readonly udpGbits: number
  readonly udpLossPercent: number
  /** Round trip of a small packet, one at a time. */
  readonly rttMicroseconds: number
}

/** Nodes as weft sets them up; the result takes it all down. */
async function byWeft(topology: TestTopology, config: BackendConfig): Promise<() => Promise<void>> {
  const path = datapathOf(config)
  const appliers: Applier[] = []
  for (const node of topology.nodes) {
    const applier = new Applier(node.namespace.kernel)
    appliers.push(applier)
    const tunnels = tunnelsOf([config], node.context)
    const fragments = [path.local(config, node.context), planFirewall(clusterCidrs, node.context, tunnels, settings)]
    for (const peer of topology.nodes) {
      if (peer === node) continue
      const { data, v6Data } = path.endpoint(config, peer.context)
      const info = peer.info({ backendType: config.type, backendData: data, backendV6Data: v6Data })
      const { fragment } = path.toward(config, node.context, info, { direct: true })
      fragments.push(path.from(config, node.context, info), fragment)
      if (tunnels.length > 0) fragments.push(planPeerFirewall(info))
    }
    applier.set(...fragments)
    await applier.start()
    await applier.settle()
    if (applier.failures().length > 0) throw applier.failures()[0]!.error
    applier.markComplete()
  }
  return async () => {
    for (const applier of appliers) {
      applier.change([], [...applier.desired.sources()])
      await applier.settle()
      await applier.close()
    }
  }
}

/** The same by hand. Connection tracking works in a namespace from the first rule on that translates. */
function byHand(topology: TestTopology, config: BackendConfig, tracked: boolean): () => Promise<void> {
  const isPlain = config.type === 'host-gw' || (config.type === 'vxlan' && config.directRouting)
  const mac = (n: number, family: 4 | 6) => `0e:00:00:00:0${family}:0${n}`
  const device = (family: 4 | 6) => (family === 4 ? 'flannel.1' : 'flannel-v6.1')
  for (const node of topology.nodes) {
    const n = node.number
    const commands = [
      'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.eth0.rp_filter=2',
      ...(isPlain
        ? []
        : ([4, 6] as const).flatMap((family) => [
            `ip link add ${device(family)} address ${mac(n, family)} mtu ${family === 4 ? 1450 : 1430} type vxlan id 1 dev eth0 local ${family === 4 ? node.publicIp : node.publicIpv6} dstport 8472 nolearning`,
            `ip link set ${device(family)} up`,
          ])),
    ]
    if (!isPlain)
      commands.push(
        `ip addr add 10.244.${n}.0/32 dev flannel.1`,
        `ip addr add fd00:10:244:${n}::/128 dev flannel-v6.1 nodad`,
        'sysctl -qw net.ipv4.conf.flannel/1.rp_filter=2',
      )
    for (const peer of topology.nodes) {
      if (peer === node) continue
      const m = peer.number
      if (isPlain)
        commands.push(
          `ip route add 10.244.${m}.0/24 via ${peer.publicIp} dev eth0`,
          `ip route add fd00:10:244:${m}::/64 via ${peer.publicIpv6} dev eth0`,
        )
      else
        commands.push(
          `ip route add 10.244.${m}.0/24 via 10.244.${m}.0 dev flannel.1 onlink`,
          `ip neigh add 10.244.${m}.0 lladdr ${mac(m, 4)} dev flannel.1 nud permanent`,
          `bridge fdb append ${mac(m, 4)} dev flannel.1 dst ${peer.publicIp} self permanent`,
          `ip route add fd00:10:244:${m}::/64 via fe80::${m} dev flannel-v6.1`,
          `ip neigh add fe80::${m} lladdr ${mac(m, 6)} dev flannel-v6.1 nud permanent`,
          `bridge fdb append ${mac(m, 6)} dev flannel-v6.1 dst ${peer.publicIpv6} self permanent`,
        )
    }
    if (tracked)
      commands.push(
        'nft add table inet hand',
        "nft 'add chain inet hand out { type nat hook postrouting priority srcnat; }'",
        "nft 'add rule inet hand out ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade'",
      )
    node.namespace.run(commands.join(' && '))
  }
  return async () => undefined
}

/** Busy time of all CPUs in seconds, from /proc/stat. */
function busySeconds(): number {
  const fields = readFileSync('/proc/stat', 'utf8').split('\n')[0]!.trim().split(/\s+/).slice(1).map(Number)
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields
  return (user + nice + system + irq + softirq) / 100
}

async function measure(topology: TestTopology, mtuBytes: number, seconds: number): Promise<Reading> {
  const [client, server] = topology.nodes as [TestTopology['nodes'][number], TestTopology['nodes'][number]]
  for (const pod of [client.pod, server.pod]) pod.run(`ip link set eth0 mtu ${mtuBytes}`)
  const inside = (name: string, cpu: number, command: string) =>
    run('ip', ['netns', 'exec', name, 'taskset', '-c', String(cpu), ...command.split(' ')], { maxBuffer: 64 << 20 })
  const iperf = async (options: string, address = server.podIp) => {
    server.pod.run('iperf3 -s -1 -D -A 1')
    for (let i = 0; i < 100 && !server.pod.run('ss -Hltn sport = 5201'); i++) await new Promise(setImmediate)
    const { stdout } = await inside(client.pod.name, 0, `iperf3 -J -t ${seconds} -c ${address} ${options}`)
    return JSON.parse(stdout).end
  }
  await inside(client.pod.name, 0, `ping -q -c 20 -i 0.005 ${server.podIp}`)
  const before = busySeconds()
  const tcp = await iperf('-Z')
  const busy = busySeconds() - before
  const bytes: number = tcp.sum_received.bytes
  const tcp6 = await iperf('-Z', server.podIpv6)
  const udp = (await iperf(`-u -b 0 -l ${mtuBytes - 28}`)).sum
  const { stdout } = await inside(client.pod.name, 0, `ping -f -q -c 2000 ${server.podIp}`)
  return {
    tcpGbits: tcp.sum_received.bits_per_second / 1e9,
    tcp6Gbits: tcp6.sum_received.bits_per_second / 1e9,
    cpuSecondsPerGb: busy / (bytes / 1e9),
    udpGbits: (udp.bits_per_second / 1e9) * (1 - udp.lost_percent / 100),
    udpLossPercent: udp.lost_percent,
    rttMicroseconds: Number(/= [\d.]+\/([\d.]+)\//.exec(stdout)?.[1]) * 1000,
  }
}

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)
const median = (values: readonly number[]): number => {
  const all = sorted(values)
  return (all[(all.length - 1) >> 1]! + all[all.length >> 1]!) / 2
}

const columns = [
  ['tcpGbits', 'TCP Gbit/s'],
  ['tcp6Gbits', 'TCP6 Gbit/s'],
  ['cpuSecondsPerGb', 'CPU s/GB'],
  ['udpGbits', 'UDP Gbit/s'],
  ['rttMicroseconds', 'RTT us'],
] as const

const shown = (values: readonly number[]): string => {
  const all = sorted(values)
  return `${median(all).toFixed(2)} [${all[0]!.toFixed(2)}–${all.at(-1)!.toFixed(2)}]`
}

function option(args: readonly string[], name: string, usual: number): number {
  const at = args.indexOf(`--${name}`)
  const value = at < 0 ? usual : Number(args[at + 1])
  if (!(value > 0)) throw new Error(`--${name} wants a number above 0`)
  return value
}

type Side = 'weft' | 'bare' | 'tracked'

async function measureMode(name: string, rounds: number, seconds: number) {
  const config = modes[name]!
  const sides: readonly Side[] = config.type === 'udp' ? ['weft'] : ['weft', 'bare', 'tracked']
  const readings: Record<Side, Reading[]> = { weft: [], bare: [], tracked: [] }
  // All stand at once, so that a round of one is seconds away from a round of the others.
  const standing: { side: Side; topology: TestTopology; takeDown(): Promise<void> }[] = []
  try {
    for (const side of sides) {
      const topology = new TestTopology([1, 1])
      const takeDown = side === 'weft' ? await byWeft(topology, config) : byHand(topology, config, side === 'tracked')
      standing.push({ side, topology, takeDown })
    }
    for (let round = 0; round < rounds; round++)
      for (const { side, topology } of round % 2 === 0 ? standing : standing.toReversed()) {
        const mtus = topology.nodes.map(({ context }) => datapathOf(config).mtuBytes(config, context))
        readings[side].push(await measure(topology, Math.min(...mtus), seconds))
      }
  } finally {
    for (const { topology, takeDown } of standing) {
      await takeDown()
      topology.delete()
    }
  }
  console.log(`\n${name}, median [least–most] of ${rounds} rounds of ${seconds} s`)
  for (const [key, title] of columns) {
    const of = (side: Side) => readings[side].map((reading) => reading[key])
    const beside = (['bare', 'tracked'] as const)
      .filter((side) => readings[side].length > 0)
      .map(
        (side) => `${side} ${shown(of(side)).padEnd(22)} ratio ${(median(of('weft')) / median(of(side))).toFixed(3)}`,
      )
    console.log(`  ${title.padEnd(12)} weft ${shown(of('weft')).padEnd(22)} ${beside.join('  ')}`)
  }
  return Object.fromEntries(
    columns.map(([key]) => {
      const of = (side: Side) => median(readings[side].map((reading) => reading[key]))
      return [key, { ours: of('weft'), ...(sides.length > 1 && { peer: of('bare'), tracked: of('tracked') }) }]
    }),
  ) as Record<(typeof columns)[number][0], { ours: number; peer?: number; tracked?: number }>
}

export const bench: Bench = {
  name: 'datapath',
  describe:
    'throughput, latency and CPU of each mode against the same topology built by hand [--rounds N --seconds S --mode MODE]',
  async run(args): Promise<BenchResult> {
    const rounds = option(args, 'rounds', 5)
    const seconds = option(args, 'seconds', 2)
    const at = args.indexOf('--mode')
    const names = at < 0 ? Object.keys(modes) : [args[at + 1] ?? '']
    if (!names.every((name) => name in modes)) throw new Error(`--mode is one of ${Object.keys(modes).join(', ')}`)
    const results: Record<string, Awaited<ReturnType<typeof measureMode>>> = {}
    for (const name of names) results[name] = await measureMode(name, rounds, seconds)
    const main = results.vxlan ?? results[names[0]!]!
    const { ours, peer = ours } = main.tcpGbits
    return {
      bench: 'datapath',
      ours,
      peer,
      unit: `Gbit/s TCP, ${results.vxlan ? 'vxlan' : names[0]}`,
      ratio: ours / peer,
      rounds,
      seconds,
      modes: results,
    }
  },
}
