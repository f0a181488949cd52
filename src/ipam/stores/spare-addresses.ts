/**
 * Spare addresses of one node, and those of them that were lent: given to a pod before its block says so.
 *
 *   free ──accompany──► spare ──lend──► lent ──accompany──► the pod's, with its attributes
 *     ▲                   │               └───leave──► released, as any address that a pod had
 *     └────accompany──────┘  too many, reserved, pool disabled or not for this node, wanted by another node
 *
 * Whatever is written to a block takes along what is to be done for its spares, so that an address costs one write as before, and
 * several of a burst share it. What has no write to go with goes a moment later by one of its own. Spares are those of the
 * block as the store last confirmed it; one that a write under way frees is not lent, whatever becomes of that write.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BlockAttribute, BlockOwner, IpamBlock } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import {
  addressAt,
  addressesIn,
  allocationsOf,
  BlockDraft,
  type Cooldown,
  isInUse,
  ordinalOf,
  plainHandle,
} from '../block.ts'
import { isWanted, kinship, type SpareOwner, spareAttributes, spareHandle, sparesFor } from '../spares.ts'
import type { BlockIpamLog } from './block-ipam.ts'
import { BlockGoneError, type BlockLane } from './block-lane.ts'
import { Chores } from './chores.ts'
import { CorruptObjectError } from './ipam-store.ts'
import type { JournalAddress, PodAddress } from './pool-addresses.ts'

/** So long a lent address may wait for others to share its write. */
const BATCH_MS = 100
/** Spares of another agent under this node's name that nobody touches for so long are those of a journal that was lost. */
const ABANDONED_MS = 3_600_000

export interface SpareAddressesOptions {
  readonly node: string
  readonly log: BlockIpamLog
  /** How many spares the block should have when it is this node's; 0 for one that gives pods no addresses now. */
  wantedIn(cidr: Cidr): number
  isOwn(block: { readonly owner?: BlockOwner | undefined }): boolean
  refusals(cidr: Cidr): (ordinal: number) => boolean
  cooldown(): Cooldown
  /** Milliseconds since any moment; never goes back. */
  uptime(): number
  wait?(milliseconds: number, signal: AbortSignal): Promise<void>
}

/** An address that a pod has and whose block may not say so yet. */
interface Lent extends PodAddress {
  /** Given by this life of the agent: what is free again is taken back. */
  readonly isFresh: boolean
  /** It is being given back. */
  isLeaving: boolean
}

export class SpareAddresses {
  readonly #options: SpareAddressesOptions
  readonly #chores: Chores
  readonly #wait: (milliseconds: number, signal: AbortSignal) => Promise<void>
  readonly #abort = new AbortController()
  /** By address. */
  readonly #lent = new Map<string, Lent>()
  /** Addresses that a write frees, or freed without saying so. */
  readonly #leaving = new Map<string, Ip>()
  /** By block: spares of a namesake, by address and number → when they were first seen. */
  readonly #namesakes = new Map<string, ReadonlyMap<string, number>>()
  /** Blocks that nobody can read now: what is known of them is not to be relied on. */
  readonly #unreadable = new Set<string>()
  #owner: SpareOwner | undefined
  #areKept = false

  constructor(options: SpareAddressesOptions) {
    this.#options = options
    this.#wait = options.wait ?? ((ms, signal) => sleep(ms, undefined, { signal, ref: false }).catch(() => {}))
    this.#chores = new Chores(options.log, options.wait)
  }

  /** What the journal knows. Before this nothing is lent. */
  resume(journal: string, held: readonly JournalAddress[]): void {
    this.#owner = { node: this.#options.node, journal, run: randomBytes(4).toString('hex') }
    for (const each of held) this.#lent.set(`${each.ip}`, { ...each, isFresh: false })
  }

  /** Whether spares are kept from now on; else those that there are go back. */
  keep(areKept: boolean): void {
    this.#areKept = areKept
  }

  noteReadable(cidr: Cidr, isReadable: boolean): void {
    if (isReadable) this.#unreadable.delete(`${cidr}`)
    else this.#unreadable.add(`${cidr}`)
  }

  /** Ordinals of a block's spares that can be lent. */
  *in(block: IpamBlock): Generator<number> {
    if (!this.#owner || this.#unreadable.has(`${block.cidr}`)) return
    const refuse = this.#options.refusals(block.cidr)
    const handle = spareHandle(this.#owner)
    if (!block.attributes.some(({ handleId }) => handleId === handle)) return
    for (const each of allocationsOf(block)) {
      const text = `${each.ip}`
      if (each.handleId !== handle || !isInUse(each) || isWanted(each.attribute!) || refuse(each.ordinal)) continue
      if (!this.#lent.has(text) && !this.#leaving.has(text)) yield each.ordinal
    }
  }

  has(block: IpamBlock, ordinal: number): boolean {
    for (const each of this.in(block)) if (each === ordinal) return true
    return false
  }

  /** A spare is a pod's from now on. */
  lend(lane: BlockLane, pod: PodAddress): void {
    this.#lent.set(`${pod.ip}`, { ...pod, isFresh: true, isLeaving: false })
    this.review(lane)
  }

  /** Addresses that a handle has and that are not being given back. */
  lentTo(handleId: string): Ip[] {
    return [...this.#lent.values()].flatMap((each) => (each.handleId === handleId && !each.isLeaving ? [each.ip] : []))
  }

  /** Of the draft's addresses those that were lent to the handle, and that do not say so yet. */
  ordinalsOf(draft: BlockDraft, handleId: string): number[] {
    const owner = this.#owner
    return [...this.#lent.values()].flatMap((lent) => {
      const ordinal = lent.handleId === handleId && !lent.isLeaving ? ordinalOf(draft.cidr, lent.ip) : undefined
      return owner && ordinal !== undefined && isLentBy(owner, draft.attributeOf(ordinal), lent) ? [ordinal] : []
    })
  }

  /** A handle's addresses but those spared: the next write to their blocks releases them. */
  leave(handleId: string, spared: ReadonlySet<string>): Ip[] {
    const leaving = [...this.#lent].filter(([text, each]) => each.handleId === handleId && !spared.has(text))
    for (const [, each] of leaving) each.isLeaving = true
    return leaving.map(([, { ip }]) => ip)
  }

  /** Sees to the block's spares a little later, unless something is written to it before. */
  review(lane: BlockLane): void {
    if (!this.#owner) return
    this.#chores.add(`${lane.cidr}`, async () => {
      await this.#wait(BATCH_MS, this.#abort.signal)
      await this.#see(lane)
    })
  }

  /** The same, for a block in which there is something to do. */
  reviewIfDue(lane: BlockLane): void {
    const owner = this.#owner
    if (!owner || !lane.block) return
    const hasLent = [...this.#lent.values()].some(({ ip }) => lane.cidr.contains(ip))
    const mayHave =
      this.#options.isOwn(lane.block) || lane.block.attributes.some((each) => kinship(each, owner) !== undefined)
    if (!hasLent && !mayHave) return
    const { freed, renewed, missing } = this.#plan(new BlockDraft(lane.block), owner)
    if (hasLent || freed.length > 0 || renewed.length > 0 || missing > 0) this.review(lane)
  }

  /** Writes a block if it must be. Rejects with StoreAwayError. */
  async #see(lane: BlockLane): Promise<void> {
    try {
      await lane.run(() => undefined)
    } catch (error) {
      if (!(error instanceof BlockGoneError || error instanceof CorruptObjectError)) throw error
    }
  }

  /** Gives all spares back that are not lent, and tells the blocks of those that are. Rejects with StoreAwayError. */
  async retire(lanes: Iterable<BlockLane>): Promise<void> {
    this.#areKept = false
    this.#chores.close()
    await Promise.all([...lanes].map((lane) => this.#see(lane)))
  }

  idle(): Promise<void> {
    return this.#chores.idle()
  }

  close(): void {
    this.#abort.abort()
    this.#chores.close()
  }

  /** What is to be written for the spares of a block, on the draft; the answer is called when it is written. */
  accompany(draft: BlockDraft): (() => void) | undefined {
    const owner = this.#owner
    if (!owner) return undefined
    const settled = this.#tell(draft, owner)
    this.#trim(draft, owner)
    return () => {
      for (const text of settled) this.#lent.delete(text)
      for (const [text, ip] of this.#leaving) if (draft.cidr.contains(ip)) this.#leaving.delete(text)
    }
  }

  /** Writes whose the lent ones are. Returns those of which the block knows then. */
  #tell(draft: BlockDraft, owner: SpareOwner): string[] {
    const settled: string[] = []
    for (const [text, lent] of this.#lent) {
      const ordinal = ordinalOf(draft.cidr, lent.ip)
      if (ordinal === undefined) continue
      settled.push(text)
      const { handleId, attributes, isFresh, isLeaving } = lent
      const attribute = draft.attributeOf(ordinal)
      if (isLeaving) {
        if (isLentBy(owner, attribute, lent)) draft.release([ordinal], this.#options.cooldown())
        continue
      }
      const has =
        attribute?.releasedAt !== undefined ? undefined : attribute?.handleId && plainHandle(attribute.handleId)
      if (has === handleId) continue
      if (isLentBy(owner, attribute, lent)) draft.pass(ordinal, handleId, attributes)
      else if (isFresh && attribute?.releasedAt !== undefined) draft.pass(ordinal, handleId, attributes)
      else if (isFresh && draft.isFree(ordinal)) draft.take(ordinal, handleId, attributes)
      else if (isFresh)
        this.#options.log.warn({ address: text, handle: handleId, has }, 'an address in use is written as another’s')
    }
    return settled
  }

  /** As many spares as there should be. */
  #trim(draft: BlockDraft, owner: SpareOwner): void {
    const { cidr } = draft
    const refuse = this.#options.refusals(cidr)
    const { freed, renewed, missing } = this.#plan(draft, owner)
    for (const ordinal of freed) {
      const ip = addressAt(cidr, ordinal)
      this.#leaving.set(`${ip}`, ip)
    }
    draft.vacate(freed)
    for (const ordinal of renewed) draft.pass(ordinal, spareHandle(owner), spareAttributes(owner))
    for (let left = missing; left > 0; left--) {
      const ordinal = draft.nextFree((each) => refuse(each) || freed.includes(each))
      if (ordinal !== undefined) draft.take(ordinal, spareHandle(owner), spareAttributes(owner))
    }
  }

  /** Which spares of the block go, which of an earlier life become this one's, and how many are missing. */
  #plan(draft: BlockDraft, owner: SpareOwner) {
    const { isOwn, wantedIn, refusals } = this.#options
    const refuse = refusals(draft.cidr)
    const { own, former, unfit, used } = this.#sort(draft, owner, refuse)
    const spares = [...own, ...former]
    const free = draft.countFree(refuse) + unfit.filter((ordinal) => !refuse(ordinal)).length
    const wanted = this.#areKept && isOwn(draft) ? wantedIn(draft.cidr) : 0
    const target = sparesFor({ wanted, free, spare: spares.length, used })
    const kept = new Set(spares.slice(0, target))
    return {
      freed: [...unfit, ...spares.slice(target)],
      renewed: former.filter((ordinal) => kept.has(ordinal)),
      missing: target - kept.size,
    }
  }

  /** The block's addresses in use, by what they are to this node; `unfit`: spares that must go. */
  #sort(draft: BlockDraft, owner: SpareOwner, refuse: (ordinal: number) => boolean) {
    const { cidr } = draft
    const sorted = { own: [] as number[], former: [] as number[], unfit: [] as number[], used: 0 }
    const namesakes = new Map<string, number>()
    const now = this.#options.uptime()
    for (let ordinal = 0; ordinal < addressesIn(cidr); ordinal++) {
      const attribute = draft.attributeOf(ordinal)
      if (attribute === undefined || attribute.releasedAt !== undefined) continue
      const kin = kinship(attribute, owner)
      if (kin === undefined) {
        sorted.used++
        continue
      }
      const text = `${addressAt(cidr, ordinal)}`
      if (this.#lent.has(text)) sorted.used++
      else if (kin === 'namesake') {
        const key = `${text} ${draft.numberOf(ordinal)}`
        const since = this.#namesakes.get(`${cidr}`)?.get(key) ?? now
        namesakes.set(key, since)
        if (now - since >= ABANDONED_MS) sorted.unfit.push(ordinal)
      } else if (isWanted(attribute) || refuse(ordinal) || this.#leaving.has(text)) sorted.unfit.push(ordinal)
      else sorted[kin].push(ordinal)
    }
    if (namesakes.size > 0) this.#namesakes.set(`${cidr}`, namesakes)
    else this.#namesakes.delete(`${cidr}`)
    return sorted
  }
}

/**
 * A spare of this journal's, of whichever life. That a pod which lives has one of a journal that was lost its device says, and is
 * believed.
 */
function isLentBy(owner: SpareOwner, attribute: BlockAttribute | undefined, { isFresh, isLeaving }: Lent): boolean {
  const kin = kinship(attribute, owner)
  return kin === 'own' || kin === 'former' || (kin === 'namesake' && !isFresh && !isLeaving)
}
