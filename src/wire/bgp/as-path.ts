/**
 * AS paths: segments of AS numbers with two or four octets each, and how a path of four octets is put together again from
 * what came through a speaker that knows two.
 *
 *   { type 1 | count 1 | count × AS number }…
 *
 * Sources: RFC 4271 sections 4.3 and 5.1.2, RFC 5065 section 3 (confederation segments), RFC 6793 sections 3 and 4.2,
 * RFC 7606 section 7.2, RFC 7607 (AS 0).
 */
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import type { AsPathSegment, AsPathSegmentKind } from './attributes.ts'
import { AS_TRANS } from './constants.ts'

/** By number: AS_SET 1, AS_SEQUENCE 2, AS_CONFED_SEQUENCE 3, AS_CONFED_SET 4. */
const kinds: readonly (AsPathSegmentKind | undefined)[] = [
  undefined,
  'set',
  'sequence',
  'confed-sequence',
  'confed-set',
]
const SEGMENT_ASNS_MAX = 255

export const isConfederation = (segment: AsPathSegment): boolean =>
  segment.kind === 'confed-sequence' || segment.kind === 'confed-set'

/** Segments up to the reader's end. Throws DecodeError on an unknown type and on an empty or cut segment. */
export function readAsPath(reader: Reader, fourOctetAs: boolean): AsPathSegment[] {
  const segments: AsPathSegment[] = []
  while (reader.remaining > 0) {
    const type = reader.u8()
    const kind = kinds[type]
    if (!kind) reader.fail(`segment type ${type}`)
    const count = reader.u8()
    if (count === 0) reader.fail('segment without AS numbers')
    const asns: number[] = []
    for (let i = 0; i < count; i++) asns.push(fourOctetAs ? reader.u32be() : reader.u16be())
    segments.push({ kind: kind!, asns })
  }
  return segments
}

/** Segments of more than 255 numbers are written as several. Numbers that do not fit become AS_TRANS. */
export function writeAsPath(writer: Writer, segments: readonly AsPathSegment[], fourOctetAs: boolean): void {
  for (const { kind, asns } of segments)
    for (let from = 0; from < asns.length; from += SEGMENT_ASNS_MAX) {
      const part = asns.slice(from, from + SEGMENT_ASNS_MAX)
      writer.u8(kinds.indexOf(kind))
      writer.u8(part.length)
      for (const asn of part)
        if (fourOctetAs) writer.u32be(asn)
        else writer.u16be(asn > 0xffff ? AS_TRANS : asn)
    }
}

/** RFC 7607: nobody is AS 0. */
export const hasAsZero = (segments: readonly AsPathSegment[]): boolean => segments.some(({ asns }) => asns.includes(0))

/** Does a path hold a number that two octets cannot? */
export const needsFourOctets = (segments: readonly AsPathSegment[]): boolean =>
  segments.some(({ asns }) => asns.some((asn) => asn > 0xffff))

/** Length for the decision process: a set counts one, confederation segments nothing (RFC 4271 9.1.2.2, RFC 5065 5.3). */
export function asPathLength(segments: readonly AsPathSegment[]): number {
  let length = 0
  for (const segment of segments)
    if (segment.kind === 'sequence') length += segment.asns.length
    else if (segment.kind === 'set') length++
  return length
}

/**
 * AS_PATH and AS4_PATH of a two-octet speaker as one path: so many leading numbers of AS_PATH as it has more, then AS4_PATH
 * (RFC 6793 section 4.2.3). Confederation segments of AS_PATH that lead or stand beside the leading numbers stay; those of
 * AS4_PATH do not belong there and go.
 */
export function mergeAs4Path(asPath: readonly AsPathSegment[], as4Path: readonly AsPathSegment[]): AsPathSegment[] {
  const long = as4Path.filter((segment) => !isConfederation(segment))
  let leading = asPathLength(asPath) - asPathLength(long)
  if (leading < 0) return [...asPath]
  const merged: AsPathSegment[] = []
  for (const segment of asPath) {
    if (isConfederation(segment)) {
      merged.push(segment)
      continue
    }
    if (leading === 0) break
    if (segment.kind === 'set' || segment.asns.length <= leading) {
      merged.push(segment)
      leading -= segment.kind === 'set' ? 1 : segment.asns.length
    } else {
      merged.push({ kind: segment.kind, asns: segment.asns.slice(0, leading) })
      leading = 0
      break
    }
  }
  return joinSequences([...merged, ...long])
}

/** Neighbouring sequences as one: what was cut apart for the merge is one path again. */
function joinSequences(segments: readonly AsPathSegment[]): AsPathSegment[] {
  const joined: AsPathSegment[] = []
  for (const segment of segments) {
    const last = joined.at(-1)
    if (segment.kind === 'sequence' && last?.kind === 'sequence')
      joined[joined.length - 1] = { kind: 'sequence', asns: [...last.asns, ...segment.asns] }
    else joined.push(segment)
  }
  return joined
}

/** As routers print it: `64512 {64513 64514} (65001 65002) [65003 65004]`: set, confederation sequence, confederation set. */
export function formatAsPath(segments: readonly AsPathSegment[]): string {
  const brackets = { sequence: ['', ''], set: ['{', '}'], 'confed-sequence': ['(', ')'], 'confed-set': ['[', ']'] }
  return segments.map(({ kind, asns }) => `${brackets[kind][0]}${asns.join(' ')}${brackets[kind][1]}`).join(' ')
}
