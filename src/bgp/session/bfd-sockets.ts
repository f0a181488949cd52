/**
 * The sockets of BFD: one that receives for all sessions of a family and port, and one to send by for each session.
 * Over a single hop a packet must arrive with a TTL of 255, which nobody beyond the link can make; a filter in the kernel
 * drops the others before they wake anybody.
 *
 * Sources: RFC 5881 sections 4 and 5 (ports 3784 and 49152 to 65535, TTL), RFC 5883 section 5 (port 4784); socket(7),
 * linux/filter.h.
 */
import { createSocket, type Socket } from 'node:dgram'
import { kernelError } from '../../kernel/errno.ts'
import * as syscalls from '../../kernel/linux/syscalls.ts'
import { KernelError } from '../../model/errors.ts'
import { type Family, Ip } from '../../net/ip.ts'
import type { Endpoint } from '../transport.ts'
import { bindToDevice, encodeSocketAddress, formatEndpoint, setTtl } from './socket-options.ts'

export const BFD_PORT = 3784
export const BFD_MULTIHOP_PORT = 4784
export const BFD_TTL = 255
const FIRST_SOURCE_PORT = 49_152
const LAST_SOURCE_PORT = 65_535
const SOURCE_PORT_TRIES = 100
const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26

/** Where a classic BPF program finds the network header (SKF_NET_OFF). */
const NETWORK_HEADER = -0x10_0000
const TTL_OFFSET = { 4: 8, 6: 7 } as const

/** A program that accepts packets with at least this TTL. */
function leastTtl(family: Family, ttl: number): Uint8Array {
  const program = new DataView(new ArrayBuffer(32))
  const instruction = (at: number, code: number, jumpTrue: number, jumpFalse: number, operand: number): void => {
    program.setUint16(at * 8, code, true)
    program.setUint8(at * 8 + 2, jumpTrue)
    program.setUint8(at * 8 + 3, jumpFalse)
    program.setInt32(at * 8 + 4, operand, true)
  }
  instruction(0, 0x30, 0, 0, NETWORK_HEADER + TTL_OFFSET[family]) // ldb [network header + TTL]
  instruction(1, 0x35, 0, 1, ttl) // jge ttl
  instruction(2, 0x06, 0, 0, -1) // ret everything
  instruction(3, 0x06, 0, 0, 0) // ret nothing
  return new Uint8Array(program.buffer)
}

function openUdpSocket(family: Family, prepare: (fd: number) => void): number {
  const domain = family === 4 ? syscalls.AF_INET : syscalls.AF_INET6
  const fd = syscalls.socket(domain, syscalls.SOCK_DGRAM | syscalls.SOCK_NONBLOCK | syscalls.SOCK_CLOEXEC, 0)
  if (fd < 0) throw kernelError(`open a UDP socket for IPv${family}`, -fd)
  try {
    prepare(fd)
    return fd
  } catch (error) {
    syscalls.close(fd)
    throw error
  }
}

/** Receives for every session of a family and port. `minimumTtl` is what packets must still have. Throws KernelError. */
export function openBfdReceiver(
  family: Family,
  port: number,
  minimumTtl: number,
  receive: (bytes: Uint8Array, from: Endpoint) => void,
): Socket {
  const fd = openUdpSocket(family, (opened) => {
    // The filter first: nothing unchecked may wait in the queue.
    const attached = syscalls.attachFilter(opened, leastTtl(family, minimumTtl))
    if (attached < 0) throw kernelError('filter BFD packets by their TTL', -attached)
    bindAlone(opened, { address: Ip.any(family), port })
  })
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
  socket.on('message', (bytes, from) => {
    const [address, device] = from.address.split('%')
    receive(bytes, { address: Ip.parse(address!), port: from.port, device })
  })
  socket.bind({ fd })
  return socket
}

/** Sends to one peer from a source port of its own, the same for the session's life. */
export class BfdSender {
  readonly #fd: number
  readonly #remote: Uint8Array

  /** `random` gives numbers 0 ≤ x < 1. Throws KernelError. */
  constructor(remote: Endpoint, localAddress: Ip | undefined, random: () => number) {
    const { family } = remote.address
    this.#fd = openUdpSocket(family, (fd) => {
      if (remote.device) bindToDevice(fd, remote.device)
      setTtl(fd, family, { sendTtl: BFD_TTL })
      bindToSourcePort(fd, localAddress ?? Ip.any(family), remote.device, random)
    })
    this.#remote = encodeSocketAddress(this.#fd, remote)
  }

  /** A packet that cannot be sent is lost, which is what the peer is to notice. */
  send(bytes: Uint8Array): void {
    syscalls.sendTo(this.#fd, bytes, this.#remote)
  }

  close(): void {
    syscalls.close(this.#fd)
  }
}

/** Binds; unlike TCP's SO_REUSEADDR, UDP's would let a second socket take the packets of the first. */
function bindAlone(fd: number, endpoint: Endpoint): void {
  if (endpoint.address.family === 6) syscalls.setsockoptInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)
  const bound = syscalls.bind(fd, encodeSocketAddress(fd, endpoint))
  if (bound < 0) throw kernelError(`bind to ${formatEndpoint(endpoint)} over UDP`, -bound)
}

function bindToSourcePort(fd: number, address: Ip, device: string | undefined, random: () => number): void {
  for (let tries = 1; ; tries++) {
    const port = FIRST_SOURCE_PORT + Math.floor(random() * (LAST_SOURCE_PORT - FIRST_SOURCE_PORT + 1))
    try {
      return bindAlone(fd, { address, port, device })
    } catch (error) {
      if (!(error instanceof KernelError && error.code === 'EADDRINUSE') || tries === SOURCE_PORT_TRIES) throw error
    }
  }
}
