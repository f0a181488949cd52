/** Virtual Ethernet pairs. The peer is described in the message that makes both; afterwards the kernel tells only its index. */

import { linkRequest } from '../../../wire/rtnetlink/link.ts'
import { encodeVethPeer } from '../../../wire/rtnetlink/veth-peer.ts'
import type { LinkKindRow } from './link-kind.ts'

export const vethKind: LinkKindRow<'veth'> = {
  kind: 'veth',
  encode(settings, context) {
    const peer = settings?.peer
    if (!peer) return undefined
    return encodeVethPeer({
      header: linkRequest(peer.ifindex ?? 0),
      attributes: {
        name: peer.name,
        mtu: peer.mtuBytes,
        address: peer.mac?.bytes,
        txQueues: settings.queues,
        rxQueues: settings.queues,
        netnsFd: peer.netnsPath === undefined ? undefined : context.netnsFd(peer.netnsPath),
      },
    })
  },
  decode: () => ({}),
}
