/**
 * What we offer a peer in our OPEN, and what two OPENs agree upon. Nothing of it changes while a session stands: a
 * configuration that would offer something else resets it.
 *
 * Sources: RFC 4271 sections 4.2 and 6.2, RFC 5492 section 3, RFC 4760 section 8, RFC 6286 section 2.2, RFC 6793, RFC 4724
 * section 3, RFC 8538 section 2, RFC 9494 section 3.1, RFC 7911 section 4, RFC 8654 section 3, RFC 8950 section 4, RFC 9234
 * section 4, RFC 5065 section 4 (which AS a peer is told).
 */

import { Writer } from '../bytes/writer.ts'
import type { BgpRole, PeerTemplate, SpeakerConfig } from '../model/bgp.ts'
import { Ip } from '../net/ip.ts'
import { type Capability, encodeCapability } from '../wire/bgp/capability.ts'
import { ErrorCode, EXTENDED_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, OpenError, Role } from '../wire/bgp/constants.ts'
import type { WireContext } from '../wire/bgp/context.ts'
import { BgpError } from '../wire/bgp/error.ts'
import { AFI_IPV6, IPV4_UNICAST, IPV6_UNICAST, type RouteFamily } from '../wire/bgp/family.ts'
import type { Open } from '../wire/bgp/open.ts'

/** What is ours of a restart, in the OPEN of one session. */
export interface RestartClaim {
  /** This session is the first one after the speaker restarted, and routes were kept meanwhile. */
  readonly restarted: boolean
  /** The kernel's routes outlived whatever ended the session before. */
  readonly forwarding: boolean
}

/** What the peer said of graceful restart; families only those that both carry. */
export interface PeerRestart {
  readonly restarted: boolean
  /** RFC 8538, said by both. */
  readonly notification: boolean
  readonly restartSeconds: number
  /** Family → its forwarding state was kept. */
  readonly families: ReadonlyMap<RouteFamily, boolean>
  /** RFC 9494: family → how long its stale routes live on, the lesser of both sides' times. */
  readonly longLived: ReadonlyMap<RouteFamily, number>
}

export interface Negotiated {
  readonly holdSeconds: number
  readonly keepaliveSeconds: number
  readonly localAsn: number
  readonly remoteAsn: number
  /** The peer's BGP identifier. */
  readonly remoteRouterId: number
  readonly context: WireContext
  readonly routeRefresh: boolean
  readonly enhancedRouteRefresh: boolean
  /** Undefined: the peer said nothing of it, or we offered nothing. */
  readonly restart: PeerRestart | undefined
  readonly sent: Open
  readonly received: Open
}

const roleNumbers: Readonly<Record<BgpRole, number>> = {
  provider: Role.PROVIDER,
  'route-server': Role.ROUTE_SERVER,
  'route-server-client': Role.ROUTE_SERVER_CLIENT,
  customer: Role.CUSTOMER,
  peer: Role.PEER,
}

/** RFC 9234 section 4.2: who stands opposite to whom. */
const oppositeRoles = new Map<number, number>([
  [Role.PROVIDER, Role.CUSTOMER],
  [Role.CUSTOMER, Role.PROVIDER],
  [Role.ROUTE_SERVER, Role.ROUTE_SERVER_CLIENT],
  [Role.ROUTE_SERVER_CLIENT, Role.ROUTE_SERVER],
  [Role.PEER, Role.PEER],
])

export const routeFamilies = (peer: PeerTemplate): RouteFamily[] =>
  peer.families.map(({ family }) => (family === 'ipv4' ? IPV4_UNICAST : IPV6_UNICAST))

/** The AS that a peer is told: outside a confederation its identifier, inside the member's own. */
export function localAsnToward({ asn, confederation }: SpeakerConfig, peer: PeerTemplate): number {
  if (peer.localAsn !== undefined) return peer.localAsn
  if (!confederation || peer.remoteAsn === 'internal' || peer.remoteAsn === asn) return asn
  const inside = typeof peer.remoteAsn === 'number' && confederation.members.includes(peer.remoteAsn)
  return inside ? asn : confederation.identifier
}

/** Our OPEN toward a peer. */
export function offerOpen(speaker: SpeakerConfig, peer: PeerTemplate, claim: RestartClaim): Open {
  const families = routeFamilies(peer)
  const asn = localAsnToward(speaker, peer)
  const capabilities: Capability[] = families.map((family) => ({ kind: 'multiprotocol', family }))
  if (peer.capabilities.routeRefresh) capabilities.push({ kind: 'routeRefresh' }, { kind: 'enhancedRouteRefresh' })
  if (peer.capabilities.extendedNextHop && families.includes(IPV4_UNICAST))
    capabilities.push({ kind: 'extendedNextHop', families: [{ family: IPV4_UNICAST, nextHopAfi: AFI_IPV6 }] })
  if (peer.capabilities.extendedMessages) capabilities.push({ kind: 'extendedMessage' })
  if (peer.role !== undefined) capabilities.push({ kind: 'role', role: roleNumbers[peer.role] })
  capabilities.push(...restartCapabilities(peer, families, claim), { kind: 'fourOctetAs', asn })
  const addPath = peer.families
    .map(({ addPathSend, addPathReceive }, i) => ({
      family: families[i]!,
      send: addPathSend > 0,
      receive: addPathReceive,
    }))
    .filter(({ send, receive }) => send || receive)
  if (addPath.length > 0) capabilities.push({ kind: 'addPath', families: addPath })
  const { hostName } = peer.capabilities
  if (hostName !== undefined) capabilities.push({ kind: 'fqdn', hostName, domainName: '' })
  const identifier = Ip.parse(speaker.routerId).w3
  return { asn, holdTimeSeconds: peer.timers.holdSeconds, identifier, capabilities }
}

function restartCapabilities(
  { gracefulRestart }: PeerTemplate,
  all: readonly RouteFamily[],
  { restarted, forwarding }: RestartClaim,
): Capability[] {
  const { mode, notification, restartSeconds, longLivedStaleSeconds } = gracefulRestart
  if (mode === 'off') return []
  // RFC 4724 section 3: without families the speaker "supports the procedures of a Receiving Speaker" alone.
  const families = mode === 'full' ? all.map((family) => ({ family, forwarding })) : []
  const restart: Capability = {
    kind: 'gracefulRestart',
    restarted: mode === 'full' && restarted,
    notification,
    restartTimeSeconds: mode === 'full' ? restartSeconds : 0,
    families,
  }
  if (longLivedStaleSeconds === 0) return [restart]
  const longLived = all.map((family) => ({ family, forwarding, staleTimeSeconds: longLivedStaleSeconds }))
  return [restart, { kind: 'longLivedGracefulRestart', families: longLived }]
}

/**
 * What both agree upon. Throws BgpError, with the NOTIFICATION for the peer, when its OPEN is not acceptable: another AS
 * than configured, our own identifier, a role that does not fit, no family in common.
 */
export function negotiate(speaker: SpeakerConfig, peer: PeerTemplate, sent: Open, received: Open): Negotiated {
  const context = agreeContext(speaker, peer, sent, received)
  // RFC 6286 section 2.2: "if the BGP Identifier field of the OPEN message is … the same as the one of the local BGP
  // speaker and the message is from an internal peer, then the Error Subcode is set to Bad BGP Identifier".
  if (context.peerType === 'internal' && received.identifier === sent.identifier)
    throw refuse(OpenError.BAD_BGP_IDENTIFIER, `the peer has our own router id ${Ip.v4(received.identifier)}`)
  if (context.peerType === 'external') checkRole(peer, received)
  const both = (kind: 'routeRefresh' | 'enhancedRouteRefresh'): boolean => has(sent, kind) && has(received, kind)
  // RFC 4271 section 4.2: "the smaller of its configured Hold Time and the Hold Time received in the OPEN message".
  const holdSeconds = Math.min(sent.holdTimeSeconds, received.holdTimeSeconds)
  const third = Math.max(1, Math.floor(holdSeconds / 3))
  return {
    holdSeconds,
    keepaliveSeconds: holdSeconds === 0 ? 0 : Math.min(peer.timers.keepaliveSeconds ?? third, third),
    localAsn: sent.asn,
    remoteAsn: received.asn,
    remoteRouterId: received.identifier,
    context,
    routeRefresh: both('routeRefresh'),
    enhancedRouteRefresh: both('enhancedRouteRefresh'),
    restart: agreeRestart(sent, received, context.families),
    sent,
    received,
  }
}

const refuse = (subcode: number, problem: string, data?: Uint8Array): BgpError =>
  new BgpError(ErrorCode.OPEN_MESSAGE, subcode, problem, data)

const has = ({ capabilities }: Open, kind: Capability['kind']): boolean =>
  capabilities.some((each) => each.kind === kind)

/** The capabilities of one kind; RFC 5492 section 3 lets one stand several times. */
const all = <K extends Capability['kind']>({ capabilities }: Open, kind: K): Extract<Capability, { kind: K }>[] =>
  capabilities.filter((each): each is Extract<Capability, { kind: K }> => each.kind === kind)

/** RFC 4760 section 8; who says nothing of it carries IPv4 unicast alone. */
function familiesOf(open: Open): RouteFamily[] {
  const families = all(open, 'multiprotocol').map(({ family }) => family)
  return families.length === 0 ? [IPV4_UNICAST] : families
}

function agreeContext(speaker: SpeakerConfig, peer: PeerTemplate, sent: Open, received: Open): WireContext {
  const { remoteAsn } = peer
  const internal = received.asn === sent.asn
  const expected =
    remoteAsn === 'internal' ? internal : remoteAsn === 'external' ? !internal : received.asn === remoteAsn
  if (!expected)
    throw refuse(OpenError.BAD_PEER_AS, `the peer is in AS ${received.asn}, not ${formatRemoteAsn(remoteAsn)}`)
  const theirs = familiesOf(received)
  const families = new Set(familiesOf(sent).filter((family) => theirs.includes(family)))
  // RFC 5492 section 5: the data are the capabilities that we would have needed.
  if (families.size === 0)
    throw refuse(OpenError.UNSUPPORTED_CAPABILITY, 'no address family in common', missingFamilies(sent))
  const addPath = (open: Open, direction: 'send' | 'receive'): Set<RouteFamily> =>
    new Set(
      all(open, 'addPath')
        .flatMap((capability) => capability.families)
        .filter((entry) => entry[direction] && families.has(entry.family))
        .map(({ family }) => family),
    )
  const nextHops = (open: Open): RouteFamily[] =>
    all(open, 'extendedNextHop')
      .flatMap((capability) => capability.families)
      .filter(({ family, nextHopAfi }) => nextHopAfi === AFI_IPV6 && families.has(family))
      .map(({ family }) => family)
  const theirSend = addPath(received, 'send')
  const theirReceive = addPath(received, 'receive')
  const theirNextHops = nextHops(received)
  const extended = has(sent, 'extendedMessage') && has(received, 'extendedMessage')
  const member = speaker.confederation?.members.includes(received.asn) === true
  return {
    fourOctetAs: has(sent, 'fourOctetAs') && has(received, 'fourOctetAs'),
    peerType: internal ? 'internal' : member ? 'confederation' : 'external',
    families,
    addPathReceive: new Set([...addPath(sent, 'receive')].filter((family) => theirSend.has(family))),
    addPathSend: new Set([...addPath(sent, 'send')].filter((family) => theirReceive.has(family))),
    extendedNextHop: new Set(nextHops(sent).filter((family) => theirNextHops.includes(family))),
    messageBytesMax: extended ? EXTENDED_MESSAGE_BYTES_MAX : MESSAGE_BYTES_MAX,
  }
}

function missingFamilies(sent: Open): Uint8Array {
  const writer = new Writer()
  for (const family of familiesOf(sent)) encodeCapability(writer, { kind: 'multiprotocol', family })
  return writer.finish().slice()
}

const formatRemoteAsn = (asn: PeerTemplate['remoteAsn']): string =>
  typeof asn === 'number' ? String(asn) : asn === 'internal' ? 'ours' : 'another than ours'

/** RFC 9234 section 4.2. */
function checkRole({ role, roleStrict }: PeerTemplate, received: Open): void {
  if (role === undefined) return
  const theirs = new Set(all(received, 'role').map((capability) => capability.role))
  // "If multiple BGP Role Capabilities are received and not all of them have the same value, … Role Mismatch".
  if (theirs.size > 1) throw refuse(OpenError.ROLE_MISMATCH, 'the peer states several roles')
  const [other] = theirs
  if (other === undefined) {
    // "strict mode": the peer has to state one.
    if (roleStrict) throw refuse(OpenError.ROLE_MISMATCH, 'the peer states no role')
    return
  }
  if (other !== oppositeRoles.get(roleNumbers[role]))
    throw refuse(OpenError.ROLE_MISMATCH, `the peer's role ${other} does not stand opposite to ${role}`)
}

function agreeRestart(sent: Open, received: Open, carried: ReadonlySet<RouteFamily>): PeerRestart | undefined {
  const [ours] = all(sent, 'gracefulRestart')
  // RFC 4724 section 3: "SHOULD NOT include more than one instance"; of several "all but the last one" are ignored.
  const theirs = all(received, 'gracefulRestart').at(-1)
  if (!ours || !theirs) return undefined
  const offered = new Map(
    all(sent, 'longLivedGracefulRestart').flatMap(({ families }) =>
      families.map((each) => [each.family, each.staleTimeSeconds] as const),
    ),
  )
  const longLived = new Map<RouteFamily, number>()
  for (const { families } of all(received, 'longLivedGracefulRestart'))
    for (const { family, staleTimeSeconds } of families) {
      const own = offered.get(family)
      if (own !== undefined && carried.has(family)) longLived.set(family, Math.min(own, staleTimeSeconds))
    }
  return {
    restarted: theirs.restarted,
    notification: ours.notification && theirs.notification,
    restartSeconds: theirs.restartTimeSeconds,
    families: new Map(
      theirs.families.filter(({ family }) => carried.has(family)).map(({ family, forwarding }) => [family, forwarding]),
    ),
    longLived,
  }
}
