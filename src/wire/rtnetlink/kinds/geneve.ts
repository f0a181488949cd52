/**
 * Geneve devices.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_GENEVE_*); RFC 8926.
 */
import { boolean8, u8, u16be, u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded, flag } from '../../netlink/attribute.ts'
import { ip } from '../../netlink/values.ts'
import * as k from '../constants.gen.ts'

export const geneve = attributeTable('geneve', {
  vni: [k.IFLA_GENEVE_ID, u32le],
  remote: [k.IFLA_GENEVE_REMOTE, ip],
  remote6: [k.IFLA_GENEVE_REMOTE6, ip],
  ttl: [k.IFLA_GENEVE_TTL, u8],
  port: [k.IFLA_GENEVE_PORT, u16be],
  collectMetadata: [k.IFLA_GENEVE_COLLECT_METADATA, flag],
  udpChecksum: [k.IFLA_GENEVE_UDP_CSUM, boolean8],
  zeroChecksum6Tx: [k.IFLA_GENEVE_UDP_ZERO_CSUM6_TX, boolean8],
  zeroChecksum6Rx: [k.IFLA_GENEVE_UDP_ZERO_CSUM6_RX, boolean8],
})
export type GeneveData = Decoded<typeof geneve>
