/** GRE devices; one key for both directions. */
import { GRE_KEY, type GreData } from '../../../wire/rtnetlink/kinds/gre.ts'
import { eitherAddress, type LinkKindRow } from './link-kind.ts'

export const greKind: LinkKindRow<'gre'> = {
  kind: 'gre',
  changesWhole: true,
  encode(settings): GreData {
    const keyed = settings?.key !== undefined
    return {
      inputFlags: keyed ? GRE_KEY : undefined,
      outputFlags: keyed ? GRE_KEY : undefined,
      inputKey: settings?.key,
      outputKey: settings?.key,
      local: settings?.local,
      remote: settings?.remote,
      ttl: settings?.ttl,
    }
  },
  decode(value) {
    const data = value as GreData
    const local = eitherAddress(data.local, undefined)
    const remote = eitherAddress(data.remote, undefined)
    const keyed = ((data.outputFlags ?? 0) & GRE_KEY) !== 0 && data.outputKey !== undefined
    return {
      ...(local && { local }),
      ...(remote && { remote }),
      ...(keyed && { key: data.outputKey! }),
      ttl: data.ttl ?? 0,
    }
  },
}
