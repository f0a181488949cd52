/**
 * Follows objects that can be read and are not announced whole: sysctls, offloads. A multicast group that says that
 * something of the sort happened makes it look at once; what no group tells is found by looking every few seconds.
 *
 *   group speaks ─┐
 *   every 5 s ────┴─► read all ─► differs from last time ─► event
 *   own write ──────► noted and told as it is
 *
 * A look costs in proportion to what is followed, and a group may speak for every pod that comes: looks that it asks for are put
 * off so that they take a twentieth of the time at most.
 */
import { type KernelKey, type KernelObject, keyOf, type ObjectKind } from '../../model/kernel-object.ts'
import type { KernelEvent, Watch } from '../kernel.ts'
import type { DriverContext } from './driver.ts'
import { type MulticastListener, MulticastSocket } from './multicast-socket.ts'

/** Between two looks, give or take a fifth, so that the agents of a machine do not look together. */
const LOOK_MILLISECONDS = 5000

/** How many times as long as a look took, until a group is answered by another one. */
const REST_FACTOR = 20

/** Groups of one netlink protocol that tell of changes. */
export interface Hints {
  readonly protocol: number
  readonly groups: readonly number[]
}

export class ReadingWatches {
  readonly #context: DriverContext
  readonly #read: () => readonly KernelObject[]
  readonly #hints: () => Hints | undefined
  readonly #listeners = new Set<(event: KernelEvent) => void>()
  readonly #tellsGone: boolean
  readonly #last = new Map<KernelKey, { readonly text: string; readonly object: KernelObject }>()
  #socket: MulticastSocket | undefined
  #timer: NodeJS.Timeout | undefined
  #hinted: NodeJS.Timeout | undefined
  #restsUntil = 0

  /**
   * `read` gives everything that is followed, and must be cheap; `hints` is asked when the first watch opens. With `tellsGone`
   * what is not read any more has been deleted.
   */
  constructor(
    context: DriverContext,
    read: () => readonly KernelObject[],
    hints: () => Hints | undefined,
    tellsGone = false,
  ) {
    this.#tellsGone = tellsGone
    this.#context = context
    this.#read = read
    this.#hints = hints
  }

  watch(kind: ObjectKind, listener: (event: KernelEvent) => void): Watch {
    const own = (event: KernelEvent): void => {
      if (event.type === 'resync' || event.object.kind === kind) listener(event)
    }
    this.#listeners.add(own)
    if (this.#listeners.size === 1) this.#start()
    return {
      close: () => {
        if (this.#listeners.delete(own) && this.#listeners.size === 0) this.close()
      },
    }
  }

  /** The object was written just now. */
  tell(object: KernelObject): void {
    if (this.#listeners.size === 0) return
    this.#last.set(keyOf(object), { text: JSON.stringify(object), object })
    this.#emit('new', object)
  }

  /** The object was deleted just now. */
  tellGone(object: KernelObject): void {
    this.#last.delete(keyOf(object))
    if (this.#listeners.size > 0) this.#emit('delete', object)
  }

  close(): void {
    this.#listeners.clear()
    this.#last.clear()
    this.#socket?.close()
    this.#socket = undefined
    clearTimeout(this.#timer)
    clearTimeout(this.#hinted)
    this.#timer = undefined
    this.#hinted = undefined
  }

  #start(): void {
    const hints = this.#hints()
    if (hints) {
      const listener: MulticastListener = {
        datagram() {},
        drained: () => this.#lookSoon(),
        lost: () => this.#lookSoon(),
      }
      this.#socket = this.#context.inside(() => new MulticastSocket(hints.protocol, hints.groups, listener))
    }
    this.#lookLater()
  }

  #lookSoon(): void {
    const rest = this.#restsUntil - performance.now()
    if (rest <= 0) this.#look()
    else
      this.#hinted ??= setTimeout(() => {
        this.#hinted = undefined
        this.#look()
      }, rest).unref()
  }

  #lookLater(): void {
    this.#timer = setTimeout(
      () => {
        this.#look()
        if (this.#timer) this.#lookLater()
      },
      LOOK_MILLISECONDS * (0.8 + 0.4 * Math.random()),
    ).unref()
  }

  #look(): void {
    const startedAt = performance.now()
    const found = this.#read()
    const endedAt = performance.now()
    this.#restsUntil = endedAt + REST_FACTOR * (endedAt - startedAt)
    const gone = new Set(this.#last.keys())
    for (const object of found) {
      const key = keyOf(object)
      gone.delete(key)
      const text = JSON.stringify(object)
      if (this.#last.get(key)?.text === text) continue
      this.#last.set(key, { text, object })
      this.#emit('new', object)
    }
    if (this.#tellsGone) for (const key of gone) this.tellGone(this.#last.get(key)!.object)
    else for (const key of gone) this.#last.delete(key)
  }

  #emit(type: 'new' | 'delete', object: KernelObject): void {
    for (const listener of [...this.#listeners])
      if (this.#listeners.has(listener)) listener({ type, key: keyOf(object), object })
  }
}
