/**
 * What a group of peers has been told of each prefix: attribute set and source of the path, with add-path of several paths. One
 * path per prefix is kept in typed arrays, six bytes a prefix; several in a list for each prefix that has any.
 *
 * Sources: RFC 4271 section 3.2 (Adj-RIB-Out), RFC 7911 section 3.
 */
import { grown } from './typed-array.ts'

/** The paths of one prefix, in columns; used again and again. */
export class Told {
  count = 0
  readonly pathIds: number[] = []
  readonly sets: number[] = []
  /** Number of the peer that the path came from; 0: originated here. */
  readonly sources: number[] = []

  clear(): void {
    this.count = 0
  }

  add(pathId: number, set: number, source: number): void {
    const at = this.count++
    this.pathIds[at] = pathId
    this.sets[at] = set
    this.sources[at] = source
  }

  indexOf(pathId: number): number {
    for (let i = 0; i < this.count; i++) if (this.pathIds[i] === pathId) return i
    return -1
  }

  /** Drops what came from this peer. */
  withoutSource(peer: number): void {
    let kept = 0
    for (let i = 0; i < this.count; i++) {
      if (this.sources[i] === peer) continue
      this.pathIds[kept] = this.pathIds[i]!
      this.sets[kept] = this.sets[i]!
      this.sources[kept++] = this.sources[i]!
    }
    this.count = kept
  }
}

export interface ToldTable {
  has(prefix: number): boolean
  read(prefix: number, out: Told): void
  write(prefix: number, told: Told): void
  /** How many paths a member has been told that is (not) their source. */
  countFor(member: number): number
  /** Marks every attribute set in use. */
  markSets(marks: Uint8Array): void
}

/** How many paths there are, and how many of each source. */
class Tally {
  total = 0
  #bySource = new Int32Array(64)

  add(source: number, change: 1 | -1): void {
    this.#bySource = grown(this.#bySource, source + 1)
    this.#bySource[source]! += change
    this.total += change
  }

  withoutSource(source: number): number {
    return this.total - (this.#bySource[source] ?? 0)
  }
}

export class SinglePathTable implements ToldTable {
  #sets = new Int32Array(64)
  #sources = new Uint16Array(64)
  readonly #tally = new Tally()

  has(prefix: number): boolean {
    return prefix < this.#sets.length && this.#sets[prefix] !== 0
  }

  read(prefix: number, out: Told): void {
    out.count = 0
    const set = this.#sets[prefix] ?? 0
    if (set !== 0) out.add(0, set, this.#sources[prefix]!)
  }

  write(prefix: number, told: Told): void {
    if (prefix >= this.#sets.length) {
      this.#sets = grown(this.#sets, prefix + 1)
      this.#sources = grown(this.#sources, prefix + 1)
    }
    if (this.#sets[prefix] !== 0) this.#tally.add(this.#sources[prefix]!, -1)
    this.#sets[prefix] = told.count === 0 ? 0 : told.sets[0]!
    this.#sources[prefix] = told.count === 0 ? 0 : told.sources[0]!
    if (told.count > 0) this.#tally.add(told.sources[0]!, 1)
  }

  countFor(member: number): number {
    return this.#tally.withoutSource(member)
  }

  markSets(marks: Uint8Array): void {
    const sets = this.#sets
    for (let prefix = 0; prefix < sets.length; prefix++) marks[sets[prefix]!] = 1
  }
}

/** Three numbers a path: identifier, set, source. */
export class SeveralPathsTable implements ToldTable {
  readonly #paths = new Map<number, Int32Array>()
  readonly #tally = new Tally()

  has(prefix: number): boolean {
    return this.#paths.has(prefix)
  }

  read(prefix: number, out: Told): void {
    out.count = 0
    const paths = this.#paths.get(prefix)
    if (paths) for (let at = 0; at < paths.length; at += 3) out.add(paths[at]!, paths[at + 1]!, paths[at + 2]!)
  }

  write(prefix: number, told: Told): void {
    const old = this.#paths.get(prefix)
    if (old) for (let at = 0; at < old.length; at += 3) this.#tally.add(old[at + 2]!, -1)
    if (told.count === 0) {
      this.#paths.delete(prefix)
      return
    }
    const paths = new Int32Array(told.count * 3)
    for (let i = 0; i < told.count; i++) {
      paths[i * 3] = told.pathIds[i]!
      paths[i * 3 + 1] = told.sets[i]!
      paths[i * 3 + 2] = told.sources[i]!
      this.#tally.add(told.sources[i]!, 1)
    }
    this.#paths.set(prefix, paths)
  }

  countFor(member: number): number {
    return this.#tally.withoutSource(member)
  }

  markSets(marks: Uint8Array): void {
    for (const paths of this.#paths.values()) for (let at = 1; at < paths.length; at += 3) marks[paths[at]!] = 1
  }
}
