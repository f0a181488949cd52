/**
 * ADD, DEL and GC: from a checked request to kernel, journal and answer. One attachment is one interface of one
 * container. The caller sees to it that two requests about one container never run at once.
 *
 *   ADD   addresses ─► journal `add` ─► bridge, pair, pod ─► limits, host ports ─► journal `up` ─► answer
 *         any failure on the way: everything made is taken away, the journal says `gone`, the addresses are free
 *   DEL   journal `del` ─► host ports away, device off the bridge and into the drain's group ─► answer
 *         … drain ─► (addresses of pools: given back) ─► journal `gone` ─► the addresses are free
 *
 * What is particular to routed pods is in routed-attacher.ts.
 */

import { formatPodAnnotations } from '../config/calico/pod-words.ts'
import { type BridgePlan, nodeBridgeAlias, type PodPlan, planPair } from '../datapath/bridge/plan.ts'
import type { PoolAddresses } from '../ipam/stores/pool-addresses.ts'
import type { Kernel } from '../kernel/kernel.ts'
import { forgetMappedFlows } from '../kernel/linux/drivers/conntrack.ts'
import type { Ip } from '../net/ip.ts'
import { attachmentFragment, fragmentSource, partingFragment, type SourceSpoofing } from './attachment-fragment.ts'
import {
  bridgePlanOf,
  nodeBridgeOf,
  nodeBridgePlan,
  podOf,
  podPlanOf,
  recordOf,
  resultOf,
  routesOf,
  type Share,
  staticAddresses,
  type WantedBridge,
  withDns,
} from './attachment-plan.ts'
import { besideBridgeFragment, besideBridgeSource } from './beside-bridge.ts'
import type { NetworkConfig } from './config.ts'
import { Drain } from './drain.ts'
import { CniCode, CniError } from './error.ts'
import { readFormerGateways, removeGateways } from './former-gateways.ts'
import { handleOf, podAlias } from './identity.ts'
import type { Attachment, AttachmentState, Entry, Journal } from './journal.ts'
import { planLimits } from './limits.ts'
import type { FragmentSink, Log, NodeNetwork, RoutedNetwork } from './network.ts'
import { PoolReleases } from './pool-releases.ts'
import { nodePool, type Pools } from './pools.ts'
import type { AttachmentRequest, ValidAttachment } from './request.ts'
import type { CniResult } from './result.ts'
import { type AttachmentSteps, RoutedAttacher } from './routed-attacher.ts'
import { podOfCluster } from './routed-request.ts'
import { ruleProblem } from './rule-problem.ts'
import {
  type AddressRule,
  add,
  cutOff,
  devicesOf,
  ensureBridge,
  fillPod,
  hostEndOf,
  isOurs,
  joinVlans,
  kernelProblem,
  type Links,
  makePair,
  openPod,
  ownDevices,
  readLinks,
  remove,
  removeLimits,
  set,
  throwFirst,
} from './wiring.ts'

export interface AttacherParts {
  readonly kernel: Kernel
  readonly journal: Journal
  readonly pools: Pools
  readonly sink: FragmentSink
  readonly log: Log
}

export class Attacher {
  readonly drain: Drain
  readonly releases: PoolReleases
  readonly #routed: RoutedAttacher
  readonly #kernel: Kernel
  readonly #journal: Journal
  readonly #pools: Pools
  readonly #sink: FragmentSink
  readonly #log: Log
  #network: NodeNetwork | undefined
  #addresses: PoolAddresses | undefined
  /** Bridges known to be as planned, by name: the plan's text and the MAC. */
  readonly #bridges = new Map<string, { plan: string; mac: string }>()
  /** Bridged and routed pods live side by side, and have been told of each other. */
  #isJoined = false
  /** Pods live by a gateway of a pod CIDR that the node had before: with the last of them it goes. */
  #hasFormerGateways = false
  #lookingAtBridge: NodeJS.Immediate | undefined

  constructor({ kernel, journal, pools, sink, log }: AttacherParts) {
    this.#kernel = kernel
    this.#journal = journal
    this.#pools = pools
    this.#sink = sink
    this.#log = log
    this.drain = new Drain(kernel, (error) => log.warn({ err: error }, 'Deleting devices failed; trying again'))
    this.releases = new PoolReleases(log, (entry) => this.#note(() => journal.gone(entry)))
    this.#routed = new RoutedAttacher({ kernel, journal, log, steps: this.#steps() })
  }

  #steps(): AttachmentSteps {
    return {
      drain: this.drain,
      share: (request, network, wanted) => this.#share(request, network, wanted),
      begin: (record) => this.#begin(record),
      confirm: (entry) => this.#confirm(entry),
      join: () => this.joinWirings(),
      extras: (attachment, alias, mtuBytes) => this.#extras(attachment, alias, mtuBytes),
      rollBack: (entry, madeNothing) => this.#rollBack(entry, madeNothing),
      released: async (handle) => {
        if (this.releases.has(handle)) await this.drain.flush()
        if (!(await this.releases.settle(handle)))
          throw new CniError(
            CniCode.tryAgainLater,
            `Addresses that the container had before are not given back yet (${handle})`,
            'the address pools cannot be asked now',
          )
      },
    }
  }

  /** The node's network, or CniError 11. */
  get network(): NodeNetwork {
    if (this.#network) return this.#network
    throw new CniError(
      CniCode.tryAgainLater,
      'The pod network of this node is not known yet',
      'waiting for its pod CIDR and MTU from the cluster',
    )
  }

  get isReady(): boolean {
    return this.#network !== undefined
  }

  setNetwork(network: NodeNetwork): void {
    this.#pools.setNode(network)
    this.#network = network
    if (network.routed?.addresses) this.setAddresses(network.routed.addresses)
    this.#addresses?.expectPods?.(network.routed?.addresses !== undefined)
  }

  /** Whom addresses of pools are asked of and given back to. They hear what the journal knows, once. */
  setAddresses(addresses: PoolAddresses): void {
    if (this.#addresses === addresses) return
    this.#addresses = addresses
    const held = [...this.#journal.entries.values()].flatMap(({ attachment: { handle, ips, pod }, state }) => {
      const of = podOfCluster(pod)
      const attributes = of ? { namespace: of.namespace, pod: of.name } : {}
      return handle === undefined
        ? []
        : ips.map(({ ip }) => ({ ip, handleId: handle, attributes, isLeaving: state === 'deleting' }))
    })
    addresses.resume?.(this.#journal.name, held)
    this.releases.setAddresses(addresses)
  }

  /** Whether pods may send under the sources that they ask for; undefined while nobody has said. */
  get sourceSpoofing(): SourceSpoofing {
    return this.#network && (this.#network.routed?.sourceSpoofing ?? 'Disabled')
  }

  /** Forgets that bridges are in order: the next ADD looks again. */
  doubtBridges(): void {
    this.#bridges.clear()
  }

  async add(request: AttachmentRequest): Promise<CniResult> {
    const { config, containerId, ifname } = request
    const network = this.network
    if (config.prevResult) return this.#chain(request, config.prevResult)
    const known = this.#journal.find(containerId, ifname).find(({ attachment }) => attachment.role !== 'chained')
    if (known && known.state !== 'deleting')
      throw new CniError(
        CniCode.alreadyAttached,
        `${ifname} of container ${containerId} is attached already`,
        'DEL comes first',
      )
    if (known) await this.drain.flush()
    const pod = openPod(this.#kernel, request)
    try {
      const routed = routedNetworkFor(config, network)
      return routed
        ? await this.#routed.add(request, pod, network, routed)
        : await this.#addBridged(request, pod, network)
    } finally {
      pod.close()
    }
  }

  async #addBridged(request: AttachmentRequest, pod: Kernel, network: NodeNetwork): Promise<CniResult> {
    const { config } = request
    const share = await this.#share(request, network)
    const plan = podPlanOf(request, network, share)
    const entry = this.#begin(recordOf(request, share, plan))
    try {
      const wired = await this.#wire(entry, plan, pod, bridgePlanOf(config, network, share))
      await this.joinWirings()
      this.#confirm(entry)
      return resultOf(wired.plan, share, wired.bridgeMac, request)
    } catch (error) {
      await this.#rollBack(entry)
      throw error
    }
  }

  /** Addresses and routes by the configuration's `ipam`; of those `named` instead of what the runtime asks for, if any are. */
  async #share(request: AttachmentRequest, network: NodeNetwork, named?: readonly Ip[]): Promise<Share> {
    const { ipam, runtime, name } = request.config
    if (ipam.type === 'none') return { pool: name, ips: [], routes: [] }
    // Some callers say the same address both ways.
    const unsaid = request.args.ips.filter((ip) => !runtime.ips.some((said) => said.ip.equals(ip)))
    const wanted = named?.map((ip) => ({ ip })) ?? [...runtime.ips, ...unsaid.map((ip) => ({ ip }))]
    if (ipam.type === 'static')
      return { pool: name, ips: [...ipam.addresses, ...staticAddresses(wanted)], routes: ipam.routes }
    const [pool, sets] = ipam.type === 'node' ? [nodePool, undefined] : [name, ipam.sets]
    const give = () =>
      this.#pools.give(
        pool,
        sets,
        wanted.map(({ ip }) => ip),
      )
    try {
      return { pool, ips: give(), routes: routesOf(request.config, network) }
    } catch (error) {
      // Addresses of devices that are going come free as soon as those are gone.
      if (!(error instanceof CniError) || error.code !== CniCode.noAddress || this.drain.length === 0) throw error
      await this.drain.flush()
      return { pool, ips: give(), routes: routesOf(request.config, network) }
    }
  }

  /** Writes the journal's first record; gives the addresses back when it cannot. */
  #begin(record: Omit<Attachment, 'id'>, state?: AttachmentState): Entry {
    try {
      return this.#journal.begin(record, state)
    } catch (cause) {
      this.#pools.release(record.pool, record.ips)
      throw journalProblem(cause)
    }
  }

  #confirm(entry: Entry): void {
    try {
      this.#journal.up(entry)
    } catch (cause) {
      throw journalProblem(cause)
    }
  }

  /** Makes everything; returns the pod's plan as it stands and the bridge's MAC. */
  async #wire(
    { attachment }: Entry,
    plan: PodPlan,
    pod: Kernel,
    bridge: WantedBridge,
  ): Promise<{ plan: PodPlan; bridgeMac: string }> {
    let bridgeMac = await this.#bridge(bridge.plan, bridge.rule)
    try {
      await makePair(this.#kernel, planPair(plan), plan.podDevice)
    } catch (error) {
      // The bridge may have been deleted by hand since we looked.
      if (!(error instanceof CniError) || error.code !== CniCode.kernel) throw error
      if ((await readLinks(this.#kernel)).has(plan.bridge)) throw error
      this.#bridges.delete(plan.bridge)
      bridgeMac = await this.#bridge(bridge.plan, bridge.rule)
      await makePair(this.#kernel, planPair(plan), plan.podDevice)
    }
    if (attachment.vlans) await joinVlans(this.#kernel, plan.hostDevice, attachment.vlans)
    const standing = await fillPod(pod, plan)
    await this.#extras(attachment, plan.alias, plan.mtuBytes)
    return { plan: standing, bridgeMac }
  }

  /** Bandwidth limits, host ports and masquerade. */
  async #extras(attachment: Attachment, alias: string, mtuBytes: number): Promise<void> {
    if (attachment.bandwidth) {
      const objects = planLimits(attachment.hostDevice, alias, mtuBytes, attachment.bandwidth)
      throwFirst(await this.#kernel.execute(objects.map(add)))
    }
    const fragment = attachmentFragment(attachment, this.sourceSpoofing)
    if (!fragment) return
    try {
      await this.#sink.set(fragment)
    } catch (cause) {
      const living = [...this.#journal.entries.values()].map((entry) => entry.attachment)
      throw ruleProblem(attachment, cause, living)
    }
    await this.#forgetFlows(attachment, attachment.ips)
  }

  /** Where pods of both kinds live, they reach each other. */
  async joinWirings(): Promise<void> {
    if (!this.#network) return
    const living = [...this.#journal.entries.values()].flatMap(({ attachment, state }) =>
      state === 'deleting' ? [] : attachment,
    )
    const fragment = besideBridgeFragment(nodeBridgeOf(this.#network), living)
    if (fragment) await this.#sink.set(fragment)
    else if (this.#isJoined) await this.#sink.remove(besideBridgeSource)
    this.#isJoined = fragment !== undefined
  }

  /** UDP clients that send on would keep their old way: their tracked flows go. */
  async #forgetFlows({ portMappings }: Attachment, targets: readonly { readonly ip: Ip }[]): Promise<void> {
    if (!portMappings?.some(({ protocol }) => protocol === 'udp')) return
    const ips = targets.map(({ ip }) => ip)
    await forgetMappedFlows(this.#kernel, portMappings, ips).catch((err) =>
      this.#log.warn({ err }, 'Cannot forget tracked flows of host ports'),
    )
  }

  async #bridge(plan: BridgePlan, rule: AddressRule): Promise<string> {
    const text = JSON.stringify(plan)
    const known = this.#bridges.get(plan.name)
    if (known?.plan === text) return known.mac
    const mac = await ensureBridge(this.#kernel, plan, rule)
    this.#bridges.set(plan.name, { plan: text, mac })
    return mac
  }

  /** Makes the node's own bridge ready before the first pod needs it. */
  async prepareBridge(): Promise<void> {
    await this.#bridge(nodeBridgePlan(this.network), 'keep others')
    await this.#removeFormerGateways()
  }

  /** Whether pods hang on the node's own bridge, or are on their way off it. */
  get hasBridgedPods(): boolean {
    const name = nodeBridgeOf(this.network)
    return [...this.#journal.entries.values()].some(({ attachment }) => attachment.bridge === name)
  }

  /** On a routed node the bridge goes with the last pod that hangs on it. */
  async removeUnusedBridge(): Promise<void> {
    const { network } = this
    const bridge = (await readLinks(this.#kernel)).get(nodeBridgeOf(network))
    if (!network.routed || this.hasBridgedPods || bridge?.alias !== nodeBridgeAlias) return
    this.doubtBridges()
    const [error] = await this.#kernel.execute([remove(bridge)])
    if (error && error.code !== 'ENODEV') throw kernelProblem(error)
    this.#log.info({ bridge: bridge.name }, 'the bridge is needed no more: pods are routed')
  }

  async #removeFormerGateways(): Promise<void> {
    const attachments = () => [...this.#journal.entries.values()].map(({ attachment }) => attachment)
    const { used, unused } = await readFormerGateways(this.#kernel, this.network, attachments)
    this.#hasFormerGateways = used.length > 0
    if (unused.length === 0) return
    const addresses = unused.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`)
    this.#log.info({ addresses }, 'gateways of a former pod CIDR are needed no more')
    this.doubtBridges()
    await removeGateways(this.#kernel, unused)
  }

  /** Puts every living port back on its bridge, where it has come off. */
  async replugPorts(): Promise<void> {
    const links = await readLinks(this.#kernel)
    const ops = [...this.#journal.entries.values()].flatMap(({ attachment, state }) => {
      const { hostDevice, bridge, containerId, ifname, hairpin, isolated } = attachment
      const link = links.get(hostDevice)
      if (state !== 'up' || !link || !bridge || link.master === bridge || !isOurs(link, containerId, ifname)) return []
      const port = { hairpin: hairpin ?? true, ...(isolated ? { isolated } : {}) }
      return [set({ kind: 'link', name: hostDevice, type: 'veth', up: true, master: bridge, port })]
    })
    throwFirst(await this.#kernel.execute(ops))
    const replugged = new Set(ops.map(({ object }) => object.kind === 'link' && object.name))
    for (const { attachment } of this.#journal.entries.values())
      if (attachment.vlans && replugged.has(attachment.hostDevice))
        await joinVlans(this.#kernel, attachment.hostDevice, attachment.vlans)
  }

  /** Sets devices of living routed pods up, where they are down. */
  async raiseRouted(): Promise<void> {
    const links = await readLinks(this.#kernel)
    const ops = [...this.#journal.entries.values()].flatMap(({ attachment, state }) => {
      const { role, hostDevice: name, containerId, ifname } = attachment
      const link = links.get(name)
      if (role !== 'routed' || state !== 'up' || link?.up !== false || !isOurs(link, containerId, ifname)) return []
      return [set({ kind: 'link', name, type: 'veth', up: true })]
    })
    throwFirst(await this.#kernel.execute(ops))
  }

  /** Used as a meta plugin: host ports and limits for an interface that another plugin made. */
  async #chain(request: AttachmentRequest, previous: CniResult): Promise<CniResult> {
    const { config, containerId, ifname, netnsPath } = request
    const { portMappings, bandwidth } = config.runtime
    if (portMappings.length === 0 && !bandwidth) return withDns(previous, config)
    if (this.#journal.find(containerId, ifname).some(({ attachment }) => attachment.role === 'chained'))
      throw new CniError(
        CniCode.alreadyAttached,
        `${ifname} of container ${containerId} has its host ports already`,
        'DEL comes first',
      )
    const hostDevice = bandwidth ? await hostEndOf(this.#kernel, request) : ''
    const entry = this.#journal.begin({
      role: 'chained',
      network: config.name,
      containerId,
      ifname,
      ...podOf(request),
      netnsPath,
      ...(request.netnsFile ? { netnsOfCaller: true } : {}),
      pool: '',
      ips: previous.ips.map(({ ip, prefixLength }) => ({ ip, prefixLength })),
      hostDevice,
      ...(portMappings.length ? { portMappings } : {}),
      ...(bandwidth ? { bandwidth } : {}),
    })
    try {
      await this.#extras(entry.attachment, podAlias(containerId, ifname, [], config.name), 1500)
      this.#confirm(entry)
      return withDns(previous, config)
    } catch (error) {
      await this.#rollBack(entry)
      throw error
    }
  }

  /**
   * Takes a half-made attachment away; with `madeNothing`, a device by its name is another's. What cannot be taken away stays in
   * the journal as deleting.
   */
  async #rollBack(entry: Entry, madeNothing = false): Promise<void> {
    try {
      await this.takeDown(entry, madeNothing ? new Map() : await readLinks(this.#kernel))
      await this.drain.flush()
    } catch (err) {
      this.#log.error(
        { err, container: entry.attachment.containerId },
        'A failed ADD could not be undone; DEL or a restart will',
      )
    }
  }

  /** Idempotent: nothing there is success. */
  async del(containerId: string, ifname: string): Promise<void> {
    const entries = this.#journal.find(containerId, ifname)
    for (const entry of entries) if (entry.state !== 'deleting') await this.takeDown(entry)
    if (entries.length === 0) await this.#removeUnknown(containerId, ifname)
  }

  /**
   * A container that the journal does not know: only a device with its mark is ours to take. It may have addresses of a pool,
   * from before the journal was lost or weft came: they are given back as its own are.
   */
  async #removeUnknown(containerId: string, ifname: string): Promise<void> {
    const links = [...(await readLinks(this.#kernel)).values()]
    const own = links.filter((link) => link.type === 'veth' && isOurs(link, containerId, ifname))
    throwFirst(await this.#kernel.execute(own.map(remove)))
    if (!this.releases.hasAddresses || ifname !== 'eth0') return
    const handle = handleOf('weft', containerId, ifname)
    if (this.releases.has(handle)) return
    const nothing = { network: 'weft', netnsPath: '', pool: '', ips: [], hostDevice: '' } as const
    this.releases.add(this.#begin({ role: 'routed', ...nothing, containerId, ifname, handle }, 'deleting'))
  }

  /**
   * From journal `del` to devices that reach nothing; the drain does the rest. `links`, when they were read, tell which of
   * its devices exist and are not another's by the same name.
   */
  async takeDown(entry: Entry, links?: Links): Promise<void> {
    const { attachment } = entry
    if (entry.state !== 'deleting') this.#note(() => this.#journal.deleting(entry))
    const parting = partingFragment(attachment)
    // Where not even that can be set, nothing ever led there.
    if (parting) await this.#sink.set(parting).catch((err) => this.#log.warn({ err }, 'Cannot close a device'))
    else if (attachmentFragment(attachment)) await this.#sink.remove(fragmentSource(attachment))
    await this.#forgetFlows(attachment, [])
    if (attachment.role === 'chained') {
      await removeLimits(this.#kernel, attachment)
      this.#forget(entry)
      return
    }
    const devices = links ? ownDevices(attachment, links) : devicesOf(attachment)
    if (await cutOff(this.#kernel, devices)) this.drain.add(() => this.#forget(entry))
    else this.#forget(entry)
  }

  #forget(entry: Entry): void {
    const { attachment } = entry
    if (attachment.role === 'routed') this.#forgetRouted(attachment)
    this.#pools.release(attachment.pool, attachment.ips)
    if (attachment.handle === undefined) this.#note(() => this.#journal.gone(entry))
    else this.releases.add(entry)
    this.joinWirings().catch((err) => this.#log.warn({ err }, 'Cannot part bridged and routed pods'))
    const leavesBridge = attachment.role === 'bridge' && this.#network?.routed !== undefined
    if (!this.#hasFormerGateways && !leavesBridge) return
    this.#lookingAtBridge ??= setImmediate(() => {
      this.#lookingAtBridge = undefined
      const look = leavesBridge && !this.hasBridgedPods ? this.removeUnusedBridge() : this.#removeFormerGateways()
      look.catch((err) => this.#log.warn({ err }, 'Cannot remove a former gateway or the bridge'))
    })
  }

  /** The device is gone: nothing has to be kept from it, and the pod has no address, unless it is another's of the same name by now. */
  #forgetRouted(attachment: Attachment): void {
    this.#sink
      .remove(fragmentSource(attachment))
      .catch((err) => this.#log.warn({ err }, 'Cannot remove what a pod wanted of the node'))
    const { pod, ifname, podUid } = attachment
    const of = podOfCluster(pod)
    const isAnothers = [...this.#journal.entries.values()].some(
      (entry) => entry.attachment.pod === pod && entry.attachment.ifname === ifname && entry.state !== 'deleting',
    )
    if (!of || ifname !== 'eth0' || isAnothers) return
    this.#network?.routed?.pods?.annotate(of.namespace, of.name, formatPodAnnotations(null), podUid)
  }

  /** A full disk must not keep containers from going. A restart finds that their devices are gone and says so again. */
  #note(write: () => void): void {
    try {
      write()
    } catch (err) {
      this.#log.error({ err }, 'The journal cannot be written')
    }
  }

  /** Takes down every finished attachment of the network that is not in the list. */
  async gc(network: string, valid: readonly ValidAttachment[]): Promise<void> {
    const kept = new Set(valid.map(({ containerId, ifname }) => `${containerId}/${ifname}`))
    const errors: unknown[] = []
    for (const entry of [...this.#journal.entries.values()]) {
      const { attachment, state } = entry
      const named = kept.has(`${attachment.containerId}/${attachment.ifname}`)
      // One that is being added cannot be in a list made before.
      if (attachment.network !== network || state !== 'up' || named) continue
      this.#log.info({ container: attachment.containerId, interface: attachment.ifname }, 'GC takes down an attachment')
      await this.takeDown(entry).catch((error) => errors.push(error))
    }
    if (errors.length) throw errors[0]
  }
}

/** The routed network for a configuration that leaves its wiring to the node; undefined when the pod hangs on a bridge. */
function routedNetworkFor(config: NetworkConfig, { routed }: NodeNetwork): RoutedNetwork | undefined {
  const ofNode = config.ipam.type === 'node'
  if (routed && config.bridge === undefined && config.vlans === undefined && (ofNode || config.calico)) return routed
  if (!routed && config.calico && !ofNode)
    throw new CniError(
      CniCode.invalidConfig,
      "type: calico needs routed pods; this node's hang on a bridge",
      '--wiring',
    )
  return undefined
}

const journalProblem = (cause: unknown): CniError =>
  new CniError(CniCode.journal, 'The journal cannot be written', (cause as Error).message, { cause })
