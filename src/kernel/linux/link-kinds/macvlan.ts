/** MACVLAN devices. */
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import type { MacvlanData } from '../../../wire/rtnetlink/kinds/macvlan.ts'
import type { LinkKindRow } from './link-kind.ts'

const modes = {
  private: k.MACVLAN_MODE_PRIVATE,
  vepa: k.MACVLAN_MODE_VEPA,
  bridge: k.MACVLAN_MODE_BRIDGE,
  passthru: k.MACVLAN_MODE_PASSTHRU,
} as const
const names = new Map(Object.entries(modes).map(([name, number]) => [number, name as keyof typeof modes]))

export const macvlanKind: LinkKindRow<'macvlan'> = {
  kind: 'macvlan',
  lower: (settings) => settings?.lower,
  encode: (settings): MacvlanData => ({ mode: settings?.mode && modes[settings.mode] }),
  decode(value, name, link) {
    const mode = names.get((value as MacvlanData).mode as (typeof modes)[keyof typeof modes]) ?? 'private'
    return { mode, ...(link && { lower: name(link) }) }
  },
}
