/**
 * Decodes a message as a session would and says what became of it; anything but an answer of the protocol is thrown on: it is
 * a defect. Accepted messages are looked at closer on demand: encoded and decoded again they say the same, and what an
 * earlier message left in the buffers does not show.
 *
 * Sources: RFC 7606 section 2 (the reactions), RFC 6793 section 4.2.3 (what a path loses through two octets).
 */
import { asPathLength } from './as-path.ts'
import { decodeAttributes, encodeAttributes } from './attribute.ts'
import type { Attributes } from './attributes.ts'
import { HEADER_BYTES } from './constants.ts'
import type { WireContext } from './context.ts'
import { BgpError, type Reaction, strongestReaction } from './error.ts'
import { IPV4_UNICAST } from './family.ts'
import { decodeHeader } from './header.ts'
import { decodeMessage } from './message.ts'
import { type NlriRun, strideOf } from './nlri.ts'
import { decodeUpdate, type ReachRun, type UpdateBuffers } from './update.ts'
import { packReach, packUnreach } from './update-packing.ts'

/** What becomes of a message: `partial`: the header promises more than is there. */
export type Verdict = 'accepted' | 'partial' | Reaction

/**
 * Decodes a message as a session does. `buffers` may be those of another message before. With `deeply`, what was accepted is
 * encoded and decoded again and must say the same, and fresh buffers must give the same. Throws what is not BgpError: a defect.
 */
export function judge(message: Uint8Array, context: WireContext, buffers: UpdateBuffers, deeply = false): Verdict {
  try {
    const header = decodeHeader(message, context.messageBytesMax)
    if (!header || header.length > message.length) return 'partial'
    const whole = message.subarray(0, header.length)
    const decoded = decodeMessage(whole, context, buffers)
    if (decoded.type !== 'update') return 'accepted'
    const { update } = decoded
    for (const run of [...update.reach, ...update.unreach]) checkRun(run)
    const sets = update.reach.map(({ attributes }) => decodeAttributes(attributes, context))
    const reaction = strongestReaction([...update.faults, ...sets.flatMap(({ faults }) => faults)])
    if (deeply) {
      expectSame(saying(update.reach, update.unreach), sayingFresh(whole, context), message)
      if (reaction !== 'treatAsWithdraw') for (const run of update.reach) checkAgain(run, context, message)
      for (const run of update.unreach) checkUnreachAgain(run, context, message)
    }
    return reaction ?? 'accepted'
  } catch (error) {
    if (error instanceof BgpError) return 'sessionReset'
    throw error
  }
}

function checkRun({ family, count, words }: NlriRun): void {
  const stride = strideOf(family)
  const bits = family === IPV4_UNICAST ? 32 : 128
  if (count * stride > words.length) throw new Error(`${count} prefixes in ${words.length} integers`)
  for (let i = 0; i < count; i++) {
    const length = words[i * stride + 1]!
    if (length < 0 || length > bits) throw new Error(`prefix length ${length}`)
  }
}

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

const wordsOf = ({ family, count, words }: NlriRun): string =>
  `${family}:${words.subarray(0, count * strideOf(family))}`

const saying = (reach: readonly ReachRun[], unreach: readonly NlriRun[]): string =>
  [...reach.map((run) => `+${wordsOf(run)} ${hex(run.attributes)}`), ...unreach.map((run) => `-${wordsOf(run)}`)].join()

function sayingFresh(message: Uint8Array, context: WireContext): string {
  const { reach, unreach } = decodeUpdate(message.slice(HEADER_BYTES), context)
  return saying(reach, unreach)
}

function expectSame(one: string, other: string, message: Uint8Array): void {
  if (one !== other) throw new Error(`${hex(message)} says ${one}, and again ${other}`)
}

/** An announcement, encoded from what was understood of it, is understood the same. */
function checkAgain(run: ReachRun, context: WireContext, message: Uint8Array): void {
  const { attributes } = decodeAttributes(run.attributes, context)
  const own: NlriRun = { ...run, words: run.words.slice() }
  const block = encodeAttributes(attributes, run.family, context)
  const again = decodeAttributes(block, context).attributes
  const wide = { ...context, fourOctetAs: true }
  const wideAgain = decodeAttributes(encodeAttributes(attributes, run.family, wide), wide).attributes
  expectSame(textOf(attributes), textOf(wideAgain), message)
  // Through two octets a path keeps its length, though not where its segments were divided (RFC 6793 section 4.2.3).
  expectSame(textOf(withLength(attributes)), textOf(withLength(again)), message)
  const prefixes = packReach({ ...own, attributes: block }, { ...context, messageBytesMax: 65535 })
    .flatMap((packed) => decodeUpdate(packed.slice(HEADER_BYTES), context).reach)
    .map(wordsOf)
  if (run.count > 0) expectSame(wordsOf(own), prefixes.join(), message)
}

function checkUnreachAgain(run: NlriRun, context: WireContext, message: Uint8Array): void {
  if (run.count === 0) return
  const own: NlriRun = { ...run, words: run.words.slice() }
  const prefixes = packUnreach(own, { ...context, messageBytesMax: 65535 })
    .flatMap((packed) => decodeUpdate(packed.slice(HEADER_BYTES), context).unreach)
    .map(wordsOf)
  expectSame(wordsOf(own), prefixes.join(), message)
}

const withLength = ({ asPath = [], ...rest }: Attributes): object => ({ ...rest, asPathLength: asPathLength(asPath) })

/** Attributes as text, keys in one order: next hops stand first or third. */
const textOf = (attributes: object): string =>
  JSON.stringify(
    Object.entries(attributes).sort(([a], [b]) => (a < b ? -1 : 1)),
    (_, value) => (typeof value === 'bigint' ? `${value}` : value),
  )
