/**
 * Peers as small numbers, with what the decision reads of them in columns. A peer keeps its number as long as it is attached or
 * routes of it are kept. Number 0 is ourselves: the source of local routes.
 *
 * Sources: RFC 4271 section 9.1.2.2 d, f, g (external before internal, BGP identifier, peer address), RFC 5065 section 5.3.
 */
import type { RibPeer } from './peer.ts'
import { grown } from './typed-array.ts'

const FIRST_CAPACITY = 64
/** Paths name their peer in 16 bits. */
export const MAX_PEERS = 65535

export class PeerTable {
  /** 1: external, and not a member of our confederation. */
  external = new Uint8Array(FIRST_CAPACITY)
  routerId = new Uint32Array(FIRST_CAPACITY)
  /** Peers in the order of their addresses: no two have one rank. */
  addressRank = new Int32Array(FIRST_CAPACITY)
  /** Peer numbers are below this. */
  end = 1
  readonly #peers: (RibPeer | undefined)[] = [undefined]
  readonly #ids = new Map<string, number>()
  readonly #free: number[] = []

  constructor(routerId: number) {
    this.routerId[0] = routerId
  }

  /** Undefined for ourselves. */
  get(id: number): RibPeer | undefined {
    return this.#peers[id]
  }

  /** 0 when nobody has the name. */
  idOf(name: string): number {
    return this.#ids.get(name) ?? 0
  }

  ids(): IterableIterator<number> {
    return this.#ids.values()
  }

  /** Adds the peer, or takes over what has changed of it. Throws RangeError when there are too many. */
  set(peer: RibPeer): number {
    const known = this.#ids.get(peer.name)
    const id = known ?? this.#free.pop() ?? this.end++
    if (id > MAX_PEERS) throw new RangeError(`more than ${MAX_PEERS} BGP peers`)
    this.external = grown(this.external, id + 1)
    this.routerId = grown(this.routerId, id + 1)
    this.addressRank = grown(this.addressRank, id + 1)
    this.#ids.set(peer.name, id)
    this.#peers[id] = peer
    this.external[id] = peer.kind === 'external' ? 1 : 0
    this.routerId[id] = peer.routerId
    this.#rank()
    return id
  }

  remove(id: number): void {
    this.#ids.delete(this.#peers[id]!.name)
    this.#peers[id] = undefined
    this.#free.push(id)
  }

  /** The order of two peers never changes by a third, so that no decision needs to be made again. */
  #rank(): void {
    const order = [...this.#ids.values()].sort((a, b) => compare(this.#peers[a]!, this.#peers[b]!))
    for (const [rank, id] of order.entries()) this.addressRank[id] = rank + 1
  }
}

const compare = (a: RibPeer, b: RibPeer): number =>
  a.address.compare(b.address) || compareText(a.device ?? '', b.device ?? '') || compareText(a.name, b.name)

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
