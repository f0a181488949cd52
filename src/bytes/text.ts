/**
 * UTF-8 without a platform: the pure layers have no TextEncoder. Bad bytes become U+FFFD, one per byte; unpaired
 * surrogates are written as U+FFFD.
 *
 * Sources: RFC 3629 section 3.
 */
export function encodeUtf8(text: string): Uint8Array {
  const out = new Uint8Array(text.length * 3)
  let at = 0
  for (let i = 0; i < text.length; i++) {
    let code = text.codePointAt(i)!
    if (code < 0x80) {
      out[at++] = code
      continue
    }
    if (code > 0xffff) i++
    else if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd
    if (code < 0x800) {
      out[at++] = 0xc0 | (code >> 6)
    } else {
      if (code < 0x10000) {
        out[at++] = 0xe0 | (code >> 12)
      } else {
        out[at++] = 0xf0 | (code >> 18)
        out[at++] = 0x80 | ((code >> 12) & 0x3f)
      }
      out[at++] = 0x80 | ((code >> 6) & 0x3f)
    }
    out[at++] = 0x80 | (code & 0x3f)
  }
  return out.slice(0, at)
}

export function decodeUtf8(bytes: Uint8Array): string {
  let text = ''
  for (let i = 0; i < bytes.length; ) {
    const first = bytes[i]!
    if (first < 0x80) {
      text += String.fromCharCode(first)
      i++
      continue
    }
    const length = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 ? 3 : 2
    const code = first < 0xc2 || first > 0xf4 ? -1 : multiByte(bytes, i, length)
    text += code < 0 ? '\ufffd' : String.fromCodePoint(code)
    i += code < 0 ? 1 : length
  }
  return text
}

/** The code point of a sequence of `length` bytes, or -1 when it is cut, overlong, a surrogate or too large. */
function multiByte(bytes: Uint8Array, at: number, length: number): number {
  let code = bytes[at]! & (0x7f >> length)
  for (let i = 1; i < length; i++) {
    const next = bytes[at + i]
    if (next === undefined || (next & 0xc0) !== 0x80) return -1
    code = (code << 6) | (next & 0x3f)
  }
  const smallest = length === 2 ? 0x80 : length === 3 ? 0x800 : 0x10000
  return code < smallest || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? -1 : code
}
