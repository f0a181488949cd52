/**
 * The kernel's side of an attachment: the bridge made ready, the pair and the pod's inside made, and everything taken
 * away again. What fails says so as a CniError; what was begun is the caller's to undo.
 */
import { lstatSync, type Stats, statSync } from 'node:fs'
import {
  type BridgePlan,
  gatewayDeviceOf,
  hostMac,
  type PodPlan,
  planBridge,
  planPod,
} from '../datapath/bridge/plan.ts'
import { type PortVlans, planPortVlans } from '../datapath/bridge/vlan.ts'
import { nodeMac } from '../datapath/routed/plan.ts'
import type { Kernel, OpResult } from '../kernel/kernel.ts'
import { KernelError } from '../model/errors.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import type { Address, ForeignLink, Link } from '../model/link.ts'
import type { Route } from '../model/route.ts'
import { Cidr } from '../net/cidr.ts'
import { drainGroup } from './drain.ts'
import { CniCode, CniError } from './error.ts'
import { digestOf, podAlias } from './identity.ts'
import type { Attachment } from './journal.ts'
import { ifbName, planLimits } from './limits.ts'
import type { AttachmentRequest } from './request.ts'

export const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })
export const set = (object: KernelObject): KernelOp => ({ verb: 'set', object })
export const remove = (object: KernelObject): KernelOp => ({ verb: 'delete', object })

export const kernelProblem = (error: KernelError): CniError =>
  new CniError(CniCode.kernel, error.message, error.extack ?? '', { cause: error })

/** The first refusal, thrown as CniError 102. */
export function throwFirst(results: readonly OpResult[]): void {
  const error = results.find((result) => result !== undefined)
  if (error) throw kernelProblem(error)
}

/** The nsfs file of the node's own namespace; a process does not move. */
let ownNetns: Stats | undefined

/** A container's namespace that this process cannot open, or must not by its path: the plugin may go inside it. */
export class NetnsError extends CniError {}

/**
 * Opens a pod's namespace. A path is opened only when it is a plain file, as a bind mount of a namespace is: what a link
 * leads to, first of all in /proc, may be another namespace for this process than for the caller. Throws NetnsError 3 when
 * it does not exist, 4 when the path is none or is the node's own.
 */
export function openPod(
  kernel: Kernel,
  { netnsPath, netnsFile }: Pick<AttachmentRequest, 'netnsPath' | 'netnsFile'>,
): Kernel {
  const refuse = (code: number, problem: string, cause?: unknown) =>
    new NetnsError(code, `CNI_NETNS: ${netnsPath}: ${problem}`, '', { cause })
  const options = { throwIfNoEntry: false } as const
  const file = netnsFile === undefined ? lstatSync(netnsPath, options) : statSync(netnsFile, options)
  if (!file) throw refuse(CniCode.unknownContainer, 'no such network namespace')
  // Anything else than a plain file could make open(2) wait for ever.
  if (!file.isFile()) throw refuse(CniCode.invalidEnvironment, 'is not a network namespace')
  ownNetns ??= statSync('/proc/thread-self/ns/net')
  if (ownNetns.ino === file.ino && ownNetns.dev === file.dev)
    throw refuse(CniCode.invalidEnvironment, "is the node's own network namespace")
  try {
    return kernel.open(netnsFile ?? netnsPath)
  } catch (cause) {
    if (!(cause instanceof KernelError)) throw cause
    const code = cause.code === 'ENOENT' ? CniCode.unknownContainer : CniCode.invalidEnvironment
    throw refuse(code, cause.code === 'EINVAL' ? 'is not a network namespace' : cause.message, cause)
  }
}

/** The devices of a namespace by name. */
export type Links = ReadonlyMap<string, Link | ForeignLink>

export async function readLinks(kernel: Kernel): Promise<Links> {
  return new Map((await kernel.read('link')).map((link) => [link.name, link]))
}

/** How strictly the addresses on a bridge must be the plan's. */
export type AddressRule = 'keep others' | 'refuse others' | 'remove others'

/**
 * Makes the bridge and its addresses, or takes the bridge that is there. Returns its MAC.
 * Throws CniError 101 when the name is another device's or another address is in the way, 102 for the kernel's refusals.
 */
export async function ensureBridge(kernel: Kernel, plan: BridgePlan, rule: AddressRule): Promise<string> {
  const objects = planBridge(plan)
  const links = await readLinks(kernel)
  const found = links.get(plan.name)
  checkFound(plan, links)
  const bridge = withoutNewMac(objects[0] as Link, plan, found)
  const others = found ? await otherAddresses(kernel, plan) : []
  if (others.length && rule === 'refuse others')
    throw new CniError(
      CniCode.nameClash,
      `${gatewayDeviceOf(plan)} has ${others.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`).join(', ')}, not ${plan.gateways.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`).join(', ')}`,
      'forceAddress replaces it',
    )
  const results = await kernel.execute([
    ...makeBridge(bridge, found),
    ...(rule === 'remove others' ? others.map(remove) : []),
    ...objects.slice(1).map((object) => makePart(object, links)),
  ])
  throwFirst(results.filter((result) => result?.code !== 'EEXIST'))
  const mac = bridge.mac ?? found?.mac ?? (await readLinks(kernel)).get(plan.name)?.mac
  return found && found.alias !== plan.alias ? `${found.mac}` : `${mac ?? ''}`
}

/** What belongs to a bridge; a device that is there already is only brought up. */
function makePart(object: KernelObject, links: Links): KernelOp {
  if (object.kind === 'sysctl') return set(object)
  if (object.kind !== 'link' || !links.has(object.name)) return add(object)
  return set({ kind: 'link', name: object.name, type: 'vlan', up: true })
}

/** Throws CniError when a device by a name of the plan's is there and cannot serve. */
function checkFound(plan: BridgePlan, links: Links): void {
  const found = links.get(plan.name)
  const clash = (problem: string, details = '') => new CniError(CniCode.nameClash, problem, details)
  if (found && found.type !== 'bridge') throw clash(`${plan.name}: a device of this name is there and is no bridge`)
  if (found && plan.vlanFiltering && found.alias !== plan.alias && !found.settings?.vlanFiltering)
    throw clash(
      `${plan.name}: another's bridge, and it keeps no VLANs apart`,
      `ip link set ${plan.name} type bridge vlan_filtering 1`,
    )
  if (plan.gatewayVlan === undefined) return
  const device = links.get(gatewayDeviceOf(plan))
  if (
    device &&
    (device.type !== 'vlan' || device.settings?.id !== plan.gatewayVlan || device.settings.lower !== plan.name)
  )
    throw clash(`${device.name}: a device of this name is there and is not VLAN ${plan.gatewayVlan} of ${plan.name}`)
}

/** A bridge that is there keeps its MAC, unless it follows from its addresses. */
function withoutNewMac(bridge: Link, { newMac }: BridgePlan, found: Link | ForeignLink | undefined): Link {
  if (!found || newMac === undefined || !bridge.mac?.equals(newMac)) return bridge
  const { mac: _, ...rest } = bridge
  return rest as Link
}

/** A foreign bridge is only brought up; an MTU given at creation would follow the ports', one set later holds. */
function makeBridge({ mtuBytes, ...bridge }: Link, found: Link | ForeignLink | undefined): KernelOp[] {
  const { name, type } = bridge
  if (found && found.alias !== bridge.alias) return [set({ kind: 'link', name, type: 'bridge', up: true })]
  return [
    found ? set(bridge as Link) : add(bridge as Link),
    ...(mtuBytes ? [set({ kind: 'link', name, type, mtuBytes } as Link)] : []),
  ]
}

/** Addresses on the bridge that stand in the way of the plan's: IPv4, and IPv6 of an overlapping network. */
async function otherAddresses(kernel: Kernel, plan: BridgePlan): Promise<Address[]> {
  const gateway = gatewayDeviceOf(plan)
  const has = (await kernel.read('address')).filter(({ device, ip }) => device === gateway && !ip.isLinkLocal)
  const overlaps = (a: Address) =>
    plan.gateways.some(
      ({ ip, prefixLength }) =>
        ip.family === a.ip.family &&
        (ip.family === 4 || Cidr.of(ip, prefixLength).overlaps(Cidr.of(a.ip, a.prefixLength))),
    )
  const wanted = (a: Address) =>
    plan.gateways.some(({ ip, prefixLength }) => ip.equals(a.ip) && prefixLength === a.prefixLength)
  return has.filter((address) => overlaps(address) && !wanted(address))
}

/** Puts a port into its VLANs. Throws CniError 102. */
export async function joinVlans(kernel: Kernel, port: string, vlans: PortVlans): Promise<void> {
  const given = planPortVlans(port, vlans)
  const isGiven = (vlan: number) => given.some((one) => one.vlan === vlan)
  const has = vlans.keepDefault ? [] : (await kernel.read('bridge-vlan')).filter(({ device }) => device === port)
  const others = has.filter(({ vlan }) => !isGiven(vlan))
  throwFirst(await kernel.execute([...given.map(add), ...others.map(remove)]))
}

/** Makes a pair whose other end is `inside` in the pod. Throws CniError 101 when a name of it is taken, 102 for other refusals. */
export async function makePair(kernel: Kernel, pair: Link, inside: string): Promise<void> {
  let [error] = await kernel.execute([add(pair)])
  if (error?.code === 'EEXIST' && (await removeLeftover(kernel, pair))) [error] = await kernel.execute([add(pair)])
  if (error?.code === 'EEXIST') throw await explainClash(kernel, pair.name, inside, error)
  if (error) throw kernelProblem(error)
}

/**
 * What is inside the pod, in one batch. Returns the plan as it stands: a route that another interface of the pod has
 * already stays there, as a second interface must not take the first one's traffic.
 */
export async function fillPod(pod: Kernel, plan: PodPlan): Promise<PodPlan> {
  const inside = planPod(plan)
  const taken = await fillNamespace(pod, inside)
  const firstRoute = inside.length - plan.routes.length
  return { ...plan, routes: plan.routes.filter((_, index) => !taken.includes(inside[firstRoute + index] as Route)) }
}

/**
 * Makes objects in a pod's namespace, in one batch. Returns routes that were there already, and stay, and those whose gateway
 * another device has the way to. Throws CniError 102.
 */
export async function fillNamespace(pod: Kernel, objects: readonly KernelObject[]): Promise<Route[]> {
  if (objects.length === 0) return []
  const isThere = ({ kind }: KernelObject) => kind === 'link' || kind === 'sysctl'
  const results = await pod.execute(objects.map((object) => (isThere(object) ? set(object) : add(object))))
  const taken: Route[] = []
  const isTaken = (route: Route, code: string | undefined) =>
    code === 'EEXIST' || (code === 'ENETUNREACH' && taken.some((way) => leadsToGatewayOf(route, way)))
  throwFirst(
    results.filter((result, index) => {
      const object = objects[index]!
      if (object.kind !== 'route' || !isTaken(object, result?.code)) return true
      taken.push(object)
      return false
    }),
  )
  return taken
}

const leadsToGatewayOf = ({ hops }: Route, { destination }: Route): boolean =>
  hops.some(({ via }) => via !== undefined && destination.equals(Cidr.host(via)))

const ownerOf = (alias: string | undefined): string | undefined => alias?.split(' ')[0]

/** A device by this name and with this container's mark that no journal knows: ours, from a life that forgot it. */
async function removeLeftover(kernel: Kernel, pair: Link): Promise<boolean> {
  const found = (await readLinks(kernel)).get(pair.name)
  if (!found?.alias || ownerOf(found.alias) !== ownerOf(pair.alias)) return false
  throwFirst(await kernel.execute([remove(found)]))
  return true
}

async function explainClash(kernel: Kernel, name: string, inside: string, cause: KernelError): Promise<CniError> {
  const there = (await readLinks(kernel)).has(name)
  const what = there
    ? `${name}: a device of this name is there and belongs to somebody else`
    : `${inside}: the container has a device of this name already`
  return new CniError(CniCode.nameClash, what, '', { cause })
}

/** Whether a device was made by this server for a container's interface: it has the alias, or, before that was set, the MAC. */
export function isOurs(link: Link | ForeignLink, containerId: string, ifname: string): boolean {
  if (link.alias) return ownerOf(link.alias) === ownerOf(podAlias(containerId, ifname))
  return link.type === 'veth' && link.mac?.equals(hostMac(digestOf(containerId, ifname))) === true
}

export interface OwnDevice {
  readonly name: string
  readonly type: 'veth' | 'ifb'
}

/** The node's devices of an attachment. */
export const devicesOf = ({ hostDevice, bandwidth }: Attachment): OwnDevice[] => [
  { name: hostDevice, type: 'veth' },
  ...(bandwidth?.egressRate ? [{ name: ifbName(hostDevice), type: 'ifb' } as const] : []),
]

/** Those of them that exist and are not another's by the same name. */
export const ownDevices = (attachment: Attachment, links: Links): OwnDevice[] =>
  devicesOf(attachment).filter(({ name, type }) => {
    const link = links.get(name)
    return (
      link?.type === type && (isOurs(link, attachment.containerId, attachment.ifname) || isUnfinished(link, attachment))
    )
  })

/** A device gets its alias just after it is made; between the two its name, kind and MAC are enough, where the journal has it. */
const isUnfinished = (link: Link | ForeignLink, { role }: Attachment): boolean =>
  link.alias === undefined && (link.type === 'ifb' || (role === 'routed' && link.mac?.equals(nodeMac) === true))

/** Takes devices off the bridge and into the drain's group; false when there is none any more. Throws CniError 102. */
export async function cutOff(kernel: Kernel, devices: readonly OwnDevice[]): Promise<boolean> {
  const results = await kernel.execute(
    devices.map(({ name, type }) =>
      set({ kind: 'link', name, type, ...(type === 'veth' ? { master: null } : {}), group: drainGroup }),
    ),
  )
  throwFirst(results.filter((error) => error && error.code !== 'ENODEV'))
  return results.some((error) => error === undefined)
}

/** Takes an attachment's bandwidth limits off a device that may be gone, and its queues with it. Throws CniError 102. */
export async function removeLimits(
  kernel: Kernel,
  { bandwidth, hostDevice, containerId, ifname }: Attachment,
): Promise<void> {
  if (!bandwidth) return
  // A filter goes with the queue that it hangs on.
  const objects = planLimits(hostDevice, podAlias(containerId, ifname), 0, bandwidth)
  const results = await kernel.execute(
    objects.filter((object) => object.kind === 'link' || object.kind === 'qdisc').map(remove),
  )
  throwFirst(results.filter((error) => error && !['ENODEV', 'ENOENT', 'EINVAL'].includes(error.code)))
}

/** The node's device whose other end is the container's interface. Throws CniError 7 when there is none. */
export async function hostEndOf(kernel: Kernel, request: AttachmentRequest): Promise<string> {
  const { ifname } = request
  const pod = openPod(kernel, request)
  try {
    const index = (await readLinks(pod)).get(ifname)?.lowerIfindex
    const ends = [...(await readLinks(kernel)).values()]
    const end = ends.find((link) => link.type === 'veth' && link.ifindex === index && link.peerNetnsId !== undefined)
    if (end) return end.name
  } finally {
    pod.close()
  }
  throw new CniError(
    CniCode.invalidConfig,
    `${ifname}: no veth device of the node leads to it, so its bandwidth cannot be limited`,
  )
}
