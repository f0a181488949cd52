/**
 * From what the kernel has and what is wanted to the operations between them. Pure. The whole-state diff serves dry runs
 * and tests; the applier asks about the keys that changed only, by the same rules.
 */
import { type KernelKey, type KernelObject, keyOf } from '../model/kernel-object.ts'
import type { KernelOp, KernelState } from '../model/kernel-state.ts'
import { givenBack, isFallbackDevice } from '../model/link.ts'
import type { NftFamily, NftRule } from '../model/nft.ts'
import { setsUsedBy } from '../model/nft-reference.ts'
import { covers, mustRecreate } from './covering.ts'
import { deviceOf } from './device.ts'
import { type Change, inOrder } from './order.ts'
import type { Ownership } from './ownership.ts'

/** What `planChanges` must be able to ask. */
export interface Comparison {
  have(key: KernelKey): KernelObject | undefined
  want(key: KernelKey): KernelObject | undefined
  /** Keys of wanted objects that go when a device goes. */
  wantedOnDevice(device: string): Iterable<KernelKey>
  /** Everything that is wanted; looked through only when an nft set has to be made anew. */
  wanted(): Iterable<readonly [KernelKey, KernelObject]>
  /** Keys of ours that are had and not wanted, such as wait for the sweep; looked through then too. */
  stale(): Iterable<KernelKey>
}

/**
 * Ops for these keys, in a safe order. A key that is had and not wanted is deleted: the caller passes only keys of ours.
 * A device that goes takes its objects along: they are not deleted one by one, and the wanted ones are added anew. One that
 * the kernel never deletes is given back instead, after its objects. As a device does, so does
 * an nft set whose definition changes with its elements; the chains whose rules use it are set in the same transaction,
 * also those that nobody wants any more and that still stand.
 */
export function planChanges(keys: Iterable<KernelKey>, comparison: Comparison): KernelOp[] {
  const pending = new Set(keys)
  const lost = new Set<string>()
  const renewed = new Set<KernelKey>()
  for (const key of pending) {
    const have = comparison.have(key)
    if (have?.kind !== 'link' && have?.kind !== 'nft-set') continue
    const want = comparison.want(key)
    if (have.kind === 'nft-set') {
      if (want && !covers(have, want)) renewed.add(key)
    } else if ((!want && !isFallbackDevice(have)) || (want && !covers(have, want) && mustRecreate(have, want)))
      lost.add(have.name)
  }
  for (const device of lost) for (const key of comparison.wantedOnDevice(device)) pending.add(key)
  const pointed = renewed.size > 0 ? usersOf(renewed, comparison, pending) : noKeys
  const changes: Change[] = []
  for (const key of pending) {
    const have = comparison.have(key)
    const want = comparison.want(key)
    const goesAlong = have?.kind === 'nft-element' && renewed.has(setKey(have, have.set))
    const change = goesAlong ? changeOf(undefined, want, lost) : changeOf(have, want, lost)
    if (change.length > 0) changes.push(change)
    else if (have && want && pointed.has(key)) changes.push([{ verb: 'set', object: want, was: have }])
  }
  if (renewed.size > 0) changes.push(...releaseSets(renewed, comparison, pending))
  return inOrder(changes)
}

const noKeys: ReadonlySet<KernelKey> = new Set()

const setKey = ({ family, table }: { readonly family: NftFamily; readonly table: string }, name: string): KernelKey =>
  keyOf({ kind: 'nft-set', family, table, name, type: [] })

/** Adds the wanted elements of these sets and the wanted chains that use them to `pending`; returns the chains. */
function usersOf(sets: ReadonlySet<KernelKey>, comparison: Comparison, pending: Set<KernelKey>): Set<KernelKey> {
  const chains = new Set<KernelKey>()
  for (const [key, object] of comparison.wanted()) {
    if (object.kind === 'nft-element' && sets.has(setKey(object, object.set))) pending.add(key)
    if (object.kind !== 'nft-chain') continue
    if (object.rules.some((rule) => setsUsedBy(rule).some((name) => sets.has(setKey(object, name))))) {
      pending.add(key)
      chains.add(key)
    }
  }
  return chains
}

/**
 * Lets the sets go from the chains of ours that stand unwanted: the kernel keeps a set that a rule uses. Rules that fit the new
 * definition come again; of the others those that dropped something drop everything, and the rest goes.
 */
function releaseSets(sets: ReadonlySet<KernelKey>, comparison: Comparison, pending: ReadonlySet<KernelKey>): Change[] {
  const fits = (set: KernelKey) => {
    const [have, want] = [comparison.have(set), comparison.want(set)]
    return have?.kind === 'nft-set' && want?.kind === 'nft-set' && `${have.type}` === `${want.type}`
  }
  const changes: Change[] = []
  for (const key of comparison.stale()) {
    const chain = comparison.have(key)
    if (chain?.kind !== 'nft-chain' || pending.has(key)) continue
    const renewedOf = (rule: NftRule) =>
      setsUsedBy(rule)
        .map((name) => setKey(chain, name))
        .filter((set) => sets.has(set))
    if (chain.rules.every((rule) => renewedOf(rule).length === 0)) continue
    const rules = chain.rules.flatMap((rule) => (renewedOf(rule).every(fits) ? [rule] : withoutMatches(rule)))
    changes.push([{ verb: 'set', object: { ...chain, rules }, was: chain }])
  }
  return changes
}

function withoutMatches({ statements, comment }: NftRule): NftRule[] {
  if (!statements.some((statement) => 'verdict' in statement && statement.verdict === 'drop')) return []
  const rest = statements.filter((statement) => 'counter' in statement || 'verdict' in statement)
  return [comment === undefined ? { statements: rest } : { statements: rest, comment }]
}

function changeOf(
  standing: KernelObject | undefined,
  want: KernelObject | undefined,
  lost: ReadonlySet<string>,
): Change {
  const device = standing && deviceOf(standing)
  const goesAlong = device !== undefined && lost.has(device)
  // A route that leaves the device before it goes is replaced, and never missing.
  if (standing && goesAlong && want && deviceOf(want) !== device) return [{ verb: 'set', object: want, was: standing }]
  const have = goesAlong ? undefined : standing
  if (!have) return want ? [{ verb: 'add', object: want }] : []
  if (!want && have.kind === 'link' && isFallbackDevice(have))
    return [{ verb: 'set', object: givenBack(have), was: have }]
  if (!want) return [{ verb: 'delete', object: have }]
  if (covers(have, want)) return []
  if (mustRecreate(have, want))
    return [
      { verb: 'delete', object: have },
      { verb: 'add', object: want },
    ]
  return [{ verb: 'set', object: want, was: have }]
}

/** Every op that leads from `have` to `want`; what `owner` does not own and nobody wants stays. */
export function diff(have: KernelState, want: KernelState, owner: Ownership): readonly KernelOp[] {
  const ours = new Set<string>()
  for (const object of have.values())
    if (object.kind === 'link' && owner.owns(object, () => false)) ours.add(object.name)
  const onDevice = new Map<string, KernelKey[]>()
  for (const [key, object] of want) {
    const device = deviceOf(object)
    if (device === undefined) continue
    const keys = onDevice.get(device)
    if (keys) keys.push(key)
    else onDevice.set(device, [key])
  }
  const keys = new Set(want.keys())
  for (const [key, object] of have) if (!want.has(key) && owner.owns(object, (name) => ours.has(name))) keys.add(key)
  return planChanges(keys, {
    have: (key) => have.get(key),
    want: (key) => want.get(key),
    wantedOnDevice: (device) => onDevice.get(device) ?? [],
    wanted: () => want,
    stale: function* () {
      for (const [key, object] of have) if (!want.has(key) && owner.owns(object, (name) => ours.has(name))) yield key
    },
  })
}
