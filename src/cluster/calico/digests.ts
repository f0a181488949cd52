/** The digests that names and labels of Calico's affinities are made of. Sources: RFC 4648 section 6 (base 32). */
import { createHash } from 'node:crypto'
import type { Digests } from '../../config/calico/store-names.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

export const digests: Digests = {
  sha256Hex: (text) => createHash('sha256').update(text).digest('hex'),
  sha3Base32: (text) => base32(createHash('sha3-256').update(text).digest()),
}

/** Without padding. */
function base32(bytes: Uint8Array): string {
  let text = ''
  let bits = 0
  let word = 0
  for (const byte of bytes) {
    word = ((word << 8) | byte) & 0xfff
    bits += 8
    for (; bits >= 5; bits -= 5) text += ALPHABET[(word >>> (bits - 5)) & 31]
  }
  return bits > 0 ? text + ALPHABET[(word << (5 - bits)) & 31] : text
}
