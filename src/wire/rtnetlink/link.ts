/**
 * RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK: struct ifinfomsg and the IFLA_* attributes. What a device kind adds
 * (IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA) is decoded by the kind's row of kinds/registry.ts and kept as bytes when
 * there is none.
 *
 * Sources: include/uapi/linux/rtnetlink.h (struct ifinfomsg), if_link.h; rtnetlink(7).
 */
import { type Codec, i32le, rawBytes, textZ, u8, u32le } from '../../bytes/codec.ts'
import { inField } from '../../bytes/errors.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import {
  attributeTable,
  beginAttribute,
  type Decoded,
  endAttribute,
  nested,
  readAttributes,
} from '../netlink/attribute.ts'
import { NLA_F_NESTED } from '../netlink/constants.gen.ts'
import * as k from './constants.gen.ts'
import { linkKinds, portKinds } from './kinds/registry.ts'

/** IFLA_LINKINFO. `data` and `portData` are objects of the kind's table, or bytes of a kind without one. */
export interface LinkInfo {
  kind?: string | undefined
  data?: object | Uint8Array | undefined
  portKind?: string | undefined
  portData?: object | Uint8Array | undefined
}

const TYPE_BITS = 0x3fff

const linkInfo: Codec<LinkInfo> = {
  name: 'linkInfo',
  decode(reader) {
    const info: LinkInfo = {}
    readAttributes(reader, (rawType) => {
      const type = rawType & TYPE_BITS
      if (type === k.IFLA_INFO_KIND) info.kind = reader.textZ()
      else if (type === k.IFLA_INFO_SLAVE_KIND) info.portKind = reader.textZ()
      else if (type === k.IFLA_INFO_DATA)
        info.data = inField('data', () => (linkKinds.get(info.kind ?? '') ?? rawBytes).decode(reader))
      else if (type === k.IFLA_INFO_SLAVE_DATA)
        info.portData = inField('portData', () => (portKinds.get(info.portKind ?? '') ?? rawBytes).decode(reader))
    })
    return info
  },
  encode(writer, { kind, data, portKind, portData }) {
    if (kind !== undefined) putText(writer, k.IFLA_INFO_KIND, kind)
    if (data) putData(writer, k.IFLA_INFO_DATA, linkKinds.get(kind ?? ''), data)
    if (portKind !== undefined) putText(writer, k.IFLA_INFO_SLAVE_KIND, portKind)
    if (portData) putData(writer, k.IFLA_INFO_SLAVE_DATA, portKinds.get(portKind ?? ''), portData)
  },
}

function putText(writer: Writer, type: number, text: string): void {
  const start = beginAttribute(writer, type)
  textZ.encode(writer, text)
  endAttribute(writer, start)
}

function putData(writer: Writer, type: number, codec: Codec<object> | undefined, data: object | Uint8Array): void {
  const start = beginAttribute(writer, type | NLA_F_NESTED)
  if (data instanceof Uint8Array) writer.bytes(data)
  else if (codec) codec.encode(writer, data)
  else throw new TypeError('no table for this kind of link')
  endAttribute(writer, start)
}

const inet6Specifics = attributeTable('inet6', { addressGenerationMode: [k.IFLA_INET6_ADDR_GEN_MODE, u8] })

/** IFLA_AF_SPEC: attributes numbered by address family. */
const familySpecifics = attributeTable('familySpecifics', { inet6: nested(10, inet6Specifics) })

const linkAttributes = attributeTable('link', {
  name: [k.IFLA_IFNAME, textZ],
  mtu: [k.IFLA_MTU, u32le],
  address: [k.IFLA_ADDRESS, rawBytes],
  broadcast: [k.IFLA_BROADCAST, rawBytes],
  link: [k.IFLA_LINK, u32le],
  linkNetnsId: [k.IFLA_LINK_NETNSID, i32le],
  master: [k.IFLA_MASTER, u32le],
  txQueueLength: [k.IFLA_TXQLEN, u32le],
  operationalState: [k.IFLA_OPERSTATE, u8],
  alias: [k.IFLA_IFALIAS, textZ],
  group: [k.IFLA_GROUP, u32le],
  gsoMaxSize: [k.IFLA_GSO_MAX_SIZE, u32le],
  txQueues: [k.IFLA_NUM_TX_QUEUES, u32le],
  rxQueues: [k.IFLA_NUM_RX_QUEUES, u32le],
  netnsFd: [k.IFLA_NET_NS_FD, u32le],
  extMask: [k.IFLA_EXT_MASK, u32le],
  info: nested(k.IFLA_LINKINFO, linkInfo),
  familySpecifics: nested(k.IFLA_AF_SPEC, familySpecifics),
  qdisc: [k.IFLA_QDISC, textZ],
})
export type LinkAttributes = Decoded<typeof linkAttributes>

/** struct ifinfomsg. */
export interface LinkHeader {
  readonly family: number
  /** ARPHRD_*. */
  readonly hardwareType: number
  readonly index: number
  /** IFF_*. */
  readonly flags: number
  /** Which bits of `flags` to change. */
  readonly change: number
}

export const linkHeader: Codec<LinkHeader> = {
  name: 'ifinfomsg',
  decode(reader) {
    const family = reader.u8()
    reader.skip(1)
    return {
      family,
      hardwareType: reader.u16le(),
      index: reader.i32le(),
      flags: reader.u32le(),
      change: reader.u32le(),
    }
  },
  encode(writer, value) {
    writer.u16le(value.family)
    writer.u16le(value.hardwareType)
    writer.i32le(value.index)
    writer.u32le(value.flags)
    writer.u32le(value.change)
  },
  size: () => 16,
}

/** The header of a request about device `index` (0: by name). */
export const linkRequest = (index: number, flags = 0, change = 0): LinkHeader => ({
  family: 0,
  hardwareType: 0,
  index,
  flags,
  change,
})

export interface LinkMessage {
  readonly header: LinkHeader
  readonly attributes: LinkAttributes
}

export const linkMessage: Codec<LinkMessage> = {
  name: 'link message',
  decode: (reader: Reader) => ({ header: linkHeader.decode(reader), attributes: linkAttributes.decode(reader) }),
  encode(writer, value) {
    linkHeader.encode(writer, value.header)
    linkAttributes.encode(writer, value.attributes)
  },
}
