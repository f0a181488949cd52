/**
 * `npm run bench -- bgp-load [--prefixes N] [--sets N] [--rounds R] [--gobgpd-rounds R] [--only weft,bird]`: a full table into a fresh
 * speaker over TCP, with an import filter and what came in kept; then the same table from a second peer; then the first peer is
 * lost. weft, bird and gobgpd take turns in namespaces of the same shape.
 *
 * The table is 1,000,000 /24s, 200 an UPDATE, 5,000 attribute sets. Its end is a marker that the speaker passes on to an observer:
 * the time runs from the first byte that is sent until the marker arrives, the same for all three. Failover runs from
 * the reset of the connection until the speaker counts one path a prefix (asked every 20 ms, gobgpd every 500).
 */
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Bench, BenchResult } from './bench.ts'
import {
  BenchNetwork,
  type BenchPeer,
  buildBundle,
  memoryOf,
  processorSeconds,
  SPEAKER,
  type SpeakerKind,
  type SpeakerProcess,
  speakersHere,
} from './bgp-speakers.ts'
import type { LineProgram } from './line-program.ts'

const peers: readonly BenchPeer[] = [
  { name: 'first', address: '10.9.0.2', asn: 65001, part: 'table' },
  { name: 'second', address: '10.9.0.3', asn: 65002, part: 'table' },
  { name: 'observer', address: '10.9.0.4', asn: 65003, part: 'observer' },
]
const markers = { first: '198.51.100.0/24', second: '198.51.101.0/24' }

interface Size {
  readonly prefixes: number
  readonly sets: number
}

interface Reading {
  readonly load: number
  readonly second: number
  readonly failover: number
  /** Processor time of the speaker, all threads. */
  readonly loadCpu: number
  readonly failoverCpu: number
  readonly memory: number
  readonly memoryOfBoth: number
}

interface Told {
  readonly event: string
  readonly name?: string
  readonly at?: number
}

/** Waits for a word of the sender's. */
export async function told(sender: LineProgram, event: string, name?: string): Promise<number> {
  for (;;) {
    const line = JSON.parse(await sender.line()) as Told
    if (line.event === event && (name === undefined || line.name === name)) return line.at ?? 0
    if (line.event === 'notification' || line.event === 'closed')
      throw new Error(`the session ended: ${JSON.stringify(line)}`)
  }
}

async function load(sender: LineProgram, name: 'first' | 'second'): Promise<number> {
  sender.write(JSON.stringify({ do: 'expect', prefix: markers[name], count: 1 }))
  await told(sender, 'expecting')
  sender.write(JSON.stringify({ do: 'load', name }))
  const from = await told(sender, 'sending')
  return (await told(sender, 'arrived')) - from
}

async function untilPaths(speaker: SpeakerProcess, isThere: (paths: number) => boolean): Promise<void> {
  for (let tries = 0; !isThere(await speaker.paths()); tries++) {
    if (tries * speaker.pollMs > 120_000) throw new Error(`${speaker.name} has ${await speaker.paths()} paths`)
    await pause(speaker.pollMs)
  }
}

async function measure(kind: SpeakerKind, { prefixes, sets }: Size): Promise<Reading> {
  const network = new BenchNetwork(peers)
  const sender = network.sender()
  const speaker = await network.start(kind, peers)
  try {
    for (const name of ['first', 'second'] as const) {
      const table = { prefixes, perUpdate: 200, sets, base: '20.0.0.0', marker: markers[name] }
      const { address: local, asn } = peers.find((peer) => peer.name === name)!
      sender.write(JSON.stringify({ do: 'prepare', name, local, asn, internal: false, table }))
      await told(sender, 'prepared')
    }
    for (const { name, address: local, asn } of peers) {
      sender.write(JSON.stringify({ do: 'open', name, local, remote: SPEAKER, asn }))
      await told(sender, 'established', name)
    }
    const cpu = () => processorSeconds(speaker.pid) * 1000
    const cpuBefore = cpu()
    const first = await load(sender, 'first')
    const loadCpu = cpu() - cpuBefore
    await untilPaths(speaker, (paths) => paths === prefixes + 1)
    const memory = memoryOf(speaker.pid)
    const second = await load(sender, 'second')
    await untilPaths(speaker, (paths) => paths === 2 * prefixes + 2)
    const memoryOfBoth = memoryOf(speaker.pid)
    const cpuWithBoth = cpu()
    sender.write(JSON.stringify({ do: 'close', name: 'first' }))
    const from = await told(sender, 'closing')
    await untilPaths(speaker, (paths) => paths === prefixes + 1)
    const failover = Number(process.hrtime.bigint()) / 1e6 - from
    const failoverCpu = cpu() - cpuWithBoth
    return { load: first, second, failover, loadCpu, failoverCpu, memory: memory.now, memoryOfBoth: memoryOfBoth.now }
  } finally {
    await speaker.end()
    await sender.end()
    network.delete()
  }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

const columns = ['load', 'second', 'failover', 'loadCpu', 'failoverCpu', 'memory', 'memoryOfBoth'] as const

function row(kind: string, readings: readonly Reading[]): string {
  const cells = columns.map((key) => {
    const values = readings.map((reading) => reading[key])
    const unit = key.startsWith('memory') ? 'MiB' : 'ms'
    return `${median(values).toFixed(0)} ${unit} (${Math.min(...values).toFixed(0)}–${Math.max(...values).toFixed(0)})`
  })
  return `| ${[kind.padEnd(8), ...cells.map((cell) => cell.padEnd(24))].join(' | ')} |`
}

async function run(args: readonly string[]): Promise<BenchResult> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      prefixes: { type: 'string', default: '1000000' },
      sets: { type: 'string', default: '5000' },
      rounds: { type: 'string', default: '3' },
      'gobgpd-rounds': { type: 'string', default: '1' },
      only: { type: 'string' },
    },
  })
  const size = { prefixes: Number(values.prefixes), sets: Number(values.sets) }
  const kinds = speakersHere().filter((kind) => values.only?.split(',').includes(kind) ?? true)
  const rounds = { weft: Number(values.rounds), bird: Number(values.rounds), gobgpd: Number(values['gobgpd-rounds']) }
  buildBundle()
  const readings = new Map<SpeakerKind, Reading[]>(kinds.map((kind) => [kind, []]))
  for (let round = 0; round < Math.max(...kinds.map((kind) => rounds[kind])); round++)
    for (const kind of round % 2 === 0 ? kinds : [...kinds].reverse())
      if (round < rounds[kind]) readings.get(kind)!.push(await measure(kind, size))
  console.log(`${size.prefixes} prefixes, 200 an UPDATE, ${size.sets} attribute sets; median (least–most)`)
  console.log(
    `| ${['speaker '].concat(['load', 'same from a second', 'failover', 'load, processor', 'failover, processor', 'RSS', 'RSS with both'].map((each) => each.padEnd(24))).join(' | ')} |`,
  )
  for (const [kind, of] of readings) if (of.length > 0) console.log(row(kind, of))
  const of = (kind: SpeakerKind, key: (typeof columns)[number]): number | undefined => {
    const all = readings.get(kind)
    return all && all.length > 0 ? Math.round(median(all.map((reading) => reading[key]))) : undefined
  }
  const ours = of('weft', 'load') ?? Number.NaN
  const peer = of('bird', 'load') ?? Number.NaN
  return {
    bench: 'bgp-load',
    ours,
    peer,
    unit: 'ms',
    ratio: ours / peer,
    ...Object.fromEntries(kinds.map((kind) => [kind, Object.fromEntries(columns.map((key) => [key, of(kind, key)]))])),
  }
}

export const bench: Bench = {
  name: 'bgp-load',
  describe: 'a full BGP table into a speaker, and the loss of one of two peers, against bird and gobgpd',
  run,
}
