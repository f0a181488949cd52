/** BGP's objects as events: what a store says of one object, checked. The same for CRDs and for etcd's values. */
import { parseBgpConfiguration } from '../../config/calico/bgp-configuration.ts'
import { parseBgpFilter } from '../../config/calico/bgp-filter.ts'
import { parseBgpPeer } from '../../config/calico/bgp-peer.ts'
import { ConfigError } from '../../model/errors.ts'
import type { ClusterLog } from '../cluster.ts'
import type { BgpObjectEvent, BgpObjectKind } from './bgp-source.ts'

export const bgpObjectKinds: readonly BgpObjectKind[] = ['BGPConfiguration', 'BGPPeer', 'BGPFilter']

/** As a path of the API and a key of etcd have it. */
export const bgpPlural = (kind: BgpObjectKind): string => `${kind.toLowerCase()}s`

const parsers = {
  BGPConfiguration: (object: unknown) => {
    const { configuration: value, warnings } = parseBgpConfiguration(object)
    return { value, warnings }
  },
  BGPPeer: (object: unknown) => {
    const { peer: value, warnings } = parseBgpPeer(object)
    return { value, warnings }
  },
  BGPFilter: (object: unknown) => {
    const { filter: value, warnings } = parseBgpFilter(object)
    return { value, warnings }
  },
} as const

/** `read` gives the object, or throws when it is no JSON. */
export function bgpObjectEvent(
  kind: BgpObjectKind,
  name: string,
  read: () => unknown,
  log: ClusterLog,
): BgpObjectEvent {
  try {
    const { value, warnings } = parsers[kind](read())
    for (const warning of warnings) log.warn({ [kind]: name }, warning)
    return { type: 'object', kind, name, value } as BgpObjectEvent
  } catch (error) {
    const problem =
      error instanceof ConfigError
        ? error
        : new ConfigError(`${kind} ${name}`, '(whole)', (error as Error).message, { cause: error })
    return { type: 'object', kind, name, problem }
  }
}
