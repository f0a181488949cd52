/**
 * What the kernel has, as far as weft cares: every device, everything that is ours, and everything that stands under a key
 * we want. An object that is as wanted is kept as the very object that is wanted, so that a hundred thousand routes are
 * held once.
 */
import { type KernelKey, type KernelObject, keyOf, type ObjectKind } from '../model/kernel-object.ts'
import type { KernelState } from '../model/kernel-state.ts'
import { covers } from './covering.ts'
import type { Desired } from './desired.ts'
import { deviceOf } from './device.ts'
import type { Ownership } from './ownership.ts'

export class Mirror {
  readonly #desired: Desired
  readonly #owner: Ownership
  readonly #objects = new Map<KernelKey, KernelObject>()
  readonly #ourDevices = new Set<string>()
  readonly #isOurDevice = (name: string) => this.#ourDevices.has(name)

  constructor(desired: Desired, owner: Ownership) {
    this.#desired = desired
    this.#owner = owner
  }

  get(key: KernelKey): KernelObject | undefined {
    return this.#objects.get(key)
  }

  get state(): KernelState {
    return this.#objects
  }

  isOurDevice(name: string): boolean {
    return this.#ourDevices.has(name)
  }

  /** True when a wanted object is there as wanted. */
  holds(key: KernelKey): boolean {
    const have = this.#objects.get(key)
    const want = this.#desired.get(key)
    return have !== undefined && want !== undefined && (have === want || covers(have, want))
  }

  /** True when an object is ours and nobody wants it. */
  isStale(key: KernelKey): boolean {
    const have = this.#objects.get(key)
    return have !== undefined && this.#desired.get(key) === undefined && this.#owner.owns(have, this.#isOurDevice)
  }

  *staleKeys(): IterableIterator<KernelKey> {
    for (const key of this.#objects.keys()) if (this.isStale(key)) yield key
  }

  /** Notes an object that the kernel has. False when it is none of our business and was not kept. */
  put(key: KernelKey, object: KernelObject): boolean {
    if (object.kind === 'link') this.#noteDevice(object.name, this.#owner.owns(object, this.#isOurDevice))
    const want = this.#desired.get(key)
    if (!want && object.kind !== 'link' && !this.#owner.owns(object, this.#isOurDevice)) {
      this.#objects.delete(key)
      return false
    }
    this.#objects.set(key, want && covers(object, want) ? want : object)
    return true
  }

  /** What nobody wants any more and is not ours is followed no longer: its device may go, and come again without it. */
  release(key: KernelKey): void {
    const have = this.#objects.get(key)
    if (!have || have.kind === 'link' || this.#desired.get(key) || this.#owner.owns(have, this.#isOurDevice)) return
    this.#objects.delete(key)
  }

  /** Notes that an object is gone; a device takes what hangs on it along. Returns the keys that went with it. */
  drop(key: KernelKey): KernelKey[] {
    const object = this.#objects.get(key)
    this.#objects.delete(key)
    if (object?.kind !== 'link') return []
    const wasOurs = this.#ourDevices.delete(object.name)
    return this.dropOnDevice(object.name, wasOurs)
  }

  /** Notes that everything on a device is gone, or everything of some kinds. */
  dropOnDevice(device: string, all: boolean, kinds?: ReadonlySet<ObjectKind>): KernelKey[] {
    const gone: KernelKey[] = []
    const check = (key: KernelKey) => {
      const object = this.#objects.get(key)
      if (object && deviceOf(object) === device && (!kinds || kinds.has(object.kind))) gone.push(key)
    }
    if (all) for (const key of this.#objects.keys()) check(key)
    else for (const key of this.#desired.onDevice(device)) check(key)
    for (const key of gone) this.#objects.delete(key)
    return gone
  }

  /**
   * Replaces everything of some kinds by a reading. Links must be read before or with what hangs on them, for the marks of
   * those. Returns the keys that were there and are not any more.
   */
  replace(kinds: ReadonlySet<ObjectKind>, reading: readonly KernelObject[]): KernelKey[] {
    const seen = new Set<KernelKey>()
    if (kinds.has('link')) {
      this.#ourDevices.clear()
      for (const object of reading)
        if (object.kind === 'link') this.#noteDevice(object.name, this.#owner.owns(object, this.#isOurDevice))
    }
    for (const object of reading) {
      const key = keyOf(object)
      if (this.put(key, object)) seen.add(key)
    }
    const gone: KernelKey[] = []
    for (const [key, object] of this.#objects) if (kinds.has(object.kind) && !seen.has(key)) gone.push(key)
    for (const key of gone) this.#objects.delete(key)
    return gone
  }

  #noteDevice(name: string, ours: boolean): void {
    if (ours) this.#ourDevices.add(name)
    else this.#ourDevices.delete(name)
  }
}
