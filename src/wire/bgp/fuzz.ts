/**
 * Messages out of the grammar with lies in them: every message and attribute, right in most parts, wrong in some: lengths, flags,
 * order, repetition, cut or foreign bytes. One seed is one endless sequence; fuzz-judge.ts says what becomes of each.
 *
 * Sources: the grammars of this folder's files.
 */
import { Writer } from '../../bytes/writer.ts'
import { AttributeFlag, AttributeType, CapabilityCode, HEADER_BYTES, MessageType } from './constants.ts'
import type { WireContext } from './context.ts'
import { IPV4_UNICAST, IPV6_UNICAST, type RouteFamily } from './family.ts'

/** Numbers from a seed, the same everywhere (xorshift, 32 bits). */
class Random {
  #state: number

  constructor(seed: number) {
    // Neighbouring seeds must not begin alike; 0 would stay 0.
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 1
  }

  /** 0 to `end` - 1. */
  below(end: number): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x
    return (x >>> 0) % end
  }

  /** True once in `often`. */
  oneIn(often: number): boolean {
    return this.below(often) === 0
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!
  }
}

const none: ReadonlySet<RouteFamily> = new Set()
const both: ReadonlySet<RouteFamily> = new Set([IPV4_UNICAST, IPV6_UNICAST])

/** Sessions of every kind. */
export const fuzzContexts: readonly WireContext[] = (['external', 'internal', 'confederation'] as const).flatMap(
  (peerType) =>
    [false, true].flatMap((fourOctetAs) =>
      [none, both].flatMap((addPath) =>
        [none, both].map((extendedNextHop) => ({
          fourOctetAs,
          peerType,
          families: peerType === 'confederation' ? new Set([IPV6_UNICAST]) : both,
          addPathReceive: addPath,
          addPathSend: addPath,
          extendedNextHop,
          messageBytesMax: extendedNextHop === both ? 65535 : 4096,
        })),
      ),
    ),
)

const { OPTIONAL, TRANSITIVE, PARTIAL, EXTENDED_LENGTH } = AttributeFlag
const OPTIONAL_TRANSITIVE = OPTIONAL | TRANSITIVE

export class MessageFuzzer {
  readonly #random: Random
  readonly #writer = new Writer(8192)

  constructor(seed: number) {
    this.#random = new Random(seed)
  }

  /** The kind of session that the next message comes in. */
  context(): WireContext {
    return this.#random.pick(fuzzContexts)
  }

  /** A message for a session; the bytes are valid until the next call. */
  next(context: WireContext): Uint8Array {
    const random = this.#random
    const writer = this.#writer
    writer.reset()
    for (let i = 0; i < 16; i++) writer.u8(0xff)
    writer.u16be(0)
    const type = random.oneIn(50) ? random.below(256) : random.oneIn(4) ? 1 + random.below(5) : MessageType.UPDATE
    writer.u8(type)
    if (type === MessageType.OPEN) this.#open()
    else if (type === MessageType.UPDATE) this.#update(context)
    else if (type === MessageType.NOTIFICATION) this.#bytes(2 + random.below(20))
    else if (type === MessageType.ROUTE_REFRESH) this.#refresh()
    else if (random.oneIn(20)) this.#bytes(random.below(30))
    this.#spoil()
    return writer.finish()
  }

  /** Now and then some bytes are others, some are missing, or the header does not tell the truth. */
  #spoil(): void {
    const random = this.#random
    const writer = this.#writer
    if (random.oneIn(20)) writer.truncate(HEADER_BYTES + random.below(writer.length - HEADER_BYTES + 1))
    if (random.oneIn(6))
      for (let n = 1 + random.below(4); n > 0 && writer.length > HEADER_BYTES; n--)
        writer.patchU8(HEADER_BYTES + random.below(writer.length - HEADER_BYTES), random.below(256))
    writer.patchU16be(16, writer.length)
    if (random.oneIn(100)) writer.patchU8(random.below(HEADER_BYTES), random.below(256))
  }

  #bytes(count: number): void {
    for (let i = 0; i < count; i++) this.#writer.u8(this.#random.below(256))
  }

  /** Writes `value` behind a length of one octet or two, which is now and then another. */
  #sized(octets: 1 | 2, value: () => void): void {
    const writer = this.#writer
    const at = writer.zeros(octets)
    value()
    let length = writer.length - at - octets
    if (this.#random.oneIn(60)) length = Math.max(0, length + this.#random.below(9) - 4)
    if (octets === 1) writer.patchU8(at, length)
    else writer.patchU16be(at, length)
  }

  #family(): void {
    const random = this.#random
    this.#writer.u16be(random.oneIn(20) ? random.below(65536) : 1 + random.below(2))
    this.#writer.u8(random.oneIn(20) ? random.below(256) : 1)
  }

  #refresh(): void {
    const random = this.#random
    this.#writer.u16be(1 + random.below(2))
    this.#writer.u8(random.oneIn(5) ? random.below(256) : random.below(3))
    this.#writer.u8(1)
    if (random.oneIn(10)) this.#bytes(random.below(6))
  }

  #open(): void {
    const random = this.#random
    const writer = this.#writer
    writer.u8(random.oneIn(30) ? random.below(256) : 4)
    writer.u16be(random.below(65536))
    writer.u16be(random.oneIn(5) ? random.below(4) : 90)
    writer.u32be(random.oneIn(30) ? 0 : random.below(0x7fffffff))
    const extended = random.oneIn(3)
    const parameters = () => {
      for (let n = random.below(4); n > 0; n--) {
        writer.u8(random.oneIn(30) ? random.below(256) : 2)
        this.#sized(extended ? 2 : 1, () => {
          for (let m = random.below(5); m > 0; m--) this.#capability()
        })
      }
    }
    if (extended) {
      writer.u8(random.oneIn(3) ? random.below(256) : 255)
      writer.u8(255)
      this.#sized(2, parameters)
    } else this.#sized(1, parameters)
  }

  #capability(): void {
    const random = this.#random
    const writer = this.#writer
    const code = random.oneIn(10) ? random.below(256) : random.pick(Object.values(CapabilityCode))
    writer.u8(code)
    this.#sized(1, () => {
      switch (random.oneIn(20) ? 0 : code) {
        case CapabilityCode.MULTIPROTOCOL:
          writer.u16be(1 + random.below(2))
          writer.u16be(1)
          break
        case CapabilityCode.FOUR_OCTET_AS:
          writer.u32be(random.below(0x7fffffff))
          break
        case CapabilityCode.ROLE:
          writer.u8(random.below(6))
          break
        case CapabilityCode.GRACEFUL_RESTART:
          writer.u16be(random.below(65536))
          break
        case CapabilityCode.FQDN:
          for (let n = 0; n < 2; n++) this.#sized(1, () => this.#bytes(random.below(12)))
          return
        case 0:
          this.#bytes(random.below(12))
          return
      }
      if (
        code === CapabilityCode.GRACEFUL_RESTART ||
        code === CapabilityCode.ADD_PATH ||
        code === CapabilityCode.LONG_LIVED_GRACEFUL_RESTART
      )
        for (let n = random.below(3); n > 0; n--) {
          this.#family()
          this.#bytes(code === CapabilityCode.LONG_LIVED_GRACEFUL_RESTART ? 4 : 1)
        }
      if (code === CapabilityCode.EXTENDED_NEXT_HOP) this.#bytes(6 * random.below(3))
    })
  }

  #update(context: WireContext): void {
    const random = this.#random
    const addPath = context.addPathReceive.size > 0
    const kind = random.below(8)
    this.#sized(2, () => {
      if (kind <= 1) this.#prefixes(32, addPath)
    })
    this.#sized(2, () => {
      if (kind !== 0) this.#attributes(context, kind)
    })
    if (kind === 2 || kind === 3 || kind === 4) this.#prefixes(32, addPath)
  }

  #prefixes(bits: number, addPath: boolean): void {
    const random = this.#random
    for (let n = random.below(12); n > 0; n--) {
      if (addPath !== random.oneIn(200)) this.#writer.u32be(random.below(16))
      const length = random.oneIn(100) ? random.below(256) : random.below(bits + 1)
      this.#writer.u8(length)
      this.#bytes((length + 7) >>> 3)
    }
  }

  /** The attributes of an UPDATE: in their order, or not; all, or not; MP_REACH_NLRI in kinds 5 and 6, MP_UNREACH_NLRI in 7. */
  #attributes(context: WireContext, kind: number): void {
    const random = this.#random
    if (kind === 1) return
    if (kind === 7 && random.oneIn(2)) return this.#attribute(AttributeType.MP_UNREACH_NLRI, context)
    if (kind === 5) this.#attribute(AttributeType.MP_REACH_NLRI, context)
    for (const type of Object.values(AttributeType)) {
      const reach = type === AttributeType.MP_REACH_NLRI || type === AttributeType.MP_UNREACH_NLRI
      const usual = type <= 3
      const often = usual ? !random.oneIn(40) : random.oneIn(reach ? 60 : 5)
      if (often || (type === AttributeType.MP_REACH_NLRI && kind === 6)) this.#attribute(type, context)
      if (random.oneIn(150)) this.#attribute(random.below(256), context)
      if (random.oneIn(200)) this.#attribute(type, context)
    }
  }

  #attribute(type: number, context: WireContext): void {
    const random = this.#random
    const writer = this.#writer
    const long = random.oneIn(10)
    let flags = flagsOf.get(type) ?? OPTIONAL_TRANSITIVE
    if (random.oneIn(60)) flags = random.below(256) & ~EXTENDED_LENGTH
    if (random.oneIn(10)) flags |= PARTIAL
    writer.u8(flags | (long ? EXTENDED_LENGTH : 0))
    writer.u8(type)
    this.#sized(long ? 2 : 1, () => {
      if (random.oneIn(80)) this.#bytes(random.below(40))
      else this.#value(type, context)
    })
  }

  #value(type: number, context: WireContext): void {
    const random = this.#random
    const writer = this.#writer
    switch (type) {
      case AttributeType.ORIGIN:
        writer.u8(random.oneIn(50) ? random.below(256) : random.below(3))
        return
      case AttributeType.AS_PATH:
        return this.#asPath(context.fourOctetAs ? 4 : 2)
      case AttributeType.AS4_PATH:
        return this.#asPath(4)
      case AttributeType.NEXT_HOP:
        writer.u32be(random.oneIn(30) ? random.below(0x7fffffff) : 0x0a000001)
        return
      case AttributeType.ATOMIC_AGGREGATE:
        return
      case AttributeType.AGGREGATOR:
        return this.#bytes(context.fourOctetAs ? 8 : 6)
      case AttributeType.AS4_AGGREGATOR:
        return this.#bytes(8)
      case AttributeType.COMMUNITIES:
      case AttributeType.CLUSTER_LIST:
        return this.#bytes(4 * (1 + random.below(5)))
      case AttributeType.EXTENDED_COMMUNITIES:
        return this.#bytes(8 * (1 + random.below(3)))
      case AttributeType.LARGE_COMMUNITY:
        return this.#bytes(12 * (1 + random.below(3)))
      case AttributeType.AIGP:
        writer.u8(random.oneIn(10) ? random.below(4) : 1)
        writer.u16be(random.oneIn(20) ? random.below(20) : 11)
        return this.#bytes(8)
      case AttributeType.MP_REACH_NLRI:
        return this.#reach(context)
      case AttributeType.MP_UNREACH_NLRI:
        this.#family()
        if (!random.oneIn(4)) this.#prefixes(128, context.addPathReceive.size > 0)
        return
      default:
        this.#bytes(type > AttributeType.ONLY_TO_CUSTOMER ? random.below(20) : 4)
    }
  }

  #asPath(octets: number): void {
    const random = this.#random
    const writer = this.#writer
    for (let n = random.below(4); n > 0; n--) {
      writer.u8(random.oneIn(60) ? random.below(256) : random.oneIn(5) ? 1 + random.below(4) : 2)
      const count = random.oneIn(60) ? 0 : 1 + random.below(5)
      writer.u8(random.oneIn(60) ? count + random.below(4) : count)
      for (let i = 0; i < count * octets; i++) writer.u8(random.oneIn(500) ? 0 : 1 + random.below(255))
    }
  }

  #reach(context: WireContext): void {
    const random = this.#random
    const writer = this.#writer
    const ipv4 = random.oneIn(3)
    if (random.oneIn(30)) this.#family()
    else {
      writer.u16be(ipv4 ? 1 : 2)
      writer.u8(1)
    }
    const size = random.oneIn(60) ? random.below(40) : ipv4 && !random.oneIn(3) ? 4 : random.pick([16, 32])
    writer.u8(size)
    for (let at = 0; at < size; at++)
      writer.u8(at % 16 === 0 ? (at === 0 ? 0x20 : 0xfe) : at === 17 ? 0x80 : random.below(256))
    writer.u8(random.oneIn(20) ? 1 : 0)
    this.#prefixes(ipv4 ? 32 : 128, context.addPathReceive.size > 0)
  }
}

const flagsOf = new Map<number, number>([
  ...[
    AttributeType.ORIGIN,
    AttributeType.AS_PATH,
    AttributeType.NEXT_HOP,
    AttributeType.LOCAL_PREF,
    AttributeType.ATOMIC_AGGREGATE,
  ].map((type): [number, number] => [type, TRANSITIVE]),
  ...[
    AttributeType.MULTI_EXIT_DISC,
    AttributeType.ORIGINATOR_ID,
    AttributeType.CLUSTER_LIST,
    AttributeType.MP_REACH_NLRI,
    AttributeType.MP_UNREACH_NLRI,
    AttributeType.AIGP,
  ].map((type): [number, number] => [type, OPTIONAL]),
])
