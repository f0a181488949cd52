/**
 * What goes out: the set of a chosen path becomes the set that a group of peers is told, or is kept from them. First whether the
 * route may go there at all (reflection, communities, roles), then the policy, then what the protocol changes on the way (AS path,
 * next hop, attributes that do not leave the AS). Answers are remembered by set, prefix class and what matters of the source.
 *
 * A policy chooses the next hop by giving another `nextHop` object than it was given: none at all means ours.
 *
 * Sources: RFC 4271 sections 5.1.2 to 5.1.5 and 9.1.3, RFC 1997 (well-known communities), RFC 4456 sections 6 and 8, RFC 5065
 * sections 4 and 5, RFC 7947 section 2.2 (route servers), RFC 9234 section 5, RFC 9494 section 4.5, RFC 2545 section 3.
 */
import type { BgpFamily } from '../../model/bgp.ts'
import type { Family } from '../../net/ip.ts'
import { encodeAttributes } from '../../wire/bgp/attribute.ts'
import type { AsPathSegment, Attributes, NextHop } from '../../wire/bgp/attributes.ts'
import type { WireContext } from '../../wire/bgp/context.ts'
import { IPV4_UNICAST, IPV6_UNICAST, type RouteFamily } from '../../wire/bgp/family.ts'
import { AnswerTable } from './answer-table.ts'
import { type AttributeStore, DEFAULT_LOCAL_PREFERENCE, LLGR_STALE } from './attribute-store.ts'
import type { RibOptions, RibPeer, RibPeerFamily } from './peer.ts'
import type { PeerTable } from './peer-table.ts'
import { isRefusal, type PolicySource, type Refusal } from './policy.ts'

const NO_EXPORT = 0xffffff01
const NO_ADVERTISE = 0xffffff02
const NO_EXPORT_SUBCONFED = 0xffffff03

/** Header and lengths of an UPDATE, the longer head of MP_REACH_NLRI, the longest prefix with its path identifier. */
const MOST_AROUND_ATTRIBUTES = 19 + 4 + 4 + 21

export const routeFamilyOf: Readonly<Record<BgpFamily, RouteFamily>> = { ipv4: IPV4_UNICAST, ipv6: IPV6_UNICAST }

/** What is asked of the source of a route that is originated here: by its number (`LocalSources`). */
export const FIRST_LOCAL_SOURCE = 65536

/** Kinds of local routes that policies may tell apart, as numbers behind those of peers. */
export class LocalSources {
  readonly #sources: PolicySource[] = []
  readonly #ids = new Map<string, number>()

  intern(source: PolicySource): number {
    const key = `${source.localKind} ${source.device}`
    let id = this.#ids.get(key)
    if (id === undefined) {
      id = FIRST_LOCAL_SOURCE + this.#sources.length
      this.#sources.push(source)
      this.#ids.set(key, id)
    }
    return id
  }

  get(id: number): PolicySource {
    return this.#sources[id - FIRST_LOCAL_SOURCE]!
  }
}

export class ExportRules {
  readonly #options: RibOptions
  readonly #to: RibPeer
  readonly #family: RibPeerFamily
  readonly #store: AttributeStore
  readonly #peers: PeerTable
  readonly #locals: LocalSources
  readonly #answers = new AnswerTable()
  readonly #blocks = new Map<number, Uint8Array>()
  /** How bytes are written for the group. */
  readonly context: WireContext

  /** `to`: any peer of the group; only what `keyOfExport` names is looked at. */
  constructor(
    options: RibOptions,
    to: RibPeer,
    family: RibPeerFamily,
    store: AttributeStore,
    peers: PeerTable,
    locals: LocalSources,
  ) {
    this.#options = options
    this.#to = to
    this.#family = family
    this.#store = store
    this.#peers = peers
    this.#locals = locals
    const families = new Set([routeFamilyOf[family.family]])
    this.context = {
      fourOctetAs: to.fourOctetAs,
      peerType: to.kind,
      families,
      addPathReceive: new Set(),
      addPathSend: family.addPathSend > 0 ? families : new Set(),
      extendedNextHop: family.extendedNextHop ? families : new Set(),
      messageBytesMax: to.messageBytesMax,
    }
  }

  get classOf(): RibPeerFamily['exportPolicy']['classOf'] {
    return this.#family.exportPolicy.classOf
  }

  /** The set that is sent, or 0. `source`: number of a peer, or of a local source. */
  judge(set: number, prefixClass: number, source: number): number {
    const key = this.#sourceKey(set, source)
    let answer = this.#answers.get(set, prefixClass, key)
    if (answer < 0) {
      const verdict = this.evaluate(this.#store.get(set), prefixClass, source)
      answer = isRefusal(verdict) ? 0 : this.#sendable(verdict)
      this.#answers.add(set, prefixClass, key, answer)
    }
    return answer
  }

  /** What `packReach` sends for a set that `judge` answered. */
  blockOf(set: number): Uint8Array {
    let block = this.#blocks.get(set)
    if (!block) {
      block = encodeAttributes(this.#store.get(set), routeFamilyOf[this.#family.family], this.context)
      this.#blocks.set(set, block)
    }
    return block
  }

  /** After a sweep of the attribute sets: their numbers may be others'. */
  forget(): void {
    this.#answers.clear()
    this.#blocks.clear()
  }

  /** 0 where the attributes leave no room for a prefix in a message. */
  #sendable(attributes: Attributes): number {
    const set = this.#store.intern(attributes)
    return this.blockOf(set).length <= this.context.messageBytesMax - MOST_AROUND_ATTRIBUTES ? set : 0
  }

  /** What a route becomes, or why it is not told. */
  evaluate(given: Attributes, prefixClass: number, source: number): Attributes | Refusal {
    const from = source >= FIRST_LOCAL_SOURCE ? undefined : this.#peers.get(source)
    const refused = this.#kept(given, from)
    if (refused !== undefined) return { refused }
    const shown = this.#beforePolicy(given, from)
    const policySource: PolicySource = from
      ? { fromPeer: from.name, localKind: undefined, device: from.device }
      : this.#locals.get(source)
    const verdict = this.#family.exportPolicy.evaluate(shown, prefixClass, policySource)
    if (isRefusal(verdict)) return verdict
    const nextHop = this.#nextHop(verdict, verdict.nextHop !== shown.nextHop, from)
    if (!nextHop) return { refused: 'no next hop of ours that the peer understands' }
    return Object.freeze({ ...this.#onTheWay(verdict, from), nextHop })
  }

  /** Sources that are treated alike have one key. */
  #sourceKey(set: number, source: number): number {
    if (this.#family.exportPolicy.looksAtSource) return source
    if (source >= FIRST_LOCAL_SOURCE) return 0
    const from = this.#peers.get(source)!
    if (from.kind === 'external') return 1
    if (from.kind === 'confederation') return 2
    // ORIGINATOR_ID is made of the source's identifier where there is none yet.
    if (this.#to.kind === 'internal')
      return this.#store.originatorId[set] === 0 ? 16 + source : from.reflectorClient ? 3 : 4
    return 5
  }

  /** Why a route does not go there whatever the policy says. */
  #kept({ communities, onlyToCustomer }: Attributes, from: RibPeer | undefined): string | undefined {
    const { kind, reflectorClient, role } = this.#to
    if (from?.kind === 'internal' && kind === 'internal' && !from.reflectorClient && !reflectorClient)
      return 'internal routes go to internal peers by reflection alone'
    if (communities) {
      if (communities.includes(NO_ADVERTISE)) return 'no-advertise'
      if (communities.includes(LLGR_STALE) && !this.#family.longLivedRestart) return 'long-lived stale'
      if (kind !== 'internal' && communities.includes(NO_EXPORT_SUBCONFED)) return 'no-export-subconfed'
      if (kind === 'external' && communities.includes(NO_EXPORT)) return 'no-export'
    }
    const upwards = role === 'customer' || role === 'peer' || role === 'route-server-client'
    if (kind === 'external' && upwards && onlyToCustomer !== undefined) return 'only to customers'
    return undefined
  }

  /** A neighbour's MULTI_EXIT_DISC is not for the next one (RFC 4271 section 5.1.4); a policy may set one of ours. */
  #beforePolicy(given: Attributes, from: RibPeer | undefined): Attributes {
    if (this.#to.kind !== 'external' || !from || given.med === undefined || this.#to.role === 'route-server')
      return given
    const { med: _, ...rest } = given
    return rest
  }

  #onTheWay(attributes: Attributes, from: RibPeer | undefined): Attributes {
    const { kind, localAsn, role } = this.#to
    const asPath = attributes.asPath ?? []
    if (kind === 'internal') return from?.kind === 'internal' ? this.#reflected(attributes, from) : internal(attributes)
    const { originatorId: _o, clusterList: _c, ...passed } = attributes
    if (kind === 'confederation')
      return {
        ...passed,
        localPreference: attributes.localPreference ?? DEFAULT_LOCAL_PREFERENCE,
        asPath: prepend(asPath, 'confed-sequence', this.#options.asn),
      }
    const { localPreference: _l, aigp: _a, ...rest } = passed
    const outside = asPath.filter((segment) => segment.kind === 'sequence' || segment.kind === 'set')
    return {
      ...rest,
      asPath: role === 'route-server' ? outside : prepend(outside, 'sequence', localAsn),
      ...(role && isDownwards(role) && { onlyToCustomer: attributes.onlyToCustomer ?? localAsn }),
    }
  }

  #reflected(attributes: Attributes, from: RibPeer): Attributes {
    return {
      ...internal(attributes),
      originatorId: attributes.originatorId ?? from.routerId,
      clusterList: [this.#options.clusterId, ...(attributes.clusterList ?? [])],
    }
  }

  #nextHop({ nextHop }: Attributes, chosen: boolean, from: RibPeer | undefined): NextHop | undefined {
    const { kind, role, sharesNetwork } = this.#to
    const { nextHop: mode } = this.#family
    const thirdParty =
      from?.kind === 'external' && kind === 'external' && nextHop !== undefined && sharesNetwork?.(nextHop.address)
    const kept =
      chosen || mode === 'keep' || (mode === 'auto' && (kind !== 'external' || role === 'route-server' || thirdParty))
    // A link-local address means nothing on another link.
    if (
      kept &&
      nextHop &&
      !nextHop.address.isLinkLocal &&
      !nextHop.address.isAny &&
      this.#understands(nextHop.address.family)
    )
      return { address: nextHop.address }
    return this.#ours()
  }

  #understands(family: Family): boolean {
    return this.#family.family === 'ipv6' ? family === 6 : family === 4 || this.#family.extendedNextHop
  }

  #ours(): NextHop | undefined {
    const { ipv4, ipv6, linkLocal } = this.#to.ownNextHops
    if (ipv4 && this.#understands(4)) return { address: ipv4 }
    if (!this.#understands(6)) return undefined
    if (ipv6) return linkLocal ? { address: ipv6, linkLocal } : { address: ipv6 }
    return linkLocal && { address: linkLocal, linkLocal }
  }
}

const internal = (attributes: Attributes): Attributes => ({
  ...attributes,
  localPreference: attributes.localPreference ?? DEFAULT_LOCAL_PREFERENCE,
})

/** Toward customers, peers and clients of a route server a route is marked (RFC 9234 section 5, egress 1). */
const isDownwards = (role: NonNullable<RibPeer['role']>): boolean =>
  role === 'provider' || role === 'peer' || role === 'route-server'

function prepend(
  asPath: readonly AsPathSegment[],
  kind: 'sequence' | 'confed-sequence',
  asn: number,
): readonly AsPathSegment[] {
  const [first, ...rest] = asPath
  return first?.kind === kind ? [{ kind, asns: [asn, ...first.asns] }, ...rest] : [{ kind, asns: [asn] }, ...asPath]
}

/** All that the answers for a peer depend on: peers with one key are one update group. */
export function keyOfExport(peer: RibPeer, family: RibPeerFamily): string {
  const { ipv4, ipv6, linkLocal } = peer.ownNextHops
  return [
    family.exportPolicy.key,
    family.nextHop,
    family.addPathSend,
    family.extendedNextHop,
    family.longLivedRestart,
    peer.kind,
    peer.reflectorClient,
    peer.localAsn,
    peer.role,
    peer.fourOctetAs,
    peer.messageBytesMax,
    ipv4,
    ipv6,
    linkLocal,
    // Which networks it shares with us is its own.
    peer.kind === 'external' && family.nextHop === 'auto' && peer.sharesNetwork ? peer.name : '',
  ].join(' ')
}
