/**
 * Keys of Calico's BGP objects that do not apply to weft, by the reason why. docs/bgp-objects.md is written from it, and a
 * test holds it against the keys that Calico has.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3 (bgpconfig.go, bgppeer.go); Calico Enterprise's BGPPeer (birdGatewayMode,
 * externalNetwork, extensions).
 */
import type { KeysNotApplying } from './felix-keys.ts'
import type { Fields } from './fields.ts'

export type BgpKind = 'BGPConfiguration' | 'BGPPeer' | 'BGPFilter'

export const bgpKeysNotApplying: Readonly<Record<BgpKind, readonly KeysNotApplying[]>> = {
  BGPConfiguration: [
    {
      reason: 'pods are no peers of weft',
      keys: ['localWorkloadPeeringIPV4', 'localWorkloadPeeringIPV6'],
    },
    {
      reason: 'weft makes the routes to blocks itself, of what pools, blocks and BGP say, and no two parts of it fight',
      keys: ['programClusterRoutes'],
    },
  ],
  BGPPeer: [
    { reason: 'pods are no peers of weft', keys: ['localWorkloadSelector'] },
    { reason: 'weft resolves next hops by the routes of the kernel', keys: ['birdGatewayMode'] },
    { reason: 'weft has one network', keys: ['externalNetwork'] },
    { reason: 'it is for other programs', keys: ['extensions'] },
  ],
  BGPFilter: [],
}

/** One sentence for each reason for which keys that are there do not apply. */
export function notApplyingWarnings(kind: BgpKind, spec: Fields): readonly string[] {
  return bgpKeysNotApplying[kind].flatMap(({ reason, keys }) => {
    const present = keys.filter((key) => ![undefined, ''].includes(spec.get(key) as string | undefined))
    return present.length > 0 ? [`${spec.object}: ${present.join(', ')}: does not apply: ${reason}`] : []
  })
}
