/**
 * Typed arrays that grow. Fresh memory costs nothing until it is touched: a small array is given eight times its length at once, so
 * that little is ever copied; a large one grows by half.
 */
type NumberArray = Int32Array | Uint32Array | Uint16Array | Uint8Array | Float64Array

const LARGE = 1 << 21

/** A copy of at least `length` elements, zeros behind the old ones; the same array when it is long enough. */
export function grown<A extends NumberArray>(array: A, length: number): A {
  if (length <= array.length) return array
  const Type = array.constructor as new (length: number) => A
  const copy = new Type(Math.max(length, array.length < LARGE ? array.length * 8 : Math.ceil(array.length * 1.5)))
  copy.set(array)
  return copy
}

/** A list of signed 32-bit integers that keeps its memory between uses. */
export class IntList {
  items: Int32Array
  length = 0

  constructor(capacity = 64) {
    this.items = new Int32Array(capacity)
  }

  push(value: number): void {
    if (this.length === this.items.length) this.items = grown(this.items, this.length + 1)
    this.items[this.length++] = value
  }

  /** Forgets the items, and the memory too when there were very many. */
  clear(): void {
    this.length = 0
    if (this.items.length > 1 << 20) this.items = new Int32Array(64)
  }
}
