/**
 * What one frame says, layer by layer, outermost first: Ethernet, ARP, IPv4, IPv6, ICMP, TCP, UDP, IP in IP, and what UDP carries
 * when its port is that of a tunnel (VXLAN; GENEVE; flannel's `udp` backend and FoU, bare IP packets). Made for showing a packet's
 * way, so a layer that cannot be decoded ends the list as `bytes` instead of an error: a capture may be cut anywhere.
 *
 * Sources: IEEE 802.3; RFC 826 (ARP), RFC 791, RFC 8200, RFC 792, RFC 4443, RFC 768, RFC 9293, RFC 2003 (IP in IP), RFC 2473 (in
 * IPv6), RFC 7348 section 5 (VXLAN), RFC 8926 section 3.4 (GENEVE); flannel Documentation/backends.md (udp, port 8285); kube-router
 * docs/user-guide.md (FoU, port 5555).
 */
import { DecodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'

export interface EthernetLayer {
  readonly layer: 'ethernet'
  readonly source: Mac
  readonly destination: Mac
  readonly etherType: number
}
export interface ArpLayer {
  readonly layer: 'arp'
  readonly operation: number
  readonly sender: Ip
  readonly target: Ip
}
export interface IpLayer {
  readonly layer: 'ip'
  readonly source: Ip
  readonly destination: Ip
  /** Time to live or hop limit. */
  readonly ttl: number
  readonly protocol: number
  /** Total length in bytes, header included, as the header says. */
  readonly totalLength: number
  /** Fragment offset in bytes; the transport layer is decoded for the first fragment only. */
  readonly fragmentOffset: number
}
export interface IcmpLayer {
  readonly layer: 'icmp'
  readonly version: 4 | 6
  readonly type: number
  readonly code: number
  /** For echo requests and replies. */
  readonly identifier: number
  readonly sequence: number
}
export interface UdpLayer {
  readonly layer: 'udp'
  readonly sourcePort: number
  readonly destinationPort: number
}
export interface TcpLayer {
  readonly layer: 'tcp'
  readonly sourcePort: number
  readonly destinationPort: number
  /** FIN 1, SYN 2, RST 4, PSH 8, ACK 16. */
  readonly flags: number
  readonly sequence: number
}
export interface VxlanLayer {
  readonly layer: 'vxlan'
  readonly vni: number
}
/** RFC 8926; options are passed over. */
export interface GeneveLayer {
  readonly layer: 'geneve'
  readonly vni: number
}
/** flannel's `udp` backend, and FoU: the UDP payload is an IP packet. */
export interface UdpTunnelLayer {
  readonly layer: 'udp-tunnel'
}
/** The payload of the IP packet before is an IP packet. */
export interface IpTunnelLayer {
  readonly layer: 'ip-tunnel'
}
export interface BytesLayer {
  readonly layer: 'bytes'
  readonly bytes: Uint8Array
  /** Why decoding stopped here, when it was not simply payload. */
  readonly problem?: string
}
export type Layer =
  | EthernetLayer
  | ArpLayer
  | IpLayer
  | IcmpLayer
  | UdpLayer
  | TcpLayer
  | VxlanLayer
  | GeneveLayer
  | UdpTunnelLayer
  | IpTunnelLayer
  | BytesLayer

/** How a frame begins: `ethernet`, or a bare IP packet as on a TUN device. */
export type FrameStart = 'ethernet' | 'ip'

/** UDP destination ports that carry a tunnel. */
export interface TunnelPorts {
  readonly vxlan: readonly number[]
  readonly geneve: readonly number[]
  readonly udp: readonly number[]
}
/** IANA's and flannel's VXLAN ports, IANA's for GENEVE, flannel's UDP port and kube-router's for FoU. */
const usualTunnelPorts: TunnelPorts = { vxlan: [8472, 4789], geneve: [6081], udp: [8285, 5555] }

/** Nested tunnels deeper than this are shown as bytes. */
const maxLayers = 16

/** The layers of one frame. Never throws: a broken layer becomes `bytes` with the problem. */
export function decodePacket(
  frame: Uint8Array,
  start: FrameStart = 'ethernet',
  ports: TunnelPorts = usualTunnelPorts,
): Layer[] {
  const layers: Layer[] = []
  const reader = new Reader(frame)
  let next: Step | undefined = start === 'ethernet' ? ethernet : ip
  while (next && layers.length < maxLayers) {
    const at = reader.offset
    try {
      next = next(reader, layers, ports)
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error
      layers.push({ layer: 'bytes', bytes: frame.subarray(at, reader.end), problem: error.message })
      return layers
    }
  }
  if (reader.remaining > 0) layers.push({ layer: 'bytes', bytes: reader.rest() })
  return layers
}

/** Decodes one layer, pushes it, and says what follows. */
type Step = (reader: Reader, layers: Layer[], ports: TunnelPorts) => Step | undefined

const etherTypes: Readonly<Record<number, Step>> = { 2048: ip, 34525: ip, 2054: arp }

function ethernet(reader: Reader, layers: Layer[]): Step | undefined {
  const destination = new Mac(reader.bytes(6).slice())
  const source = new Mac(reader.bytes(6).slice())
  let etherType = reader.u16be()
  if (etherType === 0x8100) {
    reader.skip(2)
    etherType = reader.u16be()
  }
  layers.push({ layer: 'ethernet', source, destination, etherType })
  return etherTypes[etherType]
}

function arp(reader: Reader, layers: Layer[]): undefined {
  reader.skip(4)
  if (reader.u16be() !== 0x0604) reader.fail('ARP for other than IPv4 over Ethernet')
  const operation = reader.u16be()
  reader.skip(6)
  const sender = Ip.fromBytes(reader.bytes(4))
  reader.skip(6)
  layers.push({ layer: 'arp', operation, sender, target: Ip.fromBytes(reader.bytes(4)) })
}

function ip(reader: Reader, layers: Layer[]): Step | undefined {
  const version = reader.buffer[reader.offset]! >> 4
  if (reader.remaining === 0 || (version !== 4 && version !== 6)) reader.fail('neither IPv4 nor IPv6')
  return version === 4 ? ipv4(reader, layers) : ipv6(reader, layers)
}

function ipv4(reader: Reader, layers: Layer[]): Step | undefined {
  const start = reader.offset
  const headerBytes = (reader.u8() & 15) * 4
  reader.skip(1)
  const totalLength = reader.u16be()
  reader.skip(2)
  const fragmentOffset = (reader.u16be() & 0x1fff) * 8
  const ttl = reader.u8()
  const protocol = reader.u8()
  reader.skip(2)
  const source = Ip.fromBytes(reader.bytes(4))
  const destination = Ip.fromBytes(reader.bytes(4))
  if (headerBytes < 20) reader.fail(`an IPv4 header of ${headerBytes} bytes`)
  reader.skip(headerBytes - 20)
  // Ethernet pads short frames: the packet ends where its header says. Zero stands for "larger than 64 KiB" (GSO).
  if (totalLength >= headerBytes) reader.end = Math.min(reader.end, start + totalLength)
  layers.push({ layer: 'ip', source, destination, ttl, protocol, totalLength, fragmentOffset })
  return fragmentOffset === 0 ? transports[protocol] : undefined
}

function ipv6(reader: Reader, layers: Layer[]): Step | undefined {
  const start = reader.offset
  reader.skip(4)
  const payloadLength = reader.u16be()
  let protocol = reader.u8()
  const ttl = reader.u8()
  const source = Ip.fromBytes(reader.bytes(16))
  const destination = Ip.fromBytes(reader.bytes(16))
  if (payloadLength > 0) reader.end = Math.min(reader.end, start + 40 + payloadLength)
  let fragmentOffset = 0
  // Hop-by-hop, routing, fragment and destination options (RFC 8200 section 4).
  for (let i = 0; i < 8 && (protocol === 0 || protocol === 43 || protocol === 44 || protocol === 60); i++) {
    const here = protocol
    protocol = reader.u8()
    const more = reader.u8()
    if (here === 44) {
      fragmentOffset = reader.u16be() & 0xfff8
      reader.skip(4)
    } else reader.skip(6 + more * 8)
  }
  layers.push({ layer: 'ip', source, destination, ttl, protocol, totalLength: payloadLength + 40, fragmentOffset })
  return fragmentOffset === 0 ? transports[protocol] : undefined
}

const transports: Readonly<Record<number, Step>> = {
  1: (reader, layers) => icmp(reader, layers, 4),
  58: (reader, layers) => icmp(reader, layers, 6),
  4: ipTunnel,
  6: tcp,
  17: udp,
  41: ipTunnel,
}

function icmp(reader: Reader, layers: Layer[], version: 4 | 6): undefined {
  const type = reader.u8()
  const code = reader.u8()
  reader.skip(2)
  layers.push({ layer: 'icmp', version, type, code, identifier: reader.u16be(), sequence: reader.u16be() })
}

function tcp(reader: Reader, layers: Layer[]): undefined {
  const sourcePort = reader.u16be()
  const destinationPort = reader.u16be()
  const sequence = reader.u32be()
  reader.skip(4)
  const headerBytes = (reader.u8() >> 4) * 4
  const flags = reader.u8()
  if (headerBytes < 20) reader.fail(`a TCP header of ${headerBytes} bytes`)
  reader.skip(headerBytes - 14)
  layers.push({ layer: 'tcp', sourcePort, destinationPort, flags, sequence })
}

function udp(reader: Reader, layers: Layer[], ports: TunnelPorts): Step | undefined {
  const sourcePort = reader.u16be()
  const destinationPort = reader.u16be()
  reader.skip(4)
  layers.push({ layer: 'udp', sourcePort, destinationPort })
  if (ports.vxlan.includes(destinationPort)) return vxlan
  if (ports.geneve.includes(destinationPort)) return geneve
  if (ports.udp.includes(destinationPort)) return udpTunnel
  return undefined
}

function vxlan(reader: Reader, layers: Layer[]): Step {
  reader.skip(4)
  layers.push({ layer: 'vxlan', vni: reader.u32be() >>> 8 })
  return ethernet
}

function geneve(reader: Reader, layers: Layer[]): Step | undefined {
  const optionBytes = (reader.u8() & 63) * 4
  reader.skip(1)
  const protocol = reader.u16be()
  layers.push({ layer: 'geneve', vni: reader.u32be() >>> 8 })
  reader.skip(optionBytes)
  return protocol === 0x6558 ? ethernet : etherTypes[protocol]
}

function ipTunnel(_reader: Reader, layers: Layer[]): Step {
  layers.push({ layer: 'ip-tunnel' })
  return ip
}

function udpTunnel(_reader: Reader, layers: Layer[]): Step {
  layers.push({ layer: 'udp-tunnel' })
  return ip
}
