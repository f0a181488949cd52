/**
 * What the server has given to whom, kept so that the journal and the kernel agree again after any crash.
 *
 *            add record            up record               del record                gone record
 *   (free) ───────────► adding ───────────────► up ───────────────────► deleting ───────────────► (free)
 *                          └── rolled back: gone ─► (free)
 *            ips record: the addresses of an attachment that had none when it was added
 *
 * A record is written before the step that it announces. An attachment keeps its addresses from its `add` record to its
 * `gone` record; an address is free when no attachment here has it. State of an earlier boot is void, because network
 * namespaces end with the kernel: only the rotation is kept, so that addresses are not reused at once, and what was taken from
 * the cluster's pools, which do not end with it: such an attachment is deleting until they have been given back.
 *
 * A journal has a name, by which its node knows again what it has written about itself elsewhere. It ends with the boot: the image
 * of a machine may be copied, with the journal in it.
 *
 * Another version of weft may have written the file, an earlier or a later one. Fields that are not known here are carried
 * along with their attachment; whole records are kept as they are, for the version that knows them, until the next boot.
 */

import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import type { PortVlans } from '../datapath/bridge/vlan.ts'
import { decodeLog, RecordLog } from '../ipam/stores/record-log.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import type { Bandwidth, PortMapping } from './config.ts'

export type AttachmentState = 'adding' | 'up' | 'deleting'

export interface HeldAddress {
  readonly ip: Ip
  readonly prefixLength: number
  /** Which range set of the pool it was searched in; absent when it was asked for by name. */
  readonly set?: number
}

/** Everything that taking an attachment down, checking it or changing its MTU needs. */
export interface Attachment {
  /** Unique for the life of the journal. */
  readonly id: number
  /**
   * `bridge`: made by us, a port of a bridge; `routed`: made by us, with routes of its own; `chained`: another plugin's
   * interface with our host ports and limits on it.
   */
  readonly role: 'bridge' | 'routed' | 'chained'
  readonly network: string
  readonly containerId: string
  readonly ifname: string
  /** `namespace/name`, when the runtime said whose it is. */
  readonly pod?: string
  /** Tells the pod from one of the same name in another life. */
  readonly podUid?: string
  readonly netnsPath: string
  /** The path is the caller's and leads nowhere, or elsewhere, for this process. */
  readonly netnsOfCaller?: boolean
  /** Whose address space: the node's, or a network's own. */
  readonly pool: string
  readonly ips: readonly HeldAddress[]
  readonly hostDevice: string
  readonly bridge?: string
  readonly mac?: string
  /** The configuration named an MTU: later changes of the node's do not touch this one. */
  readonly fixedMtu?: boolean
  readonly hairpin?: boolean
  readonly isolated?: boolean
  /** Only frames under `mac` are let in. */
  readonly macSpoofCheck?: boolean
  readonly vlans?: PortVlans
  /** The node's device with the gateway's addresses, where it is not the bridge itself. */
  readonly gatewayDevice?: string
  readonly ipMasq?: boolean
  readonly portMappings?: readonly PortMapping[]
  readonly bandwidth?: Bandwidth
  /** Its addresses are of the cluster's pools, under this handle. */
  readonly handle?: string
  /** Prefixes that the pod asked to send under besides its addresses. */
  readonly allowedSources?: readonly Cidr[]
  /** The table that answers of this interface go by, inside the pod. */
  readonly podTable?: number
}

export interface Entry {
  attachment: Attachment
  state: AttachmentState
}

export interface Recovery {
  /** Attachments of an earlier boot that were dropped. */
  readonly voided: number
  readonly damagedLines: number
  readonly tornBytes: number
  /** Records that another version of weft wrote and this one cannot read. */
  readonly foreign: number
}

/** Where records go. */
type JournalLog = Pick<RecordLog, 'bytes' | 'append' | 'compact' | 'close'>

/** Compaction: when the file is this much longer than its live content. */
const slackBytes = 256 * 1024

export class Journal {
  readonly entries = new Map<number, Entry>()
  /** The same by container and interface: a bridged and a chained one, and those on their way out. */
  readonly #byOwner = new Map<string, Set<Entry>>()
  readonly #byDevice = new Map<string, Entry>()
  /** Last address given by search, by pool and set number (`node/0`). */
  readonly rotation = new Map<string, Ip>()
  readonly recovery: Recovery
  #name = ''
  /** Records of another version. */
  #foreign: object[] = []
  readonly #log: JournalLog
  readonly #bootId: string
  #nextId = 1
  #compactBytes = 0

  private constructor(
    log: JournalLog,
    bootId: string,
    recovery: Omit<Recovery, 'voided' | 'foreign'>,
    records: readonly unknown[],
  ) {
    this.#log = log
    this.#bootId = bootId
    let voided = 0
    let boot = ''
    for (const record of records as readonly JournalRecord[]) {
      if (record.op === 'boot') {
        if (boot !== '' && boot !== record.id) voided += this.#void()
        boot = record.id
      } else if (!this.#replay(record)) this.#keepForeign(record)
    }
    if (boot !== bootId) voided += this.#void()
    this.#name ||= randomBytes(6).toString('hex')
    this.recovery = { voided, ...recovery, foreign: this.#foreign.length }
    this.compact()
  }

  /** Opens the journal at `path` for this boot of the kernel (/proc/sys/kernel/random/boot_id). Throws the file system's errors. */
  static open(path: string, bootId: string): Journal {
    const { log, reading } = RecordLog.open(path)
    const { records, damagedLines, tornBytes } = reading
    return new Journal(log, bootId, { damagedLines, tornBytes }, records)
  }

  /**
   * The attachments alive by the journal at `path`, for whoever may not write there; undefined when there is none. Throws the
   * file system's errors.
   */
  static readLiving(path: string, bootId: string): Attachment[] | undefined {
    if (!existsSync(path)) return undefined
    const nowhere: JournalLog = { bytes: 0, append() {}, compact() {}, close() {} }
    const { records, damagedLines, tornBytes } = decodeLog(readFileSync(path))
    const { entries } = new Journal(nowhere, bootId, { damagedLines, tornBytes }, records)
    return [...entries.values()].filter(({ state }) => state === 'up').map(({ attachment }) => attachment)
  }

  /** Unique, and the same for as long as this journal knows all that this node has done since it booted. */
  get name(): string {
    return this.#name
  }

  #void(): number {
    const count = this.entries.size
    for (const entry of [...this.entries.values()])
      if (entry.attachment.handle === undefined) this.#drop(entry)
      else entry.state = 'deleting'
    this.#foreign = []
    this.#name = ''
    return count - this.entries.size
  }

  /** False for a record that this version cannot read. */
  #replay(record: Exclude<JournalRecord, { op: 'boot' }>): boolean {
    switch (record.op) {
      case 'name':
        this.#name = record.name
        return true
      case 'rotation':
        return readable(() => this.rotation.set(record.key, Ip.parse(record.ip)))
      case 'add':
        return readable(() => this.#hold(decodeAttachment(record.attachment), record.state ?? 'adding'))
      case 'ips':
        return readable(() => {
          const entry = this.entries.get(record.id)
          if (entry) entry.attachment = { ...entry.attachment, ips: decodeIps(record.ips) }
        })
      case 'up':
      case 'del':
      case 'gone': {
        const entry = this.entries.get(record.id)
        if (entry && record.op === 'gone') this.#drop(entry)
        else if (entry) entry.state = record.op === 'up' ? 'up' : 'deleting'
        return true
      }
      default:
        return false
    }
  }

  /** Its number is not given to anything else. */
  #keepForeign(record: object): void {
    this.#foreign.push(record)
    const { id: own, attachment } = record as { readonly id?: unknown; readonly attachment?: { readonly id?: unknown } }
    const id = attachment?.id ?? own
    if (typeof id === 'number') this.#nextId = Math.max(this.#nextId, id + 1)
  }

  #hold(attachment: Attachment, state: AttachmentState): Entry {
    const entry = { attachment, state }
    this.entries.set(attachment.id, entry)
    const owner = ownerOf(attachment.containerId, attachment.ifname)
    const siblings = this.#byOwner.get(owner)
    if (siblings) siblings.add(entry)
    else this.#byOwner.set(owner, new Set([entry]))
    if (attachment.hostDevice) this.#byDevice.set(attachment.hostDevice, entry)
    this.#nextId = Math.max(this.#nextId, attachment.id + 1)
    for (const { ip, set } of attachment.ips) if (set !== undefined) this.rotation.set(`${attachment.pool}/${set}`, ip)
    return entry
  }

  #drop(entry: Entry): void {
    const { id, containerId, ifname, hostDevice } = entry.attachment
    this.entries.delete(id)
    const owner = ownerOf(containerId, ifname)
    const siblings = this.#byOwner.get(owner)
    siblings?.delete(entry)
    if (siblings?.size === 0) this.#byOwner.delete(owner)
    if (this.#byDevice.get(hostDevice) === entry) this.#byDevice.delete(hostDevice)
  }

  /** What a container has by the name of this interface. */
  find(containerId: string, ifname: string): Entry[] {
    return [...(this.#byOwner.get(ownerOf(containerId, ifname)) ?? [])]
  }

  /**
   * Announces an attachment, before anything of it exists; `up` for one that was found existing, `deleting` for one of which
   * nothing is left but what has to be given back. Throws when it cannot be written.
   */
  begin(wanted: Omit<Attachment, 'id'>, state: AttachmentState = 'adding'): Entry {
    const attachment = { id: this.#nextId, ...wanted }
    this.#log.append({ op: 'add', attachment: encodeAttachment(attachment), ...(state === 'adding' ? {} : { state }) })
    return this.#hold(attachment, state)
  }

  /** Its addresses are known now. Throws when it cannot be written. */
  give(entry: Entry, ips: readonly HeldAddress[]): void {
    this.#log.append({ op: 'ips', id: entry.attachment.id, ips: encodeIps(ips) })
    entry.attachment = { ...entry.attachment, ips }
  }

  /** It exists whole: the answer may be given. */
  up(entry: Entry): void {
    this.#log.append({ op: 'up', id: entry.attachment.id })
    entry.state = 'up'
  }

  /** It is going; whatever happens, it does not come back. Throws when it cannot be written, and is going all the same. */
  deleting(entry: Entry): void {
    entry.state = 'deleting'
    this.#log.append({ op: 'del', id: entry.attachment.id })
  }

  /** Nothing of it exists any more: its addresses are free. Throws when it cannot be written, and is gone all the same. */
  gone(entry: Entry): void {
    this.#drop(entry)
    this.#log.append({ op: 'gone', id: entry.attachment.id })
    if (this.#log.bytes > 2 * this.#compactBytes + slackBytes) this.compact()
  }

  /** Who has, or had last, a device of this name. */
  holderOf(hostDevice: string): Entry | undefined {
    return this.#byDevice.get(hostDevice)
  }

  /** The living attachment that has this device. */
  livingWith(hostDevice: string): Attachment | undefined {
    const entry = this.#byDevice.get(hostDevice)
    return entry?.state === 'up' ? entry.attachment : undefined
  }

  compact(): void {
    this.#log.compact(this.#snapshot())
    this.#compactBytes = this.#log.bytes
  }

  *#snapshot(): Generator<object> {
    yield { op: 'boot', id: this.#bootId }
    yield { op: 'name', name: this.#name }
    for (const { attachment, state } of this.entries.values())
      yield { op: 'add', attachment: encodeAttachment(attachment), state }
    yield* this.#foreign
    for (const [key, ip] of this.rotation) yield { op: 'rotation', key, ip: `${ip}` }
  }

  close(): void {
    this.#log.close()
  }
}

/** What the kernel calls this boot of itself. */
export const readBootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

function readable(read: () => unknown): boolean {
  try {
    read()
    return true
  } catch {
    return false
  }
}

const ownerOf = (containerId: string, ifname: string): string => `${containerId}/${ifname}`

type JournalRecord =
  | { readonly op: 'boot'; readonly id: string }
  | { readonly op: 'add'; readonly attachment: EncodedAttachment; readonly state?: AttachmentState }
  | { readonly op: 'up' | 'del' | 'gone'; readonly id: number }
  | { readonly op: 'ips'; readonly id: number; readonly ips: EncodedAttachment['ips'] }
  | { readonly op: 'name'; readonly name: string }
  | { readonly op: 'rotation'; readonly key: string; readonly ip: string }

type EncodedAttachment = Omit<Attachment, 'ips' | 'portMappings' | 'allowedSources'> & {
  readonly ips: readonly { readonly ip: string; readonly prefixLength: number; readonly set?: number }[]
  readonly allowedSources?: readonly string[]
  readonly portMappings?: readonly (Omit<PortMapping, 'hostIp'> & { readonly hostIp?: string })[]
}

const encodeIps = (ips: readonly HeldAddress[]): EncodedAttachment['ips'] =>
  ips.map((held) => ({ ...held, ip: `${held.ip}` }))

const decodeIps = (ips: EncodedAttachment['ips']): HeldAddress[] =>
  ips.map((held) => ({ ...held, ip: Ip.parse(held.ip) }))

const encodeAttachment = ({ ips, portMappings, allowedSources, ...rest }: Attachment): EncodedAttachment => ({
  ...rest,
  ips: encodeIps(ips),
  ...(allowedSources?.length ? { allowedSources: allowedSources.map(String) } : {}),
  ...(portMappings?.length
    ? {
        portMappings: portMappings.map(({ hostIp, ...port }) => ({
          ...port,
          ...(hostIp ? { hostIp: `${hostIp}` } : {}),
        })),
      }
    : {}),
})

const decodeAttachment = ({ ips, portMappings, allowedSources, ...rest }: EncodedAttachment): Attachment => ({
  ...rest,
  ips: decodeIps(ips),
  ...(allowedSources ? { allowedSources: allowedSources.map(Cidr.parse) } : {}),
  ...(portMappings
    ? {
        portMappings: portMappings.map(({ hostIp, ...port }) => ({
          ...port,
          ...(hostIp ? { hostIp: Ip.parse(hostIp) } : {}),
        })),
      }
    : {}),
})
