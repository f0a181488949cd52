/**
 * Finds the only neighbour on a device by its link-local address, for peers that have no other (BGP unnumbered): routers
 * tell of themselves by Router Advertisements. Ours say that we are no default router (lifetime 0) and nothing else; other
 * speakers find us by them as we find them.
 *
 * Sources: RFC 4861 sections 4.1, 4.2, 6.1.2 (checks), 6.2 (sending); icmpv6 in ipv6(7), raw(7): the kernel does checksums.
 */
import * as syscalls from '../../kernel/linux/syscalls.ts'
import { Ip } from '../../net/ip.ts'
import { bindToDevice, decodeSocketAddress, encodeSocketAddress, readDeviceIndex } from './socket-options.ts'

const IPPROTO_ICMPV6 = 58
const SOL_IPV6 = 41
const ICMPV6_FILTER = 1
const IPV6_MULTICAST_HOPS = 18
const IPV6_MULTICAST_LOOP = 19
const IPV6_ADD_MEMBERSHIP = 20
const ROUTER_SOLICITATION = 133
const ROUTER_ADVERTISEMENT = 134
/** "MAX_INITIAL_RTR_ADVERTISEMENTS", then as often as an unnumbered neighbour needs to notice that we are back. */
const FIRST_ADVERTISEMENTS = 3
const FIRST_MILLISECONDS = 1000
const LATER_MILLISECONDS = 10_000
/** A device that is not there yet is looked for so often. */
const RETRY_MILLISECONDS = 1000
const MESSAGE_BYTES = 1500
const SOCKADDR_BYTES = 28

const allNodes = Ip.parse('ff02::1')
const allRouters = Ip.parse('ff02::2')

/** Type, code, checksum; hop limit 64, no flags, lifetime 0; reachable and retransmission times unspecified. */
const advertisement = Uint8Array.of(ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
const solicitation = Uint8Array.of(ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0)

export class NeighbourWatch {
  readonly #found: (device: string, address: Ip) => void
  readonly #devices = new Map<string, Advertiser>()

  constructor(found: (device: string, address: Ip) => void) {
    this.#found = found
  }

  /** Replaces the devices that are watched. */
  watch(devices: readonly string[]): void {
    for (const [device, advertiser] of this.#devices)
      if (!devices.includes(device)) {
        advertiser.close()
        this.#devices.delete(device)
      }
    for (const device of devices)
      if (!this.#devices.has(device))
        this.#devices.set(device, new Advertiser(device, (address) => this.#found(device, address)))
  }

  close(): void {
    this.watch([])
  }
}

class Advertiser {
  readonly #device: string
  readonly #found: (address: Ip) => void
  readonly #buffer = new Uint8Array(MESSAGE_BYTES)
  #fd = -1
  #ready: syscalls.Readiness | undefined
  #timer: NodeJS.Timeout | undefined
  #sent = 0

  constructor(device: string, found: (address: Ip) => void) {
    this.#device = device
    this.#found = found
    this.#begin()
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#ready?.close()
    this.#ready = undefined
    if (this.#fd >= 0) syscalls.close(this.#fd)
    this.#fd = -1
  }

  #begin(): void {
    try {
      this.#open()
    } catch {
      // No such device, or none with a link-local address yet.
      this.close()
      this.#timer = setTimeout(() => this.#begin(), RETRY_MILLISECONDS)
      return
    }
    this.#ready = new syscalls.Readiness(this.#fd, () => this.#receive())
    this.#send(allRouters, solicitation)
    this.#advertise()
  }

  #open(): void {
    const type = syscalls.SOCK_RAW | syscalls.SOCK_NONBLOCK | syscalls.SOCK_CLOEXEC
    this.#fd = syscalls.socket(syscalls.AF_INET6, type, IPPROTO_ICMPV6)
    if (this.#fd < 0) throw new Error('no raw socket')
    bindToDevice(this.#fd, this.#device)
    // A set bit blocks a type: all but the two that are read.
    const filter = new Uint32Array(8).fill(0xffffffff)
    for (const each of [ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT]) filter[each >> 5]! &= ~(1 << (each & 31))
    syscalls.setsockopt(this.#fd, IPPROTO_ICMPV6, ICMPV6_FILTER, new Uint8Array(filter.buffer))
    syscalls.setsockoptInt(this.#fd, SOL_IPV6, IPV6_MULTICAST_HOPS, 255)
    syscalls.setsockoptInt(this.#fd, SOL_IPV6, IPV6_MULTICAST_LOOP, 0)
    const request = new Uint8Array(20)
    allRouters.writeTo(request, 0)
    new DataView(request.buffer).setUint32(16, readDeviceIndex(this.#fd, this.#device), true)
    syscalls.setsockopt(this.#fd, SOL_IPV6, IPV6_ADD_MEMBERSHIP, request)
  }

  #advertise(): void {
    const sent = this.#send(allNodes, advertisement)
    // Without an address of its own the device refuses; what counts are those that went out.
    if (sent >= 0) this.#sent++
    const pause = this.#sent < FIRST_ADVERTISEMENTS ? FIRST_MILLISECONDS : LATER_MILLISECONDS
    this.#timer = setTimeout(() => this.#advertise(), pause)
    this.#timer.unref()
  }

  #send(address: Ip, bytes: Uint8Array): number {
    try {
      const to = encodeSocketAddress(this.#fd, { address, port: 0 })
      new DataView(to.buffer).setUint32(24, readDeviceIndex(this.#fd, this.#device), true)
      return syscalls.sendTo(this.#fd, bytes, to)
    } catch {
      return -1
    }
  }

  #receive(): void {
    for (;;) {
      const from = new Uint8Array(SOCKADDR_BYTES)
      const count = syscalls.recvFrom(this.#fd, this.#buffer, from)
      if (count < 0) break
      this.#read(this.#buffer.subarray(0, count), from)
    }
    this.#ready?.arm()
  }

  #read(message: Uint8Array, from: Uint8Array): void {
    const [type, code] = message
    // RFC 4861 section 6.1.2: from a link-local address, code 0, at least 16 bytes.
    const { address } = decodeSocketAddress(this.#fd, from)
    if (!address.isLinkLocal || code !== 0) return
    if (type === ROUTER_SOLICITATION) this.#send(allNodes, advertisement)
    else if (type === ROUTER_ADVERTISEMENT && message.length >= advertisement.length) this.#found(address)
  }
}
