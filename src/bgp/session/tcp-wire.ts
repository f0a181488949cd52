/**
 * The speaker's wire over TCP: connections with MD5, TTL and device rules set before the first packet, and listeners whose
 * rules change while they stand. Sockets belong to the network namespace of the thread that opens them.
 *
 * Who is no peer is dropped as soon as the kernel hands the connection over, before anything is read; with an MD5 key the
 * kernel itself answers nobody else.
 */
import { errnoText, kernelError } from '../../kernel/errno.ts'
import * as syscalls from '../../kernel/linux/syscalls.ts'
import { Cidr } from '../../net/cidr.ts'
import type {
  AcceptRule,
  Attempt,
  ConnectTarget,
  Endpoint,
  ListenPlan,
  Stream,
  StreamListener,
  Wire,
} from '../transport.ts'
import {
  bindSocket,
  bindToDevice,
  encodeSocketAddress,
  formatEndpoint,
  openTcpSocket,
  readSocketError,
  setMd5Key,
  setTtl,
} from './socket-options.ts'
import { TcpStream } from './tcp-stream.ts'

const BACKLOG = 128
/** Connections taken in one go, so that a flood leaves the thread's other work its turn. */
const ACCEPTS_PER_TURN = 64
const TTL_MAX = 255

type Accept = (stream: Stream) => StreamListener | undefined

export class TcpWire implements Wire {
  readonly #listeners = new Map<string, TcpListener>()

  connect(target: ConnectTarget, listener: StreamListener): Attempt {
    let fd = -1
    let ready: syscalls.Readiness | undefined
    let done = false
    const giveUp = (): void => {
      ready?.close()
      if (fd >= 0) syscalls.close(fd)
      fd = -1
    }
    const fail = (reason: string): void => {
      giveUp()
      // The listener learns of it after it has the attempt in hand.
      setImmediate(() => {
        if (done) return
        done = true
        listener.closed(reason)
      })
    }
    try {
      fd = openConnecting(target)
    } catch (error) {
      fail((error as Error).message)
      return { cancel: () => (done = true) }
    }
    ready = new syscalls.Readiness(
      fd,
      () => {
        if (done || fd < 0) return
        const error = readSocketError(fd)
        if (error !== 0) return fail(errnoText(Math.abs(error)))
        ready?.close()
        const own = fd
        fd = -1
        done = true
        try {
          const stream = new TcpStream(own)
          listener.opened?.(stream)
          stream.listen(listener)
        } catch (reason) {
          syscalls.close(own)
          listener.closed((reason as Error).message)
        }
      },
      'write',
    )
    return {
      cancel: () => {
        if (done) return
        done = true
        giveUp()
      },
    }
  }

  /** Throws the first KernelError after everything that could be opened was opened. */
  listen({ endpoints, rules }: ListenPlan, accept: Accept): void {
    const problems: unknown[] = []
    const wanted = new Map(endpoints.map((endpoint) => [formatEndpoint(endpoint), endpoint]))
    for (const [key, listener] of this.#listeners)
      if (!wanted.has(key)) {
        listener.close()
        this.#listeners.delete(key)
      }
    for (const [key, endpoint] of wanted) {
      try {
        let listener = this.#listeners.get(key)
        if (!listener) {
          listener = new TcpListener(endpoint, accept)
          this.#listeners.set(key, listener)
        }
        listener.setRules(rules)
      } catch (error) {
        problems.push(error)
      }
    }
    if (problems.length > 0) throw problems[0]
  }

  close(): void {
    for (const listener of this.#listeners.values()) listener.close()
    this.#listeners.clear()
  }
}

/** A socket on its way to a peer. */
function openConnecting(target: ConnectTarget): number {
  const { remote, localAddress, password } = target
  const { family } = remote.address
  const fd = openTcpSocket(family)
  try {
    if (remote.device) bindToDevice(fd, remote.device)
    if (localAddress) bindSocket(fd, { address: localAddress, port: 0, device: remote.device })
    setTtl(fd, family, target)
    if (password !== undefined) setMd5Key(fd, Cidr.host(remote.address), password)
    const result = syscalls.connect(fd, encodeSocketAddress(fd, remote))
    if (result < 0 && result !== -syscalls.EINPROGRESS)
      throw kernelError(`connect to ${formatEndpoint(remote)}`, -result)
    return fd
  } catch (error) {
    syscalls.close(fd)
    throw error
  }
}

class TcpListener {
  readonly #fd: number
  readonly #endpoint: Endpoint
  readonly #ready: syscalls.Readiness
  readonly #accept: Accept
  #rules: readonly AcceptRule[] = []

  constructor(endpoint: Endpoint, accept: Accept) {
    const { address, device } = endpoint
    this.#endpoint = endpoint
    this.#accept = accept
    this.#fd = openTcpSocket(address.family)
    try {
      bindSocket(this.#fd, endpoint)
      if (device) bindToDevice(this.#fd, device)
      // The kernel answers a SYN with the listener's TTL, before anybody knows which peer it is from.
      setTtl(this.#fd, address.family, { sendTtl: TTL_MAX })
      const result = syscalls.listen(this.#fd, BACKLOG)
      if (result < 0) throw kernelError(`listen on ${formatEndpoint(endpoint)}`, -result)
    } catch (error) {
      syscalls.close(this.#fd)
      throw error
    }
    this.#ready = new syscalls.Readiness(this.#fd, () => this.#takeConnections())
  }

  setRules(rules: readonly AcceptRule[]): void {
    const before = keysOf(this.#rules, this.#endpoint)
    const after = keysOf(rules, this.#endpoint)
    for (const [key, { from }] of before) if (!after.has(key)) setMd5Key(this.#fd, from, undefined)
    for (const [key, { from, password }] of after)
      if (before.get(key)?.password !== password) setMd5Key(this.#fd, from, password)
    this.#rules = rules
  }

  close(): void {
    this.#ready.close()
    syscalls.close(this.#fd)
  }

  #takeConnections(): void {
    for (let count = 0; count < ACCEPTS_PER_TURN; count++) {
      const fd = syscalls.accept(this.#fd)
      if (fd === -syscalls.EAGAIN) break
      // Any other error is the connection's, not the listener's (accept(2)).
      if (fd >= 0) this.#take(fd)
    }
    this.#ready.arm()
  }

  #take(fd: number): void {
    let stream: TcpStream
    try {
      stream = new TcpStream(fd)
    } catch {
      syscalls.close(fd)
      return
    }
    const { address, device } = stream.remote
    const rule = ruleFor(this.#rules, address, device)
    try {
      if (rule) setTtl(fd, address.family, rule)
      const listener = rule && this.#accept(stream)
      if (listener) return stream.listen(listener)
    } catch {
      // The peer is gone already.
    }
    // A peer that is not wanted now is told so by an orderly end, a stranger by none.
    if (rule) stream.close()
    else stream.abort()
  }
}

/** The rules of a listener's family that have a key, by the addresses that they are for. */
const keysOf = (rules: readonly AcceptRule[], { address }: Endpoint): Map<string, AcceptRule> =>
  new Map(
    rules
      .filter(({ from, password }) => password !== undefined && from.family === address.family)
      .map((rule) => [String(rule.from), rule]),
  )

/** The rule with the longest prefix that an address is in. */
function ruleFor(rules: readonly AcceptRule[], address: Endpoint['address'], device?: string): AcceptRule | undefined {
  let best: AcceptRule | undefined
  for (const rule of rules)
    if (rule.from.contains(address) && (rule.device === undefined || rule.device === device))
      if (!best || rule.from.length > best.from.length) best = rule
  return best
}
