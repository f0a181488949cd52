/**
 * A netlink socket in multicast groups that hangs in Node's own event loop, without a thread and without polling: a
 * datagram handle is opened on a placeholder UDP socket, whose file descriptor is then made to mean the netlink socket
 * (dup3) before the loop first looks at it. libuv reads it with recvmsg either way.
 *
 * Sources: netlink(7) (ENOBUFS, NETLINK_ADD_MEMBERSHIP).
 */
import { createSocket, type Socket } from 'node:dgram'
import * as nl from '../../wire/netlink/constants.gen.ts'
import { kernelError } from '../errno.ts'
import { countOverrun } from './netlink-counts.ts'
import { type DescribeMessage, nlDebug } from './netlink-debug.ts'
import { setReceiveBuffer } from './netlink-socket.ts'
import * as syscalls from './syscalls.ts'

const RECEIVE_BUFFER_BYTES = 16 << 20
/** Datagrams read in one go before the event loop gets its turn. */
const MAX_DRAIN = 256

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
  readonly #socket: Socket
  readonly #fd: number
  readonly #listener: MulticastListener
  #closed = false

  /** Opens in the namespace that the calling thread is in. Throws KernelError. */
  constructor(protocol: number, groups: Iterable<number>, listener: MulticastListener) {
    const { socket, fd } = open(protocol, groups)
    this.#socket = socket
    this.#fd = fd
    this.#listener = listener
    socket.on('message', (datagram) => this.#receive(datagram))
    socket.on('error', () => this.#lost())
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.close()
  }

  #lost(): void {
    countOverrun()
    if (!this.#closed) this.#listener.lost()
  }

  #hand(datagram: Uint8Array): void {
    nlDebug?.('*', '', datagram, this.#listener.describe)
    this.#listener.datagram(datagram)
  }

  #receive(first: Uint8Array): void {
    this.#hand(first)
    this.#drain()
    if (!this.#closed) this.#listener.drained?.()
  }

  #drain(): void {
    for (let i = 0; i < MAX_DRAIN && !this.#closed; i++) {
      const got = syscalls.recv(this.#fd, inbox, syscalls.MSG_DONTWAIT)
      if (got === -syscalls.ENOBUFS) this.#lost()
      else if (got <= 0) return
      else this.#hand(inbox.subarray(0, got))
    }
  }
}

function open(protocol: number, groups: Iterable<number>): { socket: Socket; fd: number } {
  const what = `watch netlink protocol ${protocol}`
  const flags = syscalls.SOCK_CLOEXEC | syscalls.SOCK_NONBLOCK
  const netlink = syscalls.socket(syscalls.AF_NETLINK, syscalls.SOCK_RAW | flags, protocol)
  if (netlink < 0) throw kernelError(what, -netlink)
  try {
    const bound = syscalls.bindNetlink(netlink)
    if (bound < 0) throw kernelError(what, -bound)
    setReceiveBuffer(netlink, RECEIVE_BUFFER_BYTES)
    for (const group of groups) {
      const joined = syscalls.setsockoptInt(netlink, syscalls.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, group)
      if (joined < 0) throw kernelError(`${what} group ${group}`, -joined)
    }
    const placeholder = syscalls.socket(syscalls.AF_INET, syscalls.SOCK_DGRAM | flags, 0)
    if (placeholder < 0) throw kernelError(what, -placeholder)
    const socket = createSocket('udp4')
    socket.bind({ fd: placeholder })
    const moved = syscalls.dup3(netlink, placeholder)
    if (moved < 0) {
      socket.close()
      throw kernelError(what, -moved)
    }
    return { socket, fd: placeholder }
  } finally {
    syscalls.close(netlink)
  }
}
