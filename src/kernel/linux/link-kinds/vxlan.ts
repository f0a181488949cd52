/** VXLAN devices. Learning is the kernel's default (on) unless the settings say otherwise. */
import type { VxlanData } from '../../../wire/rtnetlink/kinds/vxlan.ts'
import { eitherAddress, type LinkKindRow } from './link-kind.ts'

export const vxlanKind: LinkKindRow<'vxlan'> = {
  kind: 'vxlan',
  changeable: ['local', 'learning', 'ttl', 'lower'],
  encode(settings, context): VxlanData {
    if (!settings) return {}
    const local = settings.local
    return {
      vni: settings.external ? undefined : settings.vni,
      link: settings.lower === undefined ? undefined : context.index(settings.lower),
      local: local?.family === 4 ? local : undefined,
      local6: local?.family === 6 ? local : undefined,
      ttl: settings.ttl,
      learning: settings.learning,
      port: settings.port,
      collectMetadata: settings.external,
      udpChecksum: settings.udpChecksum,
      zeroChecksum6Tx: settings.udp6ZeroChecksumTx,
      zeroChecksum6Rx: settings.udp6ZeroChecksumRx,
      gbp: settings.gbp || undefined,
    }
  },
  decode(value, name) {
    const data = value as VxlanData
    const local = eitherAddress(data.local, data.local6)
    return {
      vni: data.vni ?? 0,
      port: data.port ?? 0,
      ...(data.link && { lower: name(data.link) }),
      ...(local && { local }),
      learning: data.learning ?? false,
      gbp: data.gbp ?? false,
      external: data.collectMetadata ?? false,
      ttl: data.ttl ?? 0,
      ...(data.udpChecksum !== undefined && { udpChecksum: data.udpChecksum }),
      ...(data.zeroChecksum6Tx !== undefined && { udp6ZeroChecksumTx: data.zeroChecksum6Tx }),
      ...(data.zeroChecksum6Rx !== undefined && { udp6ZeroChecksumRx: data.zeroChecksum6Rx }),
    }
  },
}
