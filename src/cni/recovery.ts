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
 *   nothing    there              taken into the journal as the kernel tells it (see survivor.ts): its namespace lives, so
 *                                 its address is in use
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
import type { Log } from './network.ts'
import { describeChained, describePort, readSurvivors } from './survivor.ts'
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
  for (const attachment of await findSurvivors(kernel, links, known, journal)) {
    for (const { name } of devicesOf({ id: 0, ...attachment })) known.add(name)
    journal.begin(attachment, 'up')
    report.adopted++
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
  if (state === 'up' && (there || isWorthKeeping(attachment))) return 'kept'
  await attacher.takeDown(entry, links)
  if (state === 'up') return 'freed'
  return state === 'adding' ? 'undone' : 'finished'
}

/** Whether the container may live without the device. Where the path is not known, or is the caller's, nobody knows. */
const isWorthKeeping = ({ role, netnsPath, netnsOfCaller }: Attachment): boolean =>
  netnsOfCaller || (netnsPath === '' ? role === 'chained' : existsSync(netnsPath))

/** Living attachments that the journal does not know. */
async function findSurvivors(
  kernel: Kernel,
  links: Links,
  known: ReadonlySet<string>,
  journal: Journal,
): Promise<Omit<Attachment, 'id'>[]> {
  const identities = [...links.values()].flatMap((link) => {
    const living = link.type === 'veth' && link.group !== drainGroup && !known.has(link.name)
    const identity = living && link.alias !== undefined ? parsePodAlias(link.alias) : undefined
    return identity ? [{ link: link as Link, identity }] : []
  })
  const seen = await readSurvivors(kernel, links)
  const chained = describeChained(seen).filter(
    ({ containerId, ifname }) =>
      journal.find(containerId, ifname).length === 0 && !isPort(identities, containerId, ifname),
  )
  return [...identities.map(({ link, identity }) => describePort(link, identity, seen)), ...chained]
}

const isPort = (ports: readonly { readonly identity: PodIdentity }[], containerId: string, ifname: string): boolean =>
  ports.some(({ identity }) => identity.containerId === containerId && identity.ifname === ifname)
