/** VLAN devices. */
import type { VlanData } from '../../../wire/rtnetlink/kinds/vlan.ts'
import type { LinkKindRow } from './link-kind.ts'

export const vlanKind: LinkKindRow<'vlan'> = {
  kind: 'vlan',
  lower: (settings) => settings?.lower,
  encode: (settings): VlanData => ({ id: settings?.id }),
  decode: (value, name, link) => ({ id: (value as VlanData).id ?? 0, ...(link && { lower: name(link) }) }),
}
