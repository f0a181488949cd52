/** A peer in words: its state, what was offered and agreed upon, its counters. */
import type {
  BgpFamily,
  CapabilityText,
  MessageCounts,
  NotificationText,
  PeerConfig,
  PeerStatus,
  SessionState,
} from '../model/bgp.ts'
import { Ip } from '../net/ip.ts'
import { type Capability, capabilityCode } from '../wire/bgp/capability.ts'
import { afiOf, formatRouteFamily } from '../wire/bgp/family.ts'
import type { Negotiated } from './negotiation.ts'
import type { PeerRouteCounts } from './rib/peer.ts'

export interface PeerSight {
  readonly config: PeerConfig
  readonly state: SessionState
  readonly address: Ip | undefined
  readonly reason: string | undefined
  readonly sinceMs: number
  readonly establishedCount: number
  readonly localAsn: number
  readonly negotiated: Negotiated | undefined
  readonly localAddress: Ip | undefined
  readonly counts: { readonly received: MessageCounts; readonly sent: MessageCounts }
  readonly lastReceived: NotificationText | undefined
  readonly lastSent: NotificationText | undefined
  readonly routes: (family: BgpFamily) => PeerRouteCounts
  readonly endOfRibReceived: ReadonlySet<BgpFamily>
  readonly endOfRibSent: ReadonlySet<BgpFamily>
  readonly internal: boolean
  /** Without BFD undefined. */
  readonly path: PeerStatus['bfd'] | undefined
}

export function formatPeerStatus(sight: PeerSight): PeerStatus {
  const { config, negotiated, counts } = sight
  const { name, origin, description, device, port, remoteAsn, families } = config
  const type = negotiated?.context.peerType ?? (sight.internal ? 'internal' : 'external')
  return without({
    name,
    origin,
    description,
    address: sight.address?.toString(),
    device,
    port,
    remoteAsn: negotiated?.remoteAsn ?? remoteAsn,
    localAsn: sight.localAsn,
    type: type === 'internal' ? 'ibgp' : type === 'external' ? 'ebgp' : type,
    state: sight.state,
    reason: sight.reason,
    sinceMs: sight.sinceMs,
    establishedCount: sight.establishedCount,
    ...(negotiated && negotiatedStatus(negotiated)),
    localAddress: sight.localAddress?.toString(),
    families: families.map(({ family }) => ({
      family,
      ...sight.routes(family),
      endOfRibReceived: sight.endOfRibReceived.has(family),
      endOfRibSent: sight.endOfRibSent.has(family),
    })),
    messages: { received: { ...counts.received }, sent: { ...counts.sent } },
    lastReceived: sight.lastReceived,
    lastSent: sight.lastSent,
    bfd: sight.path,
  })
}

type Unless<T> = { [K in keyof T]: T[K] | undefined }

/** Leaves out what is undefined, so that the status is the same before and after JSON. */
const without = (status: Unless<PeerStatus>): PeerStatus =>
  Object.fromEntries(Object.entries(status).filter(([, value]) => value !== undefined)) as unknown as PeerStatus

const negotiatedStatus = ({ holdSeconds, keepaliveSeconds, remoteRouterId, sent, received }: Negotiated) => ({
  remoteRouterId: Ip.v4(remoteRouterId).toString(),
  holdSeconds,
  keepaliveSeconds,
  capabilitiesSent: sent.capabilities.map(formatCapability),
  capabilitiesReceived: received.capabilities.map(formatCapability),
})

/** A capability in words, such as `graceful-restart 120s restarted, ipv4 unicast (forwarding)`. */
export const formatCapability = (capability: Capability): CapabilityText => ({
  code: capabilityCode(capability),
  text: capabilityText(capability),
})

function capabilityText(capability: Capability): string {
  switch (capability.kind) {
    case 'multiprotocol':
      return `multiprotocol ${formatRouteFamily(capability.family)}`
    case 'routeRefresh':
      return 'route-refresh'
    case 'enhancedRouteRefresh':
      return 'enhanced-route-refresh'
    case 'extendedMessage':
      return 'extended-message'
    case 'extendedNextHop':
      return list(
        'extended-next-hop',
        capability.families.map(({ family, nextHopAfi }) => `${formatRouteFamily(family)} over ${afiName(nextHopAfi)}`),
      )
    case 'role':
      return `role ${roleNames[capability.role] ?? capability.role}`
    case 'gracefulRestart': {
      const flags = [capability.restarted ? ' restarted' : '', capability.notification ? ' notification' : ''].join('')
      return list(`graceful-restart ${capability.restartTimeSeconds}s${flags}`, capability.families.map(forwardingText))
    }
    case 'fourOctetAs':
      return `4-octet-as ${capability.asn}`
    case 'addPath':
      return list(
        'add-path',
        capability.families.map(
          ({ family, send, receive }) =>
            `${formatRouteFamily(family)} ${[send ? 'send' : [], receive ? 'receive' : []].flat().join('+')}`,
        ),
      )
    case 'longLivedGracefulRestart':
      return list(
        'long-lived-graceful-restart',
        capability.families.map((each) => `${forwardingText(each)} ${each.staleTimeSeconds}s`),
      )
    case 'fqdn':
      // Names of the peer's making: quoted, so that they cannot pass for anything else on a terminal.
      return `fqdn ${JSON.stringify([capability.hostName, capability.domainName].filter(Boolean).join('.'))}`
    case 'unknown':
      return `unknown, ${capability.value.length} bytes`
  }
}

const afiName = (afi: number): string =>
  afi === afiOf(0x0201) ? 'ipv6' : afi === afiOf(0x0101) ? 'ipv4' : `afi ${afi}`
const forwardingText = ({ family, forwarding }: { readonly family: number; readonly forwarding: boolean }): string =>
  `${formatRouteFamily(family)}${forwarding ? ' (forwarding)' : ''}`
const list = (head: string, entries: readonly string[]): string =>
  entries.length === 0 ? head : `${head} ${entries.join(', ')}`
const roleNames: readonly string[] = ['provider', 'route-server', 'route-server-client', 'customer', 'peer']
