/**
 * ethtool's generic netlink family, as far as offload features go. A bit set travels as a list of names; in a request
 * every bit named is changed, and set when it carries the value flag.
 *
 * Sources: include/uapi/linux/ethtool_netlink.h; Documentation/networking/ethtool-netlink.rst (FEATURES_GET, FEATURES_SET).
 */
import { textZ, u32le } from '../../bytes/codec.ts'
import { attributeList, attributeTable, type Decoded, flag, nested } from '../netlink/attribute.ts'
import { NLA_F_NESTED } from '../netlink/constants.gen.ts'
import * as n from './constants.gen.ts'

export const ETHTOOL_FAMILY = 'ethtool'

const bitset = attributeTable('bits', {
  /** The list names all bits that are set, not bits to change. */
  noMask: [n.ETHTOOL_A_BITSET_NOMASK, flag],
  size: [n.ETHTOOL_A_BITSET_SIZE, u32le],
  bits: nested(
    n.ETHTOOL_A_BITSET_BITS,
    attributeList(
      attributeTable('bit', {
        index: [n.ETHTOOL_A_BITSET_BIT_INDEX, u32le],
        name: [n.ETHTOOL_A_BITSET_BIT_NAME, textZ],
        value: [n.ETHTOOL_A_BITSET_BIT_VALUE, flag],
      }),
      n.ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED,
    ),
  ),
})
export type BitsetMessage = Decoded<typeof bitset>

export const featuresMessage = attributeTable('features', {
  header: nested(
    n.ETHTOOL_A_FEATURES_HEADER,
    attributeTable('header', {
      deviceIndex: [n.ETHTOOL_A_HEADER_DEV_INDEX, u32le],
      deviceName: [n.ETHTOOL_A_HEADER_DEV_NAME, textZ],
      flags: [n.ETHTOOL_A_HEADER_FLAGS, u32le],
    }),
  ),
  /** What the device can change. */
  changeable: nested(n.ETHTOOL_A_FEATURES_HW, bitset),
  wanted: nested(n.ETHTOOL_A_FEATURES_WANTED, bitset),
  active: nested(n.ETHTOOL_A_FEATURES_ACTIVE, bitset),
  fixed: nested(n.ETHTOOL_A_FEATURES_NOCHANGE, bitset),
})
export type FeaturesMessage = Decoded<typeof featuresMessage>

/** Names of the bits of a set in a reply; a bit of a list without a mask is set by being there. */
export const namesOf = (set: BitsetMessage | undefined): ReadonlySet<string> =>
  new Set(
    (set?.bits ?? [])
      .filter(({ value }) => set?.noMask || value)
      .flatMap(({ name }) => (name === undefined ? [] : [name])),
  )
