/**
 * VLANs of a bridge's ports and of the bridge itself. The kernel takes an addition twice, the second time as a change, and
 * the removal of one that is not there as done. Nothing announces them one by one: they are read, not watched.
 *
 * Sources: net/bridge/br_netlink.c (br_setlink, br_dellink, br_vlan_info), br_vlan.c; bridge(8).
 */
import type { BridgeVlan } from '../../../model/link.ts'
import { bridgeLinkMessage } from '../../../wire/rtnetlink/bridge-link.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import { type LinkHeader, linkRequest } from '../../../wire/rtnetlink/link.ts'
import type { RtnetlinkKind } from '../rtnetlink-kind.ts'
import { AF_BRIDGE } from './neighbour.ts'

const bridgeRequest = (index: number): LinkHeader => ({ ...linkRequest(index), family: AF_BRIDGE })

export const bridgeVlanKind: RtnetlinkKind<'bridge-vlan'> = {
  kind: 'bridge-vlan',
  types: [k.RTM_NEWLINK, k.RTM_DELLINK],
  groups: [],
  dumps: [],

  encode({ verb, object }, sink) {
    const index = sink.index(object.device)
    const flags = (object.pvid ? k.BRIDGE_VLAN_INFO_PVID : 0) | (object.untagged ? k.BRIDGE_VLAN_INFO_UNTAGGED : 0)
    const start = sink.begin(verb === 'delete' ? k.RTM_DELLINK : k.RTM_SETLINK, 0)
    bridgeLinkMessage.encode(sink.writer, {
      header: bridgeRequest(index),
      attributes: {
        specifics: {
          target: object.self ? k.BRIDGE_FLAGS_SELF : k.BRIDGE_FLAGS_MASTER,
          vlans: [{ flags: verb === 'delete' ? 0 : flags, vlan: object.vlan }],
        },
      },
    })
    sink.end(start)
    return undefined
  },

  decode: () => undefined,

  async read({ dump, names }) {
    const out: BridgeVlan[] = []
    await dump(
      {
        type: k.RTM_GETLINK,
        encode: (writer) =>
          bridgeLinkMessage.encode(writer, {
            header: bridgeRequest(0),
            attributes: { extMask: k.RTEXT_FILTER_BRVLAN },
          }),
      },
      (_header, payload) => {
        const { header, attributes } = bridgeLinkMessage.decode(payload)
        for (const { flags, vlan } of attributes.specifics?.vlans ?? [])
          out.push({
            kind: 'bridge-vlan',
            device: names.name(header.index),
            vlan,
            ...(attributes.master === header.index && { self: true }),
            ...(flags & k.BRIDGE_VLAN_INFO_PVID && { pvid: true }),
            ...(flags & k.BRIDGE_VLAN_INFO_UNTAGGED && { untagged: true }),
          })
      },
      () => {
        out.length = 0
      },
    )
    return out
  },
}
