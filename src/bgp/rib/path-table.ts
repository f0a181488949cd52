/**
 * Every path that a peer sent (Adj-RIB-In) or that we originate, as columns of typed arrays. A path is in two lists: those of its
 * prefix, which the decision walks, and those of its peer, which a lost session walks. Ids begin at 1: 0 means none.
 *
 *   heads[prefix] ─► path ─next─► path ─next─► 0            firstOfPeer ─► path ⇄ path ⇄ 0
 *
 * Sources: RFC 4271 section 3.2 (Adj-RIB-In), RFC 7911 section 3 (path identifiers).
 */
import { grown } from './typed-array.ts'

const FIRST_CAPACITY = 64

/** Kept by long-lived graceful restart: least preferred (RFC 9494). */
export const LONG_LIVED_STALE = 1

export class PathTable {
  prefix = new Int32Array(FIRST_CAPACITY)
  peer = new Uint16Array(FIRST_CAPACITY)
  /** Attribute set as received. */
  received = new Int32Array(FIRST_CAPACITY)
  /** Attribute set after import; negative: refused, minus the number of the refusal. */
  imported = new Int32Array(FIRST_CAPACITY)
  /** Add-path identifier, 32 bits signed; 0 without add-path. */
  pathId = new Int32Array(FIRST_CAPACITY)
  flags = new Uint8Array(FIRST_CAPACITY)
  /** The peer's epoch in which the path was announced last: of an older one it is stale. */
  epoch = new Uint8Array(FIRST_CAPACITY)
  /** Next path of the same prefix. */
  next = new Int32Array(FIRST_CAPACITY)
  nextOfPeer = new Int32Array(FIRST_CAPACITY)
  previousOfPeer = new Int32Array(FIRST_CAPACITY)
  /** By prefix: its first path. */
  heads = new Int32Array(FIRST_CAPACITY)
  /** Ids are below this. */
  end = 1
  #live = 0
  readonly #free: number[] = []

  get size(): number {
    return this.#live
  }

  /** Makes room for prefix ids below `end`. */
  holdPrefixes(end: number): void {
    this.heads = grown(this.heads, end)
  }

  find(prefix: number, peer: number, pathId: number): number {
    let path = this.heads[prefix]!
    while (path !== 0 && (this.peer[path] !== peer || this.pathId[path] !== pathId)) path = this.next[path]!
    return path
  }

  /** A new path in front of its prefix's list and of its peer's, whose first one was `firstOfPeer`. */
  add(prefix: number, peer: number, pathId: number, firstOfPeer: number): number {
    const path = this.#free.pop() ?? this.end++
    if (path >= this.prefix.length) this.#grow(path + 1)
    this.prefix[path] = prefix
    this.peer[path] = peer
    this.pathId[path] = pathId
    this.flags[path] = 0
    this.next[path] = this.heads[prefix]!
    this.heads[prefix] = path
    this.nextOfPeer[path] = firstOfPeer
    this.previousOfPeer[path] = 0
    if (firstOfPeer !== 0) this.previousOfPeer[firstOfPeer] = path
    this.#live++
    return path
  }

  /** Takes a path out of both lists. When it was its peer's first, `nextOfPeer[path]` is that now (still readable). */
  remove(path: number): void {
    const prefix = this.prefix[path]!
    const next = this.next[path]!
    let before = this.heads[prefix]!
    if (before === path) this.heads[prefix] = next
    else {
      while (this.next[before] !== path) before = this.next[before]!
      this.next[before] = next
    }
    const after = this.nextOfPeer[path]!
    const previous = this.previousOfPeer[path]!
    if (after !== 0) this.previousOfPeer[after] = previous
    if (previous !== 0) this.nextOfPeer[previous] = after
    this.prefix[path] = 0
    this.#free.push(path)
    this.#live--
  }

  #grow(length: number): void {
    this.prefix = grown(this.prefix, length)
    this.peer = grown(this.peer, length)
    this.received = grown(this.received, length)
    this.imported = grown(this.imported, length)
    this.pathId = grown(this.pathId, length)
    this.flags = grown(this.flags, length)
    this.epoch = grown(this.epoch, length)
    this.next = grown(this.next, length)
    this.nextOfPeer = grown(this.nextOfPeer, length)
    this.previousOfPeer = grown(this.previousOfPeer, length)
  }
}
