/**
 * What a BGP session asks of a socket, in the kernel's shapes: addresses, MD5 keys, TTLs, a device. Numbers in host byte
 * order where the kernel has them so; both architectures that weft runs on are little-endian.
 *
 * Sources: ip(7), ipv6(7), tcp(7); linux/tcp.h (struct tcp_md5sig), linux/in.h, linux/in6.h, linux/sockios.h; RFC 2385, RFC 5082.
 */
import { kernelError } from '../../kernel/errno.ts'
import * as syscalls from '../../kernel/linux/syscalls.ts'
import type { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Family, Ip } from '../../net/ip.ts'
import type { Endpoint, TtlRule } from '../transport.ts'

const IPPROTO_IP = 0
const IPPROTO_TCP = 6
const IPPROTO_IPV6 = 41
const IP_TTL = 2
const IP_TOS = 1
const IP_FREEBIND = 15
const IP_MINTTL = 21
const IPV6_UNICAST_HOPS = 16
const IPV6_V6ONLY = 26
const IPV6_TCLASS = 67
const IPV6_MINHOPCOUNT = 73
const IPV6_FREEBIND = 78
const TCP_MD5SIG = 14
const TCP_MD5SIG_EXT = 32
const TCP_MD5SIG_FLAG_PREFIX = 1
const TCP_MD5SIG_MAXKEYLEN = 80
const SO_REUSEADDR = 2
const SO_ERROR = 4
const SO_BINDTODEVICE = 25
const SIOCGIFNAME = 0x8910
const SIOCGIFINDEX = 0x8933
const IFNAMSIZ = 16
const SOCKADDR_STORAGE_BYTES = 128

/** RFC 4271 appendix E: "IP Precedence … Internetwork Control (110)". */
const INTERNETWORK_CONTROL = 0xc0

const check = (result: number, what: string): number => {
  if (result < 0) throw kernelError(what, -result)
  return result
}

/** A non-blocking TCP socket of a family. The caller closes it. Throws KernelError. */
export function openTcpSocket(family: Family): number {
  const domain = family === 4 ? syscalls.AF_INET : syscalls.AF_INET6
  const type = syscalls.SOCK_STREAM | syscalls.SOCK_NONBLOCK | syscalls.SOCK_CLOEXEC
  const fd = check(syscalls.socket(domain, type, IPPROTO_TCP), `open a TCP socket for IPv${family}`)
  if (family === 4) syscalls.setsockoptInt(fd, IPPROTO_IP, IP_TOS, INTERNETWORK_CONTROL)
  else syscalls.setsockoptInt(fd, IPPROTO_IPV6, IPV6_TCLASS, INTERNETWORK_CONTROL)
  return fd
}

/** Index of a device in the namespace of a socket. Throws KernelError (ENODEV). */
export function readDeviceIndex(fd: number, device: string): number {
  const request = new Uint8Array(40)
  request.set(new TextEncoder().encode(device).subarray(0, IFNAMSIZ - 1))
  check(syscalls.ioctl(fd, SIOCGIFINDEX, request), `find the device ${device}`)
  return new DataView(request.buffer).getInt32(IFNAMSIZ, true)
}

/** Name of a device in the namespace of a socket; undefined when it is gone. */
export function readDeviceName(fd: number, index: number): string | undefined {
  const request = new Uint8Array(40)
  new DataView(request.buffer).setInt32(IFNAMSIZ, index, true)
  if (syscalls.ioctl(fd, SIOCGIFNAME, request) < 0) return undefined
  return new TextDecoder().decode(request.subarray(0, request.subarray(0, IFNAMSIZ).indexOf(0)))
}

/** struct sockaddr_in or sockaddr_in6; a link-local address takes its device's index along. */
export function encodeSocketAddress(fd: number, { address, port, device }: Endpoint): Uint8Array {
  const bytes = new Uint8Array(address.family === 4 ? 16 : 28)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, address.family === 4 ? syscalls.AF_INET : syscalls.AF_INET6, true)
  view.setUint16(2, port)
  address.writeTo(bytes, address.family === 4 ? 4 : 8)
  if (address.family === 6 && address.isLinkLocal && device) view.setUint32(24, readDeviceIndex(fd, device), true)
  return bytes
}

/** The end of a socket that `getsockname` or `getpeername` gave. Throws KernelError on -errno. */
export function decodeSocketAddress(fd: number, given: Uint8Array | number): Endpoint {
  if (typeof given === 'number') throw kernelError('read the address of a socket', -given)
  const view = new DataView(given.buffer, given.byteOffset, given.length)
  const port = view.getUint16(2)
  if (view.getUint16(0, true) === syscalls.AF_INET) return { address: Ip.fromBytes(given.subarray(4, 8)), port }
  const address = Ip.fromBytes(given.subarray(8, 24))
  const index = view.getUint32(24, true)
  return { address, port, device: index === 0 ? undefined : readDeviceName(fd, index) }
}

/** Binds to a source address or to what is listened on; an address that the host does not have yet is allowed. */
export function bindSocket(fd: number, endpoint: Endpoint): void {
  const { family } = endpoint.address
  syscalls.setsockoptInt(fd, syscalls.SOL_SOCKET, SO_REUSEADDR, 1)
  if (family === 6) {
    check(syscalls.setsockoptInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1), 'keep IPv6 and IPv4 apart')
    syscalls.setsockoptInt(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1)
  } else syscalls.setsockoptInt(fd, IPPROTO_IP, IP_FREEBIND, 1)
  check(syscalls.bind(fd, encodeSocketAddress(fd, endpoint)), `bind to ${formatEndpoint(endpoint)}`)
}

/** Nothing leaves or comes but over this device. */
export function bindToDevice(fd: number, device: string): void {
  const name = new TextEncoder().encode(`${device}\0`)
  check(syscalls.setsockopt(fd, syscalls.SOL_SOCKET, SO_BINDTODEVICE, name), `bind to the device ${device}`)
}

export function setTtl(fd: number, family: Family, { sendTtl, minimumTtl }: TtlRule): void {
  const [level, send, minimum] =
    family === 4 ? [IPPROTO_IP, IP_TTL, IP_MINTTL] : [IPPROTO_IPV6, IPV6_UNICAST_HOPS, IPV6_MINHOPCOUNT]
  check(syscalls.setsockoptInt(fd, level, send, sendTtl), `send with a TTL of ${sendTtl}`)
  if (minimumTtl !== undefined)
    check(syscalls.setsockoptInt(fd, level, minimum, minimumTtl), `drop what has a TTL below ${minimumTtl}`)
}

/** Sets, replaces or (undefined) removes the TCP MD5 key toward addresses. Throws KernelError (ENOPROTOOPT, EINVAL). */
export function setMd5Key(fd: number, peers: Cidr, password: string | undefined): void {
  const key = new TextEncoder().encode(password ?? '')
  const request = new Uint8Array(SOCKADDR_STORAGE_BYTES + 8 + TCP_MD5SIG_MAXKEYLEN)
  const view = new DataView(request.buffer)
  request.set(encodeSocketAddress(fd, { address: peers.base, port: 0 }))
  const isHost = peers.length === bitsOf(peers.family)
  if (!isHost) {
    request[SOCKADDR_STORAGE_BYTES] = TCP_MD5SIG_FLAG_PREFIX
    request[SOCKADDR_STORAGE_BYTES + 1] = peers.length
  }
  view.setUint16(SOCKADDR_STORAGE_BYTES + 2, key.length, true)
  request.set(key.subarray(0, TCP_MD5SIG_MAXKEYLEN), SOCKADDR_STORAGE_BYTES + 8)
  const result = syscalls.setsockopt(fd, IPPROTO_TCP, isHost ? TCP_MD5SIG : TCP_MD5SIG_EXT, request)
  // A key that is not there need not go.
  if (result === -2 && password === undefined) return
  check(result, `${password === undefined ? 'remove' : 'set'} the TCP MD5 key toward ${peers}`)
}

/** The error of an attempt to connect, positive; 0 when it stands. */
export const readSocketError = (fd: number): number => syscalls.getsockoptInt(fd, syscalls.SOL_SOCKET, SO_ERROR)

/** `10.0.0.1:179`, `[fe80::1%eth0]:179`. */
export const formatEndpoint = ({ address, port, device }: Endpoint): string =>
  address.family === 4 ? `${address}:${port}` : `[${address}${device ? `%${device}` : ''}]:${port}`
