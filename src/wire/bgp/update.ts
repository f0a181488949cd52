/**
 * UPDATE: routes that go and routes that come. The hot path of a speaker: what it costs is one walk over the heads of the
 * attributes and one loop per field of prefixes, into buffers that are used again. What the attributes say is not looked at
 * here; `attributes` of a run is the block by which a set of them is known, and `decodeAttributes` reads it when it is new.
 *
 *   withdrawn length 2 | withdrawn prefixes | attributes length 2 | attributes | announced prefixes
 *
 * Prefixes of IPv4 unicast may stand in those fields and in MP_REACH_NLRI; a message may hold both (RFC 4760 section 3).
 *
 * Sources: RFC 4271 sections 4.3 and 6.3, RFC 4760 sections 3 to 5, RFC 7606 sections 3 to 5 and 7.11, RFC 4724 section 2
 * (End-of-RIB), RFC 7911 (path identifiers).
 */

import { decodeAttributes } from './attribute.ts'
import { nextHopSizeAllowed, rowOfType } from './attribute-table.ts'
import { AttributeFlag, AttributeType, ErrorCode, UpdateError } from './constants.ts'
import type { WireContext } from './context.ts'
import { BgpError, type Fault } from './error.ts'
import { formatRouteFamily, IPV4_UNICAST, type RouteFamily, routeFamily } from './family.ts'
import { NlriBuffer, NlriError, type NlriRun, strideOf } from './nlri.ts'

/** Prefixes that are announced with one set of attributes. */
export interface ReachRun extends NlriRun {
  /** The set's block, for `decodeAttributes`; equal bytes in sessions of one kind are equal attributes. */
  readonly attributes: Uint8Array
}

/** What an UPDATE says. `unreach` is to be applied before `reach` (RFC 4271 section 4.3). */
export interface Update {
  /** Withdrawn, and announced with attributes whose list is broken: at most four runs. */
  readonly unreach: readonly NlriRun[]
  /** At most two runs. */
  readonly reach: readonly ReachRun[]
  /** The peer has said all of this family. */
  readonly endOfRib: RouteFamily | undefined
  /** What is wrong with the message as a whole; what is wrong within attributes comes from `decodeAttributes`. */
  readonly faults: readonly Fault[]
}

/** Memory that `decodeUpdate` reads into. What it handed out is overwritten by the next call with the same buffers. */
export class UpdateBuffers {
  readonly withdrawn = new NlriBuffer()
  readonly announced = new NlriBuffer()
  readonly unreach = new NlriBuffer()
  readonly reach = new NlriBuffer()
  /** Blocks that are not a part of the message as it came: of classic routes, of MP_REACH_NLRI's. */
  readonly blocks: readonly [BlockBuffer, BlockBuffer] = [new BlockBuffer(), new BlockBuffer()]
  readonly fields = new AttributeFields()
}

/** Bytes that are put together from pieces. */
class BlockBuffer {
  #bytes = new Uint8Array(512)
  #length = 0

  clear(bytesMost: number): void {
    if (bytesMost > this.#bytes.length) this.#bytes = new Uint8Array(bytesMost * 2)
    this.#length = 0
  }

  add(source: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to; at++) this.#bytes[this.#length++] = source[at]!
  }

  addByte(value: number): void {
    this.#bytes[this.#length++] = value
  }

  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }
}

/** Where things stand in the attributes of one message; -1: not there. */
class AttributeFields {
  /** Head, value and end of MP_REACH_NLRI. */
  reachHead = -1
  reachAt = -1
  reachEnd = -1
  unreachHead = -1
  unreachAt = -1
  unreachEnd = -1
  /** Behind the last whole attribute. */
  end = 0
  /** Attributes besides those two. */
  others = 0
  /** The list ends within an attribute. */
  broken = false

  find(body: Uint8Array, from: number, to: number): void {
    this.reachHead = this.reachAt = this.reachEnd = -1
    this.unreachHead = this.unreachAt = this.unreachEnd = -1
    this.others = 0
    let at = from
    while (to - at >= 3) {
      const flags = body[at]!
      const type = body[at + 1]!
      const long = (flags & AttributeFlag.EXTENDED_LENGTH) !== 0
      if (long && to - at < 4) break
      const start = at + (long ? 4 : 3)
      const end = start + (long ? (body[at + 2]! << 8) | body[at + 3]! : body[at + 2]!)
      if (end > to) break
      if (type === AttributeType.MP_REACH_NLRI) {
        if (this.reachHead >= 0) throw malformed('MP_REACH_NLRI stands there twice')
        this.reachHead = at
        this.reachAt = start
        this.reachEnd = end
      } else if (type === AttributeType.MP_UNREACH_NLRI) {
        if (this.unreachHead >= 0) throw malformed('MP_UNREACH_NLRI stands there twice')
        this.unreachHead = at
        this.unreachAt = start
        this.unreachEnd = end
      } else {
        // RFC 4271 section 6.3: nobody may leave out what it does not know and what everybody must know.
        if ((flags & AttributeFlag.OPTIONAL) === 0 && rowOfType[type] === undefined)
          throw malformed(
            `unknown well-known attribute ${type}`,
            UpdateError.UNRECOGNIZED_WELL_KNOWN,
            body.slice(at, end),
          )
        this.others++
      }
      at = end
    }
    this.end = at
    this.broken = at !== to
  }
}

const noFaults: readonly Fault[] = Object.freeze([])

/** RFC 7606 section 4: the attributes' own length still tells where the prefixes begin. */
const brokenList: Fault = Object.freeze({
  reaction: 'treatAsWithdraw',
  attribute: 0,
  subcode: UpdateError.MALFORMED_ATTRIBUTE_LIST,
  problem: 'the list of attributes ends within an attribute',
})

function malformed(problem: string, subcode: number = UpdateError.MALFORMED_ATTRIBUTE_LIST, data?: Uint8Array) {
  return new BgpError(ErrorCode.UPDATE_MESSAGE, subcode, problem, data)
}

const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!

/**
 * The body of an UPDATE, without the message's header. Runs and blocks share memory with `body` and `buffers`: use them
 * before the next call. Throws BgpError where the session cannot go on.
 */
export function decodeUpdate(body: Uint8Array, context: WireContext, buffers = new UpdateBuffers()): Update {
  // RFC 7606 section 3.a: lengths that contradict the message's leave no way to find the prefixes.
  if (body.length < 4) throw malformed(`UPDATE of ${body.length} bytes`)
  const withdrawnEnd = 2 + u16(body, 0)
  if (withdrawnEnd + 2 > body.length) throw malformed(`withdrawn routes end at ${withdrawnEnd} of ${body.length} bytes`)
  const from = withdrawnEnd + 2
  const to = from + u16(body, withdrawnEnd)
  if (to > body.length) throw malformed(`path attributes end at ${to} of ${body.length} bytes`)
  const { fields } = buffers
  fields.find(body, from, to)
  const faults: Fault[] = fields.broken ? [brokenList] : []
  const unreach: NlriRun[] = []
  const reach: ReachRun[] = []
  const addPath = context.addPathReceive
  if (withdrawnEnd > 2)
    unreach.push(readRun(buffers.withdrawn, IPV4_UNICAST, body, 2, withdrawnEnd, addPath.has(IPV4_UNICAST)))
  if (to < body.length) {
    const run = readRun(buffers.announced, IPV4_UNICAST, body, to, body.length, addPath.has(IPV4_UNICAST))
    reach.push({ ...run, attributes: classicBlock(body, from, buffers) })
  }
  if (fields.unreachAt >= 0) readUnreach(body, context, buffers, unreach, faults)
  if (fields.reachAt >= 0) readReach(body, from, context, buffers, reach, faults)
  if (!context.families.has(IPV4_UNICAST) && (to < body.length || withdrawnEnd > 2))
    leaveOutIpv4(unreach, reach, faults)
  if (to === body.length && fields.reachAt < 0) {
    checkWithoutRoutes(body, from, context, buffers)
    return { unreach, reach, endOfRib: endOfRib(body, unreach, context, buffers), faults: settled(faults) }
  }
  return faults.some(({ reaction }) => reaction === 'treatAsWithdraw')
    ? { unreach: [...unreach, ...reach], reach: [], endOfRib: undefined, faults }
    : { unreach, reach, endOfRib: undefined, faults: settled(faults) }
}

const settled = (faults: Fault[]): readonly Fault[] => (faults.length === 0 ? noFaults : faults)

function readRun(
  buffer: NlriBuffer,
  family: RouteFamily,
  body: Uint8Array,
  from: number,
  to: number,
  addPath: boolean,
): NlriRun {
  try {
    const count = buffer.read(family, body, from, to, addPath)
    return { family, count, words: buffer.words }
  } catch (error) {
    if (!(error instanceof NlriError)) throw error
    throw malformed(`${formatRouteFamily(family)}: ${error.message}`, UpdateError.INVALID_NETWORK_FIELD)
  }
}

/** The attributes without those of RFC 4760: as they stand there, when they are all, otherwise put together. */
function classicBlock(body: Uint8Array, from: number, { fields, blocks }: UpdateBuffers): Uint8Array {
  if (fields.reachHead < 0 && fields.unreachHead < 0) return body.subarray(from, fields.end)
  const [block] = blocks
  block.clear(fields.end - from)
  copyOthers(block, body, from, fields.end, false)
  return block.view()
}

/** Every attribute but MP_REACH_NLRI, MP_UNREACH_NLRI and, on demand, NEXT_HOP. */
function copyOthers(block: BlockBuffer, body: Uint8Array, from: number, to: number, withoutNextHop: boolean): void {
  for (let at = from; at < to; ) {
    const long = (body[at]! & AttributeFlag.EXTENDED_LENGTH) !== 0
    const type = body[at + 1]!
    const end = at + (long ? 4 + u16(body, at + 2) : 3 + body[at + 2]!)
    if (
      type !== AttributeType.MP_REACH_NLRI &&
      type !== AttributeType.MP_UNREACH_NLRI &&
      !(withoutNextHop && type === AttributeType.NEXT_HOP)
    )
      block.add(body, at, end)
    at = end
  }
}

const unnegotiated = (attribute: number, family: RouteFamily): Fault => ({
  reaction: 'discardAttribute',
  attribute,
  subcode: UpdateError.OPTIONAL_ATTRIBUTE,
  problem: `${formatRouteFamily(family)} was not negotiated`,
})

function readUnreach(
  body: Uint8Array,
  context: WireContext,
  buffers: UpdateBuffers,
  unreach: NlriRun[],
  faults: Fault[],
): void {
  const { unreachHead, unreachAt, unreachEnd } = buffers.fields
  // RFC 7606 section 7.12: without a family there is nothing to withdraw, and nothing to go on from.
  if (unreachEnd - unreachAt < 3) throw malformed(`MP_UNREACH_NLRI of ${unreachEnd - unreachAt} bytes`, OPTIONAL)
  const family = routeFamily(u16(body, unreachAt), body[unreachAt + 2]!)
  checkFlags(body[unreachHead]!, AttributeType.MP_UNREACH_NLRI, faults)
  if (!context.families.has(family) || strideOf(family) === 0) {
    faults.push(unnegotiated(AttributeType.MP_UNREACH_NLRI, family))
    return
  }
  const addPath = context.addPathReceive.has(family)
  const run = readRun(buffers.unreach, family, body, unreachAt + 3, unreachEnd, addPath)
  if (run.count > 0) unreach.push(run)
}

const { OPTIONAL_ATTRIBUTE: OPTIONAL } = UpdateError

function checkFlags(flags: number, attribute: number, faults: Fault[]): void {
  if ((flags & (AttributeFlag.OPTIONAL | AttributeFlag.TRANSITIVE)) === AttributeFlag.OPTIONAL) return
  faults.push({
    reaction: 'treatAsWithdraw',
    attribute,
    subcode: UpdateError.ATTRIBUTE_FLAGS,
    problem: `attribute ${attribute}: flags 0x${flags.toString(16)}`,
  })
}

/** Family 3, length of the next hop 1, next hop, reserved 1, prefixes. */
function readReach(
  body: Uint8Array,
  from: number,
  context: WireContext,
  buffers: UpdateBuffers,
  reach: ReachRun[],
  faults: Fault[],
): void {
  const { reachHead, reachAt, reachEnd, end } = buffers.fields
  if (reachEnd - reachAt < 5) throw malformed(`MP_REACH_NLRI of ${reachEnd - reachAt} bytes`, OPTIONAL)
  const family = routeFamily(u16(body, reachAt), body[reachAt + 2]!)
  checkFlags(body[reachHead]!, AttributeType.MP_REACH_NLRI, faults)
  if (!context.families.has(family) || strideOf(family) === 0) {
    faults.push(unnegotiated(AttributeType.MP_REACH_NLRI, family))
    return
  }
  const nextHopBytes = body[reachAt + 3]!
  const prefixesAt = reachAt + 4 + nextHopBytes + 1
  // RFC 7606 section 7.11: behind a next hop of a wrong length the prefixes cannot be found.
  if (!nextHopSizeAllowed(family, nextHopBytes, context) || prefixesAt > reachEnd)
    throw malformed(`MP_REACH_NLRI with a next hop of ${nextHopBytes} bytes`, OPTIONAL)
  const run = readRun(buffers.reach, family, body, prefixesAt, reachEnd, context.addPathReceive.has(family))
  if (run.count === 0) return
  const block = buffers.blocks[1]
  block.clear(end - from + 4)
  block.addByte(AttributeFlag.OPTIONAL)
  block.addByte(AttributeType.MP_REACH_NLRI)
  block.addByte(prefixesAt - reachAt)
  block.add(body, reachAt, prefixesAt - 1)
  block.addByte(0)
  // NEXT_HOP is not for these routes (RFC 4760 section 3).
  copyOthers(block, body, from, end, true)
  reach.push({ ...run, attributes: block.view() })
}

/** A peer that speaks of IPv4 without having negotiated it: nothing of that is taken. */
function leaveOutIpv4(unreach: NlriRun[], reach: ReachRun[], faults: Fault[]): void {
  if (unreach[0]?.family === IPV4_UNICAST) unreach.shift()
  if (reach[0]?.family === IPV4_UNICAST) reach.shift()
  faults.push(unnegotiated(0, IPV4_UNICAST))
}

/**
 * RFC 7606 section 5.2: attributes without routes, of which one is so malformed that its routes would count as withdrawn:
 * the routes may have been lost with it.
 */
function checkWithoutRoutes(body: Uint8Array, from: number, context: WireContext, buffers: UpdateBuffers): void {
  const { fields } = buffers
  if (fields.broken) throw malformed(`${brokenList.problem}, and there are no routes`)
  if (fields.others === 0) return
  const { faults } = decodeAttributes(classicBlock(body, from, buffers), context)
  const worst = faults.find(
    ({ reaction, subcode }) => reaction === 'treatAsWithdraw' && subcode !== UpdateError.MISSING_WELL_KNOWN,
  )
  if (worst) throw malformed(`${worst.problem}, and there are no routes`, worst.subcode)
}

/** RFC 4724 section 2: an UPDATE without anything, or with an empty MP_UNREACH_NLRI alone. */
function endOfRib(
  body: Uint8Array,
  unreach: readonly NlriRun[],
  context: WireContext,
  { fields }: UpdateBuffers,
): RouteFamily | undefined {
  if (unreach.length > 0 || fields.others > 0) return undefined
  if (fields.unreachAt < 0) return body.length === 4 ? IPV4_UNICAST : undefined
  if (fields.unreachEnd - fields.unreachAt !== 3) return undefined
  const family = routeFamily(u16(body, fields.unreachAt), body[fields.unreachAt + 2]!)
  return context.families.has(family) ? family : undefined
}
