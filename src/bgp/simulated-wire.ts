/**
 * Streams and time that are simulated: any number of speakers in one process, in virtual time, the same run for the same
 * seed. Rules of who may come, MD5 keys and backpressure are those of the real wire; what a network does wrong is asked
 * for: latency, links that are cut with or without a word.
 *
 * A time is a queue of events. Nothing happens between two of them, and `soon` is an event at the same instant, after
 * those that are due.
 */
import type { Ip } from '../net/ip.ts'
import type {
  AcceptRule,
  Attempt,
  Clock,
  ConnectTarget,
  Endpoint,
  ListenPlan,
  Stream,
  StreamListener,
  Timer,
  Wire,
} from './transport.ts'

interface Event {
  readonly at: number
  readonly serial: number
  callback: (() => void) | undefined
}

/** Virtual time, from 0. */
export class SimulatedTime {
  #now = 0
  #serial = 0
  /** A binary heap by time, then by order of arrival. */
  readonly #heap: Event[] = []
  /** Events that happened. */
  events = 0

  get now(): number {
    return this.#now
  }

  at(milliseconds: number, callback: () => void): Timer {
    const event: Event = { at: Math.max(milliseconds, this.#now), serial: this.#serial++, callback }
    this.#push(event)
    return {
      cancel: () => {
        event.callback = undefined
      },
    }
  }

  /** A clock on this time, with chance of its own. */
  clock(seed: number): Clock {
    let state = seed | 0 || 1
    return {
      now: () => this.#now,
      wallTime: () => this.#now,
      at: (milliseconds, callback) => this.at(milliseconds, callback),
      soon: (callback) => this.at(this.#now, callback),
      random: () => {
        // xorshift32
        state ^= state << 13
        state ^= state >>> 17
        state ^= state << 5
        return (state >>> 0) / 2 ** 32
      },
    }
  }

  /** Lets time pass until `done` or for so long; whether it was done. */
  run(milliseconds: number, done: () => boolean = () => false): boolean {
    const end = this.#now + milliseconds
    while (!done()) {
      const event = this.#heap[0]
      if (!event || event.at > end) {
        this.#now = end
        return done()
      }
      this.#pop()
      if (!event.callback) continue
      this.#now = event.at
      this.events++
      event.callback()
    }
    return true
  }

  #push(event: Event): void {
    const heap = this.#heap
    let i = heap.push(event) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(event, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = event
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}

const before = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.serial < b.serial)

const HIGH_WATER_BYTES = 512 * 1024

/** Hosts by address, all one network. */
export class SimulatedNetwork {
  readonly time: SimulatedTime
  readonly latencyMilliseconds: number
  readonly #hosts = new Map<string, SimulatedWire>()
  readonly #streams = new Set<SimulatedStream>()
  readonly #cut = new Set<string>()

  constructor(time: SimulatedTime, latencyMilliseconds = 1) {
    this.time = time
    this.latencyMilliseconds = latencyMilliseconds
  }

  /** The wire of a host with these addresses; the first of a family is the one that it calls from. */
  host(...addresses: readonly Ip[]): SimulatedWire {
    const wire = new SimulatedWire(this, addresses)
    for (const address of addresses) this.#hosts.set(address.toString(), wire)
    return wire
  }

  at(address: Ip): SimulatedWire | undefined {
    return this.#hosts.get(address.toString())
  }

  /** From here on nothing gets through between two addresses; streams stand and hang until `heal`. */
  cut(a: Ip, b: Ip): void {
    this.#cut.add(linkOf(a, b))
  }

  heal(a: Ip, b: Ip): void {
    this.#cut.delete(linkOf(a, b))
    for (const stream of this.#streams) stream.flush()
  }

  isCut(a: Ip, b: Ip): boolean {
    return this.#cut.has(linkOf(a, b))
  }

  /** A host dies without a word to anybody, and its streams with it: the others find out by themselves. */
  vanish(wire: SimulatedWire): void {
    for (const address of wire.addresses) this.#hosts.delete(address.toString())
    for (const stream of this.#streams) if (stream.wire === wire) stream.forget()
  }

  /** Streams of a host break as when its process ends: the others are told at once. */
  breakStreams(wire: SimulatedWire): void {
    for (const stream of [...this.#streams]) if (stream.wire === wire) stream.abort()
  }

  add(stream: SimulatedStream): void {
    this.#streams.add(stream)
  }

  delete(stream: SimulatedStream): void {
    this.#streams.delete(stream)
  }

  get streams(): number {
    return this.#streams.size
  }
}

const linkOf = (a: Ip, b: Ip): string => [a.toString(), b.toString()].sort().join(' ')

export class SimulatedWire implements Wire {
  readonly addresses: readonly Ip[]
  readonly #network: SimulatedNetwork
  #plan: ListenPlan = { endpoints: [], rules: [] }
  #accept: (stream: Stream) => StreamListener | undefined = () => undefined
  #port = 30000

  constructor(network: SimulatedNetwork, addresses: readonly Ip[]) {
    this.#network = network
    this.addresses = addresses
  }

  listen(plan: ListenPlan, accept: (stream: Stream) => StreamListener | undefined): void {
    this.#plan = plan
    this.#accept = accept
  }

  close(): void {
    this.#plan = { endpoints: [], rules: [] }
  }

  connect(target: ConnectTarget, listener: StreamListener): Attempt {
    const { remote } = target
    const { time, latencyMilliseconds } = this.#network
    const address = target.localAddress ?? this.addresses.find(({ family }) => family === remote.address.family)
    let cancelled = false
    time.at(time.now + 2 * latencyMilliseconds, () => {
      if (cancelled) return
      if (!address) return listener.closed('network unreachable')
      const peer = this.#network.at(remote.address)
      // A host that is gone, a cut link and a wrong MD5 key have one sign: silence.
      if (!peer || this.#network.at(address) !== this || this.#network.isCut(address, remote.address)) return
      const local: Endpoint = { address, port: this.#port++, device: remote.device }
      peer.#arrive(this, local, target, listener)
    })
    return {
      cancel: () => {
        cancelled = true
      },
    }
  }

  #arrive(caller: SimulatedWire, from: Endpoint, { remote, password }: ConnectTarget, listener: StreamListener): void {
    const open = this.#plan.endpoints.some(
      ({ address, port }) => port === remote.port && (address.isAny || address.equals(remote.address)),
    )
    if (!open) return listener.closed('connection refused')
    const rule = ruleFor(this.#plan.rules, from)
    if (rule?.password !== password) return
    const ours = new SimulatedStream(this.#network, this, remote, from)
    const theirs = new SimulatedStream(this.#network, caller, from, remote)
    ours.join(theirs)
    theirs.attach(listener)
    listener.opened?.(theirs)
    const acceptor = rule && this.#accept(ours)
    if (acceptor) ours.attach(acceptor)
    else ours.abort()
  }
}

function ruleFor(rules: readonly AcceptRule[], { address }: Endpoint): AcceptRule | undefined {
  let best: AcceptRule | undefined
  for (const rule of rules)
    if (rule.from.contains(address) && (!best || rule.from.length > best.from.length)) best = rule
  return best
}

class SimulatedStream implements Stream {
  readonly local: Endpoint
  readonly remote: Endpoint
  readonly wire: SimulatedWire
  readonly #network: SimulatedNetwork
  #other: SimulatedStream | undefined
  #listener: StreamListener | undefined
  /** Sent by the other side and not yet read: bytes, or the end. */
  readonly #arrived: (Uint8Array | 'end')[] = []
  #paused = false
  #blocked = false
  #closed = false
  queuedBytes = 0

  constructor(network: SimulatedNetwork, wire: SimulatedWire, local: Endpoint, remote: Endpoint) {
    this.#network = network
    this.wire = wire
    this.local = local
    this.remote = remote
    network.add(this)
  }

  join(other: SimulatedStream): void {
    this.#other = other
    other.#other = this
  }

  attach(listener: StreamListener): void {
    this.#listener = listener
    this.flush()
  }

  send(bytes: Uint8Array): boolean {
    if (this.#closed) return true
    this.queuedBytes += bytes.length
    this.#deliver(bytes)
    this.#blocked = this.queuedBytes > HIGH_WATER_BYTES
    return !this.#blocked
  }

  setTtl(): void {}

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.flush()
  }

  close(): void {
    if (this.#closed) return
    this.forget()
    this.#deliver('end')
  }

  abort(): void {
    this.close()
  }

  /** Ends here alone. */
  forget(): void {
    this.#closed = true
    this.#listener = undefined
    this.#network.delete(this)
  }

  /** Reads what has arrived and may be read. */
  flush(): void {
    while (this.#listener && !this.#paused && this.#arrived.length > 0) {
      if (this.#network.isCut(this.local.address, this.remote.address)) return
      const next = this.#arrived.shift()!
      if (next === 'end') {
        const listener = this.#listener
        this.forget()
        listener.closed('the peer closed the connection')
        return
      }
      this.#other?.taken(next.length)
      this.#listener.data(next)
    }
  }

  taken(bytes: number): void {
    this.queuedBytes -= bytes
    if (!this.#blocked || this.queuedBytes > HIGH_WATER_BYTES / 2) return
    this.#blocked = false
    this.#listener?.drained()
  }

  #deliver(what: Uint8Array | 'end'): void {
    const { time, latencyMilliseconds } = this.#network
    const other = this.#other
    time.at(time.now + latencyMilliseconds, () => {
      if (!other) return
      other.#arrived.push(what)
      other.flush()
    })
  }
}
