/**
 * One peer of an update group: in step with the group, or behind it with a bit for each prefix that it has missed. With add-path
 * also the paths that went meanwhile, because nothing else remembers their identifiers.
 */
import type { Told } from './told-table.ts'
import { grown } from './typed-array.ts'

export class Member {
  /** Gets what the group is told, as it is told. */
  inStep = false
  /** Takes nothing now; `resume` clears it. */
  blocked = false
  /** Due when everything has been sent: the message and the notice, or the notice alone. */
  endOfRib: 'no' | 'message' | 'notice' = 'no'
  readonly #addPath: boolean
  #missed = new Int32Array(0)
  /** First word of `#missed` that may have a bit. */
  #cursor = 0
  #withdrawn = new Map<number, Set<number>>()

  constructor(addPath: boolean) {
    this.#addPath = addPath
  }

  fallBehind(): void {
    this.inStep = false
  }

  keepUp(): void {
    this.inStep = true
    this.#missed = new Int32Array(0)
    this.#withdrawn = new Map()
  }

  miss(prefix: number): void {
    const word = prefix >>> 5
    this.#missed = grown(this.#missed, word + 1)
    this.#missed[word]! |= 1 << (prefix & 31)
    if (word < this.#cursor) this.#cursor = word
  }

  /** With add-path: a path that it may have been told is not for it any more. */
  missWithdrawal(prefix: number, pathId: number): void {
    if (!this.#addPath) return
    const paths = this.#withdrawn.get(prefix)
    if (paths) paths.add(pathId)
    else this.#withdrawn.set(prefix, new Set([pathId]))
  }

  /** The member goes on in another group: what it has missed, it still has. */
  handOver(to: Member): void {
    for (const [word, bits] of this.#missed.entries())
      for (let bit = 0; bits !== 0 && bit < 32; bit++) if (bits & (1 << bit)) to.miss(word * 32 + bit)
    for (const [prefix, paths] of this.#withdrawn) for (const pathId of paths) to.missWithdrawal(prefix, pathId)
  }

  /** Calls for at most `count` missed prefixes, which are missed no longer. True: there are no more. */
  take(count: number, visit: (prefix: number) => void): boolean {
    const missed = this.#missed
    let left = count
    for (; this.#cursor < missed.length; this.#cursor++) {
      for (let bits = missed[this.#cursor]!; bits !== 0; bits = missed[this.#cursor]!) {
        if (left-- === 0) return false
        const bit = 31 - Math.clz32(bits & -bits)
        missed[this.#cursor] = bits & ~(1 << bit)
        visit(this.#cursor * 32 + bit)
      }
    }
    return true
  }

  /** What a missed prefix comes to: each path that it has now, and what went. */
  resolve(prefix: number, now: Told, tell: (pathId: number, set: number) => void): void {
    if (this.#addPath) {
      for (const pathId of this.#withdrawn.get(prefix) ?? []) if (now.indexOf(pathId) < 0) tell(pathId, 0)
      this.#withdrawn.delete(prefix)
    } else if (now.count === 0) {
      tell(0, 0)
    }
    for (let i = 0; i < now.count; i++) tell(now.pathIds[i]!, now.sets[i]!)
  }
}
