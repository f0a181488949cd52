/**
 * Services and whether they have ready endpoints, here and anywhere: what routes to their addresses depend on, followed on a
 * Kubernetes API server.
 *
 *   services, endpointslices ──► Service with two bits ──► onService when an address, a policy or a bit changes
 *
 * Of a slice nothing is kept but the two bits: endpoints come and go by the thousand, routes hardly ever.
 */
import { parseServiceWords, parseSliceWords } from '../../config/bgp/service-object.ts'
import type { BgpService } from '../../model/bgp-cluster.ts'
import type { ClusterObserver } from '../cluster.ts'
import type { HttpClient } from '../http-client.ts'
import { Informer, type InformerOptions, type RawObject } from './informer.ts'

export interface BgpServicesOptions {
  readonly client: HttpClient
  /** This node. */
  readonly nodeName: string
  readonly observer?: ClusterObserver
  readonly tuning?: Pick<InformerOptions<unknown>, 'pageSize' | 'watchSeconds' | 'backoff' | 'spreadMs'>
  /** `key` is namespace/name; undefined: gone. Before `onSynced` what is told may lack endpoints. */
  onService(key: string, service: BgpService | undefined): void
  /** Once: everything that is there has been told. */
  onSynced(): void
  /** As an informer's. `part` tells which of the two. */
  onConnection(part: string, problem: Error | undefined): void
}

interface Slice {
  /** namespace/name of the Service; undefined: nobody's. */
  readonly service?: string
  readonly isReady: boolean
  readonly isReadyHere: boolean
}

/** What an informer compares: the parts of an object that count. */
type Kept = Readonly<Record<string, unknown>>

export class BgpServices {
  readonly #options: BgpServicesOptions
  readonly #informers: readonly [Informer<Kept>, Informer<Slice>]
  readonly #services = new Map<string, Kept>()
  /** By Service, then by slice. */
  readonly #slices = new Map<string, Map<string, Slice>>()
  /** Whose a slice is. */
  readonly #serviceOf = new Map<string, string>()
  /** What the listener knows, as text. */
  readonly #told = new Map<string, string>()
  readonly #awaited = new Set(['services', 'endpointslices'])
  #closed = false

  constructor(options: BgpServicesOptions) {
    this.#options = options
    const { client, nodeName, observer, tuning } = options
    const common = { client, isNamespaced: true, ...(observer ? { observer } : {}), ...tuning }
    const listened = (part: string) => ({
      onListed: () => this.#listed(part),
      onConnection: (problem: Error | undefined) => options.onConnection(part, problem),
    })
    this.#informers = [
      new Informer<Kept>({
        ...common,
        ...listened('services'),
        path: '/api/v1/services',
        project: keptOf,
        onSet: (key, kept) => {
          this.#services.set(key, kept)
          this.#tell(key)
        },
        onDelete: (key) => {
          this.#services.delete(key)
          this.#tell(key)
        },
      }),
      new Informer<Slice>({
        ...common,
        ...listened('endpointslices'),
        path: '/apis/discovery.k8s.io/v1/endpointslices',
        project: (object) => sliceOf(object, nodeName),
        onSet: (name, slice) => this.#setSlice(name, slice),
        onDelete: (name) => this.#dropSlice(name),
      }),
    ]
  }

  start(): void {
    for (const informer of this.#informers) informer.start()
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#informers.map((informer) => informer.close()))
  }

  #setSlice(name: string, slice: Slice): void {
    const { service } = slice
    const former = this.#serviceOf.get(name)
    if (former !== undefined && former !== service) this.#dropSlice(name)
    if (service === undefined) return
    const slices = this.#slices.get(service) ?? new Map<string, Slice>()
    this.#slices.set(service, slices.set(name, slice))
    this.#serviceOf.set(name, service)
    this.#tell(service)
  }

  #dropSlice(name: string): void {
    const service = this.#serviceOf.get(name)
    if (service === undefined) return
    this.#serviceOf.delete(name)
    const slices = this.#slices.get(service)!
    slices.delete(name)
    if (slices.size === 0) this.#slices.delete(service)
    this.#tell(service)
  }

  #tell(key: string): void {
    if (this.#closed) return
    const kept = this.#services.get(key)
    if (!kept) {
      if (this.#told.delete(key)) this.#options.onService(key, undefined)
      return
    }
    const slices = [...(this.#slices.get(key)?.values() ?? [])]
    const bits = { isReady: slices.some((each) => each.isReady), isReadyHere: slices.some((each) => each.isReadyHere) }
    const text = JSON.stringify([kept, bits])
    if (this.#told.get(key) === text) return
    this.#told.set(key, text)
    this.#options.onService(key, { ...parseServiceWords(kept), ...bits })
  }

  #listed(part: string): void {
    if (this.#awaited.delete(part) && this.#awaited.size === 0 && !this.#closed) this.#options.onSynced()
  }
}

/** An object with nothing but what is read of it, in one form. */
function keptOf(object: RawObject): Kept {
  const { namespace, name, annotations, type, ...words } = parseServiceWords(object)
  const texts = (ips: readonly unknown[]) => ips.map(String)
  return {
    metadata: { namespace, name, annotations },
    spec: {
      type,
      clusterIPs: texts(words.clusterIps),
      externalIPs: texts(words.externalIps),
      externalTrafficPolicy: words.externalTrafficPolicy,
      internalTrafficPolicy: words.internalTrafficPolicy,
    },
    status: { loadBalancer: { ingress: texts(words.loadBalancerIps).map((ip) => ({ ip })) } },
  }
}

function sliceOf(object: RawObject, nodeName: string): Slice {
  const { service, ...bits } = parseSliceWords(object, nodeName)
  return { ...(service !== undefined && { service: `${object.metadata?.namespace}/${service}` }), ...bits }
}
