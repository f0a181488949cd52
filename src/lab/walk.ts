/**
 * Follows one real packet from pod to pod: listens on every device of both pods, both nodes and the fabric, sends one ping, and
 * tells where its request was seen, when, with which TTL, and wrapped in what.
 */
import { execFile } from 'node:child_process'
import type { Kernel } from '../kernel/kernel.ts'
import { openLinuxKernel } from '../kernel/linux/linux-kernel.ts'
import { inNetns } from '../kernel/linux/netns.ts'
import type { ForeignLink, Link } from '../model/link.ts'
import type { IcmpLayer, Layer } from '../wire/packet/packet.ts'
import { formatEncapsulation, innermostIp } from '../wire/packet/packet-format.ts'
import { Capture, DeviceGone, type SeenFrame } from './capture.ts'
import { netnsPath } from './layout.ts'
import { waitUntil } from './process.ts'

/** How long the captures have to hand over what they saw. */
const SETTLE_MS = 700

export interface WalkEnd {
  readonly pod: string
  readonly node: string
  readonly netnsPath: string
  readonly ip: string
}

export interface Hop {
  /** `pod web-1`, `node n1`, `fabric`, `router`. */
  readonly place: string
  readonly device: string
  readonly source: string
  readonly destination: string
  readonly ttl: number
  /** How the packet is wrapped here, outer addresses included; undefined when it is bare. */
  readonly encapsulation?: string
  readonly mtuBytes: number
  readonly offsetNanoseconds: bigint
}

interface Listening {
  readonly place: string
  readonly device: string
  readonly mtuBytes: number
  readonly capture: Capture
}

type AnyLink = Link | ForeignLink

async function linksOf(kernel: Kernel, path: string): Promise<AnyLink[]> {
  const there = kernel.open(path)
  try {
    return (await there.read('link')) as AnyLink[]
  } finally {
    there.close()
  }
}

/** Devices of a node that the pod's packets may pass, pod side first. Other pods' ports are left out. */
function nodeDevices(links: readonly AnyLink[], podLink: AnyLink | undefined): AnyLink[] {
  const port = links.find((link) => link.ifindex === podLink?.lowerIfindex)
  const rank = (link: AnyLink) =>
    link === port ? 0 : link.type === 'bridge' ? 1 : link.name === 'eth0' ? 3 : link.type === 'veth' ? 9 : 2
  return links
    .filter((link) => link.name !== 'lo' && link.up !== false && rank(link) < 9)
    .sort((a, b) => rank(a) - rank(b))
}

async function listen(lab: string, from: WalkEnd, to: WalkEnd): Promise<Listening[]> {
  const kernel = openLinuxKernel()
  try {
    const at = (place: string) => netnsPath(lab, place)
    const [podA, podB, nodeA, nodeB, fabric, router] = await Promise.all(
      [from.netnsPath, to.netnsPath, at(from.node), at(to.node), at('fabric'), at('router')].map((path) =>
        linksOf(kernel, path),
      ),
    )
    const endA = podA!.find((link) => link.name === 'eth0')
    const endB = podB!.find((link) => link.name === 'eth0')
    const crossing = from.node !== to.node
    const points: { place: string; path: string; link: AnyLink | undefined }[] = [
      { place: `pod ${from.pod}`, path: from.netnsPath, link: endA },
      ...nodeDevices(nodeA!, endA).map((link) => ({ place: `node ${from.node}`, path: at(from.node), link })),
    ]
    if (crossing) {
      const ports = fabric!.filter((link) => link.name === from.node || link.name === to.node)
      points.push({ place: 'fabric', path: at('fabric'), link: ports.find((link) => link.name === from.node) })
      if (new Set(ports.map((link) => link.master)).size > 1)
        points.push(
          ...router!
            .filter((link) => /^eth\d/.test(link.name))
            .map((link) => ({ place: 'router', path: at('router'), link })),
        )
      points.push({ place: 'fabric', path: at('fabric'), link: ports.find((link) => link.name === to.node) })
      points.push(
        ...nodeDevices(nodeB!, endB)
          .reverse()
          .map((link) => ({ place: `node ${to.node}`, path: at(to.node), link })),
      )
    } else {
      const port = nodeA!.find((link) => link.ifindex === endB?.lowerIfindex)
      points.push({ place: `node ${to.node}`, path: at(to.node), link: port })
    }
    points.push({ place: `pod ${to.pod}`, path: to.netnsPath, link: endB })
    const opened = await Promise.all(
      points.map(async ({ place, path, link }): Promise<Listening | undefined> => {
        if (!link) return undefined
        try {
          const capture = await Capture.open(lab, { netnsPath: path, device: link.name }, 'not arp and not tcp')
          return { place, device: link.name, mtuBytes: link.mtuBytes ?? 0, capture }
        } catch (error) {
          if (error instanceof DeviceGone) return undefined
          throw error
        }
      }),
    )
    return opened.filter((each) => each !== undefined)
  } finally {
    kernel.close()
  }
}

const isRequest = (layers: readonly Layer[], from: WalkEnd, to: WalkEnd): boolean => {
  const ip = innermostIp(layers)
  const icmp = layers.findLast((layer): layer is IcmpLayer => layer.layer === 'icmp')
  return (
    icmp !== undefined &&
    (icmp.type === 8 || icmp.type === 128) &&
    String(ip?.source) === from.ip &&
    String(ip?.destination) === to.ip
  )
}

/** Sends one ping and gives the places where its request was seen, in the order of the way. Empty when it was seen nowhere. */
export async function followPacket(
  lab: string,
  from: WalkEnd,
  to: WalkEnd,
): Promise<{ hops: Hop[]; answered: boolean }> {
  const listening = await listen(lab, from, to)
  const answered = await new Promise<boolean>((resolve) => {
    inNetns(from.netnsPath, () =>
      execFile('ping', ['-n', '-c', '1', '-W', '2', to.ip], (error) => resolve(error === null)),
    )
  })
  // Devices beside the way see nothing: after a while what is there counts.
  await waitUntil(() => listening.every(({ capture }) => capture.hasFrames), SETTLE_MS)
  const seen = await Promise.all(
    listening.map(async (each) => ({
      ...each,
      frame: (await each.capture.close()).find(({ layers }) => isRequest(layers, from, to)),
    })),
  )
  const first = seen.reduce<bigint | undefined>((least, { frame }) => {
    if (!frame) return least
    return least === undefined || frame.timeNanoseconds < least ? frame.timeNanoseconds : least
  }, undefined)
  const hops = seen.flatMap(({ place, device, mtuBytes, frame }) =>
    frame ? [hopOf(place, device, mtuBytes, frame, first ?? frame.timeNanoseconds)] : [],
  )
  return { hops, answered }
}

function hopOf(place: string, device: string, mtuBytes: number, frame: SeenFrame, first: bigint): Hop {
  const ip = innermostIp(frame.layers)!
  const encapsulation = formatEncapsulation(frame.layers)
  return {
    place,
    device,
    source: String(ip.source),
    destination: String(ip.destination),
    ttl: ip.ttl,
    ...(encapsulation ? { encapsulation } : {}),
    mtuBytes,
    offsetNanoseconds: frame.timeNanoseconds - first,
  }
}

/** A table of hops for people. */
export function formatHops(hops: readonly Hop[]): string[] {
  const rows = hops.map((hop, i) => [
    String(i + 1),
    `${hop.device}@${hop.place.replace(/^(pod|node) /, '')}`,
    `${hop.source} → ${hop.destination}`,
    `ttl ${hop.ttl}`,
    `mtu ${hop.mtuBytes}`,
    `+${(Number(hop.offsetNanoseconds) / 1000).toFixed(0)} µs`,
    hop.encapsulation ? `in ${hop.encapsulation}` : '',
  ])
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]!.length))) ?? []
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  )
}
