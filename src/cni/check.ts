/**
 * CHECK: is what ADD made still there? The journal says what should be, the kernel what is.
 *
 * Sources: CNI SPEC.md, "CHECK".
 */
import { type PortVlans, planPortVlans } from '../datapath/bridge/vlan.ts'
import { nodeMac, planGatewayNeighbour, planPodRoute } from '../datapath/routed/plan.ts'
import type { Kernel } from '../kernel/kernel.ts'
import type { ForeignLink, Link } from '../model/link.ts'
import type { Route } from '../model/route.ts'
import { Cidr, parsePrefixed } from '../net/cidr.ts'
import { CniCode, CniError } from './error.ts'
import type { Attachment, Entry } from './journal.ts'
import { planLimits } from './limits.ts'
import type { AttachmentRequest } from './request.ts'
import type { CniResult } from './result.ts'
import { missingRule } from './shared-rules.ts'
import { openPod, readLinks } from './wiring.ts'

const broken = (message: string): CniError => new CniError(CniCode.checkFailed, message)

/** Throws CniError 103 with the first difference, 7 without a prevResult. */
export async function checkAttachment(
  kernel: Kernel,
  request: AttachmentRequest,
  entries: readonly Entry[],
): Promise<void> {
  const { config, containerId, ifname } = request
  const previous = config.prevResult
  if (!previous) throw new CniError(CniCode.invalidConfig, 'prevResult: is missing; CHECK needs the result of ADD')
  const alive = entries.filter(({ state }) => state === 'up').map(({ attachment }) => attachment)
  const bridged = alive.find(({ role }) => role === 'bridge')
  const routed = alive.find(({ role }) => role === 'routed')
  if (alive.length === 0) throw broken(`${ifname} of container ${containerId} is not attached`)
  const links = await readLinks(kernel)
  if (bridged) await checkBridged(kernel, request, bridged, previous, links)
  if (routed) await checkRouted(kernel, request, routed, previous, links)
  for (const attachment of alive) {
    await checkLimits(kernel, attachment)
    const missing = await missingRule(kernel, attachment)
    if (missing) throw broken(missing)
  }
}

/** The node's end of a pair, which must be up. */
function upHostEnd(links: ReadonlyMap<string, Link | ForeignLink>, device: string): Link | ForeignLink {
  const host = links.get(device)
  if (!host) throw broken(`${device} is missing on the node`)
  if (!host.up) throw broken(`${device} is down`)
  return host
}

async function checkBridged(
  kernel: Kernel,
  request: AttachmentRequest,
  attachment: Attachment,
  previous: CniResult,
  links: ReadonlyMap<string, Link | ForeignLink>,
): Promise<void> {
  checkResult(attachment, previous)
  const { hostDevice, bridge } = attachment
  const host = upHostEnd(links, hostDevice)
  if (host.master !== bridge) throw broken(`${hostDevice} is not a port of ${bridge}`)
  if (!links.get(bridge ?? '')?.up) throw broken(`${bridge} is down`)
  if (attachment.vlans) await checkVlans(kernel, hostDevice, attachment.vlans)
  await checkPod(kernel, request, attachment, previous)
}

async function checkPod(kernel: Kernel, request: AttachmentRequest, attachment: Attachment, previous: CniResult) {
  const pod = openPod(kernel, request)
  try {
    await checkInside(pod, request, attachment, previous)
  } finally {
    pod.close()
  }
}

async function checkRouted(
  kernel: Kernel,
  request: AttachmentRequest,
  attachment: Attachment,
  previous: CniResult,
  links: ReadonlyMap<string, Link | ForeignLink>,
): Promise<void> {
  checkResult(attachment, previous)
  const { hostDevice, ips } = attachment
  const host = upHostEnd(links, hostDevice)
  if (!host.mac?.equals(nodeMac)) throw broken(`${hostDevice} has ${host.mac} as its address, not ${nodeMac}`)
  const has = await kernel.read('route')
  for (const { ip } of ips) {
    const { destination } = planPodRoute(hostDevice, ip)
    const leadsThere = (route: Route) =>
      route.destination.equals(destination) &&
      (route.table ?? mainTable) === mainTable &&
      route.hops.some(({ device }) => device === hostDevice)
    if (!has.some(leadsThere)) throw broken(`the node has no route ${ip} dev ${hostDevice}`)
  }
  await checkPod(kernel, request, attachment, previous)
}

/** Where pods' routes are on the node. */
const mainTable = 254

async function checkVlans(kernel: Kernel, port: string, vlans: PortVlans): Promise<void> {
  const wanted = planPortVlans(port, vlans)
  const has = (await kernel.read('bridge-vlan')).filter(({ device }) => device === port)
  for (const { vlan, pvid } of wanted)
    if (!has.some((one) => one.vlan === vlan && (one.pvid ?? false) === (pvid ?? false)))
      throw broken(`${port} is not in VLAN ${vlan}`)
  const other = vlans.keepDefault ? undefined : has.find(({ vlan }) => !wanted.some((one) => one.vlan === vlan))
  if (other) throw broken(`${port} is in VLAN ${other.vlan}`)
}

/** The result of ADD must be about this attachment. */
function checkResult(attachment: Attachment, previous: CniResult): void {
  const named = previous.interfaces.find(({ name, sandbox }) => name === attachment.ifname && sandbox)
  if (previous.interfaces.length && !named)
    throw broken(`prevResult has no interface ${attachment.ifname} in a sandbox`)
  // A record made anew after a loss does not know it.
  if (named?.mac && attachment.mac !== undefined && named.mac.toLowerCase() !== attachment.mac)
    throw broken(`prevResult has ${named.mac} as the address of ${attachment.ifname}, ADD gave ${attachment.mac}`)
  for (const { ip, prefixLength } of attachment.ips)
    if (!previous.ips.some((other) => other.ip.equals(ip) && other.prefixLength === prefixLength))
      throw broken(`prevResult does not have ${ip}/${prefixLength}, which ADD gave`)
}

async function checkInside(
  pod: Kernel,
  request: AttachmentRequest,
  attachment: Attachment,
  previous: CniResult,
): Promise<void> {
  const { ifname, config } = request
  const objects = await pod.read('link', 'address', 'route', 'neighbour')
  const device = objects.find((object) => object.kind === 'link' && object.name === ifname)
  if (device?.kind !== 'link') throw broken(`${ifname} is missing in the container`)
  if (!device.up && !config.disableContainerInterface) throw broken(`${ifname} is down in the container`)
  if (attachment.mac !== undefined && `${device.mac}` !== attachment.mac)
    throw broken(`${ifname} has ${device.mac} as its address, not ${attachment.mac}`)
  for (const { ip, prefixLength } of attachment.ips) {
    const has = (object: (typeof objects)[number]) =>
      object.kind === 'address' &&
      object.device === ifname &&
      object.ip.equals(ip) &&
      object.prefixLength === prefixLength
    if (!objects.some(has)) throw broken(`${ifname} does not have ${ip}/${prefixLength}`)
    if (attachment.role !== 'routed') continue
    const gateway = planGatewayNeighbour(ifname, ip.family)
    const knows = (object: (typeof objects)[number]) =>
      object.kind === 'neighbour' &&
      object.device === ifname &&
      object.ip.equals(gateway.ip) &&
      object.state === gateway.state &&
      object.mac?.equals(gateway.mac) === true
    if (!objects.some(knows)) throw broken(`${ifname} has no permanent entry of ${gateway.ip} at ${gateway.mac}`)
  }
  for (const { destination, via } of previous.routes) {
    const { ip, length } = parsePrefixed(destination)
    const cidr = Cidr.of(ip, length)
    const has = (object: (typeof objects)[number]) =>
      object.kind === 'route' &&
      object.destination.equals(cidr) &&
      (!via || object.hops.some((hop) => hop.via?.equals(via)))
    if (!objects.some(has)) throw broken(`the container has no route ${destination}${via ? ` via ${via}` : ''}`)
  }
}

async function checkLimits(kernel: Kernel, { bandwidth, hostDevice }: Attachment): Promise<void> {
  if (!bandwidth) return
  const has = await kernel.read('qdisc')
  for (const object of planLimits(hostDevice, '', 1500, bandwidth)) {
    if (object.kind !== 'qdisc') continue
    if (
      !has.some(
        ({ device, type, parent }) => device === object.device && type === object.type && parent === object.parent,
      )
    )
      throw broken(`${object.device} has lost its ${object.type} limit`)
  }
}
