/**
 * After a start: the journal and the kernel agree again, whatever instruction the last life ended at.
 *
 *   journal    device of ours     then
 *   adding     any                undone: the runtime never had an answer
 *   deleting   there              finished: off the bridge, into the drain
 *   deleting   gone               freed
 *   up         there              kept
 *   up         gone, netns gone   freed
 *   up         gone, netns there  kept until DEL: the container lives, and may use its address elsewhere
 *   nothing    there              taken into the journal, from its alias: its namespace lives, so its address is in use;
 *                                 its host ports are those that lead to its addresses
 *
 * Nothing else is freed here: what the runtime knows and the kernel shows is never taken for a leak.
 */
import { existsSync } from 'node:fs'
import type { Kernel } from '../kernel/kernel.ts'
import type { Link } from '../model/link.ts'
import type { Attacher } from './attacher.ts'
import { drainGroup } from './drain.ts'
import { type PodIdentity, parsePodAlias } from './identity.ts'
import type { Attachment, Entry, Journal } from './journal.ts'
import { ifbName } from './limits.ts'
import type { Log } from './network.ts'
import { nodePool } from './pools.ts'
import { hostPortsOf } from './shared-rules.ts'
import { devicesOf, isOurs, type Links, readLinks, remove } from './wiring.ts'

export interface RecoveryReport {
  readonly kept: number
  readonly undone: number
  readonly finished: number
  readonly freed: number
  readonly adopted: number
}

/** Adopts, before any pool is made: an address in use must not be given. */
export async function recover(kernel: Kernel, journal: Journal, attacher: Attacher, log: Log): Promise<RecoveryReport> {
  const links = await readLinks(kernel)
  const report = { kept: 0, undone: 0, finished: 0, freed: 0, adopted: 0 }
  for (const entry of [...journal.entries.values()]) report[await settle(entry, links, attacher)]++
  const known = new Set(
    [...journal.entries.values()].flatMap(({ attachment }) => devicesOf(attachment).map(({ name }) => name)),
  )
  for (const link of links.values()) {
    const identity = known.has(link.name) || link.alias === undefined ? undefined : parsePodAlias(link.alias)
    if (!identity) continue
    if (link.type === 'veth' && link.group !== drainGroup) {
      const attachment = await describe(kernel, link, identity, links)
      for (const { name } of devicesOf({ id: 0, ...attachment })) known.add(name)
      journal.begin(attachment, 'up')
      report.adopted++
    }
  }
  for (const link of links.values())
    if (!known.has(link.name) && link.alias !== undefined && parsePodAlias(link.alias))
      await kernel.execute([remove(link)])
  if (report.undone + report.finished + report.freed + report.adopted > 0)
    log.info(report, 'Recovered attachments from the journal and the kernel')
  return report
}

async function settle(
  entry: Entry,
  links: Links,
  attacher: Attacher,
): Promise<'kept' | 'undone' | 'finished' | 'freed'> {
  const { attachment, state } = entry
  const link = links.get(attachment.hostDevice)
  const there = link !== undefined && isOurs(link, attachment.containerId, attachment.ifname)
  if (state === 'up' && (there || existsSync(attachment.netnsPath))) return 'kept'
  await attacher.takeDown(entry, links)
  if (state === 'up') return 'freed'
  return state === 'adding' ? 'undone' : 'finished'
}

/** An attachment as its devices and the node's nft table tell it: not which network's it is. */
async function describe(
  kernel: Kernel,
  link: Link,
  { containerId, ifname, ips }: PodIdentity,
  links: Links,
): Promise<Omit<Attachment, 'id'>> {
  const ifb = links.get(ifbName(link.name))
  const limited = ifb !== undefined && isOurs(ifb, containerId, ifname)
  const bucket = limited
    ? (await kernel.read('qdisc')).find(({ device, type }) => device === ifb.name && type === 'tbf')?.tbf
    : undefined
  const portMappings = hostPortsOf(await kernel.read('nft-element'), ips)
  return {
    role: 'bridge',
    network: 'weft',
    containerId,
    ifname,
    netnsPath: '',
    pool: nodePool,
    ips: ips.map((ip) => ({ ip, prefixLength: ip.family === 4 ? 32 : 128 })),
    hostDevice: link.name,
    ...(link.master ? { bridge: link.master } : {}),
    ...(portMappings.length ? { portMappings } : {}),
    ...(limited
      ? {
          bandwidth: {
            ingressRate: 0,
            ingressBurst: 0,
            // Even without a bucket the device must go with the pod.
            egressRate: bucket?.rateBitsPerSecond ?? 8,
            egressBurst: (bucket?.burstBytes ?? 0) * 8,
          },
        }
      : {}),
  }
}
