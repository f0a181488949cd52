/**
 * Attribute blocks that were seen, with what they say: a block is decoded once, however many UPDATEs carry it, and the same
 * bytes give the same object. Bounded: when it is full, what was not asked for since the last time goes.
 *
 * Sources: RFC 4271 section 4.3 (one set for many prefixes), RFC 7606 section 2 (faults belong to the block).
 */
import { type DecodedAttributes, decodeAttributes } from '../../wire/bgp/attribute.ts'
import type { WireContext } from '../../wire/bgp/context.ts'
import { grown } from './typed-array.ts'

const FIRST_CAPACITY = 64

export class AttributeCache {
  readonly #limit: number
  readonly #bytesLimit: number
  #bytes = 0
  /** Index + 1 of a block; 0: free. */
  #slots = new Int32Array(FIRST_CAPACITY * 2)
  #hashes = new Int32Array(FIRST_CAPACITY)
  #used = new Uint8Array(FIRST_CAPACITY)
  #blocks: Uint8Array[] = []
  #kinds: string[] = []
  #decoded: DecodedAttributes[] = []

  /** How many blocks are kept at most, and how many bytes of them. */
  constructor(limit = 1 << 18, bytesLimit = 1 << 26) {
    this.#limit = limit
    this.#bytesLimit = bytesLimit
  }

  get size(): number {
    return this.#blocks.length
  }

  /** What a block of `decodeUpdate` says in a session of this kind. The block is copied if it is new. */
  decode(block: Uint8Array, context: WireContext): DecodedAttributes {
    const kind = `${context.peerType}${context.fourOctetAs}`
    const hash = hashBytes(block)
    const mask = this.#slots.length - 1
    let slot = hash & mask
    for (let stored = this.#slots[slot]!; stored !== 0; stored = this.#slots[slot]!) {
      const index = stored - 1
      if (this.#hashes[index] === hash && this.#kinds[index] === kind && equalBytes(this.#blocks[index]!, block)) {
        this.#used[index] = 1
        return this.#decoded[index]!
      }
      slot = (slot + 1) & mask
    }
    const decoded = decodeAttributes(block, context)
    if (this.#blocks.length >= this.#limit || this.#bytes + block.length > this.#bytesLimit) this.#forget()
    this.#add(block.slice(), kind, hash, decoded)
    return decoded
  }

  #add(block: Uint8Array, kind: string, hash: number, decoded: DecodedAttributes): void {
    const index = this.#blocks.length
    this.#hashes = grown(this.#hashes, index + 1)
    this.#used = grown(this.#used, index + 1)
    this.#hashes[index] = hash
    this.#used[index] = 1
    this.#blocks.push(block)
    this.#bytes += block.length
    this.#kinds.push(kind)
    this.#decoded.push(decoded)
    if (this.#blocks.length * 2 > this.#slots.length) this.#rehash(this.#slots.length * 2)
    else this.#place(index)
  }

  /** Keeps what was asked for since the last time, at most half of the room. */
  #forget(): void {
    const blocks = this.#blocks
    const kinds = this.#kinds
    const decoded = this.#decoded
    this.#blocks = []
    this.#kinds = []
    this.#decoded = []
    this.#bytes = 0
    for (let index = 0; index < blocks.length; index++) {
      if (this.#used[index] === 0) continue
      if (this.#blocks.length * 2 >= this.#limit || this.#bytes * 2 >= this.#bytesLimit) break
      this.#bytes += blocks[index]!.length
      this.#hashes[this.#blocks.length] = this.#hashes[index]!
      this.#blocks.push(blocks[index]!)
      this.#kinds.push(kinds[index]!)
      this.#decoded.push(decoded[index]!)
    }
    this.#used.fill(0)
    this.#rehash(this.#slots.length)
  }

  #rehash(length: number): void {
    this.#slots = new Int32Array(length)
    for (let index = 0; index < this.#blocks.length; index++) this.#place(index)
  }

  #place(index: number): void {
    const mask = this.#slots.length - 1
    let slot = this.#hashes[index]! & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    this.#slots[slot] = index + 1
  }
}

function hashBytes(bytes: Uint8Array): number {
  let h = 0x811c9dc5
  for (let i = 0; i < bytes.length; i++) h = Math.imul(h ^ bytes[i]!, 0x01000193)
  return h ^ (h >>> 15)
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
