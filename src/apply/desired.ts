/**
 * What the kernel should hold, as the sum of fragments. Each source object (a node, a path, a pod) has one fragment; two
 * fragments may want the same object (it goes when the last of them goes), and may not want one key differently.
 * Costs are those of the fragment that changes, never of the sum.
 */
import { type KernelKey, type KernelObject, keyOf } from '../model/kernel-object.ts'
import type { Fragment, KernelState } from '../model/kernel-state.ts'
import { equalObjects } from './covering.ts'
import { deviceOf } from './device.ts'

/** Two sources want one kernel object differently. Ours to fix: nothing was changed. */
export class DesiredConflict extends Error {
  override readonly name = 'DesiredConflict'
  readonly key: KernelKey
  readonly sources: readonly [string, string]

  constructor(key: KernelKey, sources: readonly [string, string]) {
    super(`${sources[0]} and ${sources[1]} want ${key} differently`)
    this.key = key
    this.sources = sources
  }
}

interface Want {
  object: KernelObject
  /** One source as text, several as a set: nearly every object has one. */
  sources: string | Set<string>
}

const noKeys: readonly KernelKey[] = []

export class Desired {
  readonly #wants = new Map<KernelKey, Want>()
  readonly #keysOf = new Map<string, readonly KernelKey[]>()
  readonly #onDevice = new Map<string, Set<KernelKey>>()

  /** How many objects are wanted. */
  get size(): number {
    return this.#wants.size
  }

  /** Names of all sources that have a fragment. */
  sources(): IterableIterator<string> {
    return this.#keysOf.keys()
  }

  get(key: KernelKey): KernelObject | undefined {
    return this.#wants.get(key)?.object
  }

  keys(): IterableIterator<KernelKey> {
    return this.#wants.keys()
  }

  *entries(): IterableIterator<readonly [KernelKey, KernelObject]> {
    for (const [key, want] of this.#wants) yield [key, want.object]
  }

  /** Keys that a source wants, in its fragment's order. */
  keysOf(source: string): readonly KernelKey[] {
    return this.#keysOf.get(source) ?? noKeys
  }

  /** Keys of wanted objects that go when a device goes (the device itself is not among them). */
  onDevice(device: string): Iterable<KernelKey> {
    return this.#onDevice.get(device) ?? noKeys
  }

  /** Who wants a key; empty when nobody does. */
  sourcesOf(key: KernelKey): readonly string[] {
    const sources = this.#wants.get(key)?.sources
    return sources === undefined ? [] : typeof sources === 'string' ? [sources] : [...sources]
  }

  /**
   * Puts a fragment in place of the source's earlier one. Returns the keys whose want changed. Throws DesiredConflict
   * when another source, or the fragment itself, wants one of its keys differently; then nothing is changed.
   */
  set(fragment: Fragment): KernelKey[] {
    return this.setAll([fragment], [])
  }

  /** Drops a source's fragment. Returns the keys that nobody wants any more. */
  remove(source: string): KernelKey[] {
    return this.setAll([], [source])
  }

  /**
   * Several fragments and removals as one step: an object may move from one source to another, or change in all sources
   * that share it, without a conflict on the way. Returns the keys whose want changed.
   */
  setAll(fragments: readonly Fragment[], removed: readonly string[]): KernelKey[] {
    const wanted = new Map<KernelKey, { object: KernelObject; source: string }>()
    const replaced = new Set(removed)
    for (const { source } of fragments) replaced.add(source)
    const keyed = fragments.map(({ source, objects }) => ({
      source,
      keys: objects.map((object) => {
        const key = keyOf(object)
        const other = wanted.get(key)
        if (other && !equalObjects(other.object, object)) throw new DesiredConflict(key, [other.source, source])
        if (!other) wanted.set(key, { object, source })
        return key
      }),
    }))
    for (const [key, { object, source }] of wanted) {
      const standing = this.#wants.get(key)
      if (!standing || equalObjects(standing.object, object)) continue
      const holder = this.sourcesOf(key).find((name) => !replaced.has(name))
      if (holder !== undefined) throw new DesiredConflict(key, [holder, source])
    }
    const before = new Map<KernelKey, KernelObject | undefined>()
    for (const source of replaced)
      for (const key of this.keysOf(source)) {
        before.set(key, this.get(key))
        this.#release(key, source)
      }
    for (const source of replaced) this.#keysOf.delete(source)
    for (const { source, keys } of keyed) {
      for (const key of keys) {
        if (!before.has(key)) before.set(key, this.get(key))
        this.#hold(key, wanted.get(key)!.object, source, before.get(key))
      }
      if (keys.length > 0) this.#keysOf.set(source, keys)
    }
    const changed: KernelKey[] = []
    for (const [key, was] of before) {
      const now = this.get(key)
      if (was !== now && !(was && now && equalObjects(was, now))) changed.push(key)
    }
    return changed
  }

  /** All wants as a plain state, for dry runs and full diffs. */
  state(): KernelState {
    const out = new Map<KernelKey, KernelObject>()
    for (const [key, want] of this.#wants) out.set(key, want.object)
    return out
  }

  #hold(key: KernelKey, object: KernelObject, source: string, was: KernelObject | undefined): void {
    const want = this.#wants.get(key)
    if (!want) {
      this.#wants.set(key, { object: was && equalObjects(was, object) ? was : object, sources: source })
      this.#index(key, object)
      return
    }
    if (want.sources === source) return
    if (typeof want.sources === 'string') want.sources = new Set([want.sources])
    want.sources.add(source)
  }

  #release(key: KernelKey, source: string): void {
    const want = this.#wants.get(key)
    if (!want) return
    if (typeof want.sources !== 'string') {
      want.sources.delete(source)
      if (want.sources.size > 0) return
    } else if (want.sources !== source) return
    this.#wants.delete(key)
    const device = deviceOf(want.object)
    const onDevice = device === undefined ? undefined : this.#onDevice.get(device)
    if (onDevice?.delete(key) && onDevice.size === 0) this.#onDevice.delete(device!)
  }

  #index(key: KernelKey, object: KernelObject): void {
    const device = deviceOf(object)
    if (device === undefined) return
    const keys = this.#onDevice.get(device)
    if (keys) keys.add(key)
    else this.#onDevice.set(device, new Set([key]))
  }
}
