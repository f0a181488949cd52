/**
 * Link messages of family AF_BRIDGE: what a bridge knows of a port, or of itself, beyond the device's own fields. Here its
 * VLANs, each an attribute of its own inside IFLA_AF_SPEC.
 *
 * Sources: include/uapi/linux/if_bridge.h (IFLA_BRIDGE_*, struct bridge_vlan_info); net/bridge/br_netlink.c (br_afspec).
 */
import { type Codec, textZ, u16le, u32le } from '../../bytes/codec.ts'
import { inField } from '../../bytes/errors.ts'
import type { Reader } from '../../bytes/reader.ts'
import {
  attributeTable,
  beginAttribute,
  type Decoded,
  endAttribute,
  nested,
  readAttributes,
} from '../netlink/attribute.ts'
import * as k from './constants.gen.ts'
import { type LinkHeader, linkHeader } from './link.ts'

const TYPE_BITS = 0x3fff

/** struct bridge_vlan_info. `flags` are BRIDGE_VLAN_INFO_*. */
export interface BridgeVlanInfo {
  readonly flags: number
  readonly vlan: number
}

/** IFLA_AF_SPEC of a bridge. `target` is BRIDGE_FLAGS_MASTER (the port's bridge) or _SELF (the device itself). */
export interface BridgeSpecifics {
  readonly target?: number | undefined
  readonly vlans: readonly BridgeVlanInfo[]
}

const vlanInfo: Codec<BridgeVlanInfo> = {
  name: 'bridge_vlan_info',
  decode: (reader) => ({ flags: reader.u16le(), vlan: reader.u16le() }),
  encode(writer, { flags, vlan }) {
    writer.u16le(flags)
    writer.u16le(vlan)
  },
  size: () => 4,
}

const bridgeSpecifics: Codec<BridgeSpecifics> = {
  name: 'bridgeSpecifics',
  decode(reader) {
    let target: number | undefined
    const vlans: BridgeVlanInfo[] = []
    readAttributes(reader, (rawType) => {
      const type = rawType & TYPE_BITS
      if (type === k.IFLA_BRIDGE_FLAGS) target = inField('target', () => reader.u16le())
      else if (type === k.IFLA_BRIDGE_VLAN_INFO) vlans.push(inField('vlans', () => vlanInfo.decode(reader)))
    })
    return { target, vlans }
  },
  encode(writer, { target, vlans }) {
    const put = <T>(type: number, codec: Codec<T>, value: T) => {
      const start = beginAttribute(writer, type)
      codec.encode(writer, value)
      endAttribute(writer, start)
    }
    if (target !== undefined) put(k.IFLA_BRIDGE_FLAGS, u16le, target)
    for (const vlan of vlans) put(k.IFLA_BRIDGE_VLAN_INFO, vlanInfo, vlan)
  },
}

const bridgeLinkAttributes = attributeTable('bridge link', {
  name: [k.IFLA_IFNAME, textZ],
  master: [k.IFLA_MASTER, u32le],
  extMask: [k.IFLA_EXT_MASK, u32le],
  specifics: nested(k.IFLA_AF_SPEC, bridgeSpecifics),
})

export interface BridgeLinkMessage {
  readonly header: LinkHeader
  readonly attributes: Decoded<typeof bridgeLinkAttributes>
}

export const bridgeLinkMessage: Codec<BridgeLinkMessage> = {
  name: 'bridge link message',
  decode: (reader: Reader) => ({ header: linkHeader.decode(reader), attributes: bridgeLinkAttributes.decode(reader) }),
  encode(writer, { header, attributes }) {
    linkHeader.encode(writer, header)
    bridgeLinkAttributes.encode(writer, attributes)
  },
}
