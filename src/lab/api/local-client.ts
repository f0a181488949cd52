/**
 * The API without HTTP, for the lab's own controllers. See LocalClient in interfaces.ts for the contract.
 */
import type { StoreEvent } from '../../cluster/embedded/store.ts'
import { noSuchResource, notFound } from './api-error.ts'
import { bindPod } from './bindings.ts'
import type {
  DeleteOptions,
  KubeObject,
  ListOptions,
  LocalClient,
  ObjectEvent,
  ObjectName,
  PatchOptions,
  Watch,
} from './interfaces.ts'
import type { Kind } from './kinds/kind.ts'
import type { Resources, WriteContext } from './resources.ts'
import { type Predicate, selectorPredicate } from './selectors.ts'

const contextOf = (fieldManager: string | undefined): WriteContext =>
  fieldManager ? { author: { manager: fieldManager } } : {}

export class InProcessClient implements LocalClient {
  readonly #resources: Resources

  constructor(resources: Resources) {
    this.#resources = resources
  }

  async get<T extends KubeObject>(resource: string, { namespace, name }: ObjectName): Promise<T> {
    return this.#resources.get(this.#kind(resource), namespace, name) as T
  }

  async list<T extends KubeObject>(resource: string, options: ListOptions = {}) {
    const kind = this.#kind(resource)
    const predicate = predicateOf(kind, options)
    const objects = this.#resources.list(kind, options.namespace)
    return {
      items: (predicate ? objects.filter(predicate) : objects) as T[],
      resourceVersion: String(this.#resources.store.resourceVersion),
    }
  }

  watch<T extends KubeObject>(
    resource: string,
    options: ListOptions,
    listener: (event: ObjectEvent<T>) => void,
  ): Watch {
    const kind = this.#kind(resource)
    const predicate = predicateOf(kind, options)
    const { store } = this.#resources
    const from = store.resourceVersion
    for (const object of this.#resources.list(kind, options.namespace))
      if (!predicate || predicate(object)) listener({ type: 'ADDED', object: object as T })
    listener({ type: 'SYNCED', resourceVersion: String(from) })
    return store.watch(kind.storage, from, (event) => {
      if (options.namespace !== undefined && kind.namespaced && event.namespace !== options.namespace) return
      const seen = selectEvent(event, predicate, (object) => this.#resources.view(kind, object))
      if (seen) listener(seen as ObjectEvent<T>)
    })
  }

  async create<T extends KubeObject>(
    resource: string,
    object: T,
    options: { readonly subresource?: string; readonly name?: string; readonly fieldManager?: string } = {},
  ): Promise<T> {
    const kind = this.#kind(resource)
    const { namespace } = object.metadata
    if (options.subresource === 'binding') {
      bindPod(this.#resources, kind, namespace ?? 'default', options.name ?? object.metadata.name ?? '', object)
      await this.#resources.store.committed()
      return object
    }
    if (options.subresource) throw notFound(kind, `${options.name}/${options.subresource}`)
    const created = this.#resources.create(kind, namespace, object, contextOf(options.fieldManager))
    await this.#resources.store.committed()
    return created as T
  }

  async update<T extends KubeObject>(
    resource: string,
    object: T,
    options: { readonly subresource?: string; readonly fieldManager?: string } = {},
  ): Promise<T> {
    const { namespace, name } = object.metadata
    const context = contextOf(options.fieldManager)
    const kind = this.#kind(resource)
    const updated = this.#resources.update(kind, namespace, name ?? '', object, context, options.subresource)
    await this.#resources.store.committed()
    return updated as T
  }

  async patch<T extends KubeObject>(
    resource: string,
    { namespace, name }: ObjectName,
    patch: unknown,
    options: PatchOptions = {},
  ): Promise<T> {
    const context = contextOf(options.fieldManager)
    const kind = this.#kind(resource)
    const patched = this.#resources.patch(kind, namespace, name, options.type ?? 'merge', patch, context, {
      subresource: options.subresource,
      force: options.force ?? false,
    })
    await this.#resources.store.committed()
    return patched as T
  }

  async delete(resource: string, { namespace, name }: ObjectName, options: DeleteOptions = {}): Promise<void> {
    this.#resources.delete(this.#kind(resource), namespace, name, options)
    await this.#resources.store.committed()
  }

  #kind(resource: string): Kind {
    const kind = this.#resources.catalog.named(resource)
    if (!kind) throw noSuchResource()
    return kind
  }
}

const predicateOf = (kind: Kind, options: ListOptions): Predicate | undefined =>
  selectorPredicate(options.labelSelector, options.fieldSelector, selectableFields(kind))

export const selectableFields = (kind: Kind): string[] => ['metadata.name', 'metadata.namespace', ...kind.selectable]

/** A change as a watcher with a selector sees it: coming into sight is ADDED, going out of it DELETED. */
export function selectEvent(
  event: StoreEvent,
  predicate: Predicate | undefined,
  view: (object: KubeObject) => KubeObject,
): { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: KubeObject } | undefined {
  const object = view(event.object as KubeObject)
  if (!predicate) return { type: event.type, object }
  const sees = event.type !== 'DELETED' && predicate(object)
  // The oldest events after a restart do not know their previous state: they may have been in sight.
  const saw =
    event.type === 'ADDED'
      ? false
      : event.previous
        ? predicate(view(event.previous as KubeObject))
        : event.type === 'DELETED'
          ? predicate(object)
          : !sees
  if (sees) return { type: saw || (event.type === 'MODIFIED' && !event.previous) ? 'MODIFIED' : 'ADDED', object }
  return saw ? { type: 'DELETED', object } : undefined
}
