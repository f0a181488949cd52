/** VRF devices. */
import type { VrfData } from '../../../wire/rtnetlink/kinds/vrf.ts'
import type { LinkKindRow } from './link-kind.ts'

export const vrfKind: LinkKindRow<'vrf'> = {
  kind: 'vrf',
  encode: (settings): VrfData => ({ table: settings?.table }),
  decode: (value) => ({ table: (value as VrfData).table ?? 0 }),
}
