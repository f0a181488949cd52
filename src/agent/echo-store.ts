/**
 * A store of blocks whose writes come back as if it had taken them, and go nowhere: what a dry run gives addresses with.
 */
import type { IpamStore, Kept } from '../ipam/stores/ipam-store.ts'
import type { Held } from '../model/calico.ts'

class EchoKept<K, T> implements Kept<K, T> {
  readonly #kept: Kept<K, T>

  constructor(kept: Kept<K, T>) {
    this.#kept = kept
  }

  read(key: K): Promise<Held<T> | undefined> {
    return this.#kept.read(key)
  }

  list(): ReturnType<Kept<K, T>['list']> {
    return this.#kept.list()
  }

  async create(value: T): Promise<Held<T>> {
    return { value, revision: 'not written' }
  }

  async replace(_held: Held<T>, value: T): Promise<Held<T>> {
    return { value, revision: 'not written' }
  }

  async remove(): Promise<void> {}
}

export const echoStore = ({ blocks, affinities, handles }: IpamStore): IpamStore => ({
  blocks: new EchoKept(blocks),
  affinities: new EchoKept(affinities),
  handles: new EchoKept(handles),
  close: async () => {},
})
