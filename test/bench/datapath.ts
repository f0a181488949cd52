/**
 * Two nodes, one pod each: what a mode carries as weft's plans set it up, against the same topology built by hand with ip.
 * Rounds alternate between the two, and which one goes first alternates too. udp has no twin that ip could build: it is
 * measured by itself here, and against a plain loop in the bench `udp-tunnel`.
 *
 *   npm run bench -- datapath [--rounds N] [--seconds S] [--mode MODE]
 */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { Applier } from '../../src/apply/applier.ts'
import { datapathOf } from '../../src/datapath/datapath.ts'
import type { BackendConfig } from '../../src/model/backend.ts'
import { TestTopology } from '../netns/node-topology.ts'
import type { Bench, BenchResult } from './bench.ts'

const run = promisify(execFile)

const modes: Readonly<Record<string, BackendConfig>> = {
  'host-gw': { type: 'host-gw' },
  vxlan: { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: false },
  udp: { type: 'udp', port: 8285 },
}

interface Reading {
  readonly tcpGbits: number
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
    const fragments = [path.local(config, node.context)]
    for (const peer of topology.nodes) {
      if (peer === node) continue
      const { data, v6Data } = path.endpoint(config, peer.context)
      const info = peer.info({ backendType: config.type, backendData: data, backendV6Data: v6Data })
      fragments.push(path.from(config, node.context, info), path.toward(config, node.context, info).fragment)
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

/** The same by hand. */
function byHand(topology: TestTopology, config: BackendConfig): () => Promise<void> {
  const mac = (n: number) => `0e:00:00:00:00:0${n}`
  for (const node of topology.nodes) {
    const n = node.number
    const commands = ['sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.eth0.rp_filter=2']
    if (config.type === 'vxlan')
      commands.push(
        `ip link add flannel.1 address ${mac(n)} mtu 1450 type vxlan id 1 dev eth0 local ${node.publicIp} dstport 8472 nolearning`,
        'ip link set flannel.1 up',
        `ip addr add 10.244.${n}.0/32 dev flannel.1`,
        'sysctl -qw net.ipv4.conf.flannel/1.rp_filter=2',
      )
    for (const peer of topology.nodes) {
      if (peer === node) continue
      const m = peer.number
      if (config.type === 'host-gw') commands.push(`ip route add 10.244.${m}.0/24 via ${peer.publicIp} dev eth0`)
      else
        commands.push(
          `ip route add 10.244.${m}.0/24 via 10.244.${m}.0 dev flannel.1 onlink`,
          `ip neigh add 10.244.${m}.0 lladdr ${mac(m)} dev flannel.1 nud permanent`,
          `bridge fdb append ${mac(m)} dev flannel.1 dst ${peer.publicIp} self permanent`,
        )
    }
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
  const iperf = async (options: string) => {
    server.pod.run('iperf3 -s -1 -D -A 1')
    for (let i = 0; i < 100 && !server.pod.run('ss -Hltn sport = 5201'); i++) await new Promise(setImmediate)
    const { stdout } = await inside(client.pod.name, 0, `iperf3 -J -t ${seconds} -c ${server.podIp} ${options}`)
    return JSON.parse(stdout).end
  }
  await inside(client.pod.name, 0, `ping -q -c 20 -i 0.005 ${server.podIp}`)
  const before = busySeconds()
  const tcp = await iperf('-Z')
  const busy = busySeconds() - before
  const bytes: number = tcp.sum_received.bytes
  const udp = (await iperf(`-u -b 0 -l ${mtuBytes - 28}`)).sum
  const { stdout } = await inside(client.pod.name, 0, `ping -f -q -c 2000 ${server.podIp}`)
  return {
    tcpGbits: tcp.sum_received.bits_per_second / 1e9,
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

async function measureMode(name: string, rounds: number, seconds: number) {
  const config = modes[name]!
  const ours: Reading[] = []
  const peer: Reading[] = []
  // Both stand at once, so that a round of one is seconds away from a round of the other.
  const sides = config.type === 'udp' ? [ours] : [ours, peer]
  const standing = await Promise.all(
    sides.map(async (readings) => {
      const topology = new TestTopology([1, 1])
      const takeDown = readings === ours ? await byWeft(topology, config) : byHand(topology, config)
      return { readings, topology, takeDown }
    }),
  )
  try {
    for (let round = 0; round < rounds; round++)
      for (const { readings, topology } of round % 2 === 0 ? standing : standing.toReversed()) {
        const mtus = topology.nodes.map(({ context }) =>
          datapathOf(config).mtuBytes(config, { ...context, podCidrs: context.podCidrs.slice(0, 1) }),
        )
        readings.push(await measure(topology, Math.min(...mtus), seconds))
      }
  } finally {
    for (const { topology, takeDown } of standing) {
      await takeDown()
      topology.delete()
    }
  }
  console.log(`\n${name}, median [least–most] of ${rounds} rounds of ${seconds} s`)
  for (const [key, title] of columns) {
    const of = (readings: readonly Reading[]) => readings.map((reading) => reading[key])
    const beside =
      peer.length > 0
        ? `by hand ${shown(of(peer)).padEnd(24)} ratio ${(median(of(ours)) / median(of(peer))).toFixed(3)}`
        : ''
    console.log(`  ${title.padEnd(12)} weft ${shown(of(ours)).padEnd(24)} ${beside}`)
  }
  return Object.fromEntries(
    columns.map(([key]) => [
      key,
      {
        ours: median(ours.map((reading) => reading[key])),
        ...(peer.length > 0 && { peer: median(peer.map((reading) => reading[key])) }),
      },
    ]),
  ) as Record<(typeof columns)[number][0], { ours: number; peer?: number }>
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
      unit: 'Gbit/s TCP, vxlan',
      ratio: ours / peer,
      rounds,
      seconds,
      modes: results,
    }
  },
}
