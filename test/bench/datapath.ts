/**
 * Two nodes, one pod each: what a mode carries as weft's agent sets it up, packet rules and all, against the same topology
 * built by hand with ip. Two floors by hand: bare, without any rule, and tracked, with one masquerading rule: every pod
 * network that translates addresses pays the second, flannel too (its --ip-masq is on where nothing is said), and what lies
 * between it and weft is weft's own. udp has no twin that ip could build: see the bench `udp-tunnel`.
 *
 * A shared machine is twice as fast in one second as in the next, so all sides stand at once, with their load generators
 * waiting (datapath-load.c), and take turns of some 10 ms, forth and back. What is printed is the median of the ratios of
 * neighbouring slices, with the 95 % interval of that median (bootstrap). `again` is a second bare topology: its ratio is
 * 1 as far as the measurement can tell.
 *
 *   npm run bench -- datapath [--turns N] [--slice MS] [--mode MODE]
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { datapathOf } from '../../src/datapath/datapath.ts'
import type { BackendConfig } from '../../src/model/backend.ts'
import { TestTopology } from '../netns/node-topology.ts'
import type { Bench, BenchResult } from './bench.ts'
import { byHand, byWeft } from './datapath-nodes.ts'
import { LineProgram } from './line-program.ts'

const modes: Readonly<Record<string, BackendConfig>> = {
  'host-gw': { type: 'host-gw' },
  vxlan: { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: false },
  direct: { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: true },
}

/** What a slice's line is, and what becomes of its amount and time. Higher is better but where `cost` is said. */
const measures = [
  { key: 'tcpGbits', title: 'TCP Gbit/s', line: 'tcp', of: (bytes: number, ns: number) => (bytes * 8) / ns },
  { key: 'tcp6Gbits', title: 'TCP6 Gbit/s', line: 'tcp6', of: (bytes: number, ns: number) => (bytes * 8) / ns },
  { key: 'udpPackets', title: 'UDP full kpps', line: 'udp', full: true, of: (n: number, ns: number) => (n / ns) * 1e6 },
  { key: 'udpSmall', title: 'UDP 64 B kpps', line: 'udp', of: (n: number, ns: number) => (n / ns) * 1e6 },
  { key: 'roundTrip', title: 'TCP RTT us', line: 'rtt', of: (n: number, ns: number) => ns / n / 1e3 },
] as const
const cpuMeasures = [
  { key: 'tcpCpu', title: 'TCP CPU s/GB', from: 'tcpGbits', bytes: (amount: number) => amount },
  { key: 'udpCpu', title: 'UDP CPU s/GB', from: 'udpPackets', bytes: (n: number, size: number) => n * size },
  { key: 'udpSmallCpu', title: 'UDP 64 B CPU us', from: 'udpSmall', bytes: (n: number) => n * 1e3 },
] as const

type Key = (typeof measures)[number]['key'] | (typeof cpuMeasures)[number]['key']
type Reading = Record<Key, number>

/** A topology with its load generators waiting. */
export class Side {
  readonly name: string
  readonly #server: LineProgram
  readonly #driver: LineProgram
  readonly #datagramBytes: number

  static async start(name: string, program: string, topology: TestTopology, mtuBytes: number): Promise<Side> {
    const [client, server] = topology.nodes as [TestTopology['nodes'][number], TestTopology['nodes'][number]]
    for (const { pod } of [client, server])
      pod.run(`ip link set eth0 mtu ${mtuBytes} && sysctl -qw net.ipv4.tcp_slow_start_after_idle=0`)
    client.pod.run(`ping -q -c 3 -i 0.01 ${server.podIp} && ping -q -c 3 -i 0.01 ${server.podIpv6}`)
    const inside = (pod: { name: string }, ...args: string[]) =>
      new LineProgram('ip', ['netns', 'exec', pod.name, program, ...args])
    const serving = inside(server.pod, 'serve')
    const pids = [await serving.line(), ...softirqThreads()]
    const driver = inside(client.pod, 'drive', server.podIp, server.podIpv6, ...pids)
    return new Side(name, serving, driver, mtuBytes - 28)
  }

  private constructor(name: string, server: LineProgram, driver: LineProgram, datagramBytes: number) {
    this.name = name
    this.#server = server
    this.#driver = driver
    this.#datagramBytes = datagramBytes
  }

  async slice(measure: (typeof measures)[number], ms: number): Promise<Partial<Reading>> {
    const size = 'full' in measure ? this.#datagramBytes : 64
    this.#driver.write(`${measure.line} ${ms} ${size}`)
    const [amount = 0, ns = 0, cpuNs = 0] = (await this.#driver.line()).split(' ').map(Number)
    const reading: Partial<Reading> = { [measure.key]: measure.of(amount, ns) }
    for (const { key, from, bytes } of cpuMeasures) if (from === measure.key) reading[key] = cpuNs / bytes(amount, size)
    return reading
  }

  async end(): Promise<void> {
    await this.#driver.end()
    await this.#server.end()
  }
}

/** The kernel threads that packets are carried in when a process does not carry them itself. */
const softirqThreads = (): string[] =>
  readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('ksoftirqd/')
      } catch {
        return false
      }
    })

/** Slices of every measure on every side in turn; the order is turned round each time. */
export async function measureSides(sides: readonly Side[], turns: number, sliceMs: number) {
  const readings = new Map<string, Reading[]>(sides.map(({ name }) => [name, []]))
  for (let turn = -1; turn < turns; turn++) {
    const readingOf = new Map<Side, Partial<Reading>>(sides.map((side) => [side, {}]))
    for (const measure of measures)
      for (const side of turn % 2 === 0 ? sides : sides.toReversed())
        Object.assign(readingOf.get(side)!, await side.slice(measure, sliceMs))
    // The first turn opens connections' windows and fills caches.
    if (turn >= 0) for (const side of sides) readings.get(side.name)!.push(readingOf.get(side) as Reading)
  }
  return readings
}

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)
const median = (values: readonly number[]): number => {
  const all = sorted(values)
  return (all[(all.length - 1) >> 1]! + all[all.length >> 1]!) / 2
}

interface Ratio {
  readonly ratio: number
  /** 95 % of the medians of samples drawn from the pairs. */
  readonly from: number
  readonly to: number
}

/** Two neighbouring turns, one forth and one back, make a pair: what drifts within a turn cancels. */
function ratioOf(ours: readonly number[], theirs: readonly number[]): Ratio {
  const pairs: number[] = []
  for (let i = 0; i + 1 < ours.length; i += 2)
    pairs.push(Math.sqrt((ours[i]! / theirs[i]!) * (ours[i + 1]! / theirs[i + 1]!)))
  let seed = 1
  const random = () => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
    return seed / 0x80000000
  }
  const medians = sorted(
    Array.from({ length: 500 }, () => median(pairs.map(() => pairs[Math.floor(random() * pairs.length)]!))),
  )
  return { ratio: median(pairs), from: medians[12]!, to: medians[487]! }
}

const shown = ({ ratio, from, to }: Ratio): string => `${ratio.toFixed(3)} (${from.toFixed(3)}–${to.toFixed(3)})`

/** Prints each measure with the ratios of the sides named, and returns them. */
export function compare(
  readings: ReadonlyMap<string, readonly Reading[]>,
  pairs: readonly (readonly [ours: string, theirs: string])[],
) {
  const result: Partial<Record<Key, Record<string, number | Ratio>>> = {}
  console.log(`  ${''.padEnd(15)} ${'bare'.padStart(9)}  ${pairs.map(([a, b]) => `${a} ÷ ${b}`.padEnd(20)).join('  ')}`)
  for (const { key, title } of [...measures, ...cpuMeasures]) {
    const of = (side: string) => readings.get(side)!.map((reading) => reading[key])
    const ratios = pairs.map(([a, b]) => [`${a}/${b}`, ratioOf(of(a), of(b))] as const)
    console.log(
      `  ${title.padEnd(15)} ${median(of('bare')).toFixed(2).padStart(9)}  ${ratios.map(([, ratio]) => shown(ratio)).join('  ')}`,
    )
    result[key] = { bare: median(of('bare')), ...Object.fromEntries(ratios) }
  }
  return result as Record<Key, Record<string, number | Ratio>>
}

function option(args: readonly string[], name: string, usual: number): number {
  const at = args.indexOf(`--${name}`)
  const value = at < 0 ? usual : Number(args[at + 1])
  if (!(value > 0)) throw new Error(`--${name} wants a number above 0`)
  return value
}

/** The load generator, built into a folder of its own. */
export function buildLoad(folder: string): string {
  const program = join(folder, 'datapath-load')
  const source = fileURLToPath(new URL('datapath-load.c', import.meta.url))
  execFileSync('gcc', ['-O2', '-Wall', '-pthread', '-o', program, source], { stdio: 'inherit' })
  return program
}

async function measureMode(name: string, program: string, turns: number, sliceMs: number) {
  const config = modes[name]!
  const undo: (() => unknown)[] = []
  try {
    const sides: Side[] = []
    for (const side of ['bare', 'weft', 'tracked', 'again']) {
      const topology = new TestTopology([1, 1])
      undo.push(() => topology.delete())
      if (side === 'weft') undo.push(await byWeft(topology, config))
      else byHand(topology, config, side === 'tracked')
      const mtus = topology.nodes.map(({ context }) => datapathOf(config).mtuBytes(config, context))
      const started = await Side.start(side, program, topology, Math.min(...mtus))
      undo.push(() => started.end())
      sides.push(started)
    }
    const readings = await measureSides(sides, turns, sliceMs)
    console.log(`\n${name}: median of ${turns} turns of ${sliceMs} ms, ratios with their 95 % interval`)
    console.log(
      '  bare: by hand, no rule. again: the same once more. tracked: by hand with one masquerading rule, as flannel',
    )
    console.log(
      "  has by default; what it loses is the kernel's connection tracking, what weft loses to it is weft's rules.",
    )
    return compare(readings, [
      ['weft', 'bare'],
      ['weft', 'tracked'],
      ['tracked', 'bare'],
      ['again', 'bare'],
    ])
  } finally {
    for (const step of undo.toReversed()) await step()
  }
}

export const bench: Bench = {
  name: 'datapath',
  describe:
    'throughput, latency and CPU of each mode against the same topology built by hand [--turns N --slice MS --mode MODE]',
  async run(args): Promise<BenchResult> {
    const turns = option(args, 'turns', 300)
    const sliceMs = option(args, 'slice', 10)
    const at = args.indexOf('--mode')
    const names = at < 0 ? Object.keys(modes) : [args[at + 1] ?? '']
    if (!names.every((name) => name in modes)) throw new Error(`--mode is one of ${Object.keys(modes).join(', ')}`)
    const folder = mkdtempSync(join(tmpdir(), 'weft-bench-datapath-'))
    const results: Record<string, Awaited<ReturnType<typeof measureMode>>> = {}
    try {
      const program = buildLoad(folder)
      for (const name of names) results[name] = await measureMode(name, program, turns, sliceMs)
    } finally {
      rmSync(folder, { recursive: true })
    }
    const main = (results.vxlan ?? results[names[0]!]!).tcpGbits
    const peer = main.bare as number
    const { ratio } = main['weft/bare'] as Ratio
    const { ratio: ratioToTracked } = main['weft/tracked'] as Ratio
    return {
      bench: 'datapath',
      ours: peer * ratio,
      peer,
      unit: `Gbit/s TCP, ${results.vxlan ? 'vxlan' : names[0]}`,
      ratio,
      ratioToTracked,
      turns,
      sliceMs,
      modes: results,
    }
  },
}
