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
 *   nothing    there              taken into the journal, from its alias: its namespace lives, so its address is in use
 *
 * Nothing else is freed here: what the runtime knows and the kernel shows is never taken for a leak.
 */
import { existsSync } from 'node:fs'
import type { Kernel } from '../kernel/kernel.ts'
import type { ForeignLink, Link } from '../model/link.ts'
import type { Attacher } from './attacher.ts'
import { drainGroup } from './drain.ts'
import { parsePodAlias } from './identity.ts'
import type { Entry, Journal } from './journal.ts'
import type { Log } from './network.ts'
import { nodePool } from './pools.ts'
import { isOurs, readLinks, remove } from './wiring.ts'

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
  const known = new Set<string>()
  for (const entry of [...journal.entries.values()]) {
    const { attachment } = entry
    if (attachment.hostDevice) known.add(attachment.hostDevice)
    const outcome = await settle(entry, links, attacher)
    report[outcome]++
  }
  for (const link of links.values()) {
    if (link.type !== 'veth' || known.has(link.name)) continue
    if (link.group === drainGroup) await kernel.execute([remove(link)])
    else if (adopt(journal, link)) report.adopted++
  }
  if (report.undone + report.finished + report.freed + report.adopted > 0)
    log.info(report, 'Recovered attachments from the journal and the kernel')
  return report
}

async function settle(
  entry: Entry,
  links: ReadonlyMap<string, Link | ForeignLink>,
  attacher: Attacher,
): Promise<'kept' | 'undone' | 'finished' | 'freed'> {
  const { attachment, state } = entry
  const link = links.get(attachment.hostDevice)
  const there = link !== undefined && isOurs(link, attachment.containerId, attachment.ifname)
  if (state === 'up') {
    const alive = there || existsSync(attachment.netnsPath)
    if (alive) return 'kept'
  }
  await attacher.takeDown(entry, there)
  if (state === 'up') return 'freed'
  return state === 'adding' ? 'undone' : 'finished'
}

function adopt(journal: Journal, link: Link | ForeignLink): boolean {
  const identity = link.alias === undefined ? undefined : parsePodAlias(link.alias)
  if (!identity) return false
  journal.begin(
    {
      role: 'bridge',
      network: 'weft',
      containerId: identity.containerId,
      ifname: identity.ifname,
      netnsPath: '',
      pool: nodePool,
      ips: identity.ips.map((ip) => ({ ip, prefixLength: ip.family === 4 ? 32 : 128 })),
      hostDevice: link.name,
      ...(link.master ? { bridge: link.master } : {}),
    },
    'up',
  )
  return true
}
