/**
 * What a speaker says in its OPEN that it can do. Each capability is one row: number, name, and how its value stands in
 * bytes. Unknown ones are kept as bytes; so are add-path directions that mean nothing (RFC 7911 section 4).
 *
 * Sources: RFC 5492 (form), 4760 (multiprotocol), 2918 and 7313 (route refresh), 8950 (extended next hop), 8654 (extended
 * message), 9234 (role), 4724 and 8538 (graceful restart), 6793 (4-octet AS), 7911 (add-path), 9494 (long-lived graceful
 * restart), draft-walton-bgp-hostname-capability-02 (FQDN).
 */
import type { Reader } from '../../bytes/reader.ts'
import { encodeUtf8 } from '../../bytes/text.ts'
import type { Writer } from '../../bytes/writer.ts'
import { CapabilityCode } from './constants.ts'
import { afiOf, type RouteFamily, routeFamily, safiOf } from './family.ts'

export interface MultiprotocolCapability {
  readonly kind: 'multiprotocol'
  readonly family: RouteFamily
}
export interface FlagCapability {
  readonly kind: 'routeRefresh' | 'enhancedRouteRefresh' | 'extendedMessage'
}
export interface ExtendedNextHopCapability {
  readonly kind: 'extendedNextHop'
  /** Routes of `family` may have next hops of this address family. */
  readonly families: readonly { readonly family: RouteFamily; readonly nextHopAfi: number }[]
}
export interface RoleCapability {
  readonly kind: 'role'
  /** `Role`; unknown numbers are kept. */
  readonly role: number
}
export interface GracefulRestartCapability {
  readonly kind: 'gracefulRestart'
  /** R: this session begins after a restart. */
  readonly restarted: boolean
  /** N (RFC 8538): a NOTIFICATION does not end graceful restart, except a hard reset. */
  readonly notification: boolean
  /** 0 to 4095. */
  readonly restartTimeSeconds: number
  readonly families: readonly GracefulFamily[]
}
export interface GracefulFamily {
  readonly family: RouteFamily
  /** F: the forwarding state of this family survived. */
  readonly forwarding: boolean
}
export interface FourOctetAsCapability {
  readonly kind: 'fourOctetAs'
  readonly asn: number
}
export interface AddPathCapability {
  readonly kind: 'addPath'
  readonly families: readonly { readonly family: RouteFamily; readonly send: boolean; readonly receive: boolean }[]
}
export interface LongLivedGracefulRestartCapability {
  readonly kind: 'longLivedGracefulRestart'
  /** 24 bits. */
  readonly families: readonly (GracefulFamily & { readonly staleTimeSeconds: number })[]
}
export interface FqdnCapability {
  readonly kind: 'fqdn'
  /** At most 255 bytes of UTF-8 each. */
  readonly hostName: string
  readonly domainName: string
}
export interface UnknownCapability {
  readonly kind: 'unknown'
  readonly code: number
  readonly value: Uint8Array
}
export type Capability =
  | MultiprotocolCapability
  | FlagCapability
  | ExtendedNextHopCapability
  | RoleCapability
  | GracefulRestartCapability
  | FourOctetAsCapability
  | AddPathCapability
  | LongLivedGracefulRestartCapability
  | FqdnCapability
  | UnknownCapability

type Known = Exclude<Capability, UnknownCapability>

interface CapabilityRow<C extends Known> {
  readonly code: number
  readonly decode: (value: Reader) => Omit<C, 'kind'>
  readonly encode: (writer: Writer, capability: C) => void
}

const flag = (code: number): CapabilityRow<FlagCapability> => ({ code, decode: () => ({}), encode: () => {} })

/** Reads entries of one size up to the end; a rest that is no whole entry is an error of `entry`. */
function list<T>(reader: Reader, entry: () => T): T[] {
  const out: T[] = []
  while (reader.remaining > 0) out.push(entry())
  return out
}

const readFamily = (reader: Reader): RouteFamily => routeFamily(reader.u16be(), reader.u8())

function writeFamily(writer: Writer, family: RouteFamily): void {
  writer.u16be(afiOf(family))
  writer.u8(safiOf(family))
}

const FORWARDING = 0x80

const rows: { readonly [K in Known['kind']]: CapabilityRow<Extract<Known, { kind: K }>> } = {
  multiprotocol: {
    code: CapabilityCode.MULTIPROTOCOL,
    decode(value) {
      const afi = value.u16be()
      value.skip(1)
      return { family: routeFamily(afi, value.u8()) }
    },
    encode(writer, { family }) {
      writer.u16be(afiOf(family))
      writer.u8(0)
      writer.u8(safiOf(family))
    },
  },
  routeRefresh: flag(CapabilityCode.ROUTE_REFRESH),
  enhancedRouteRefresh: flag(CapabilityCode.ENHANCED_ROUTE_REFRESH),
  extendedMessage: flag(CapabilityCode.EXTENDED_MESSAGE),
  extendedNextHop: {
    code: CapabilityCode.EXTENDED_NEXT_HOP,
    decode: (value) => ({
      // Here the SAFI has two octets (RFC 8950 section 4).
      families: list(value, () => ({
        family: routeFamily(value.u16be(), value.u16be() & 0xff),
        nextHopAfi: value.u16be(),
      })),
    }),
    encode(writer, { families }) {
      for (const { family, nextHopAfi } of families) {
        writer.u16be(afiOf(family))
        writer.u16be(safiOf(family))
        writer.u16be(nextHopAfi)
      }
    },
  },
  role: {
    code: CapabilityCode.ROLE,
    decode: (value) => ({ role: value.u8() }),
    encode: (writer, { role }) => writer.u8(role),
  },
  gracefulRestart: {
    code: CapabilityCode.GRACEFUL_RESTART,
    decode(value) {
      const head = value.u16be()
      return {
        restarted: (head & 0x8000) !== 0,
        notification: (head & 0x4000) !== 0,
        restartTimeSeconds: head & 0x0fff,
        families: list(value, () => ({ family: readFamily(value), forwarding: (value.u8() & FORWARDING) !== 0 })),
      }
    },
    encode(writer, { restarted, notification, restartTimeSeconds, families }) {
      writer.u16be((restarted ? 0x8000 : 0) | (notification ? 0x4000 : 0) | (restartTimeSeconds & 0x0fff))
      for (const { family, forwarding } of families) {
        writeFamily(writer, family)
        writer.u8(forwarding ? FORWARDING : 0)
      }
    },
  },
  fourOctetAs: {
    code: CapabilityCode.FOUR_OCTET_AS,
    decode: (value) => ({ asn: value.u32be() }),
    encode: (writer, { asn }) => writer.u32be(asn),
  },
  addPath: {
    code: CapabilityCode.ADD_PATH,
    decode: (value) => ({
      families: list(value, () => {
        const family = readFamily(value)
        const direction = value.u8()
        return { family, send: direction === 2 || direction === 3, receive: direction === 1 || direction === 3 }
      }),
    }),
    encode(writer, { families }) {
      for (const { family, send, receive } of families) {
        if (!send && !receive) continue
        writeFamily(writer, family)
        writer.u8((send ? 2 : 0) | (receive ? 1 : 0))
      }
    },
  },
  longLivedGracefulRestart: {
    code: CapabilityCode.LONG_LIVED_GRACEFUL_RESTART,
    decode: (value) => ({
      families: list(value, () => ({
        family: readFamily(value),
        forwarding: (value.u8() & FORWARDING) !== 0,
        staleTimeSeconds: value.u8() * 65536 + value.u16be(),
      })),
    }),
    encode(writer, { families }) {
      for (const { family, forwarding, staleTimeSeconds } of families) {
        writeFamily(writer, family)
        writer.u8(forwarding ? FORWARDING : 0)
        writer.u8(staleTimeSeconds >>> 16)
        writer.u16be(staleTimeSeconds & 0xffff)
      }
    },
  },
  fqdn: {
    code: CapabilityCode.FQDN,
    decode: (value) => ({ hostName: value.text(value.u8()), domainName: value.text(value.u8()) }),
    encode(writer, { hostName, domainName }) {
      for (const name of [hostName, domainName]) {
        const text = encodeUtf8(name).subarray(0, 255)
        writer.u8(text.length)
        writer.bytes(text)
      }
    },
  },
}

const kindOf = new Map(Object.entries(rows).map(([kind, { code }]) => [code, kind as Known['kind']]))

/** One value of a capability; the reader ends where the value ends. Throws DecodeError on a value of a wrong length. */
export function decodeCapability(code: number, value: Reader): Capability {
  const kind = kindOf.get(code)
  if (!kind) return { kind: 'unknown', code, value: value.rest().slice() }
  const capability = { kind, ...rows[kind].decode(value) } as Capability
  if (value.remaining > 0) value.fail(`capability ${code}: ${value.remaining} bytes too many`)
  return capability
}

/** The number of a capability. */
export const capabilityCode = (capability: Capability): number =>
  capability.kind === 'unknown' ? capability.code : rows[capability.kind].code

/** Code, length, value. */
export function encodeCapability(writer: Writer, capability: Capability): void {
  writer.u8(capabilityCode(capability))
  const at = writer.zeros(1)
  if (capability.kind === 'unknown') writer.bytes(capability.value)
  else rows[capability.kind].encode(writer, capability as never)
  writer.patchU8(at, writer.length - at - 1)
}
