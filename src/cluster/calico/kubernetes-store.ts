/**
 * Blocks, affinities and handles as Calico keeps them in Kubernetes: one object each, replaced under the resourceVersion that
 * was read, removed under resourceVersion and uid. One that Calico has marked as deleted and not removed yet is gone for
 * readers; the first who reads it by name removes it.
 *
 * Sources: Calico libcalico-go/lib/backend/k8s/resources/{ipam_block,ipam_affinity_v1,ipam_handle,customresource}.go;
 * Kubernetes API Concepts, "Resource versions"; meta/v1 DeleteOptions (preconditions).
 */
import { isDeepStrictEqual } from 'node:util'
import {
  decodeAffinitySpec,
  decodeHandleSpec,
  encodeAffinitySpec,
  encodeHandleSpec,
} from '../../config/calico/affinity.ts'
import { decodeBlock, encodeBlock } from '../../config/calico/block.ts'
import { affinityLabels, affinityName, cidrName, handleName } from '../../config/calico/store-names.ts'
import {
  ConflictError,
  CorruptObjectError,
  type IpamStore,
  type Kept,
  StoreAwayError,
} from '../../ipam/stores/ipam-store.ts'
import type { BlockAffinity, BlockOwner, Held, IpamBlock, IpamHandle } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import { type HttpClient, HttpError, type HttpRequest } from '../http-client.ts'
import type { RawObject } from '../kubernetes/informer.ts'
import { type CalicoGroup, type CalicoResource, collectionPath, kinds, readGroup } from './api-group.ts'
import { digests } from './digests.ts'
import { LostAnswerError, writeSurely } from './sure-write.ts'

export interface KubernetesStoreOptions {
  readonly client: HttpClient
  /** The group of the objects; the server is asked when it is left out. */
  readonly group?: CalicoGroup
  /** How long one answer may take, in milliseconds. */
  readonly patienceMs?: number
}

/** What one resource is made of. */
interface Shape<K, T> {
  readonly resource: CalicoResource
  keyOf(value: T): K
  nameOf(key: K): string
  labelsOf?(value: T): Readonly<Record<string, string>>
  isDeleted(value: T): boolean
  encode(value: T, group: CalicoGroup): unknown
  /** Throws ConfigError. */
  decode(spec: unknown, object: string): T
}

interface Metadata {
  readonly name?: unknown
  readonly uid?: unknown
  readonly resourceVersion?: unknown
}

const PATIENCE_MS = 10_000
const PAGE_SIZE = 200

const blockShape: Shape<Cidr, IpamBlock> = {
  resource: 'ipamblocks',
  keyOf: ({ cidr }) => cidr,
  nameOf: cidrName,
  isDeleted: ({ deleted }) => deleted,
  encode: (block) => encodeBlock(block, 'kubernetes'),
  decode: decodeBlock,
}

type AffinityKey = { readonly owner: BlockOwner; readonly cidr: Cidr }

const affinityShape: Shape<AffinityKey, BlockAffinity> = {
  resource: 'blockaffinities',
  keyOf: ({ owner, cidr }) => ({ owner, cidr }),
  nameOf: ({ owner, cidr }) => affinityName(owner, cidr, digests),
  labelsOf: ({ owner, cidr }) => affinityLabels(owner, cidr, digests),
  isDeleted: ({ deleted }) => deleted,
  encode: (affinity, group) => ({
    ...encodeAffinitySpec(affinity),
    ...(group === 'projectcalico.org/v3' && { deleted: affinity.deleted }),
  }),
  decode: decodeAffinitySpec,
}

const handleShape: Shape<string, IpamHandle> = {
  resource: 'ipamhandles',
  keyOf: ({ handleId }) => handleId,
  nameOf: handleName,
  isDeleted: ({ deleted }) => deleted,
  encode: encodeHandleSpec,
  decode: decodeHandleSpec,
}

/** The revision of an object as weft hands it around: its version, and which life of the name it is. */
export const revisionOf = ({ resourceVersion, uid }: Metadata): string => `${String(resourceVersion)} ${String(uid)}`

class KubernetesKept<K, T> implements Kept<K, T> {
  readonly #options: KubernetesStoreOptions
  readonly #shape: Shape<K, T>
  readonly #group: GroupKnowledge
  readonly #signal: AbortSignal

  constructor(options: KubernetesStoreOptions, shape: Shape<K, T>, group: GroupKnowledge, signal: AbortSignal) {
    this.#options = options
    this.#shape = shape
    this.#group = group
    this.#signal = signal
  }

  async read(key: K): Promise<Held<T> | undefined> {
    const name = this.#shape.nameOf(key)
    let object: RawObject
    try {
      object = await this.#ask('GET', `/${name}`)
    } catch (error) {
      if (error instanceof ConflictError) return undefined
      throw error
    }
    const held = this.#decode(object)
    if (!this.#shape.isDeleted(held.value)) return held
    await this.remove(held).catch((error: unknown) => {
      if (!(error instanceof ConflictError)) throw error
    })
    return undefined
  }

  async list(): Promise<{ readonly objects: readonly Held<T>[]; readonly problems: readonly CorruptObjectError[] }> {
    const objects: Held<T>[] = []
    const problems: CorruptObjectError[] = []
    let next = ''
    do {
      const query = new URLSearchParams({ limit: `${PAGE_SIZE}`, ...(next ? { continue: next } : {}) })
      const page = (await this.#ask('GET', `?${query}`)) as {
        readonly items?: readonly RawObject[] | null
        readonly metadata?: { readonly continue?: string }
      }
      for (const item of page.items ?? [])
        try {
          const held = this.#decode(item)
          if (!this.#shape.isDeleted(held.value)) objects.push(held)
        } catch (error) {
          if (!(error instanceof CorruptObjectError)) throw error
          problems.push(error)
        }
      next = page.metadata?.continue ?? ''
    } while (next)
    return { objects, problems }
  }

  create(value: T): Promise<Held<T>> {
    return this.#put('POST', value, undefined)
  }

  replace(held: Held<T>, value: T): Promise<Held<T>> {
    return this.#put('PUT', value, held)
  }

  async remove(held: Held<T>): Promise<void> {
    const [resourceVersion, uid] = held.revision.split(' ')
    const name = this.#shape.nameOf(this.#shape.keyOf(held.value))
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid, resourceVersion } }
    await writeSurely<true>({
      write: async () => {
        await this.#ask('DELETE', `/${name}`, body)
        return true
      },
      findWritten: async () => ((await this.#find(name)) === undefined ? true : undefined),
    })
  }

  async #put(method: 'POST' | 'PUT', value: T, held: Held<T> | undefined): Promise<Held<T>> {
    const group = await this.#knownGroup()
    const name = this.#shape.nameOf(this.#shape.keyOf(value))
    const [resourceVersion, uid] = held?.revision.split(' ') ?? []
    const labels = this.#shape.labelsOf?.(value)
    const spec = this.#shape.encode(value, group)
    const body = {
      apiVersion: group,
      kind: kinds[this.#shape.resource],
      metadata: { name, ...(labels && { labels }), ...(held && { resourceVersion, uid }) },
      spec,
    }
    const handedOver = (object: RawObject): Held<T> => ({ value, revision: revisionOf(object.metadata as Metadata) })
    return writeSurely({
      write: async () => handedOver(await this.#ask(method, method === 'PUT' ? `/${name}` : '', body)),
      findWritten: async () => {
        const object = await this.#find(name)
        const isOurs = object !== undefined && this.#isSame(object, spec, group)
        return isOurs && (!held || (object.metadata as Metadata).uid === uid) ? handedOver(object) : undefined
      },
    })
  }

  #isSame(object: RawObject, spec: unknown, group: CalicoGroup): boolean {
    try {
      return isDeepStrictEqual(this.#shape.encode(this.#decode(object).value, group), spec)
    } catch {
      return false
    }
  }

  async #find(name: string): Promise<RawObject | undefined> {
    try {
      return await this.#ask('GET', `/${name}`)
    } catch (error) {
      if (error instanceof ConflictError) return undefined
      throw error
    }
  }

  #decode(object: RawObject): Held<T> {
    const metadata = (object.metadata ?? {}) as Metadata
    const where = `${kinds[this.#shape.resource]} ${String(metadata.name).slice(0, 253)}`
    try {
      return { value: this.#shape.decode(object.spec, where), revision: revisionOf(metadata) }
    } catch (cause) {
      throw new CorruptObjectError((cause as Error).message, { cause })
    }
  }

  async #knownGroup(): Promise<CalicoGroup> {
    const signal = this.#patience()
    try {
      const group = await this.#group.know((client) => readGroup(client, signal))
      if (group) return group
    } catch (cause) {
      throw classified(cause as Error, false, 'GET /apis')
    }
    throw new StoreAwayError("the API server has no definitions of Calico's objects")
  }

  #patience(): AbortSignal {
    return AbortSignal.any([this.#signal, AbortSignal.timeout(this.#options.patienceMs ?? PATIENCE_MS)])
  }

  /** ConflictError also for what is not there: only a reader takes that for an answer. */
  async #ask(method: HttpRequest['method'], rest: string, body?: object): Promise<RawObject> {
    const path = `${collectionPath(await this.#knownGroup(), this.#shape.resource)}${rest}`
    const signal = this.#patience()
    try {
      return (await this.#options.client.request({ method, path, signal, ...(body ? { body } : {}) })) as RawObject
    } catch (cause) {
      // The definition itself is missing: the other group may have it by now.
      const hasNoPlace = !rest.startsWith('/') && cause instanceof HttpError && cause.status === 404
      if (hasNoPlace) this.#group.forget()
      if (hasNoPlace) throw new StoreAwayError((cause as Error).message, { cause })
      throw classified(cause as Error, method !== 'GET', `${method} ${path.split('?')[0]}`)
    }
  }
}

/** What an error of the API means to who asked. What it refuses for good stays what it is. */
function classified(cause: Error, isWrite: boolean, what: string): Error {
  const options = { cause }
  if (!(cause instanceof HttpError)) {
    const message = `${what}: ${cause.message}`
    return isWrite ? new LostAnswerError(message, options) : new StoreAwayError(message, options)
  }
  const { status } = cause
  if (status === 404 || status === 409 || status === 412) return new ConflictError(cause.message, options)
  if (status === 504 && isWrite) return new LostAnswerError(cause.message, options)
  if (status === 401 || status === 403 || status === 429 || status >= 500)
    return new StoreAwayError(cause.message, options)
  return cause
}

/** The group of one store's objects: asked for once, and again when it turned out to be another. */
class GroupKnowledge {
  readonly #client: HttpClient
  readonly #given: CalicoGroup | undefined
  #found: CalicoGroup | undefined
  #asking: Promise<CalicoGroup | undefined> | undefined

  constructor({ client, group }: KubernetesStoreOptions) {
    this.#client = client
    this.#given = group
  }

  async know(ask: (client: HttpClient) => Promise<CalicoGroup | undefined>): Promise<CalicoGroup | undefined> {
    const known = this.#given ?? this.#found
    if (known) return known
    this.#asking ??= ask(this.#client).finally(() => {
      this.#asking = undefined
    })
    this.#found = await this.#asking
    return this.#found
  }

  forget(): void {
    this.#found = undefined
  }
}

export class KubernetesStore implements IpamStore {
  readonly blocks: Kept<Cidr, IpamBlock>
  readonly affinities: Kept<AffinityKey, BlockAffinity>
  readonly handles: Kept<string, IpamHandle>
  readonly #abort = new AbortController()

  constructor(options: KubernetesStoreOptions) {
    const { signal } = this.#abort
    const group = new GroupKnowledge(options)
    this.blocks = new KubernetesKept(options, blockShape, group, signal)
    this.affinities = new KubernetesKept(options, affinityShape, group, signal)
    this.handles = new KubernetesKept(options, handleShape, group, signal)
  }

  /** Requests under way reject. The client is its owner's to close. */
  async close(): Promise<void> {
    this.#abort.abort()
  }
}
