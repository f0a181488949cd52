/**
 * `npm run bench -- bgp-fanout [--clients N] [--prefixes N] [--changes N] [--rounds R] [--only weft,bird]`: a route reflector with 200
 * clients that have 5,000 prefixes between them. One client changes one prefix: the time until the last of the others has its
 * UPDATE, and the reflector's processor time for it. weft, bird and gobgpd take turns; beside it stands how long it takes from the
 * first announcement until everybody has everything.
 */
import { parseArgs } from 'node:util'
import { Ip } from '../../src/net/ip.ts'
import type { Bench, BenchResult } from './bench.ts'
import { told } from './bgp-load.ts'
import {
  BenchNetwork,
  type BenchPeer,
  buildBundle,
  memoryOf,
  processorSeconds,
  SPEAKER,
  SPEAKER_ASN,
  type SpeakerKind,
  speakersHere,
} from './bgp-speakers.ts'

interface Reading {
  /** From the first announcement until every client has what the last one announced. Milliseconds. */
  readonly filled: number
  readonly change: readonly number[]
  /** Processor time of a change, all threads. Milliseconds. */
  readonly changeCpu: number
  readonly memory: number
}

const clientsOf = (count: number): BenchPeer[] =>
  Array.from({ length: count }, (_, i) => ({
    name: `client${i}`,
    address: Ip.parse('10.9.1.1').plus(i).toString(),
    asn: SPEAKER_ASN,
    part: 'client',
  }))

async function measure(kind: SpeakerKind, count: number, prefixes: number, changes: number): Promise<Reading> {
  const clients = clientsOf(count)
  const network = new BenchNetwork(clients)
  const sender = network.sender()
  const speaker = await network.start(kind, clients)
  const say = (command: object) => sender.write(JSON.stringify({ asn: SPEAKER_ASN, internal: true, ...command }))
  try {
    const each = prefixes / count
    for (const [i, { name, address: local }] of clients.entries()) {
      const table = {
        prefixes: each,
        perUpdate: each,
        sets: 1,
        base: Ip.parse('20.0.0.0')
          .plus(i * each * 256)
          .toString(),
      }
      say({ do: 'prepare', name, local, table })
      await told(sender, 'prepared')
    }
    for (const { name, address: local } of clients) say({ do: 'open', name, local, remote: SPEAKER })
    for (let established = 0; established < count; established++) await told(sender, 'established')
    // A prefix more at the very end: whoever has it has been told all that came before it.
    const last = clients.at(-1)!
    say({ do: 'expect', prefix: '198.51.100.0/24', count: count - 1 })
    await told(sender, 'expecting')
    let from = 0
    for (const { name } of clients) {
      say({ do: 'load', name })
      from ||= await told(sender, 'sending')
      await told(sender, 'sent')
    }
    say({ do: 'announce', name: last.name, local: last.address, prefix: '198.51.100.0/24', med: 0 })
    const filled = (await told(sender, 'arrived')) - from
    const cpuBefore = processorSeconds(speaker.pid)
    const change: number[] = []
    for (let i = 0; i < changes; i++) {
      const { name, address } = clients[(i * 7) % count]!
      const prefix = `${Ip.parse('20.0.0.0').plus(((i * 7) % count) * each * 256)}/24`
      say({ do: 'expect', prefix, count: count - 1 })
      await told(sender, 'expecting')
      say({ do: 'announce', name, local: address, prefix, med: 100 + i })
      const sent = await told(sender, 'sending')
      change.push((await told(sender, 'arrived')) - sent)
    }
    const changeCpu = ((processorSeconds(speaker.pid) - cpuBefore) * 1000) / changes
    return { filled, change, changeCpu, memory: memoryOf(speaker.pid).now }
  } finally {
    await speaker.end()
    await sender.end()
    network.delete()
  }
}

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)
const median = (values: readonly number[]): number => sorted(values)[values.length >> 1]!

async function run(args: readonly string[]): Promise<BenchResult> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      clients: { type: 'string', default: '200' },
      prefixes: { type: 'string', default: '5000' },
      changes: { type: 'string', default: '100' },
      rounds: { type: 'string', default: '3' },
      only: { type: 'string' },
    },
  })
  const kinds = speakersHere().filter((kind) => values.only?.split(',').includes(kind) ?? true)
  buildBundle()
  const readings = new Map<SpeakerKind, Reading[]>(kinds.map((kind) => [kind, []]))
  for (let round = 0; round < Number(values.rounds); round++)
    for (const kind of round % 2 === 0 ? kinds : [...kinds].reverse())
      readings
        .get(kind)!
        .push(await measure(kind, Number(values.clients), Number(values.prefixes), Number(values.changes)))
  console.log(
    `${values.clients} clients of a reflector, ${values.prefixes} prefixes, one changed; median (tenth–ninetieth percentile)`,
  )
  console.log('| speaker | one change, to the last client | processor per change | everything to everybody | RSS |')
  const figures = new Map<SpeakerKind, Record<string, number>>()
  for (const [kind, of] of readings) {
    const change = sorted(of.flatMap((reading) => reading.change))
    const at = (share: number) => change[Math.floor(share * (change.length - 1))]!
    const figure = {
      change: median(change),
      changeCpu: median(of.map(({ changeCpu }) => changeCpu)),
      filled: median(of.map(({ filled }) => filled)),
      memory: median(of.map(({ memory }) => memory)),
    }
    figures.set(kind, figure)
    console.log(
      `| ${kind} | ${figure.change.toFixed(2)} ms (${at(0.1).toFixed(2)}–${at(0.9).toFixed(2)}) | ${figure.changeCpu.toFixed(2)} ms | ${figure.filled.toFixed(0)} ms | ${figure.memory} MiB |`,
    )
  }
  const ours = figures.get('weft')?.change ?? Number.NaN
  const peer = figures.get('bird')?.change ?? Number.NaN
  return { bench: 'bgp-fanout', ours, peer, unit: 'ms', ratio: ours / peer, ...Object.fromEntries(figures) }
}

export const bench: Bench = {
  name: 'bgp-fanout',
  describe: 'one changed route through a BGP reflector to 200 clients, against bird and gobgpd',
  run,
}
