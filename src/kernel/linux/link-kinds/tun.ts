/** TUN and TAP devices: read here, made by ioctl (tun-device.ts). */
import { IFF_TAP, type TunData } from '../../../wire/rtnetlink/kinds/tun.ts'
import type { LinkKindRow } from './link-kind.ts'

export const tunKind: LinkKindRow<'tun'> = {
  kind: 'tun',
  encode: () => undefined,
  decode(value) {
    const data = value as TunData
    return {
      mode: data.mode === IFF_TAP ? 'tap' : 'tun',
      vnetHeader: data.vnetHeader ?? false,
      persist: data.persist ?? false,
    }
  },
}
