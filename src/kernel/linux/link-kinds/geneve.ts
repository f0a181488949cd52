/** Geneve devices: to one remote end, or to whichever the route says. */
import type { GeneveData } from '../../../wire/rtnetlink/kinds/geneve.ts'
import { eitherAddress, type LinkKindRow } from './link-kind.ts'

export const geneveKind: LinkKindRow<'geneve'> = {
  kind: 'geneve',
  changeable: ['remote', 'ttl'],
  encode(settings): GeneveData {
    if (!settings) return {}
    const remote = settings.remote
    return {
      vni: settings.external ? undefined : settings.vni,
      remote: remote?.family === 4 ? remote : undefined,
      remote6: remote?.family === 6 ? remote : undefined,
      port: settings.port,
      ttl: settings.ttl,
      collectMetadata: settings.external || undefined,
      udpChecksum: settings.udpChecksum,
      zeroChecksum6Tx: settings.udp6ZeroChecksumTx,
      zeroChecksum6Rx: settings.udp6ZeroChecksumRx,
    }
  },
  decode(value) {
    const data = value as GeneveData
    const remote = eitherAddress(data.remote, data.remote6)
    return {
      vni: data.vni ?? 0,
      port: data.port ?? 0,
      ...(remote && { remote }),
      ...(data.ttl && { ttl: data.ttl }),
      external: data.collectMetadata ?? false,
      ...(data.udpChecksum !== undefined && { udpChecksum: data.udpChecksum }),
      ...(data.zeroChecksum6Tx !== undefined && { udp6ZeroChecksumTx: data.zeroChecksum6Tx }),
      ...(data.zeroChecksum6Rx !== undefined && { udp6ZeroChecksumRx: data.zeroChecksum6Rx }),
    }
  },
}
