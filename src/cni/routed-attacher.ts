/**
 * ADD of a routed pod. Addresses of pools are asked for and the device is made at the same time; what needs both follows, the
 * pod's inside beside the node's.
 *
 *   wishes ─► journal `add` ─┬─► addresses ─────┬─► journal `ips` ─┬─► inside the pod ──────────┬─► journal `up` ─► answer
 *                            └─► pair, closed ──┘                  └─► routes, check of sources ┘
 *
 * The device is called as Calico calls it, by the pod's namespace and name. While another container still lives by that name (a
 * pod that was deleted by force and made anew), the newcomer's device is called by its container instead.
 */
import { formatPodAnnotations } from '../config/calico/pod-words.ts'
import {
  defaultInterfacePrefix,
  gatewayOf,
  nodeMac,
  planPodRoutes,
  planRoutedPair,
  planRoutedPod,
  planSourceRouting,
  type RoutedPodPlan,
} from '../datapath/routed/plan.ts'
import { StoreAwayError } from '../ipam/stores/ipam-store.ts'
import {
  type AddressRequest,
  type AssignedAddress,
  NoAddressError,
  type PoolAddresses,
} from '../ipam/stores/pool-addresses.ts'
import type { Kernel } from '../kernel/kernel.ts'
import type { Route } from '../model/route.ts'
import { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import { podOf, type Share } from './attachment-plan.ts'
import type { Drain } from './drain.ts'
import { CniCode, CniError } from './error.ts'
import { digestOf, handleOf, podAlias, routedDeviceOf } from './identity.ts'
import type { Attachment, Entry, Journal } from './journal.ts'
import type { Log, NodeNetwork, RoutedNetwork } from './network.ts'
import type { AttachmentRequest } from './request.ts'
import type { CniResult } from './result.ts'
import { askedFor, attributesOf, type PodWishes, podOfCluster, readWishes, wantedOf } from './routed-request.ts'
import { fillNamespace, makePair, set, throwFirst } from './wiring.ts'

/** How long the pools may take to answer. */
const addressMilliseconds = 30_000

/** What the attacher lends: steps that every kind of attachment has. */
export interface AttachmentSteps {
  /** Addresses of the node's pod CIDRs, or of a configuration's own ranges. */
  share(request: AttachmentRequest, network: NodeNetwork, wanted?: readonly Ip[]): Promise<Share>
  begin(record: Omit<Attachment, 'id'>): Entry
  confirm(entry: Entry): void
  /** Sees to it that bridged pods of the node, where there are any, reach the routed ones. */
  join(): Promise<void>
  /** Limits, and what the attachment wants of the node. */
  extras(attachment: Attachment, alias: string, mtuBytes: number): Promise<void>
  /** `madeNothing`: a device by the attachment's name is another's. */
  rollBack(entry: Entry, madeNothing: boolean): Promise<void>
  /** Waits until addresses of a handle from an earlier life are given back. Throws CniError 11. */
  released(handle: string): Promise<void>
  readonly drain: Drain
}

export interface RoutedParts {
  readonly kernel: Kernel
  readonly journal: Journal
  readonly log: Log
  readonly steps: AttachmentSteps
}

/** Where a pod's addresses come from: they are known, or the pools are to be asked. */
type Source =
  | { readonly from: 'node' | 'configuration'; readonly pool: string; readonly ips: Attachment['ips'] }
  | { readonly from: 'pool'; readonly handle: string; readonly wanted: AddressRequest['wanted'] }

interface Order {
  readonly request: AttachmentRequest
  readonly pod: Kernel
  readonly network: NodeNetwork
  readonly routed: RoutedNetwork
  readonly wishes: PodWishes
}

export class RoutedAttacher {
  readonly #kernel: Kernel
  readonly #journal: Journal
  readonly #log: Log
  readonly #steps: AttachmentSteps

  constructor({ kernel, journal, log, steps }: RoutedParts) {
    this.#kernel = kernel
    this.#journal = journal
    this.#log = log
    this.#steps = steps
  }

  /** Wires a pod into `network.routed`. Throws CniError; then nothing is left behind. */
  async add(request: AttachmentRequest, pod: Kernel, network: NodeNetwork, routed: RoutedNetwork): Promise<CniResult> {
    const wishes = await readWishes(request, routed)
    if (wishes.allowedSourcePrefixes?.length && routed.sourceSpoofing !== 'Any')
      this.#log.warn(podOf(request), 'allowedSourcePrefixes do not count: workloadSourceSpoofing is not Any')
    const order = { request, pod, network, routed, wishes }
    const { name, otherwise } = deviceNames(request, routed)
    if (await this.#isLivedIn(name)) return this.#addAs(otherwise, order)
    try {
      return await this.#addAs(name, order)
    } catch (error) {
      // Another's device has the name that the pod's should have.
      if (!(error instanceof CniError) || error.code !== CniCode.nameClash || name === otherwise) throw error
      this.#log.warn({ device: name, ...podOf(request) }, error.message)
      return this.#addAs(otherwise, order)
    }
  }

  /** Whether another container has this device. One that is going is waited for. */
  async #isLivedIn(name: string): Promise<boolean> {
    if (this.#journal.holderOf(name)?.state === 'deleting') await this.#steps.drain.flush()
    const holder = this.#journal.holderOf(name)
    return holder !== undefined && holder.state !== 'deleting'
  }

  async #source({ request, network, routed, wishes }: Order): Promise<Source> {
    const { ipam, name } = request.config
    if (wishes.ipAddrsNoIpam) return { from: 'configuration', pool: '', ips: wishes.ipAddrsNoIpam.map(asHost) }
    if (ipam.type === 'node' && !ipam.podCidrsOnly && routed.addresses) {
      const handle = handleOf(name, request.containerId, request.ifname)
      const wanted = wantedOf(request, routed, wishes)
      await this.#steps.released(handle)
      return { from: 'pool', handle, wanted }
    }
    if (ipam.type === 'node' && network.podCidrs.length === 0)
      throw new CniError(CniCode.tryAgainLater, 'This node has neither address pools nor a pod CIDR')
    const share = await this.#steps.share(request, network, askedFor(request, wishes))
    const ips = share.ips.map(({ ip, set }) => ({ ...asHost(ip), ...(set === undefined ? {} : { set }) }))
    return { from: ipam.type === 'node' ? 'node' : 'configuration', pool: share.pool, ips }
  }

  async #addAs(hostDevice: string, order: Order): Promise<CniResult> {
    const source = await this.#source(order)
    const plan = planOf(hostDevice, order, source)
    const entry = this.#steps.begin(recordOf(order, plan, source))
    const asking = source.from === 'pool' ? new Asking(order.routed.addresses!, source, order) : undefined
    try {
      await makePair(this.#kernel, planRoutedPair(plan), plan.podDevice)
      if (asking) await this.#take(entry, await asking.answer)
      return await this.#finish(entry, plan, order)
    } catch (error) {
      await asking?.end()
      await this.#steps.rollBack(entry, error instanceof CniError && error.code === CniCode.nameClash)
      throw error
    }
  }

  /** What the addresses have to be known for. The check of sources stands before the pod can send. */
  async #finish(entry: Entry, plan: RoutedPodPlan, order: Order): Promise<CniResult> {
    const { attachment } = entry
    const ips = attachment.ips.map(({ ip }) => ip)
    await this.#steps.extras(attachment, podAlias(attachment.containerId, attachment.ifname), plan.mtuBytes)
    const routes = await fillRoutedPod(order.pod, order.request, ips)
    await this.#steps.join()
    this.#steps.confirm(entry)
    this.#writeBack(order, attachment)
    return resultOf(plan, ips, routes, order.request)
  }

  /** Addresses have come: the journal and the device's alias say so. */
  async #take(entry: Entry, given: readonly AssignedAddress[]): Promise<void> {
    const ips = given.map(({ ip }) => asHost(ip)).sort((a, b) => a.ip.family - b.ip.family)
    try {
      this.#journal.give(entry, ips)
    } catch (cause) {
      throw new CniError(CniCode.journal, 'The journal cannot be written', (cause as Error).message, { cause })
    }
    const { containerId, ifname, network, hostDevice } = entry.attachment
    const alias = podAlias(containerId, ifname, ips, network, 'pool')
    throwFirst(await this.#kernel.execute([set({ kind: 'link', name: hostDevice, type: 'veth', alias })]))
  }

  #writeBack({ routed }: Order, { containerId, ifname, ips, pod, podUid }: Attachment): void {
    const of = podOfCluster(pod)
    if (ifname !== 'eth0' || !of) return
    const words = formatPodAnnotations({ ips: ips.map(({ ip }) => ip), containerId })
    routed.pods?.annotate(of.namespace, of.name, words, podUid)
  }
}

/** Addresses that the pools have been asked for. */
class Asking {
  /** Rejects with CniError. */
  readonly answer: Promise<readonly AssignedAddress[]>
  readonly #control = new AbortController()
  readonly #settled: Promise<unknown>

  constructor(addresses: PoolAddresses, { handle, wanted }: Source & { from: 'pool' }, order: Order) {
    const { request, routed, wishes } = order
    const assigned = addresses.assign({
      handleId: handle,
      attributes: attributesOf(request, routed),
      use: 'Workload',
      ...(wishes.namespaceLabels ? { namespaceLabels: wishes.namespaceLabels } : {}),
      wanted,
      signal: AbortSignal.any([this.#control.signal, AbortSignal.timeout(addressMilliseconds)]),
    })
    this.#settled = assigned.catch(() => undefined)
    this.answer = assigned.catch((cause) => {
      throw addressProblem(cause)
    })
    // It is waited for when the device is there; until then nobody listens.
    this.answer.catch(() => undefined)
  }

  /** Gives up; settles when nothing can be given any more. */
  async end(): Promise<void> {
    this.#control.abort()
    await this.#settled
  }
}

const asHost = (ip: Ip) => ({ ip, prefixLength: Cidr.host(ip).length })

function addressProblem(cause: unknown): CniError {
  const { message } = cause as Error
  if (cause instanceof NoAddressError) return new CniError(CniCode.noAddress, message, '', { cause })
  if (cause instanceof StoreAwayError || (cause as Error).name === 'TimeoutError')
    return new CniError(CniCode.tryAgainLater, 'The address pools cannot be asked now', message, { cause })
  return new CniError(CniCode.internal, `The address pools gave no address: ${message}`, '', { cause })
}

/** What the device is called, and what if that name is another's: both always the same for one interface of one container. */
function deviceNames({ containerId, ifname, args }: AttachmentRequest, routed: RoutedNetwork) {
  const named = (owner: string) => routedDeviceOf(routed.interfacePrefix ?? defaultInterfacePrefix, owner)
  const otherwise = named(`${containerId}/${ifname}`)
  if (args.podName === undefined || args.podNamespace === undefined) return { name: otherwise, otherwise }
  const pod = `${args.podNamespace}.${args.podName}`
  return { name: named(ifname === 'eth0' ? pod : `${pod}/${ifname}`), otherwise }
}

function planOf(hostDevice: string, { request, network, wishes }: Order, source: Source): RoutedPodPlan {
  const { config, containerId, ifname } = request
  const ips = source.from === 'pool' ? [] : source.ips
  return {
    hostDevice,
    alias: podAlias(containerId, ifname, ips, config.name, source.from),
    mtuBytes: config.mtuBytes ?? network.mtuBytes,
    podDevice: ifname,
    netnsPath: request.netnsFile ?? request.netnsPath,
    mac: wishes.hwAddr ?? config.runtime.mac ?? request.args.mac ?? Mac.local(digestOf(containerId, ifname)),
  }
}

/** What the journal keeps. */
function recordOf({ request, wishes }: Order, plan: RoutedPodPlan, source: Source): Omit<Attachment, 'id'> {
  const { config, containerId, ifname, netnsPath } = request
  const { portMappings, bandwidth } = config.runtime
  const podUid = wishes.podUid ?? request.args.podUid
  return {
    role: 'routed',
    network: config.name,
    containerId,
    ifname,
    ...podOf(request),
    ...(podUid === undefined ? {} : { podUid }),
    netnsPath,
    ...(request.netnsFile ? { netnsOfCaller: true } : {}),
    ...(source.from === 'pool' ? { pool: '', ips: [], handle: source.handle } : { pool: source.pool, ips: source.ips }),
    hostDevice: plan.hostDevice,
    mac: `${plan.mac}`,
    ...(config.mtuBytes ? { fixedMtu: true } : {}),
    ...(wishes.allowedSourcePrefixes?.length ? { allowedSources: wishes.allowedSourcePrefixes } : {}),
    ...(portMappings.length ? { portMappings } : {}),
    ...(bandwidth ? { bandwidth } : {}),
  }
}

/**
 * What is inside the pod. Returns the routes that stand: a default route that another interface has already is left to it, and
 * answers from this one's addresses then go by a table of their own.
 */
async function fillRoutedPod(pod: Kernel, { config, ifname }: AttachmentRequest, ips: readonly Ip[]): Promise<Route[]> {
  const wantsDefault = config.isDefaultGateway || config.calico !== undefined
  const inside = planRoutedPod(ifname, ips, { enableDad: config.enableDad, forwards: config.calico?.forwards })
  const routes = wantsDefault ? planPodRoutes(ifname, ips) : []
  const taken = await fillNamespace(pod, [...inside, ...routes])
  const others = ips.filter((ip) => !wantsDefault || taken.some((route) => route.destination.family === ip.family))
  if (others.length > 0) await fillNamespace(pod, planSourceRouting(ifname, others, tableOf(ifname)))
  return routes.filter((route) => !taken.includes(route))
}

/** A table of the pod's own for an interface. */
const tableOf = (ifname: string): number =>
  10_000 + (digestOf(ifname, 'table')[0]! << 8) + digestOf(ifname, 'table')[1]!

function resultOf(
  plan: RoutedPodPlan,
  ips: readonly Ip[],
  routes: readonly Route[],
  { config, netnsPath }: AttachmentRequest,
): CniResult {
  const { mtuBytes } = plan
  return {
    interfaces: [
      { name: plan.hostDevice, mac: `${nodeMac}`, mtuBytes },
      { name: plan.podDevice, mac: `${plan.mac}`, sandbox: netnsPath, mtuBytes },
    ],
    ips: ips.map((ip) => ({ ...asHost(ip), gateway: gatewayOf(ip.family), interface: 1 })),
    routes: routes.map(({ destination, hops }) => ({
      destination: `${destination}`,
      ...(hops[0]?.via ? { via: hops[0].via } : {}),
    })),
    dns: config.dns,
  }
}
