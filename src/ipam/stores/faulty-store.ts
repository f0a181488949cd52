/**
 * A client's way to a store, as bad as networks are: operations are done in any order, answers are lost, what nobody
 * waits for any more is done later, and a client that dies never hears again. Every choice comes from one seed, so that a
 * history that went wrong goes wrong again.
 */
import type { Held } from '../../model/calico.ts'
import { type IpamStore, type Kept, StoreAwayError } from './ipam-store.ts'

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export class SeededRandom {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number in [0, count). */
  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!
  }
}

/** Lets one thing happen at a time, in an order that the seed chooses. */
export class Turns {
  readonly #random: SeededRandom
  readonly #waiting: (() => void)[] = []

  constructor(random: SeededRandom) {
    this.#random = random
  }

  /** Resolves when it is this one's turn. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** Lets up to so many turns happen; resolves early when nobody waits for one. */
  async run(count = Number.POSITIVE_INFINITY): Promise<void> {
    for (let done = 0; done < count; done++) {
      await new Promise((resolve) => setImmediate(resolve))
      if (this.#waiting.length === 0) return
      const at = this.#random.below(this.#waiting.length)
      const [resolve] = this.#waiting.splice(at, 1)
      resolve!()
    }
  }
}

export interface Faults {
  /** Probability that an operation is not done, and says that the store is away. */
  refused: number
  /** That it is done, and says so all the same. */
  answerLost: number
  /** That it says so at once, and is done some time later. */
  doneLater: number
}

export const noFaults: Faults = { refused: 0, answerLost: 0, doneLater: 0 }

export class FaultyStore implements IpamStore {
  readonly blocks: IpamStore['blocks']
  readonly affinities: IpamStore['affinities']
  readonly handles: IpamStore['handles']
  /** May be changed at any time. */
  faults: Faults
  readonly #random: SeededRandom
  readonly #turns: Pick<Turns, 'next'>
  #dead = false

  /** `turns` is asked before and after every operation: what it waits for is the delay. */
  constructor(store: IpamStore, random: SeededRandom, turns: Pick<Turns, 'next'>, faults: Faults) {
    this.#random = random
    this.#turns = turns
    this.faults = faults
    this.blocks = this.#faulty(store.blocks)
    this.affinities = this.#faulty(store.affinities)
    this.handles = this.#faulty(store.handles)
  }

  /** The client is dead: what it asked may still be done, and nothing comes back. */
  kill(): void {
    this.#dead = true
  }

  async close(): Promise<void> {}

  #faulty<K, T>(kept: Kept<K, T>): Kept<K, T> {
    const over =
      <A extends readonly unknown[], R>(operation: (...args: A) => Promise<R>) =>
      (...args: A): Promise<R> =>
        this.#through(() => operation(...args))
    return {
      read: over((key: K) => kept.read(key)),
      list: over(() => kept.list()),
      create: over((value: T) => kept.create(value)),
      replace: over((held: Held<T>, value: T) => kept.replace(held, value)),
      remove: over((held: Held<T>) => kept.remove(held)),
    }
  }

  async #through<R>(operation: () => Promise<R>): Promise<R> {
    const { refused, answerLost, doneLater } = this.faults
    const away = (why: string) => new StoreAwayError(`the store is away (${why})`)
    if (this.#random.chance(doneLater)) {
      void this.#turns.next().then(() => this.#later(operation))
      await this.#answer()
      throw away('done later')
    }
    await this.#turns.next()
    if (this.#random.chance(refused)) {
      await this.#answer()
      throw away('not done')
    }
    // A client that died meanwhile may have sent it, or not.
    if (this.#dead && this.#random.chance(0.5)) return this.#silence()
    const outcome = operation()
    await outcome.catch(() => {})
    await this.#answer()
    if (this.#random.chance(answerLost)) throw away('answer lost')
    return outcome
  }

  async #later(operation: () => Promise<unknown>): Promise<void> {
    for (let turns = this.#random.below(30); turns > 0; turns--) await this.#turns.next()
    await operation().catch(() => {})
  }

  async #answer(): Promise<void> {
    await this.#turns.next()
    if (this.#dead) await this.#silence()
  }

  #silence(): Promise<never> {
    return new Promise(() => {})
  }
}
