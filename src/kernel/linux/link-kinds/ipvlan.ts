/** IPVLAN devices. */
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import type { IpvlanData } from '../../../wire/rtnetlink/kinds/ipvlan.ts'
import type { LinkKindRow } from './link-kind.ts'

const modes = { l2: k.IPVLAN_MODE_L2, l3: k.IPVLAN_MODE_L3, l3s: k.IPVLAN_MODE_L3S } as const
const names = new Map(Object.entries(modes).map(([name, number]) => [number, name as keyof typeof modes]))

export const ipvlanKind: LinkKindRow<'ipvlan'> = {
  kind: 'ipvlan',
  lower: (settings) => settings?.lower,
  encode: (settings): IpvlanData => ({ mode: settings?.mode && modes[settings.mode] }),
  decode(value, name, link) {
    const mode = names.get((value as IpvlanData).mode as (typeof modes)[keyof typeof modes]) ?? 'l3'
    return { mode, ...(link && { lower: name(link) }) }
  },
}
