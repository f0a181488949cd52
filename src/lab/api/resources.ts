/**
 * Reading and writing objects of every kind: the rules between a request and the store. Each operation reads,
 * checks and writes without a pause, so nothing can come between; callers wait for `store.committed()`.
 * Sources: Kubernetes API conventions; documentation, "Kubernetes API Concepts", "Finalizers", "Garbage
 * Collection", "Termination of Pods".
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { ObjectStore } from '../../cluster/embedded/store.ts'
import type { WriteGuard } from './access/authorizer.ts'
import * as apiError from './api-error.ts'
import type { Catalog } from './catalog.ts'
import { decodeObject, type FieldValidation } from './decode.ts'
import type { DeleteOptions, KubeObject } from './interfaces.ts'
import { definitionStorage } from './kinds/custom.ts'
import type { Kind } from './kinds/kind.ts'
import { validateMetadata } from './kinds/names.ts'
import {
  contentOf,
  graceOf,
  hasGeneration,
  holdsNamespace,
  keepSystemFields,
  mergeForSubresource,
  withoutTimes,
} from './object-rules.ts'
import { applyConfiguration } from './patch/apply.ts'
import { type Author, trackUpdate } from './patch/managed-fields.ts'
import { type PatchType, patchObject } from './patch/patch-object.ts'
import { constraintProblems } from './schema/constraints.ts'
import { ruleProblems } from './schema/rules.ts'
import type { ServiceAddresses } from './service-addresses.ts'

export interface WriteContext {
  readonly dryRun?: boolean
  readonly fieldValidation?: FieldValidation
  /** Filled with texts for the Warning header. */
  readonly warnings?: string[]
  /** Whose fields these become. Left out: not tracked. */
  readonly author?: Author
  /** Looks at the object as it is to be stored; throws what the author may not write. */
  readonly guard?: WriteGuard
}

const nameSuffix = (): string => {
  const letters = 'bcdfghjklmnpqrstvwxz2456789'
  return [...randomBytes(5)].map((byte) => letters[byte % letters.length]).join('')
}

export const timestamp = (milliseconds = Date.now()): string =>
  new Date(milliseconds).toISOString().replace(/\.\d+Z$/, 'Z')

/** After these a value is not what the rules of its kind are about. */
const hidesFromRules: readonly apiError.FieldProblem['reason'][] = [
  'FieldValueRequired',
  'FieldValueNotSupported',
  'FieldValueTypeInvalid',
  'FieldValueTooLong',
]

const name = { type: 'string' } as const
const metadataOfRules = { type: 'object', properties: { name, generateName: name } } as const

/** What a custom kind's own rules say, once its values are of the right shape. Of metadata they see the name alone. */
function customRuleProblems(
  kind: Kind,
  object: KubeObject,
  old: KubeObject | undefined,
  problems: readonly apiError.FieldProblem[],
): readonly apiError.FieldProblem[] {
  if (problems.some(({ reason }) => hidesFromRules.includes(reason))) return []
  const schema = { ...kind.schema, properties: { ...kind.schema.properties, metadata: metadataOfRules } }
  return ruleProblems(schema, object, old)
}

const namespaceOf = (kind: Kind, namespace: string | undefined): string => (kind.namespaced ? (namespace ?? '') : '')

export class Resources {
  readonly store: ObjectStore
  readonly catalog: Catalog
  readonly #addresses: ServiceAddresses

  constructor(store: ObjectStore, catalog: Catalog, addresses: ServiceAddresses) {
    this.store = store
    this.catalog = catalog
    this.#addresses = addresses
  }

  /** Throws 404. */
  get(kind: Kind, namespace: string | undefined, name: string): KubeObject {
    const found = this.#stored(kind, namespace, name)
    if (!found) throw apiError.notFound(kind, name)
    return this.view(kind, found)
  }

  list(kind: Kind, namespace: string | undefined): KubeObject[] {
    const objects = this.store.list(kind.storage, kind.namespaced ? namespace : undefined) as KubeObject[]
    return kind.fromStorage ? objects.map((object) => kind.fromStorage!(object)) : objects
  }

  /** A stored object as this kind and version show it. */
  view(kind: Kind, object: KubeObject): KubeObject {
    return kind.fromStorage ? kind.fromStorage(object) : object
  }

  create(kind: Kind, namespace: string | undefined, body: unknown, context: WriteContext = {}): KubeObject {
    const object = decodeObject(this.catalog.schemas, kind, body, context)
    const { metadata } = object
    this.#settleIdentity(kind, namespace, undefined, object)
    if (!metadata.name && metadata.generateName) {
      const prefix = metadata.generateName.slice(0, 58)
      do metadata.name = prefix + nameSuffix()
      while (this.#stored(kind, metadata.namespace, metadata.name))
    }
    const problems = validateMetadata(metadata, kind.namespaced, kind.nameForm ?? 'subdomain')
    if (problems.length) throw apiError.invalid(kind, metadata.name ?? '', problems)
    if (metadata.resourceVersion)
      throw apiError.badRequest('resourceVersion should not be set on objects to be created')
    if (this.#stored(kind, metadata.namespace, metadata.name!)) throw apiError.alreadyExists(kind, metadata.name!)
    this.#requireNamespace(kind, metadata.namespace)
    for (const key of ['deletionTimestamp', 'deletionGracePeriodSeconds', 'selfLink'] as const)
      delete (metadata as Record<string, unknown>)[key]
    metadata.uid = randomUUID()
    metadata.creationTimestamp = timestamp()
    if (hasGeneration(kind)) metadata.generation = 1
    else delete metadata.generation
    if (kind.status && kind.storage !== 'nodes') delete object.status
    this.#complete(kind, object, undefined, undefined, () => this.#track(kind, undefined, object, context))
    return this.#put(kind, object, undefined, context)
  }

  update(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    body: unknown,
    context: WriteContext = {},
    subresource?: string,
  ): KubeObject {
    const object = decodeObject(this.catalog.schemas, kind, body, context)
    this.#settleIdentity(kind, namespace, name, object)
    const old = this.get(kind, object.metadata.namespace, name)
    return this.#replace(kind, old, object, context, subresource)
  }

  /** `patch`: the decoded body. Server-side apply creates what does not exist. */
  patch(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    type: PatchType,
    patch: unknown,
    context: WriteContext = {},
    options: { readonly subresource?: string | undefined; readonly force?: boolean } = {},
  ): KubeObject {
    const { subresource } = options
    if (type === 'apply') return this.#apply(kind, namespace, name, patch, context, options)
    const old = this.get(kind, namespace, name)
    const next = patchObject(this.catalog.schemas, kind, old, type, patch)
    const object = decodeObject(this.catalog.schemas, kind, next, context)
    this.#settleIdentity(kind, namespace, name, object)
    return this.#replace(kind, old, object, context, subresource)
  }

  /** Returns the object, and whether it is gone (else it waits for its finalizers or its grace period). */
  delete(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    options: DeleteOptions = {},
    context: WriteContext = {},
  ): { readonly object: KubeObject; readonly gone: boolean } {
    const old = this.get(kind, namespace, name)
    const { uid, resourceVersion } = options.preconditions ?? {}
    if (uid && uid !== old.metadata.uid)
      throw apiError.conflict(
        kind,
        name,
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`,
      )
    if (resourceVersion && resourceVersion !== old.metadata.resourceVersion)
      throw apiError.conflict(
        kind,
        name,
        `Precondition failed: ResourceVersion in precondition: ${resourceVersion}, ResourceVersion in object meta: ${old.metadata.resourceVersion}`,
      )
    const metadata = { ...old.metadata }
    const next: KubeObject = { ...old, metadata }
    const finalizers = new Set(metadata.finalizers ?? [])
    if (options.propagationPolicy === 'Foreground') finalizers.add('foregroundDeletion')
    if (options.propagationPolicy === 'Orphan') finalizers.add('orphan')
    if (kind.storage === 'namespaces' && (next.spec?.finalizers?.length ?? 0) > 0) {
      next.status = { ...next.status, phase: 'Terminating' }
    }
    const grace = kind.storage === 'pods' ? graceOf(old, options.gracePeriodSeconds) : 0
    const waits = finalizers.size > 0 || grace > 0 || holdsNamespace(kind, next)
    if (!waits) {
      if (!context.dryRun) this.#remove(kind, old)
      return { object: old, gone: true }
    }
    const shorter = grace < (metadata.deletionGracePeriodSeconds ?? Number.POSITIVE_INFINITY)
    if (!metadata.deletionTimestamp || (kind.storage === 'pods' && shorter)) {
      metadata.deletionTimestamp = timestamp(Date.now() + grace * 1000)
      metadata.deletionGracePeriodSeconds = grace
      if (hasGeneration(kind)) metadata.generation = (metadata.generation ?? 0) + 1
    }
    if (finalizers.size) metadata.finalizers = [...finalizers]
    if (isDeepStrictEqual(next, old)) return { object: old, gone: false }
    return { object: this.#put(kind, next, old, context), gone: false }
  }

  #stored(kind: Kind, namespace: string | undefined, name: string): KubeObject | undefined {
    return this.store.get(kind.storage, namespaceOf(kind, namespace), name) as KubeObject | undefined
  }

  /** The path and the body must speak of the same object. */
  #settleIdentity(kind: Kind, namespace: string | undefined, name: string | undefined, object: KubeObject): void {
    const { metadata } = object
    if (name !== undefined) {
      metadata.name ??= name
      if (metadata.name !== name)
        throw apiError.badRequest(
          `the name of the object (${metadata.name}) does not match the name on the URL (${name})`,
        )
    }
    if (!kind.namespaced) {
      delete metadata.namespace
      return
    }
    if (namespace !== undefined) {
      metadata.namespace ??= namespace
      if (metadata.namespace !== namespace)
        throw apiError.badRequest(
          `the namespace of the provided object does not match the namespace sent on the request`,
        )
    }
    metadata.namespace ||= 'default'
  }

  #requireNamespace(kind: Kind, namespace: string | undefined): void {
    if (!kind.namespaced) return
    const found = this.store.get('namespaces', '', namespace ?? '') as KubeObject | undefined
    if (!found) throw apiError.notFound(this.catalog.named('namespaces')!, namespace ?? '')
    if (found.metadata.deletionTimestamp)
      throw new apiError.ApiError(
        403,
        'Forbidden',
        `${kind.plural} is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`,
        { kind: kind.plural, causes: [] },
      )
  }

  #replace(
    kind: Kind,
    old: KubeObject,
    object: KubeObject,
    context: WriteContext,
    subresource: string | undefined,
  ): KubeObject {
    const { name } = old.metadata
    const wanted = object.metadata.resourceVersion
    if (wanted && wanted !== old.metadata.resourceVersion) throw apiError.modified(kind, name!)
    if (object.metadata.uid && object.metadata.uid !== old.metadata.uid)
      throw apiError.conflict(
        kind,
        name!,
        `Precondition failed: UID in precondition: ${object.metadata.uid}, UID in object meta: ${old.metadata.uid}`,
      )
    const next = mergeForSubresource(kind, old, object, subresource)
    keepSystemFields(next, old)
    const given = object.metadata.managedFields
    next.metadata.managedFields = given ?? old.metadata.managedFields ?? []
    if (next.metadata.managedFields.length === 0) delete next.metadata.managedFields
    // A client may hand over fields itself (kubectl does so when it moves to server-side apply).
    const tracks = given === undefined || isDeepStrictEqual(given, old.metadata.managedFields)
    this.#complete(kind, next, old, subresource, () => tracks && this.#track(kind, old, next, context, subresource))
    if (hasGeneration(kind) && !isDeepStrictEqual(contentOf(kind, old), contentOf(kind, next)))
      next.metadata.generation = (old.metadata.generation ?? 0) + 1
    if (isDeepStrictEqual(withoutTimes(next), withoutTimes(old))) return old
    return this.#put(kind, next, old, context)
  }

  #apply(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    patch: unknown,
    context: WriteContext,
    options: { readonly subresource?: string | undefined; readonly force?: boolean },
  ): KubeObject {
    const config = decodeObject(this.catalog.schemas, kind, patch, { ...context, defaults: false })
    this.#settleIdentity(kind, namespace, name, config)
    if (config.metadata.managedFields?.length) throw apiError.badRequest('metadata.managedFields must be nil')
    const author: Author = { manager: context.author?.manager ?? 'unknown', subresource: options.subresource }
    const live = this.#stored(kind, config.metadata.namespace, name)
    const empty: KubeObject = { apiVersion: config.apiVersion!, kind: config.kind!, metadata: {} }
    const old = live ? this.view(kind, live) : undefined
    if (!old && options.subresource) throw apiError.notFound(kind, name)
    const next = applyConfiguration(this.catalog.schemas, kind, old ?? empty, config, author, options.force ?? false)
    const managed = next.metadata.managedFields
    const silent: WriteContext = {
      ...(context.dryRun && { dryRun: true }),
      ...(context.guard && { guard: context.guard }),
      ...(context.warnings && { warnings: context.warnings }),
    }
    if (!old) {
      delete next.metadata.managedFields
      const created = this.create(kind, namespace, next, { dryRun: true })
      created.metadata = { ...created.metadata, ...(managed && { managedFields: managed }) }
      return this.#put(kind, created, undefined, silent)
    }
    const object = decodeObject(this.catalog.schemas, kind, next, {})
    delete object.metadata.managedFields
    const result = mergeForSubresource(kind, old, object, options.subresource)
    keepSystemFields(result, old)
    this.#complete(kind, result, old, options.subresource, () => {})
    if (hasGeneration(kind) && !isDeepStrictEqual(contentOf(kind, old), contentOf(kind, result)))
      result.metadata.generation = (old.metadata.generation ?? 0) + 1
    if (managed) result.metadata.managedFields = managed
    if (isDeepStrictEqual(withoutTimes(result), withoutTimes(old))) return old
    return this.#put(kind, result, old, silent)
  }

  /**
   * Defaults, derived fields and rules; `track` runs between what the author decided and what the cluster decides.
   * A write through a subresource shares its spec with the stored object, which must not change: it is left alone.
   * Throws 422 with every problem.
   */
  #complete(
    kind: Kind,
    object: KubeObject,
    old: KubeObject | undefined,
    subresource: string | undefined,
    track: () => void,
  ): void {
    if (!subresource) kind.prepare?.(object, old)
    track()
    if (!subresource) kind.admit?.(object, old)
    const problems = validateMetadata(object.metadata, kind.namespaced, kind.nameForm ?? 'subdomain')
    if (kind.validate && !subresource) problems.push(...kind.validate(object, old))
    const needsAddress = kind.storage === 'services' && !subresource && problems.length === 0
    if (needsAddress) problems.push(...this.#addresses.assign(object, old))
    if (kind.custom) {
      problems.push(...constraintProblems(kind.schema, { ...object, metadata: {} }, ''))
      problems.push(...customRuleProblems(kind, object, old, problems))
    }
    if (problems.length) throw apiError.invalid(kind, object.metadata.name ?? '', problems)
  }

  #track(kind: Kind, old: KubeObject | undefined, next: KubeObject, context: WriteContext, subresource?: string): void {
    if (kind.unmanaged || !context.author) return
    trackUpdate(this.catalog.schemas, kind, old, next, { manager: context.author.manager, subresource })
  }

  #put(kind: Kind, object: KubeObject, old: KubeObject | undefined, context: WriteContext): KubeObject {
    const { metadata } = object
    const finished = metadata.deletionTimestamp && !metadata.finalizers?.length && !holdsNamespace(kind, object)
    context.guard?.(kind, object, old)
    context.warnings?.push(...(kind.warnings?.(object) ?? []))
    if (context.dryRun) return object
    if (finished && old && (kind.storage !== 'pods' || metadata.deletionGracePeriodSeconds === 0)) {
      this.#remove(kind, object)
      return object
    }
    const namespace = namespaceOf(kind, metadata.namespace)
    const expected = old ? Number(old.metadata.resourceVersion) : 0
    const converted = kind.toStorage ? kind.toStorage(object) : object
    const stored = this.store.put(kind.storage, namespace, metadata.name!, converted, expected) as KubeObject
    if (kind.storage === definitionStorage && !isDeepStrictEqual(old?.spec, stored.spec)) this.catalog.define(stored)
    return this.view(kind, stored)
  }

  #remove(kind: Kind, object: KubeObject): void {
    const { name, namespace } = object.metadata
    if (kind.storage === definitionStorage) {
      const storage = object.metadata.name!
      for (const instance of this.store.list(storage))
        this.store.remove(storage, instance.metadata.namespace ?? '', instance.metadata.name!)
      this.catalog.undefine(storage)
    }
    this.store.remove(kind.storage, namespaceOf(kind, namespace), name!)
  }
}
