/**
 * SHA-256, for names that other projects derive by it, where no Node module may be used. Not for secrets.
 *
 * Sources: FIPS 180-4.
 */

/** The first `bits` of the fractional part of a prime's root, by whole numbers. */
function fraction(prime: number, power: 2 | 3): number {
  // floor(root(prime * 2^(32 * power))) is the root with 32 binary places.
  const target = BigInt(prime) << BigInt(32 * power)
  let root = BigInt(Math.floor(prime ** (1 / power) * 2 ** 32))
  while (root ** BigInt(power) > target) root--
  while ((root + 1n) ** BigInt(power) <= target) root++
  return Number(root & 0xffffffffn)
}

const primes: number[] = []
for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime !== 0)) primes.push(n)
const roundConstants = Uint32Array.from(primes, (prime) => fraction(prime, 3))
const initial = Uint32Array.from(primes.slice(0, 8), (prime) => fraction(prime, 2))

const rotate = (word: number, by: number): number => (word >>> by) | (word << (32 - by))

/** The digest of `message`, 32 bytes. */
export function sha256(message: Uint8Array): Uint8Array {
  const padded = new Uint8Array((message.length + 9 + 63) & ~63)
  padded.set(message)
  padded[message.length] = 0x80
  const view = new DataView(padded.buffer)
  view.setUint32(padded.length - 8, Math.floor(message.length / 2 ** 29))
  view.setUint32(padded.length - 4, message.length << 3)
  const state = initial.slice()
  for (let offset = 0; offset < padded.length; offset += 64) compress(state, view, offset)
  const digest = new Uint8Array(32)
  const out = new DataView(digest.buffer)
  for (const [i, word] of state.entries()) out.setUint32(4 * i, word)
  return digest
}

function compress(state: Uint32Array, view: DataView, offset: number): void {
  const words = new Uint32Array(64)
  for (let i = 0; i < 16; i++) words[i] = view.getUint32(offset + 4 * i)
  for (let i = 16; i < 64; i++) {
    const [a, b] = [words[i - 15]!, words[i - 2]!]
    const low = rotate(a, 7) ^ rotate(a, 18) ^ (a >>> 3)
    const high = rotate(b, 17) ^ rotate(b, 19) ^ (b >>> 10)
    words[i] = words[i - 16]! + low + words[i - 7]! + high
  }
  let [a, b, c, d, e, f, g, h] = state as unknown as [number, number, number, number, number, number, number, number]
  for (let i = 0; i < 64; i++) {
    const choice = (e & f) ^ (~e & g)
    const first = (h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + roundConstants[i]! + words[i]!) | 0
    const majority = (a & b) ^ (a & c) ^ (b & c)
    const second = ((rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority) | 0
    ;[h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0]
  }
  for (const [i, word] of [a, b, c, d, e, f, g, h].entries()) state[i]! += word
}
