/**
 * Neighbour entries (ARP, ND), proxy entries included.
 *
 * Sources: include/uapi/linux/neighbour.h; net/core/neighbour.c.
 */

import type { Neighbour } from '../../../model/link.ts'
import { Mac } from '../../../net/mac.ts'
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../../wire/netlink/constants.gen.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import { neighbourMessage } from '../../../wire/rtnetlink/neighbour.ts'
import type { DumpRequest, RtnetlinkKind } from '../rtnetlink-kind.ts'
import { addressFamily } from './route.ts'

type State = NonNullable<Neighbour['state']>
const states: readonly (readonly [State, number])[] = [
  ['none', k.NUD_NONE],
  ['incomplete', k.NUD_INCOMPLETE],
  ['reachable', k.NUD_REACHABLE],
  ['stale', k.NUD_STALE],
  ['delay', k.NUD_DELAY],
  ['probe', k.NUD_PROBE],
  ['failed', k.NUD_FAILED],
  ['noarp', k.NUD_NOARP],
  ['permanent', k.NUD_PERMANENT],
]
const stateNumbers = new Map(states)
const stateNames = new Map(states.map(([name, number]) => [number, name]))

const dumpOf = (family: number, flags: number): DumpRequest => ({
  type: k.RTM_GETNEIGH,
  family,
  encode: (writer) => neighbourMessage.encode(writer, { family, index: 0, state: 0, flags, type: 0, attributes: {} }),
})

export const neighbourKind: RtnetlinkKind<'neighbour'> = {
  kind: 'neighbour',
  types: [k.RTM_NEWNEIGH, k.RTM_DELNEIGH],
  groups: [k.RTNLGRP_NEIGH],
  dumps: [4, 6].flatMap((family) => {
    const number = addressFamily(family as 4 | 6)
    return [dumpOf(number, 0), dumpOf(number, k.NTF_PROXY)]
  }),

  encode({ verb, object }, sink) {
    const index = sink.index(object.device)
    const deleting = verb === 'delete'
    const start = sink.begin(
      deleting ? k.RTM_DELNEIGH : k.RTM_NEWNEIGH,
      deleting ? 0 : NLM_F_CREATE | (verb === 'add' ? NLM_F_EXCL : NLM_F_REPLACE),
    )
    neighbourMessage.encode(sink.writer, {
      family: addressFamily(object.ip.family),
      index,
      state: deleting ? 0 : stateNumbers.get(object.state ?? 'permanent')!,
      flags: object.proxy ? k.NTF_PROXY : 0,
      type: 0,
      attributes: { destination: object.ip, linkAddress: deleting ? undefined : object.mac?.bytes },
    })
    sink.end(start)
    return undefined
  },

  decode(_header, payload, names) {
    const message = neighbourMessage.decode(payload)
    const { destination, linkAddress } = message.attributes
    if (message.family === AF_BRIDGE || !destination || message.index === 0) return undefined
    const state = stateNames.get(message.state)
    const proxy = (message.flags & k.NTF_PROXY) !== 0
    return {
      kind: 'neighbour',
      device: names.name(message.index),
      ip: destination,
      ...(linkAddress?.length === 6 && { mac: new Mac(linkAddress) }),
      ...(proxy && { proxy }),
      ...(state && !proxy && { state }),
    }
  },
}

/** The family of forwarding-database entries. */
export const AF_BRIDGE = 7
