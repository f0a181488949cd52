/**
 * Remembered answers of a pure function of three small numbers: open addressing over typed arrays. The RIB asks it for
 * "attribute set × prefix class × source → attribute set or refusal", which policies and the export rules would otherwise
 * compute a million times.
 */
const FIRST_CAPACITY = 64

export class AnswerTable {
  /** Four words a slot: a, b, c, answer + 1 (0: free). */
  #slots = new Int32Array(FIRST_CAPACITY * 4)
  #mask = FIRST_CAPACITY - 1
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The answer, or -1. */
  get(a: number, b: number, c: number): number {
    const slots = this.#slots
    let slot = hash(a, b, c) & this.#mask
    for (;;) {
      const at = slot * 4
      const answer = slots[at + 3]!
      if (answer === 0) return -1
      if (slots[at] === a && slots[at + 1] === b && slots[at + 2] === c) return answer - 1
      slot = (slot + 1) & this.#mask
    }
  }

  /** Remembers an answer (0 to 2^31 − 2) that is not there yet. */
  add(a: number, b: number, c: number, answer: number): void {
    if (++this.#size * 5 > (this.#mask + 1) * 3) this.#grow()
    this.#put(a, b, c, answer + 1)
  }

  clear(): void {
    this.#slots = new Int32Array(FIRST_CAPACITY * 4)
    this.#mask = FIRST_CAPACITY - 1
    this.#size = 0
  }

  #put(a: number, b: number, c: number, stored: number): void {
    const slots = this.#slots
    let slot = hash(a, b, c) & this.#mask
    while (slots[slot * 4 + 3] !== 0) slot = (slot + 1) & this.#mask
    slots[slot * 4] = a
    slots[slot * 4 + 1] = b
    slots[slot * 4 + 2] = c
    slots[slot * 4 + 3] = stored
  }

  #grow(): void {
    const old = this.#slots
    this.#slots = new Int32Array(old.length * 2)
    this.#mask = this.#mask * 2 + 1
    for (let at = 0; at < old.length; at += 4)
      if (old[at + 3] !== 0) this.#put(old[at]!, old[at + 1]!, old[at + 2]!, old[at + 3]!)
  }
}

function hash(a: number, b: number, c: number): number {
  let h = Math.imul(a, 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 15) ^ b, 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13) ^ c, 0xc2b2ae35)
  return h ^ (h >>> 16)
}
