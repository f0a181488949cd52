/**
 * Interface addresses.
 *
 * Sources: include/uapi/linux/if_addr.h; net/ipv4/devinet.c, net/ipv6/addrconf.c for which fields identify an address.
 */
import type { Address } from '../../../model/link.ts'
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../../wire/netlink/constants.gen.ts'
import { type AddressAttributes, addressMessage } from '../../../wire/rtnetlink/address.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import type { DumpRequest, RtnetlinkKind } from '../rtnetlink-kind.ts'
import { addressFamily, scopeNames, scopeNumbers } from './route.ts'

const dumpOf = (family: number): DumpRequest => ({
  type: k.RTM_GETADDR,
  family,
  encode: (writer) =>
    addressMessage.encode(writer, { family, prefixLength: 0, flags: 0, scope: 0, index: 0, attributes: {} }),
})

function attributesOf(object: Address): AddressAttributes {
  const flags = (object.noDad ? k.IFA_F_NODAD : 0) | (object.noPrefixRoute ? k.IFA_F_NOPREFIXROUTE : 0)
  return {
    local: object.ip,
    address: object.peer ?? object.ip,
    broadcast: object.broadcast,
    flags: flags || undefined,
  }
}

export const addressKind: RtnetlinkKind<'address'> = {
  kind: 'address',
  types: [k.RTM_NEWADDR, k.RTM_DELADDR],
  groups: [k.RTNLGRP_IPV4_IFADDR, k.RTNLGRP_IPV6_IFADDR],
  dumps: [dumpOf(addressFamily(4)), dumpOf(addressFamily(6))],

  encode({ verb, object }, sink) {
    const index = sink.index(object.device)
    const deleting = verb === 'delete'
    const start = sink.begin(
      deleting ? k.RTM_DELADDR : k.RTM_NEWADDR,
      deleting ? 0 : NLM_F_CREATE | (verb === 'add' ? NLM_F_EXCL : NLM_F_REPLACE),
    )
    addressMessage.encode(sink.writer, {
      family: addressFamily(object.ip.family),
      prefixLength: object.prefixLength,
      flags: 0,
      scope: scopeNumbers.get(object.scope ?? 'global')!,
      index,
      attributes: deleting ? { local: object.ip, address: object.peer ?? object.ip } : attributesOf(object),
    })
    sink.end(start)
    return undefined
  },

  decode(_header, payload, names) {
    const message = addressMessage.decode(payload)
    const { attributes } = message
    const ip = attributes.local ?? attributes.address
    if (!ip) return undefined
    const peer = attributes.address && !attributes.address.equals(ip) ? attributes.address : undefined
    const scope = scopeNames.get(message.scope)
    const flags = attributes.flags ?? message.flags
    return {
      kind: 'address',
      device: names.name(message.index),
      ip,
      prefixLength: message.prefixLength,
      ...(peer && { peer }),
      ...(attributes.broadcast && { broadcast: attributes.broadcast }),
      ...(scope && scope !== 'nowhere' && { scope }),
      ...(flags & k.IFA_F_NODAD && { noDad: true }),
      ...(flags & k.IFA_F_NOPREFIXROUTE && { noPrefixRoute: true }),
    }
  },
}
