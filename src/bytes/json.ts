/**
 * JSON whose whole numbers keep all their digits. What a double cannot hold exactly is read as a bigint and written as
 * one; everything else is as JSON.parse and JSON.stringify have it, at their speed.
 *
 * Sources: RFC 8259 section 6 (numbers beyond 2^53 are not interoperable), ECMA-262 Number.isSafeInteger.
 */

/** A key that stands for a large number until it is revived. Somebody who writes it by hand has written that number. */
const LARGE = '\u0000whole'
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y

/** Throws SyntaxError as JSON.parse does. */
export function parseJson(text: string): unknown {
  if (!/\d{16}/.test(text)) return JSON.parse(text)
  // What is no JSON must not become some by what is put in its place.
  JSON.parse(text)
  const marked = markLarge(text)
  return JSON.parse(marked, (_, value: unknown) => {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, LARGE)) return value
    const digits = (value as Record<string, unknown>)[LARGE]
    return typeof digits === 'string' && /^-?\d{1,400}$/.test(digits) ? BigInt(digits) : value
  })
}

/** JSON with a stand-in for every whole number that a double cannot hold. */
function markLarge(text: string): string {
  let marked = ''
  let kept = 0
  for (let at = 0; at < text.length; ) {
    const code = text.charCodeAt(at)
    if (code === 0x22) {
      at = endOfText(text, at)
    } else if (code === 0x2d || (code >= 0x30 && code <= 0x39)) {
      NUMBER.lastIndex = at
      const [literal] = NUMBER.exec(text)!
      if (/^-?\d{16,}$/.test(literal) && !Number.isSafeInteger(Number(literal))) {
        marked += `${text.slice(kept, at)}{"\\u0000whole":"${literal}"}`
        kept = at + literal.length
      }
      at += literal.length
    } else at++
  }
  return marked + text.slice(kept)
}

/** Behind the quote that closes what the quote at `at` opens. */
function endOfText(text: string, at: number): number {
  for (let quote = text.indexOf('"', at + 1); ; quote = text.indexOf('"', quote + 1)) {
    let first = quote
    while (text.charCodeAt(first - 1) === 0x5c) first--
    if ((quote - first) % 2 === 0) return quote + 1
  }
}

/** undefined for what JSON has no text for, as JSON.stringify. */
export function formatJson(value: unknown): string {
  try {
    return JSON.stringify(value)
  } catch (error) {
    // A bigint, or an object within itself: the latter overflows the stack below.
    if (!(error instanceof TypeError)) throw error
    return formatSlowly(value)
  }
}

function formatSlowly(value: unknown): string {
  if (typeof value === 'bigint') return value.toString()
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const { toJSON } = value as { toJSON?: unknown }
  if (typeof toJSON === 'function') return formatSlowly(toJSON.call(value))
  if (Array.isArray(value)) return `[${value.map((item) => formatSlowly(item) ?? 'null').join(',')}]`
  const fields: string[] = []
  for (const [key, field] of Object.entries(value)) {
    const text = formatSlowly(field)
    if (text !== undefined) fields.push(`${JSON.stringify(key)}:${text}`)
  }
  return `{${fields.join(',')}}`
}
