/**
 * Blocks, affinities and handles as Calico keeps them in etcd v3: one key each, replaced and removed in a transaction that
 * compares the key's last revision. A value that Calico has marked as deleted and not removed yet is there for nobody.
 *
 * Sources: Calico libcalico-go/lib/backend/etcdv3/etcdv3.go (transactions), lib/backend/model (keys and values).
 */
import { isDeepStrictEqual } from 'node:util'
import { formatJson, parseJson } from '../../bytes/json.ts'
import {
  decodeAffinityValue,
  decodeHandleValue,
  encodeAffinityValue,
  encodeHandleValue,
} from '../../config/calico/affinity.ts'
import { decodeBlock, encodeBlock } from '../../config/calico/block.ts'
import {
  etcdKeys,
  etcdPrefixes,
  parseAffinityKey,
  parseBlockKey,
  parseHandleKey,
} from '../../config/calico/store-names.ts'
import {
  ConflictError,
  CorruptObjectError,
  type IpamStore,
  type Kept,
  StoreAwayError,
} from '../../ipam/stores/ipam-store.ts'
import type { BlockAffinity, BlockOwner, Held, IpamBlock, IpamHandle } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { EtcdClient, KeyValue } from '../etcd/client.ts'
import { HttpError } from '../http-client.ts'
import { LostAnswerError, writeSurely } from './sure-write.ts'

export interface EtcdStoreOptions {
  readonly client: EtcdClient
  /** How long one answer may take, in milliseconds. */
  readonly patienceMs?: number
}

/** What one kind of key is made of. */
export interface EtcdShape<K, T> {
  readonly prefixes: readonly string[]
  keyOf(value: T): K
  nameOf(key: K): string
  isDeleted(value: T): boolean
  encode(value: T): unknown
  /** Undefined for a key that is none of these. Throws ConfigError, SyntaxError for a value that cannot be read. */
  decode(key: string, text: string): T | undefined
}

const PATIENCE_MS = 10_000
/** A value longer than etcd takes in one request as it is shipped. */
const MAX_VALUE = 2 << 20

export function parseValue(text: string): unknown {
  if (text.length > MAX_VALUE) throw new SyntaxError(`is longer than ${MAX_VALUE} characters`)
  return text === '' ? undefined : parseJson(text)
}

export const blockShape: EtcdShape<Cidr, IpamBlock> = {
  prefixes: [etcdPrefixes.blocks],
  keyOf: ({ cidr }) => cidr,
  nameOf: etcdKeys.block,
  isDeleted: ({ deleted }) => deleted,
  encode: (block) => encodeBlock(block, 'etcd'),
  decode: (key, text) => (parseBlockKey(key) ? decodeBlock(parseValue(text), `etcd ${key}`) : undefined),
}

type AffinityKey = { readonly owner: BlockOwner; readonly cidr: Cidr }

export const affinityShape: EtcdShape<AffinityKey, BlockAffinity> = {
  prefixes: [etcdPrefixes.hostAffinities, etcdPrefixes.virtualAffinities],
  keyOf: ({ owner, cidr }) => ({ owner, cidr }),
  nameOf: ({ owner, cidr }) => etcdKeys.affinity(owner, cidr),
  isDeleted: ({ deleted }) => deleted,
  encode: encodeAffinityValue,
  decode(key, text) {
    const parsed = parseAffinityKey(key)
    return parsed && decodeAffinityValue(parseValue(text), parsed, `etcd ${key}`)
  },
}

const handleShape: EtcdShape<string, IpamHandle> = {
  prefixes: [etcdPrefixes.handles],
  keyOf: ({ handleId }) => handleId,
  nameOf: etcdKeys.handle,
  isDeleted: ({ deleted }) => deleted,
  encode: encodeHandleValue,
  decode(key, text) {
    const handleId = parseHandleKey(key)
    return handleId === undefined ? undefined : decodeHandleValue(parseValue(text), handleId, `etcd ${key}`)
  },
}

class EtcdKept<K, T> implements Kept<K, T> {
  readonly #options: EtcdStoreOptions
  readonly #shape: EtcdShape<K, T>
  readonly #closed: AbortSignal

  constructor(options: EtcdStoreOptions, shape: EtcdShape<K, T>, closed: AbortSignal) {
    this.#options = options
    this.#shape = shape
    this.#closed = closed
  }

  async read(key: K): Promise<Held<T> | undefined> {
    const held = await this.#find(this.#shape.nameOf(key))
    if (!held || !this.#shape.isDeleted(held.value)) return held
    await this.remove(held).catch((error: unknown) => {
      if (!(error instanceof ConflictError)) throw error
    })
    return undefined
  }

  async list(): Promise<{ readonly objects: readonly Held<T>[]; readonly problems: readonly CorruptObjectError[] }> {
    const objects: Held<T>[] = []
    const problems: CorruptObjectError[] = []
    const take = (pair: KeyValue) => {
      try {
        const held = this.#decode(pair)
        if (held && !this.#shape.isDeleted(held.value)) objects.push(held)
      } catch (error) {
        problems.push(error as CorruptObjectError)
      }
    }
    for (const prefix of this.#shape.prefixes)
      await this.#ask(`list ${prefix}`, false, (signal) =>
        this.#options.client.pages(prefix, (pairs) => pairs.forEach(take), signal),
      )
    return { objects, problems }
  }

  create(value: T): Promise<Held<T>> {
    return this.#put(value, '0')
  }

  replace(held: Held<T>, value: T): Promise<Held<T>> {
    return this.#put(value, held.revision)
  }

  async remove(held: Held<T>): Promise<void> {
    const key = this.#shape.nameOf(this.#shape.keyOf(held.value))
    await writeSurely<true>({
      write: async () => {
        const isDone = await this.#ask(`delete ${key}`, true, (signal) =>
          this.#options.client.deleteIf(key, held.revision, signal),
        )
        if (!isDone) throw new ConflictError(`etcd ${key} is not what was read`)
        return true
      },
      findWritten: async () => ((await this.#find(key)) === undefined ? true : undefined),
    })
  }

  async #put(value: T, modRevision: string): Promise<Held<T>> {
    const key = this.#shape.nameOf(this.#shape.keyOf(value))
    const wanted = this.#shape.encode(value)
    const text = formatJson(wanted)
    return writeSurely({
      write: async () => {
        const revision = await this.#ask(`put ${key}`, true, (signal) =>
          this.#options.client.replaceIf(key, modRevision, text, signal),
        )
        if (revision !== undefined) return { value, revision }
        throw new ConflictError(`etcd ${key} ${modRevision === '0' ? 'exists already' : 'is not what was read'}`)
      },
      findWritten: async () => {
        const held = await this.#find(key).catch((error: unknown) => {
          if (error instanceof CorruptObjectError) return undefined
          throw error
        })
        const isOurs = held !== undefined && isDeepStrictEqual(this.#shape.encode(held.value), wanted)
        return isOurs ? { value, revision: held.revision } : undefined
      },
    })
  }

  async #find(key: string): Promise<Held<T> | undefined> {
    const { pairs } = await this.#ask(`get ${key}`, false, (signal) =>
      this.#options.client.range(key, { exact: true }, signal),
    )
    return pairs[0] && this.#decode(pairs[0])
  }

  #decode({ key, value: text, modRevision }: KeyValue): Held<T> | undefined {
    try {
      const value = this.#shape.decode(key, text)
      return value === undefined ? undefined : { value, revision: modRevision }
    } catch (cause) {
      const { message } = cause as Error
      throw new CorruptObjectError(message.includes(key) ? message : `etcd ${key}: ${message}`, { cause })
    }
  }

  async #ask<R>(what: string, isWrite: boolean, ask: (signal: AbortSignal) => Promise<R>): Promise<R> {
    const { patienceMs = PATIENCE_MS } = this.#options
    try {
      return await ask(AbortSignal.any([this.#closed, AbortSignal.timeout(patienceMs)]))
    } catch (cause) {
      const message = `etcd: ${what}: ${(cause as Error).message}`
      // etcd refuses before it writes, except when it gives up waiting for its peers.
      const isRefusal = cause instanceof HttpError && cause.status < 500
      if (isRefusal && cause.status !== 401 && cause.status !== 403 && cause.status !== 429) throw cause
      if (isRefusal || !isWrite) throw new StoreAwayError(message, { cause })
      throw new LostAnswerError(message, { cause })
    }
  }
}

export class EtcdStore implements IpamStore {
  readonly blocks: Kept<Cidr, IpamBlock>
  readonly affinities: Kept<AffinityKey, BlockAffinity>
  readonly handles: Kept<string, IpamHandle>
  readonly #abort = new AbortController()

  constructor(options: EtcdStoreOptions) {
    const { signal } = this.#abort
    this.blocks = new EtcdKept(options, blockShape, signal)
    this.affinities = new EtcdKept(options, affinityShape, signal)
    this.handles = new EtcdKept(options, handleShape, signal)
  }

  /** Requests under way reject. The client is its owner's to close. */
  async close(): Promise<void> {
    this.#abort.abort()
  }
}
