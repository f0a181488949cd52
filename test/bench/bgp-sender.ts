/**
 * The other side of the BGP benches: a process with many plain sessions, which sends encoded bytes and notes when UPDATEs come.
 * It knows nothing of the speaker under test and does the same for each. Commands come as lines of JSON on stdin, what
 * happens goes to stdout as lines of JSON, with the machine's monotonic clock in milliseconds (`at`).
 *
 *   open {name, local, remote, asn} → established    prepare {name, table} → prepared    load {name} → sending, sent
 *   expect {prefix, count}                   → arrived, when so many sessions got an UPDATE with that prefix
 *   announce {name, prefix, med} → sending    close {name}         → closing
 */
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { encodeAttributes } from '../../src/wire/bgp/attribute.ts'
import type { WireContext } from '../../src/wire/bgp/context.ts'
import { IPV4_UNICAST } from '../../src/wire/bgp/family.ts'
import { runOf } from '../../src/wire/bgp/nlri.ts'
import { packReach } from '../../src/wire/bgp/update-packing.ts'

const HOLD_SECONDS = 180
const KEEPALIVE_MS = 30_000
const MARKER = Buffer.alloc(16, 0xff)

export interface Table {
  readonly prefixes: number
  readonly perUpdate: number
  readonly sets: number
  /** First /24; the others follow. */
  readonly base: string
  /** Sent behind all others. */
  readonly marker?: string
}

const families = new Set([IPV4_UNICAST])

const contextOf = (internal: boolean): WireContext => ({
  fourOctetAs: true,
  peerType: internal ? 'internal' : 'external',
  families,
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set(),
  messageBytesMax: 4096,
})

/** UPDATEs of a table, with attributes as an AS with an upstream sends them. */
function tableMessages(table: Table, asn: number, nextHop: string, internal: boolean): Buffer {
  const context = contextOf(internal)
  const chunks: Uint8Array[] = []
  const base = Ip.parse(table.base).w3
  const send = (words: Int32Array, set: number) => {
    const attributes = encodeAttributes(
      {
        origin: 0,
        asPath: internal ? [] : [{ kind: 'sequence', asns: [asn, 3000 + (set % 97), 10_000 + set] }],
        nextHop: { address: Ip.parse(nextHop) },
        med: set % 10,
        ...(internal && { localPreference: 100 }),
        communities: [65_100 * 65_536 + (set % 5000)],
      },
      IPV4_UNICAST,
      context,
    )
    chunks.push(...packReach({ family: IPV4_UNICAST, count: words.length / 3, words, attributes }, context))
  }
  for (let from = 0, update = 0; from < table.prefixes; from += table.perUpdate, update++) {
    const count = Math.min(table.perUpdate, table.prefixes - from)
    const words = new Int32Array(count * 3)
    for (let i = 0; i < count; i++) {
      words[i * 3 + 1] = 24
      words[i * 3 + 2] = base + (from + i) * 256
    }
    send(words, update % table.sets)
  }
  if (table.marker) send(runOf(IPV4_UNICAST, [Cidr.parse(table.marker)]).words, 0)
  return Buffer.concat(chunks)
}

/** One prefix, told apart by its metric. */
function announcement(prefix: string, asn: number, nextHop: string, internal: boolean, med: number): Buffer {
  const context = contextOf(internal)
  const attributes = encodeAttributes(
    {
      origin: 0,
      asPath: internal ? [] : [{ kind: 'sequence', asns: [asn] }],
      nextHop: { address: Ip.parse(nextHop) },
      med,
      ...(internal && { localPreference: 100 }),
    },
    IPV4_UNICAST,
    context,
  )
  return Buffer.concat(packReach({ ...runOf(IPV4_UNICAST, [Cidr.parse(prefix)]), attributes }, context))
}

const now = (): number => Number(process.hrtime.bigint()) / 1e6
const say = (message: object): void => void process.stdout.write(`${JSON.stringify(message)}\n`)

function message(type: number, body: Buffer): Buffer {
  const head = Buffer.alloc(3)
  head.writeUInt16BE(19 + body.length)
  head[2] = type
  return Buffer.concat([MARKER, head, body])
}

const keepalive = message(4, Buffer.alloc(0))

function open(asn: number, routerId: string): Buffer {
  const capabilities = Buffer.from([1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0, 0])
  capabilities.writeUInt32BE(asn, 8)
  const body = Buffer.alloc(10)
  body[0] = 4
  body.writeUInt16BE(asn > 65_535 ? 23_456 : asn, 1)
  body.writeUInt16BE(HOLD_SECONDS, 3)
  Buffer.from(Ip.parse(routerId).toBytes()).copy(body, 5)
  body[9] = capabilities.length + 2
  return message(1, Buffer.concat([body, Buffer.from([2, capabilities.length]), capabilities]))
}

interface Expectation {
  readonly bytes: Buffer
  readonly count: number
  readonly got: Set<string>
}

class Session {
  readonly #socket: Socket
  readonly #name: string
  #kept = Buffer.alloc(0)
  established = false
  updates = 0

  constructor(name: string, local: string, remote: string, asn: number) {
    this.#name = name
    this.#socket = connect({ host: remote, port: 179, localAddress: local })
    this.#socket.setNoDelay(true)
    this.#socket.on('connect', () => this.#socket.write(open(asn, local)))
    this.#socket.on('data', (bytes) => this.#data(bytes))
    this.#socket.on('error', (error) => this.established && say({ event: 'error', name, problem: error.message }))
    this.#socket.on('close', () => {
      if (this.established) say({ event: 'closed', name, at: now() })
      // The listener was not there yet, or the other side had just refused: once more.
      else setTimeout(() => sessions.set(name, new Session(name, local, remote, asn)), 100)
    })
    setInterval(
      () => this.established && !this.#socket.destroyed && this.#socket.write(keepalive),
      KEEPALIVE_MS,
    ).unref()
  }

  send(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => this.#socket.write(bytes, () => resolve()))
  }

  close(): void {
    this.#socket.resetAndDestroy()
  }

  #data(bytes: Buffer): void {
    const all = this.#kept.length > 0 ? Buffer.concat([this.#kept, bytes]) : bytes
    let at = 0
    while (all.length - at >= 19) {
      const length = all.readUInt16BE(at + 16)
      if (all.length - at < length) break
      this.#message(all[at + 18]!, all.subarray(at + 19, at + length))
      at += length
    }
    this.#kept = Buffer.from(all.subarray(at))
  }

  #message(type: number, body: Buffer): void {
    if (type === 1) this.#socket.write(keepalive)
    if (type === 3) say({ event: 'notification', name: this.#name, code: body[0], subcode: body[1] })
    if (type === 4 && !this.established) {
      this.established = true
      say({ event: 'established', name: this.#name, at: now() })
    }
    if (type !== 2) return
    this.updates++
    if (expected && !expected.got.has(this.#name) && body.indexOf(expected.bytes) >= 0) {
      expected.got.add(this.#name)
      if (expected.got.size === expected.count) {
        say({ event: 'arrived', at: now() })
        expected = undefined
      }
    }
  }
}

const sessions = new Map<string, Session>()
const loads = new Map<string, Buffer>()
let expected: Expectation | undefined

interface Command {
  readonly do: 'open' | 'prepare' | 'load' | 'announce' | 'expect' | 'close'
  readonly name: string
  readonly local: string
  readonly remote: string
  readonly asn: number
  readonly internal: boolean
  readonly table: Table
  readonly prefix: string
  readonly count: number
  readonly med: number
}

async function obey(command: Command): Promise<void> {
  const { name, local, remote, asn, table, internal } = command
  switch (command.do) {
    case 'open':
      sessions.set(name, new Session(name, local, remote, asn))
      return
    case 'prepare':
      loads.set(name, tableMessages(table, asn, local, internal))
      return say({ event: 'prepared', name, bytes: loads.get(name)!.length })
    case 'load': {
      say({ event: 'sending', name, at: now() })
      await sessions.get(name)!.send(loads.get(name)!)
      return say({ event: 'sent', name, at: now() })
    }
    case 'announce': {
      const bytes = announcement(command.prefix, asn, local, internal, command.med)
      say({ event: 'sending', name, at: now() })
      return sessions.get(name)!.send(bytes)
    }
    case 'expect': {
      const { base, length } = Cidr.parse(command.prefix)
      const bytes = Buffer.concat([Buffer.from([length]), Buffer.from(base.toBytes())]).subarray(
        0,
        1 + ((length + 7) >> 3),
      )
      expected = { bytes, count: command.count, got: new Set() }
      return say({ event: 'expecting', at: now() })
    }
    case 'close':
      sessions.get(name)?.close()
      sessions.delete(name)
      return say({ event: 'closing', name, at: now() })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const input = createInterface({ input: process.stdin })
  input.on('line', (line) => void obey(JSON.parse(line) as Command))
  input.on('close', () => process.exit(0))
}
