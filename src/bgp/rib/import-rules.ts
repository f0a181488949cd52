/**
 * What comes in: a set of attributes as received becomes the set that the decision looks at, or is refused. First the protocol's
 * own rules (loops, roles, who may say what), then the peer's policy. The answer for a set and prefix class is remembered; peers
 * for which it would be the same share it.
 *
 * Sources: RFC 4271 sections 5.1.3, 5.1.5, 6.3 (next hop, LOCAL_PREF, first AS) and 9.1.2 (AS loop), RFC 4456 section 8 (reflection
 * loops), RFC 5065 section 4 (loops in confederations), RFC 9234 section 5 (Only to Customer), RFC 9494 section 4.2.
 */
import type { Attributes } from '../../wire/bgp/attributes.ts'
import { AnswerTable } from './answer-table.ts'
import { type AttributeStore, LLGR_STALE } from './attribute-store.ts'
import type { RibOptions, RibPeer, RibPeerFamily } from './peer.ts'
import { isRefusal, type PolicySource, type Refusal } from './policy.ts'

export const NO_LLGR = 0xffff0007

/** Why routes were refused, as small numbers, so that a path can name its reason. Numbers begin at 1. */
export class RefusalTable {
  readonly #texts: string[] = ['']
  readonly #ids = new Map<string, number>()

  intern(text: string): number {
    let id = this.#ids.get(text)
    if (id === undefined) {
      id = this.#texts.length
      this.#texts.push(text)
      this.#ids.set(text, id)
    }
    return id
  }

  text(id: number): string {
    return this.#texts[id]!
  }
}

export class ImportRules {
  /** Peers with one key get one answer. */
  readonly key: string
  readonly #options: RibOptions
  readonly #peer: RibPeer
  readonly #family: RibPeerFamily
  readonly #store: AttributeStore
  readonly #refusals: RefusalTable
  readonly #source: PolicySource
  /** set × class × long-lived → set × 2, or refusal × 2 + 1. */
  readonly #answers = new AnswerTable()

  constructor(
    options: RibOptions,
    peer: RibPeer,
    family: RibPeerFamily,
    store: AttributeStore,
    refusals: RefusalTable,
  ) {
    this.#options = options
    this.#peer = peer
    this.#family = family
    this.#store = store
    this.#refusals = refusals
    this.#source = { fromPeer: peer.name, localKind: undefined, device: peer.device }
    this.key = keyOfImport(peer, family)
  }

  get classOf(): RibPeerFamily['importPolicy']['classOf'] {
    return this.#family.importPolicy.classOf
  }

  /** The set after import, or minus the number of a refusal. */
  judge(set: number, prefixClass: number, longLived: boolean): number {
    const mode = longLived ? 1 : 0
    let answer = this.#answers.get(set, prefixClass, mode)
    if (answer < 0) {
      const verdict = this.#evaluate(this.#store.get(set), prefixClass, longLived)
      answer = isRefusal(verdict)
        ? this.#refusals.intern(verdict.refused) * 2 + 1
        : this.#store.intern(verdict, linkOf(verdict, this.#peer)) * 2
      this.#answers.add(set, prefixClass, mode, answer)
    }
    return (answer & 1) === 0 ? answer >>> 1 : -(answer >>> 1)
  }

  /** After a sweep of the attribute sets: their numbers may be others'. */
  forget(): void {
    this.#answers.clear()
  }

  #evaluate(received: Attributes, prefixClass: number, longLived: boolean): Attributes | Refusal {
    const refused = this.#loop(received) ?? this.#misfit(received) ?? this.#leak(received)
    if (refused !== undefined) return { refused }
    const attributes = this.#receivedFromRole(this.#withoutInternal(received))
    const verdict = this.#family.importPolicy.evaluate(attributes, prefixClass, this.#source)
    if (!longLived || isRefusal(verdict)) return verdict
    if (received.communities?.includes(NO_LLGR)) return { refused: 'stale, and marked with no-llgr' }
    if (verdict.communities?.includes(LLGR_STALE)) return verdict
    return Object.freeze({ ...verdict, communities: [...(verdict.communities ?? []), LLGR_STALE] })
  }

  #loop({ asPath = [], originatorId, clusterList }: Attributes): string | undefined {
    const { asn, confederation, routerId, clusterId } = this.#options
    const { localAsn, allowedLocalAsns, kind } = this.#peer
    let own = 0
    for (const segment of asPath)
      for (const each of segment.asns)
        if (each === asn || each === localAsn || each === confederation?.identifier) own++
    if (own > allowedLocalAsns) return 'AS loop'
    if (kind !== 'internal') return undefined
    if (originatorId === routerId) return 'reflected: it is our own'
    if (clusterList?.includes(clusterId)) return 'reflected: it went through our cluster'
    return undefined
  }

  #misfit({ asPath = [], nextHop }: Attributes): string | undefined {
    const { kind, remoteAsn, role, ownNextHops } = this.#peer
    // A route server does not put its own AS into the path (RFC 7947 section 2.2.2.1).
    const mustBegin = this.#options.enforceFirstAs && kind !== 'internal' && role !== 'route-server-client'
    if (mustBegin && asPath[0]?.asns[0] !== remoteAsn) return `AS path does not begin with ${remoteAsn}`
    if (!nextHop) return 'no next hop'
    const { address } = nextHop
    if (address.isMulticast || address.isLoopback || (address.isAny && !nextHop.linkLocal)) return 'next hop is no host'
    const own = [ownNextHops.ipv4, ownNextHops.ipv6].some((each) => each?.equals(address))
    return own ? 'next hop is ourselves' : undefined
  }

  /** RFC 9234 section 5: routes that must not have come this way. */
  #leak({ onlyToCustomer }: Attributes): string | undefined {
    const { kind, role, remoteAsn } = this.#peer
    if (kind !== 'external' || role === undefined || onlyToCustomer === undefined) return undefined
    if (role === 'provider' || role === 'route-server') return 'route leak: only for customers'
    if (role === 'peer' && onlyToCustomer !== remoteAsn) return 'route leak: only for customers of another'
    return undefined
  }

  #receivedFromRole(attributes: Attributes): Attributes {
    const { kind, role, remoteAsn } = this.#peer
    const fromAbove = role === 'customer' || role === 'peer' || role === 'route-server-client'
    if (kind !== 'external' || !fromAbove || attributes.onlyToCustomer !== undefined) return attributes
    return Object.freeze({ ...attributes, onlyToCustomer: remoteAsn })
  }

  /** What only internal peers may say means nothing from external ones. */
  #withoutInternal(attributes: Attributes): Attributes {
    if (this.#peer.kind !== 'external') return attributes
    const { localPreference, originatorId, clusterList, ...rest } = attributes
    if (localPreference === undefined && originatorId === undefined && clusterList === undefined) return attributes
    return Object.freeze(rest)
  }
}

/** The device on which a next hop is meant: the peer's, when it is a link-local address. */
function linkOf({ nextHop }: Attributes, peer: RibPeer): string | undefined {
  if (!nextHop || peer.device === undefined) return undefined
  if (nextHop.address.isLinkLocal) return peer.device
  return nextHop.linkLocal && (nextHop.address.isAny || peer.address.isLinkLocal) ? peer.device : undefined
}

function keyOfImport(peer: RibPeer, { importPolicy }: RibPeerFamily): string {
  const { kind, remoteAsn, localAsn, allowedLocalAsns, role, device, ownNextHops } = peer
  return [
    importPolicy.key,
    importPolicy.looksAtSource ? peer.name : '',
    kind,
    kind === 'internal' ? '' : remoteAsn,
    localAsn,
    allowedLocalAsns,
    role,
    device,
    peer.address.isLinkLocal,
    ownNextHops.ipv4,
    ownNextHops.ipv6,
  ].join(' ')
}
