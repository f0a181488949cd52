/**
 * The user-space tunnel against a one-packet-a-call loop with flannel's wire format and order of calls (native/udp-loop):
 * TCP and UDP throughput and round trips between two namespaces over an underlay of MTU 1500, rounds interleaved. Round
 * trips are taken in short slices, turn by turn: what the machine does beside changes from one moment to the next.
 *
 *   npm run bench -- udp-tunnel [rounds] [seconds]
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { native, ping1k, type TunnelEnd, type TunnelKind, TunnelPair } from '../netns/tunnel-pair.ts'
import type { BenchResult } from './bench.ts'

/** Slices of round trips in a round, and how long each is. */
const SLICES = 4
const SLICE_MS = 120

const measures = ['tcpGbps', 'udpGbps', 'tcpRoundTripUs', 'udpRoundTripUs'] as const
type Measure = (typeof measures)[number]
type Round = Record<Measure, number>

interface IperfReport {
  readonly error?: string
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number }
    readonly sum: { readonly bits_per_second: number; readonly lost_percent: number }
  }
}

export const bench = {
  name: 'udp-tunnel',
  describe: 'user-space UDP tunnel against a one-packet-a-call loop: throughput and round trips',
  run,
}

async function run(args: readonly string[]): Promise<BenchResult> {
  const rounds = Number(args[0] ?? 5)
  const seconds = Number(args[1] ?? 2)
  const pairs = new Map<TunnelKind, TunnelPair>()
  const results: Record<TunnelKind, Round[]> = { weft: [], plain: [] }
  const servers: ChildProcess[] = []
  try {
    for (const kind of ['weft', 'plain'] as const) {
      const pair = await TunnelPair.start(kind, kind)
      pairs.set(kind, pair)
      servers.push(await serve(pair.right))
    }
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? (['weft', 'plain'] as const) : (['plain', 'weft'] as const)
      const slices: Record<TunnelKind, RoundTrips[]> = { weft: [], plain: [] }
      for (let slice = 0; slice < SLICES; slice++)
        for (const kind of slice % 2 === 0 ? order : [...order].reverse())
          slices[kind].push(measureRoundTrips(pairs.get(kind)!))
      for (const kind of order) {
        const throughput = await measureThroughput(pairs.get(kind)!, seconds)
        const middle = (of: keyof RoundTrips) => median(slices[kind].map((slice) => slice[of]))
        const result = {
          ...throughput,
          tcpRoundTripUs: middle('tcpRoundTripUs'),
          udpRoundTripUs: middle('udpRoundTripUs'),
        }
        results[kind].push(result)
        console.log(`round ${round + 1} ${kind.padEnd(5)} ${describe(result)}`)
      }
    }
  } finally {
    for (const server of servers) server.kill('SIGKILL')
    for (const pair of pairs.values()) await pair.delete()
  }
  return summarize(results)
}

type RoundTrips = Pick<Round, 'tcpRoundTripUs' | 'udpRoundTripUs'>

function measureRoundTrips(pair: TunnelPair): RoundTrips {
  const target = `--to ${pair.right.innerIp(4)} --ping-pong --duration-ms ${SLICE_MS}`
  return {
    tcpRoundTripUs: ping1k(pair.left, `${target} --tcp 9000`).rttUs.p50,
    udpRoundTripUs: ping1k(pair.left, `${target} --udp 9001`).rttUs.p50,
  }
}

async function measureThroughput(pair: TunnelPair, seconds: number): Promise<Pick<Round, 'tcpGbps' | 'udpGbps'>> {
  const tcp = await iperf(pair, ['-t', `${seconds}`])
  const udp = await iperf(pair, ['-t', `${seconds}`, '-u', '-b', '0', '-l', '1400'])
  return {
    tcpGbps: tcp.end.sum_received.bits_per_second / 1e9,
    // What was received: the sender's figure less what was lost.
    udpGbps: (udp.end.sum.bits_per_second * (1 - udp.end.sum.lost_percent / 100)) / 1e9,
  }
}

const inside = (end: TunnelEnd, command: readonly string[]): ChildProcess =>
  spawn('ip', ['netns', 'exec', end.namespace.name, ...command], { stdio: ['ignore', 'pipe', 'inherit'] })

/** The answering side of the round trips. */
async function serve(end: TunnelEnd): Promise<ChildProcess> {
  const server = inside(end, [native('weft-pod'), 'serve', '--tcp', '9000', '--udp', '9001'])
  while (!end.namespace.succeeds('ss -Hltn sport = 9000 | grep -q 9000')) await new Promise(setImmediate)
  return server
}

async function iperf(pair: TunnelPair, args: readonly string[]): Promise<IperfReport> {
  const server = inside(pair.right, ['iperf3', '-s', '-1', '--forceflush'])
  await once(server.stdout!, 'data')
  const client = inside(pair.left, ['iperf3', '-J', '-c', pair.right.innerIp(4), ...args])
  let text = ''
  client.stdout!.on('data', (chunk) => {
    text += chunk
  })
  await once(client, 'close')
  server.kill('SIGKILL')
  const report = JSON.parse(text) as IperfReport
  if (report.error) throw new Error(`iperf3: ${report.error}`)
  return report
}

const describe = (round: Round): string =>
  `TCP ${round.tcpGbps.toFixed(2)} Gbit/s  UDP ${round.udpGbps.toFixed(2)} Gbit/s  ` +
  `round trip TCP ${round.tcpRoundTripUs} us, UDP ${round.udpRoundTripUs} us`

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

function summarize(results: Record<TunnelKind, readonly Round[]>): BenchResult {
  const of = (kind: TunnelKind, measure: Measure) => results[kind].map((round) => round[measure])
  const details: Record<string, unknown> = {}
  for (const measure of measures) {
    const [ours, peer] = [of('weft', measure), of('plain', measure)]
    const ratios = ours.map((value, round) => value / peer[round]!)
    const spread = `${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)}`
    const ratio = median(ours) / median(peer)
    const paired = median(ratios)
    details[measure] = { ours: median(ours), peer: median(peer), ratio, pairedRatio: paired, roundRatios: spread }
    console.log(
      `${measure.padEnd(15)} ours ${median(ours).toFixed(2)}  peer ${median(peer).toFixed(2)}  ` +
        `ratio ${ratio.toFixed(2)}  round by round ${paired.toFixed(2)} (${spread})`,
    )
  }
  const [ours, peer] = [median(of('weft', 'tcpGbps')), median(of('plain', 'tcpGbps'))]
  return { bench: bench.name, ours, peer, unit: 'Gbit/s of TCP', ratio: ours / peer, ...details }
}
