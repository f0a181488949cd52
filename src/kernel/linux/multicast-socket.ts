/**
 * A netlink socket in multicast groups, read from Node's event loop without a thread.
 *
 * What comes alone is read at once. One change to a device is told in a dozen messages and changes come in crowds, so after
 * a reading the socket rests, and what has come meanwhile is read in one go:
 *
 *   message ─► read ─ rest ─► read what came ─ rest ─► nothing came: told of the next at once again
 *
 * Sources: netlink(7) (ENOBUFS, NETLINK_ADD_MEMBERSHIP).
 */
import * as nl from '../../wire/netlink/constants.gen.ts'
import { kernelError } from '../errno.ts'
import { countOverrun } from './netlink-counts.ts'
import { type DescribeMessage, nlDebug } from './netlink-debug.ts'
import { setReceiveBuffer } from './netlink-socket.ts'
import * as syscalls from './syscalls.ts'

const RECEIVE_BUFFER_BYTES = 16 << 20
/** Datagrams read in one go before the event loop gets its turn. */
const MAX_DRAIN = 16
/** Far below the second in which drift is to be mended. */
const REST_MILLISECONDS = 10

const inbox = new Uint8Array(256 * 1024)

export interface MulticastListener {
  /** One datagram, valid during the call. */
  datagram(bytes: Uint8Array): void
  /** Nothing more is waiting for now. */
  drained?(): void
  /** The kernel had to drop messages. */
  lost(): void
  /** How WEFT_NLDEBUG prints these messages. */
  readonly describe?: DescribeMessage
}

export class MulticastSocket {
  readonly #fd: number
  readonly #listener: MulticastListener
  readonly #readiness: syscalls.Readiness
  #timer: NodeJS.Timeout | undefined
  #closed = false

  /** Opens in the namespace that the calling thread is in. Throws KernelError. */
  constructor(protocol: number, groups: Iterable<number>, listener: MulticastListener) {
    this.#fd = open(protocol, groups)
    this.#listener = listener
    this.#readiness = new syscalls.Readiness(this.#fd, () => this.#read())
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#timer)
    this.#readiness.close()
    syscalls.close(this.#fd)
  }

  #lost(): void {
    countOverrun()
    if (!this.#closed) this.#listener.lost()
  }

  #read(): void {
    const count = this.#drain()
    if (this.#closed) return
    if (count === MAX_DRAIN) {
      setImmediate(() => this.#read())
      return
    }
    if (count === 0) {
      this.#readiness.arm()
      return
    }
    this.#listener.drained?.()
    if (!this.#closed) this.#timer = setTimeout(() => this.#read(), REST_MILLISECONDS)
  }

  /** Hands on what is waiting; returns how many messages and losses that were. */
  #drain(): number {
    let count = 0
    while (count < MAX_DRAIN && !this.#closed) {
      const got = syscalls.recv(this.#fd, inbox, syscalls.MSG_DONTWAIT)
      if (got === -syscalls.ENOBUFS) this.#lost()
      else if (got <= 0) break
      else this.#hand(inbox.subarray(0, got))
      count++
    }
    return count
  }

  #hand(datagram: Uint8Array): void {
    nlDebug?.('*', '', datagram, this.#listener.describe)
    this.#listener.datagram(datagram)
  }
}

function open(protocol: number, groups: Iterable<number>): number {
  const what = `watch netlink protocol ${protocol}`
  const flags = syscalls.SOCK_CLOEXEC | syscalls.SOCK_NONBLOCK
  const fd = syscalls.socket(syscalls.AF_NETLINK, syscalls.SOCK_RAW | flags, protocol)
  if (fd < 0) throw kernelError(what, -fd)
  try {
    const bound = syscalls.bindNetlink(fd)
    if (bound < 0) throw kernelError(what, -bound)
    setReceiveBuffer(fd, RECEIVE_BUFFER_BYTES)
    for (const group of groups) {
      const joined = syscalls.setsockoptInt(fd, syscalls.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, group)
      if (joined < 0) throw kernelError(`${what} group ${group}`, -joined)
    }
    return fd
  } catch (error) {
    syscalls.close(fd)
    throw error
  }
}
