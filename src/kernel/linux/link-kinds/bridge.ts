/** Bridges. */
import type { BridgeData } from '../../../wire/rtnetlink/kinds/bridge.ts'
import type { LinkKindRow } from './link-kind.ts'

export const bridgeKind: LinkKindRow<'bridge'> = {
  kind: 'bridge',
  encode(settings, _context, was): BridgeData {
    // A kernel without VLAN filtering refuses to hear of it, even that it shall be off.
    const vlanFiltering = settings?.vlanFiltering || (was?.vlanFiltering ? settings?.vlanFiltering : undefined)
    return {
      stpState: settings?.stp === undefined ? undefined : settings.stp ? 1 : 0,
      vlanFiltering,
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
