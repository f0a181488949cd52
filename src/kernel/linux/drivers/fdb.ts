/**
 * Forwarding-database entries: of a VXLAN device (self) or of a bridge, told by its port (master). Only entries with
 * the all-zero address may have several remotes, each an entry of its own: those are appended.
 *
 * Sources: net/core/rtnetlink.c (rtnl_fdb_add), drivers/net/vxlan/vxlan_core.c, net/bridge/br_fdb.c; bridge(8).
 */

import type { FdbEntry } from '../../../model/link.ts'
import { Mac } from '../../../net/mac.ts'
import { NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../../wire/netlink/constants.gen.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import { neighbourMessage } from '../../../wire/rtnetlink/neighbour.ts'
import type { RtnetlinkKind } from '../rtnetlink-kind.ts'
import { AF_BRIDGE } from './neighbour.ts'

const stateNumber = (state: FdbEntry['state']): number =>
  state === 'dynamic' ? k.NUD_REACHABLE : state === 'static' ? k.NUD_NOARP : k.NUD_PERMANENT

const stateName = (state: number): NonNullable<FdbEntry['state']> =>
  state & k.NUD_PERMANENT ? 'permanent' : state & k.NUD_NOARP ? 'static' : 'dynamic'

function createFlags(verb: 'add' | 'set', object: FdbEntry): number {
  if (object.mac.isZero) return NLM_F_CREATE | NLM_F_APPEND
  return NLM_F_CREATE | (verb === 'add' ? NLM_F_EXCL : NLM_F_REPLACE)
}

export const fdbKind: RtnetlinkKind<'fdb'> = {
  kind: 'fdb',
  types: [k.RTM_NEWNEIGH, k.RTM_DELNEIGH],
  groups: [k.RTNLGRP_NEIGH],
  dumps: [
    {
      type: k.RTM_GETNEIGH,
      encode: (writer) =>
        neighbourMessage.encode(writer, {
          family: AF_BRIDGE,
          index: 0,
          state: 0,
          flags: 0,
          type: 0,
          attributes: {},
        }),
    },
  ],

  encode({ verb, object }, sink) {
    const index = sink.index(object.device)
    const deleting = verb === 'delete'
    const start = sink.begin(
      deleting ? k.RTM_DELNEIGH : k.RTM_NEWNEIGH,
      verb === 'delete' ? 0 : createFlags(verb, object),
    )
    neighbourMessage.encode(sink.writer, {
      family: AF_BRIDGE,
      index,
      state: deleting ? 0 : stateNumber(object.state),
      flags: object.table === 'master' ? k.NTF_MASTER : k.NTF_SELF,
      type: 0,
      attributes: {
        linkAddress: object.mac.bytes,
        // A delete that names another remote than the entry's is taken and does nothing.
        destination: deleting && !object.mac.isZero ? undefined : object.remote,
        vlan: object.vlan,
      },
    })
    sink.end(start)
    return undefined
  },

  decode(_header, payload, names) {
    const message = neighbourMessage.decode(payload)
    const { attributes } = message
    if (message.family !== AF_BRIDGE || attributes.linkAddress?.length !== 6) return undefined
    const self = (message.flags & k.NTF_SELF) !== 0
    return {
      kind: 'fdb',
      device: names.name(message.index),
      mac: new Mac(attributes.linkAddress),
      ...(attributes.destination && { remote: attributes.destination }),
      ...(attributes.vlan && { vlan: attributes.vlan }),
      table: self ? 'self' : 'master',
      state: stateName(message.state),
    }
  },
}
