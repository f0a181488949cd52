/**
 * RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE: struct rtmsg and the RTA_* attributes, nexthops of a multipath route and
 * metrics.
 *
 * Sources: include/uapi/linux/rtnetlink.h (struct rtmsg, struct rtnexthop, struct rtvia, RTAX_*); rtnetlink(7).
 */
import { type Codec, rawBytes, u8, u16le, u32le, u64be } from '../../bytes/codec.ts'
import { inField } from '../../bytes/errors.ts'
import type { Writer } from '../../bytes/writer.ts'
import type { Ip } from '../../net/ip.ts'
import { attributeTable, type Decoded, nested } from '../netlink/attribute.ts'
import { NLA_F_NESTED } from '../netlink/constants.gen.ts'
import { ip } from '../netlink/values.ts'
import * as k from './constants.gen.ts'

/** RTA_VIA: a gateway of another family than the route's. */
const via: Codec<Ip> = {
  name: 'via',
  decode(reader) {
    reader.skip(2)
    return ip.decode(reader)
  },
  encode(writer, value) {
    writer.u16le(value.family === 4 ? 2 : 10)
    ip.encode(writer, value)
  },
}

const metricAttributes = attributeTable('metrics', {
  lock: [k.RTAX_LOCK, u32le],
  mtu: [k.RTAX_MTU, u32le],
  advertisedMss: [k.RTAX_ADVMSS, u32le],
  window: [k.RTAX_WINDOW, u32le],
  hopLimit: [k.RTAX_HOPLIMIT, u32le],
})

/** What RTA_ENCAP holds for LWTUNNEL_ENCAP_IP and LWTUNNEL_ENCAP_IP6, which have the same numbers for these. */
export const encapsulationAttributes = attributeTable('encapsulation', {
  id: [k.LWTUNNEL_IP_ID, u64be],
  destination: [k.LWTUNNEL_IP_DST, ip],
  source: [k.LWTUNNEL_IP_SRC, ip],
  ttl: [k.LWTUNNEL_IP_TTL, u8],
})

/** RTA_ENCAP stays bytes here: what they mean depends on the type. */
const encapsulationRows = {
  encapsulationType: [k.RTA_ENCAP_TYPE, u16le],
  encapsulation: [k.RTA_ENCAP, rawBytes, NLA_F_NESTED],
} as const

const hopAttributes = attributeTable('hop', {
  gateway: [k.RTA_GATEWAY, ip],
  via: [k.RTA_VIA, via],
  ...encapsulationRows,
})

/** struct rtnexthop with its attributes. */
export interface RouteHop {
  /** RTNH_F_*. */
  readonly flags: number
  /** Weight minus one. */
  readonly hops: number
  readonly index: number
  readonly attributes: Decoded<typeof hopAttributes>
}

const multipath: Codec<readonly RouteHop[]> = {
  name: 'multipath',
  decode(reader) {
    const out: RouteHop[] = []
    while (reader.remaining >= 8) {
      const start = reader.offset
      const length = reader.u16le()
      if (length < 8 || length - 2 > reader.remaining) reader.fail(`hop length ${length} does not fit`)
      const flags = reader.u8()
      const hops = reader.u8()
      const index = reader.i32le()
      const attributes = inField(`[${out.length}]`, () => reader.scoped(length - 8, hopAttributes.decode))
      out.push({ flags, hops, index, attributes })
      reader.align(4, start)
    }
    return out
  },
  encode(writer, hops) {
    for (const hop of hops) {
      const start = writer.length
      writer.u16le(0)
      writer.u8(hop.flags)
      writer.u8(hop.hops)
      writer.i32le(hop.index)
      hopAttributes.encode(writer, hop.attributes)
      writer.patchU16le(start, writer.length - start)
      writer.align(4, start)
    }
  },
}

export const routeAttributes = attributeTable('route', {
  destination: [k.RTA_DST, ip],
  source: [k.RTA_SRC, ip],
  table: [k.RTA_TABLE, u32le],
  outDevice: [k.RTA_OIF, u32le],
  inDevice: [k.RTA_IIF, u32le],
  gateway: [k.RTA_GATEWAY, ip],
  via: [k.RTA_VIA, via],
  preferredSource: [k.RTA_PREFSRC, ip],
  priority: [k.RTA_PRIORITY, u32le],
  metrics: nested(k.RTA_METRICS, metricAttributes),
  multipath: [k.RTA_MULTIPATH, multipath],
  preference: [k.RTA_PREF, u8],
  nexthopId: [k.RTA_NH_ID, u32le],
  ...encapsulationRows,
})
export type RouteAttributes = Decoded<typeof routeAttributes>

/** struct rtmsg. */
export interface RouteHeader {
  readonly family: number
  readonly destinationLength: number
  readonly sourceLength: number
  readonly tos: number
  /** The low byte of the table; `attributes.table` has the whole number. */
  readonly table: number
  readonly protocol: number
  readonly scope: number
  readonly type: number
  /** RTNH_F_* of a single hop, RTM_F_*. */
  readonly flags: number
}
export interface RouteMessage extends RouteHeader {
  readonly attributes: RouteAttributes
}

/** Writes struct rtmsg alone. */
export function encodeRouteHeader(writer: Writer, value: RouteHeader): void {
  writer.u8(value.family)
  writer.u8(value.destinationLength)
  writer.u8(value.sourceLength)
  writer.u8(value.tos)
  writer.u8(value.table)
  writer.u8(value.protocol)
  writer.u8(value.scope)
  writer.u8(value.type)
  writer.u32le(value.flags)
}

export const routeMessage: Codec<RouteMessage> = {
  name: 'route message',
  decode: (reader) => ({
    family: reader.u8(),
    destinationLength: reader.u8(),
    sourceLength: reader.u8(),
    tos: reader.u8(),
    table: reader.u8(),
    protocol: reader.u8(),
    scope: reader.u8(),
    type: reader.u8(),
    flags: reader.u32le(),
    attributes: routeAttributes.decode(reader),
  }),
  encode(writer, value) {
    encodeRouteHeader(writer, value)
    routeAttributes.encode(writer, value.attributes)
  },
}
