/**
 * What an agent knew of Calico's objects, as lines of a file and back: pools, reservations and settings as objects in Calico's
 * own shape, which pass the same checks again; of blocks what routes need, and those in which this node has addresses whole.
 *
 *   ["pool","pool-a",{…}]   ["block","172.26.4.0/26","host:n2",[[5,"n3"]]]   ["own-block","172.26.0.0/26",{…},"<revision>"]
 *
 * A block that is not whole has no address to give, and a revision that no store ever has: nobody can write it.
 */
import { formatJson, parseJson } from '../../bytes/json.ts'
import { decodeBlock, encodeBlock, formatOwner, parseOwner } from '../../config/calico/block.ts'
import { GENEVE_MODE_ANNOTATION } from '../../config/calico/pool.ts'
import type { IpamBlock, IpamSettings, IpPool, IpReservation } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { bitsOf } from '../../net/ip.ts'
import type { CalicoEvent } from '../calico/calico-source.ts'
import { poolEvent, reservationEvent, settingsEvent } from '../calico/object-events.ts'
import type { ClusterLog } from '../cluster.ts'

/** The first revision of any store is that of something else. */
const NO_REVISION = '1'
const MAX_BORROWED = 4096

/** One remembered object: its key among all, and its line. */
export interface Line {
  readonly key: string
  readonly text: string
}

/** What an event leaves to remember; undefined when nothing changes by it. A gone object has the line ''. */
export function lineOf(event: CalicoEvent, nodeName: string): Line | undefined {
  switch (event.type) {
    case 'pool':
      return event.pool && line(['pool', event.name, poolObject(event.pool)])
    case 'pool-gone':
      return { key: keyOf('pool', event.name), text: '' }
    case 'reservation':
      return event.reservation && line(['reservation', event.name, reservationObject(event.reservation)])
    case 'reservation-gone':
      return { key: keyOf('reservation', event.name), text: '' }
    case 'felix':
      return event.spec === undefined
        ? { key: keyOf('felix', event.name), text: '' }
        : line(['felix', event.name, event.spec])
    case 'ipam-settings':
      if (event.problem) return undefined
      return event.settings
        ? line(['settings', 'default', settingsObject(event.settings)])
        : { key: keyOf('settings', 'default'), text: '' }
    case 'block':
      return blockLine(event.held.value, event.held.revision, nodeName)
    case 'block-gone':
      return { key: keyOf('block', `${event.cidr}`), text: '' }
    default:
      return undefined
  }
}

const keyOf = (kind: string, name: string): string => `${kind} ${name}`

const line = (parts: readonly [kind: string, name: string, ...rest: unknown[]]): Line => ({
  key: keyOf(parts[0] === 'own-block' ? 'block' : parts[0], parts[1]),
  text: formatJson(parts),
})

function blockLine(block: IpamBlock, revision: string, nodeName: string): Line {
  const owner = block.owner && formatOwner(block.owner)
  const isOwn = owner === `host:${nodeName}` || block.attributes.some(({ secondary }) => secondary.node === nodeName)
  if (isOwn) return line(['own-block', `${block.cidr}`, encodeBlock(block, 'etcd'), revision])
  const borrowed = block.allocations.flatMap((index, ordinal) => {
    const attribute = index === null ? undefined : block.attributes[index]
    const node = attribute?.releasedAt === undefined ? attribute?.secondary.node : undefined
    return node === undefined || owner === `host:${node}` ? [] : [[ordinal, node] as const]
  })
  return line(['block', `${block.cidr}`, owner ?? null, borrowed])
}

/** The event that a line was; undefined for one of a kind that is not known. Throws when it cannot be read. */
export function eventOf(
  text: string,
  log: ClusterLog,
): { readonly key: string; readonly event: CalicoEvent } | undefined {
  const parts = parseJson(text)
  if (!Array.isArray(parts)) throw new Error('a line of it is no list')
  const [kind, name, value, further] = parts as unknown[]
  if (typeof kind !== 'string' || typeof name !== 'string') throw new Error('a line of it has no name')
  const event = readEvent(kind, name, value, further, log)
  return event && { key: keyOf(kind === 'own-block' ? 'block' : kind, name), event }
}

function readEvent(kind: string, name: string, value: unknown, further: unknown, log: ClusterLog) {
  switch (kind) {
    case 'pool':
      return poolEvent(name, () => value, log)
    case 'reservation':
      return reservationEvent(name, () => value, log)
    case 'felix':
      return { type: 'felix', name, spec: value } as const
    case 'settings':
      return settingsEvent(() => value, log)
    case 'own-block':
      return { type: 'block', held: { value: decodeBlock(value, `block ${name}`), revision: String(further) } } as const
    case 'block':
      return { type: 'block', held: { value: partOfBlock(name, value, further), revision: NO_REVISION } } as const
    default:
      return undefined
  }
}

function partOfBlock(name: string, ownerText: unknown, borrowed: unknown): IpamBlock {
  const cidr = Cidr.parse(name)
  const size = 2 ** Math.min(bitsOf(cidr.family) - cidr.length, 12)
  const owner = typeof ownerText === 'string' ? parseOwner(ownerText) : undefined
  const allocations = new Array<number | null>(size).fill(null)
  const list = Array.isArray(borrowed) ? (borrowed as unknown[]).slice(0, MAX_BORROWED) : []
  const attributes = list.map((entry, index) => {
    const [ordinal, node] = (Array.isArray(entry) ? entry : []) as unknown[]
    if (typeof ordinal !== 'number' || !(ordinal in allocations) || typeof node !== 'string')
      throw new Error(`block ${name} is torn`)
    allocations[ordinal] = index
    return { secondary: { node } }
  })
  return {
    cidr,
    ...(owner ? { owner } : {}),
    allocations,
    unallocated: [],
    attributes,
    sequenceNumber: 0n,
    sequenceNumberForAllocation: {},
    deleted: false,
    strictAffinity: false,
  }
}

/** What goes when an object of this key is gone. */
export function goneEventOf(key: string): CalicoEvent | undefined {
  const [kind, name = ''] = [key.slice(0, key.indexOf(' ')), key.slice(key.indexOf(' ') + 1)]
  switch (kind) {
    case 'pool':
      return { type: 'pool-gone', name }
    case 'reservation':
      return { type: 'reservation-gone', name }
    case 'felix':
      return { type: 'felix', name, spec: undefined }
    case 'settings':
      return { type: 'ipam-settings', settings: undefined }
    case 'block':
      return { type: 'block-gone', cidr: Cidr.parse(name) }
    default:
      return undefined
  }
}

const poolObject = ({ name, createdAtSeconds, geneveMode, disableBgpExport, ...same }: IpPool): object => ({
  metadata: {
    name,
    ...(createdAtSeconds === undefined ? {} : { creationTimestamp: new Date(createdAtSeconds * 1000).toISOString() }),
    ...(geneveMode === 'Never' ? {} : { annotations: { [GENEVE_MODE_ANNOTATION]: geneveMode } }),
  },
  spec: { ...same, disableBGPExport: disableBgpExport },
})

const reservationObject = ({ name, cidrs }: IpReservation): object => ({
  metadata: { name },
  spec: { reservedCIDRs: cidrs },
})

const settingsObject = (settings: IpamSettings): object => ({ metadata: { name: 'default' }, spec: settings })
