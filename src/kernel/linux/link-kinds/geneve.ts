/** Geneve devices. */
import type { GeneveData } from '../../../wire/rtnetlink/kinds/geneve.ts'
import { eitherAddress, type LinkKindRow } from './link-kind.ts'

export const geneveKind: LinkKindRow<'geneve'> = {
  kind: 'geneve',
  changeable: ['remote'],
  encode(settings): GeneveData {
    if (!settings) return {}
    const remote = settings.remote
    return {
      vni: settings.external ? undefined : settings.vni,
      remote: remote?.family === 4 ? remote : undefined,
      remote6: remote?.family === 6 ? remote : undefined,
      port: settings.port,
      collectMetadata: settings.external || undefined,
    }
  },
  decode(value) {
    const data = value as GeneveData
    const remote = eitherAddress(data.remote, data.remote6)
    return {
      vni: data.vni ?? 0,
      port: data.port ?? 0,
      ...(remote && { remote }),
      external: data.collectMetadata ?? false,
    }
  },
}
