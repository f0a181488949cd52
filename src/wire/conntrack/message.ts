/**
 * Connection tracking over nfnetlink: entries with their two directions, as dumped, announced and deleted.
 *
 *   original  client → address that was asked     reply  who answered → client as the answer sees it
 *
 * With translation the reply's source is where the packets went, and its destination the address they came from.
 *
 * Sources: include/uapi/linux/netfilter/{nfnetlink_conntrack,nf_conntrack_common}.h.
 */
import { type Codec, u16be, u32be, u64be } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import { attributeTable, type Decoded, nested } from '../netlink/attribute.ts'
import { ip } from '../netlink/values.ts'
import { NFNL_SUBSYS_CTNETLINK } from '../nftables/constants.gen.ts'
import * as n from './constants.gen.ts'

export const conntrackMessageType = (message: number): number => (NFNL_SUBSYS_CTNETLINK << 8) | message

const u8: Codec<number> = {
  name: 'u8',
  decode: (reader: Reader) => reader.u8(),
  encode: (writer: Writer, value: number) => writer.u8(value),
}

/** One direction. Ports are those of TCP, UDP, SCTP; the ICMP fields those of ICMP and ICMPv6. */
const tuple = attributeTable('tuple', {
  ip: nested(
    n.CTA_TUPLE_IP,
    attributeTable('ip', {
      v4Source: [n.CTA_IP_V4_SRC, ip],
      v4Destination: [n.CTA_IP_V4_DST, ip],
      v6Source: [n.CTA_IP_V6_SRC, ip],
      v6Destination: [n.CTA_IP_V6_DST, ip],
    }),
  ),
  proto: nested(
    n.CTA_TUPLE_PROTO,
    attributeTable('proto', {
      number: [n.CTA_PROTO_NUM, u8],
      sourcePort: [n.CTA_PROTO_SRC_PORT, u16be],
      destinationPort: [n.CTA_PROTO_DST_PORT, u16be],
      icmpId: [n.CTA_PROTO_ICMP_ID, u16be],
      icmpType: [n.CTA_PROTO_ICMP_TYPE, u8],
      icmpCode: [n.CTA_PROTO_ICMP_CODE, u8],
      icmpv6Id: [n.CTA_PROTO_ICMPV6_ID, u16be],
      icmpv6Type: [n.CTA_PROTO_ICMPV6_TYPE, u8],
      icmpv6Code: [n.CTA_PROTO_ICMPV6_CODE, u8],
    }),
  ),
  zone: [n.CTA_TUPLE_ZONE, u16be],
})
export type TupleMessage = Decoded<typeof tuple>

const counters = attributeTable('counters', {
  packets: [n.CTA_COUNTERS_PACKETS, u64be],
  bytes: [n.CTA_COUNTERS_BYTES, u64be],
})

export const flowMessage = attributeTable('flow', {
  original: nested(n.CTA_TUPLE_ORIG, tuple),
  reply: nested(n.CTA_TUPLE_REPLY, tuple),
  status: [n.CTA_STATUS, u32be],
  timeoutSeconds: [n.CTA_TIMEOUT, u32be],
  mark: [n.CTA_MARK, u32be],
  originalCounters: nested(n.CTA_COUNTERS_ORIG, counters),
  replyCounters: nested(n.CTA_COUNTERS_REPLY, counters),
  id: [n.CTA_ID, u32be],
  zone: [n.CTA_ZONE, u16be],
})
export type FlowMessage = Decoded<typeof flowMessage>
