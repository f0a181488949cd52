/**
 * Adj-RIB-Out of all peers that are told the same: what was sent is kept once for the group, and an UPDATE is encoded once for
 * all its members. Only the source of a route differs: it is not told its own route. What a member has of a prefix is therefore
 * "what the group was sent, unless it came from that member".
 *
 *   decision ─► dirty prefixes ─► flush: old (set, source) → new (set, source) ─┬─ members that keep up: shared bytes
 *                                                                              └─ others: a bit per prefix, sent when they can
 *
 * A member that has just come, or whose connection takes no more, has a bit for each prefix that it must be told: memory for
 * a slow peer is bounded however long it sleeps, and what it missed meanwhile is sent once, in its last state.
 *
 * Sources: RFC 4271 sections 9.1.3 and 9.2, RFC 4724 section 4.1 (End-of-RIB), RFC 7911 section 4 (identifiers are ours to give: the
 * number of the path).
 */

import type { BgpFamily } from '../../model/bgp.ts'
import { packReach, packUnreach } from '../../wire/bgp/update-packing.ts'
import { type ExportRules, routeFamilyOf } from './export-rules.ts'
import type { PrefixTable } from './prefix-table.ts'
import { Told, type ToldTable } from './told-table.ts'
import { grown, IntList } from './typed-array.ts'
import type { Member } from './update-member.ts'

/** A change of what the group is told about one path of a prefix. */
const CHANGE_STRIDE = 6

/** Prefixes that a member that lags behind is told at a time. */
const CATCH_UP_PREFIXES = 16384

/** Chooses what of a prefix is to be told: `add(pathId, set, source)` for each path. */
export type Offer = (prefix: number, group: UpdateGroup, told: Told) => void

export interface GroupOutlet {
  send(peer: number, bytes: Uint8Array, messages: number): boolean
  endOfRib(peer: number, withMessage: boolean): void
}

export class UpdateGroup {
  readonly key: string
  readonly rules: ExportRules
  readonly members = new Map<number, Member>()
  readonly told: ToldTable
  /** Paths of a prefix that members are sent, with identifiers; 0: the best, without. */
  readonly addPathSend: number
  readonly #family: BgpFamily
  readonly #prefixes: PrefixTable
  readonly #dirty = new IntList()
  #dirtyBits = new Uint8Array(64)
  readonly #changes = new IntList()
  readonly #offered = new Told()
  readonly #before = new Told()

  constructor(
    key: string,
    family: BgpFamily,
    rules: ExportRules,
    prefixes: PrefixTable,
    told: ToldTable,
    addPathSend: number,
  ) {
    this.addPathSend = addPathSend
    this.key = key
    this.rules = rules
    this.told = told
    this.#family = family
    this.#prefixes = prefixes
  }

  get dirtyCount(): number {
    return this.#dirty.length
  }

  markDirty(prefix: number): void {
    this.#dirtyBits = grown(this.#dirtyBits, prefix + 1)
    if (this.#dirtyBits[prefix] === 1) return
    this.#dirtyBits[prefix] = 1
    this.#dirty.push(prefix)
  }

  /** What a member has been told, or will be as soon as it takes more. */
  toldTo(member: number, prefix: number, out: Told): void {
    this.told.read(prefix, out)
    out.withoutSource(member)
  }

  /** Tells what changed since the last time, at most so many prefixes. Returns how many it looked at. */
  flush(offer: Offer, outlet: GroupOutlet, budget: number): number {
    const changes = this.#changes
    changes.clear()
    const count = Math.min(this.#dirty.length, budget)
    const { items } = this.#dirty
    const from = this.#dirty.length - count
    for (let i = from; i < from + count; i++) {
      const prefix = items[i]!
      this.#dirtyBits[prefix] = 0
      this.#offered.clear()
      offer(prefix, this, this.#offered)
      this.told.read(prefix, this.#before)
      if (this.#noteChanges(prefix)) this.told.write(prefix, this.#offered)
    }
    if (from === 0) this.#dirty.clear()
    else this.#dirty.length = from
    if (changes.length > 0) this.#tell(outlet)
    return count
  }

  /** Sends members that lag behind what they have missed. Returns how many prefixes were looked at. */
  catchUp(outlet: GroupOutlet): number {
    let looked = 0
    for (const [peer, member] of this.members) {
      if (member.inStep || member.blocked) continue
      const batch = new Batch()
      const done = member.take(CATCH_UP_PREFIXES, (prefix) => {
        looked++
        this.toldTo(peer, prefix, this.#before)
        member.resolve(prefix, this.#before, (pathId, set) => batch.add(set, prefix, pathId))
      })
      const chunk = this.#encode(batch)
      if (chunk && !outlet.send(peer, chunk.bytes, chunk.messages)) member.blocked = true
      if (!done) continue
      if (member.endOfRib !== 'no') outlet.endOfRib(peer, member.endOfRib === 'message')
      member.endOfRib = 'no'
      if (!member.blocked) member.keepUp()
    }
    return looked
  }

  /** Every prefix that the group was told becomes news for the member. */
  tellAll(peer: number): void {
    const member = this.members.get(peer)!
    member.fallBehind()
    this.eachToldTo(peer, (prefix) => member.miss(prefix))
  }

  /** All that a member has been told. */
  eachToldTo(peer: number, visit: (prefix: number, pathId: number, set: number) => void): void {
    const told = new Told()
    for (let prefix = 1; prefix < this.#prefixes.end; prefix++) {
      if (!this.told.has(prefix)) continue
      this.toldTo(peer, prefix, told)
      for (let i = 0; i < told.count; i++) visit(prefix, told.pathIds[i]!, told.sets[i]!)
    }
  }

  /** Notes what of a prefix is another now. True: something is. */
  #noteChanges(prefix: number): boolean {
    const before = this.#before
    const now = this.#offered
    let changed = false
    for (let i = 0; i < now.count; i++) {
      const old = before.indexOf(now.pathIds[i]!)
      const oldSet = old < 0 ? 0 : before.sets[old]!
      const oldSource = old < 0 ? 0 : before.sources[old]!
      if (oldSet === now.sets[i] && oldSource === now.sources[i]) continue
      this.#noteChange(prefix, now.pathIds[i]!, oldSet, oldSource, now.sets[i]!, now.sources[i]!)
      changed = true
    }
    for (let i = 0; i < before.count; i++) {
      if (now.indexOf(before.pathIds[i]!) >= 0) continue
      this.#noteChange(prefix, before.pathIds[i]!, before.sets[i]!, before.sources[i]!, 0, 0)
      changed = true
    }
    return changed
  }

  #noteChange(prefix: number, pathId: number, oldSet: number, oldSource: number, set: number, source: number): void {
    const changes = this.#changes
    changes.push(prefix)
    changes.push(pathId)
    changes.push(oldSet)
    changes.push(oldSource)
    changes.push(set)
    changes.push(source)
  }

  /** Encodes the changes once for all that keep up; sources of changed routes get what differs for them. */
  #tell(outlet: GroupOutlet): void {
    const shared = new Batch()
    const own = new Map<number, Batch>()
    const { items, length } = this.#changes
    for (let at = 0; at < length; at += CHANGE_STRIDE) {
      const prefix = items[at]!
      const pathId = items[at + 1]!
      const oldSet = items[at + 2]!
      const oldSource = items[at + 3]!
      const set = items[at + 4]!
      const source = items[at + 5]!
      const index = oldSet === set ? -1 : shared.add(set, prefix, pathId)
      if (oldSource !== 0 && oldSource !== source && oldSet === set)
        this.#ownBatch(own, oldSource)?.add(set, prefix, pathId)
      if (source === 0 || !this.members.get(source)?.inStep) continue
      // The source of the new route: what the others are told is not for it, and what it was told before goes.
      if (index >= 0) shared.exclude(set, index, source)
      if (oldSet !== 0 && oldSource !== source) this.#ownBatch(own, source)?.add(0, prefix, pathId)
    }
    this.#deliver(shared, own, outlet)
    for (const [peer, member] of this.members) if (!member.inStep) this.#noteMissed(member, peer)
  }

  #ownBatch(own: Map<number, Batch>, peer: number): Batch | undefined {
    if (!this.members.get(peer)?.inStep) return undefined
    let batch = own.get(peer)
    if (!batch) {
      batch = new Batch()
      own.set(peer, batch)
    }
    return batch
  }

  #noteMissed(member: Member, peer: number): void {
    const { items, length } = this.#changes
    for (let at = 0; at < length; at += CHANGE_STRIDE) {
      const had = items[at + 2] !== 0 && items[at + 3] !== peer
      const has = items[at + 4] !== 0 && items[at + 5] !== peer
      // Its own route coming and going is nothing to a member.
      if (!had && !has) continue
      member.miss(items[at]!)
      // A path that goes has no trace left: what the member must forget is kept with it.
      if (!has) member.missWithdrawal(items[at]!, items[at + 1]!)
    }
  }

  #deliver(shared: Batch, own: Map<number, Batch>, outlet: GroupOutlet): void {
    const excluded = shared.excludedPeers()
    for (const peer of excluded) {
      const batch = own.get(peer) ?? new Batch()
      own.set(peer, batch)
      shared.copyRestFor(peer, batch)
    }
    const chunk = this.#encode(shared)
    for (const [peer, member] of this.members) {
      if (!member.inStep) continue
      let taken = true
      if (chunk) {
        if (!excluded.has(peer)) taken = outlet.send(peer, chunk.bytes, chunk.messages)
        else for (const part of chunk.partsWithout(peer)) taken = outlet.send(peer, part.bytes, part.messages) && taken
      }
      const batch = own.get(peer)
      const rest = batch && this.#encode(batch)
      if (rest) taken = outlet.send(peer, rest.bytes, rest.messages) && taken
      if (!taken) {
        member.fallBehind()
        member.blocked = true
      }
    }
  }

  #encode(batch: Batch): Chunk | undefined {
    if (batch.buckets.size === 0) return undefined
    const family = routeFamilyOf[this.#family]
    const stride = 2 + this.#prefixes.wordsEach
    const { context } = this.rules
    const chunk = new ChunkWriter()
    for (const [set, bucket] of batch.inOrder()) {
      const words = bucket.words(this.#prefixes, stride)
      const run = { family, count: words.length / stride, words }
      const messages =
        set === 0 ? packUnreach(run, context) : packReach({ ...run, attributes: this.rules.blockOf(set) }, context)
      chunk.add(messages, bucket.excluded)
    }
    return chunk.finish()
  }
}

/** Prefixes to be told, by attribute set; set 0: withdrawn. */
class Batch {
  readonly buckets = new Map<number, Bucket>()

  /** Returns the index of the entry within its set. */
  add(set: number, prefix: number, pathId: number): number {
    let bucket = this.buckets.get(set)
    if (!bucket) {
      bucket = new Bucket()
      this.buckets.set(set, bucket)
    }
    bucket.entries.push(prefix)
    bucket.entries.push(pathId)
    return bucket.entries.length / 2 - 1
  }

  /** The entry is not for this peer. */
  exclude(set: number, index: number, peer: number): void {
    const bucket = this.buckets.get(set)!
    bucket.excluded ??= new Map()
    const entries = bucket.excluded.get(peer)
    if (entries) entries.add(index)
    else bucket.excluded.set(peer, new Set([index]))
  }

  excludedPeers(): Set<number> {
    const peers = new Set<number>()
    for (const { excluded } of this.buckets.values()) if (excluded) for (const peer of excluded.keys()) peers.add(peer)
    return peers
  }

  /** Of the sets that the peer does not get as a whole, the entries that are for it. */
  copyRestFor(peer: number, out: Batch): void {
    for (const [set, { entries, excluded }] of this.buckets) {
      const not = excluded?.get(peer)
      if (!not) continue
      for (let i = 0; i * 2 < entries.length; i++)
        if (!not.has(i)) out.add(set, entries.items[i * 2]!, entries.items[i * 2 + 1]!)
    }
  }

  /** Withdrawals first: they make room. */
  *inOrder(): Generator<[number, Bucket]> {
    const withdrawn = this.buckets.get(0)
    if (withdrawn) yield [0, withdrawn]
    for (const entry of this.buckets) if (entry[0] !== 0) yield entry
  }
}

class Bucket {
  /** Prefix and path identifier in turns. */
  readonly entries = new IntList(16)
  /** By peer: indexes of entries that are not for it. */
  excluded: Map<number, Set<number>> | undefined

  words({ words, lengths, wordsEach }: PrefixTable, stride: number): Int32Array {
    const { items, length } = this.entries
    const run = new Int32Array((length / 2) * stride)
    for (let i = 0, at = 0; i < length; i += 2, at += stride) {
      const prefix = items[i]!
      run[at] = items[i + 1]!
      run[at + 1] = lengths[prefix]!
      for (let word = 0; word < wordsEach; word++) run[at + 2 + word] = words[prefix * wordsEach + word]!
    }
    return run
  }
}

interface Part {
  readonly bytes: Uint8Array
  readonly messages: number
}

/** Messages one behind the other, and which stretches of them are not for everybody. */
interface Chunk extends Part {
  partsWithout(peer: number): Part[]
}

class ChunkWriter {
  readonly #messages: Uint8Array[] = []
  readonly #stretches: { bytes: number; messages: number; excluded: Map<number, Set<number>> | undefined }[] = []

  add(messages: readonly Uint8Array[], excluded: Map<number, Set<number>> | undefined): void {
    let bytes = 0
    for (const message of messages) {
      bytes += message.length
      this.#messages.push(message)
    }
    const last = this.#stretches.at(-1)
    if (last && !last.excluded && !excluded) {
      last.bytes += bytes
      last.messages += messages.length
    } else {
      this.#stretches.push({ bytes, messages: messages.length, excluded })
    }
  }

  finish(): Chunk {
    const stretches = this.#stretches
    let length = 0
    for (const each of stretches) length += each.bytes
    const bytes = new Uint8Array(length)
    let at = 0
    for (const message of this.#messages) {
      bytes.set(message, at)
      at += message.length
    }
    return {
      bytes,
      messages: this.#messages.length,
      partsWithout(peer) {
        const parts: Part[] = []
        let from = 0
        let to = 0
        let messages = 0
        for (const each of stretches) {
          if (each.excluded?.has(peer)) {
            if (to > from) parts.push({ bytes: bytes.subarray(from, to), messages })
            from = to + each.bytes
            messages = 0
          } else {
            messages += each.messages
          }
          to += each.bytes
        }
        if (to > from) parts.push({ bytes: bytes.subarray(from, to), messages })
        return parts
      },
    }
  }
}
