/** Bridges. */
import type { BridgeData } from '../../../wire/rtnetlink/kinds/bridge.ts'
import type { LinkKindRow } from './link-kind.ts'

export const bridgeKind: LinkKindRow<'bridge'> = {
  kind: 'bridge',
  encode(settings): BridgeData {
    return {
      stpState: settings?.stp === undefined ? undefined : settings.stp ? 1 : 0,
      vlanFiltering: settings?.vlanFiltering,
      multicastSnooping: settings?.multicastSnooping,
    }
  },
  decode(data) {
    const { stpState, vlanFiltering, multicastSnooping } = data as BridgeData
    return {
      ...(vlanFiltering !== undefined && { vlanFiltering }),
      ...(stpState !== undefined && { stp: stpState !== 0 }),
      ...(multicastSnooping !== undefined && { multicastSnooping }),
    }
  },
}
