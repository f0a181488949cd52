/**
 * The rtnetlink driver: links, addresses, routes, neighbours, forwarding entries, rules, qdiscs, classes and filters over one
 * socket, so that a mixed op list goes down in few sends and in order.
 *
 * Within a send every op is already encoded, so a name that an unsent message is about to create cannot be resolved:
 * the batch goes out first then. Everything between two awaits is synchronous, so that op lists of several callers
 * can share the socket. A long list without links has a socket of its own and two threads: see OpRun.
 */

import type { Reader } from '../../../bytes/reader.ts'
import { KernelError } from '../../../model/errors.ts'
import { formatOp } from '../../../model/format.ts'
import type { KernelObject, ObjectKind } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import { NETLINK_ROUTE } from '../../../wire/netlink/constants.gen.ts'
import type { MessageHeader } from '../../../wire/netlink/message.ts'
import { describeRtnetlink } from '../../../wire/rtnetlink/describe.ts'
import type { KernelEvent, OpResult, Watch } from '../../kernel.ts'
import type { Driver, DriverContext, DriverSession } from '../driver.ts'
import { LinkRemoval } from '../link-removal.ts'
import { type NetlinkSocket, nextTurn, sliceIsOver } from '../netlink-socket.ts'
import { OpRun } from '../op-run.ts'
import type { AnyRtnetlinkKind, DeviceNames, DumpRequest, KindReader } from '../rtnetlink-kind.ts'
import { RtnetlinkWatch } from '../rtnetlink-watch.ts'
import { addressKind } from './address.ts'
import { bridgeVlanKind } from './bridge-vlan.ts'
import { classKind } from './class.ts'
import { fdbKind } from './fdb.ts'
import { filterKind } from './filter.ts'
import { linkKind } from './link.ts'
import { neighbourKind } from './neighbour.ts'
import { qdiscKind } from './qdisc.ts'
import { routeKind } from './route.ts'
import { ruleKind } from './rule.ts'

/** From how many ops on another socket and a worker thread pay. */
const AHEAD_FROM = 1024

const rows: readonly AnyRtnetlinkKind[] = [
  linkKind,
  addressKind,
  routeKind,
  neighbourKind,
  fdbKind,
  bridgeVlanKind,
  ruleKind,
  qdiscKind,
  classKind,
  filterKind,
]
const byKind = new Map<ObjectKind, AnyRtnetlinkKind>(rows.map((row) => [row.kind, row]))

/** What the rtnetlink session can do besides. */
export interface RtnetlinkSession extends DriverSession {
  /** A socket of the namespace, open as long as the session is. */
  readonly fd: number
  /** Deletes every device of a group. */
  deleteGroup(group: number): Promise<OpResult>
}

interface RtnetlinkDriver extends Driver {
  open(context: DriverContext): RtnetlinkSession
}

export const rtnetlinkDriver: RtnetlinkDriver = {
  name: 'rtnetlink',
  kinds: rows.map((row) => row.kind),
  open: (context) => new Session(context),
}

/** One multicast socket and those who listen to it, each to some of its kinds. */
interface SharedWatch {
  readonly kinds: ReadonlySet<ObjectKind>
  readonly listeners: Set<{ readonly kinds: ReadonlySet<ObjectKind>; readonly listener: (event: KernelEvent) => void }>
  readonly watch: Watch
}

class Session implements RtnetlinkSession {
  readonly #context: DriverContext
  readonly #openSocket: () => NetlinkSocket
  readonly #socket: NetlinkSocket
  readonly #removal: LinkRemoval
  #dumpSocket: NetlinkSocket | undefined
  #dumpQueue: Promise<unknown> = Promise.resolve()
  readonly #watches: SharedWatch[] = []

  constructor(context: DriverContext) {
    this.#context = context
    this.#openSocket = () => context.openNetlink(NETLINK_ROUTE, { describe: describeRtnetlink })
    this.#socket = this.#openSocket()
    this.#removal = new LinkRemoval(this.#openSocket)
  }

  get fd(): number {
    return this.#socket.fd
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    const links = ops.findLastIndex((op) => op.object.kind === 'link') + 1
    if (ops.length - links < AHEAD_FROM) return this.#executeInTurn(ops)
    const first = links === 0 ? [] : await this.#executeInTurn(ops.slice(0, links))
    const rest = await this.#executeAhead(links === 0 ? ops : ops.slice(links))
    return links === 0 ? rest : [...first, ...rest]
  }

  /** Batch by batch, each answered before the next is written. */
  async #executeInTurn(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    const run = new OpRun(this.#context, this.#socket, byKind, ops)
    let sliceStart = performance.now()
    for (let i = 0; i < ops.length; ) {
      if (isLinkDeletion(ops[i]!)) {
        run.flush()
        i += await this.#deleteLinks(ops, i, run)
        sliceStart = performance.now()
        continue
      }
      run.perform(i++)
      if (run.isFull) {
        run.flush()
        if (sliceIsOver(sliceStart)) {
          await nextTurn()
          sliceStart = performance.now()
        }
      }
    }
    run.flush()
    return run.results
  }

  /** Many ops, none about a link: the kernel works on one batch on a worker thread while the next is written. */
  async #executeAhead(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    const socket = this.#openSocket()
    const run = new OpRun(this.#context, socket, byKind, ops, true)
    try {
      for (let i = 0; i < ops.length; i++) {
        run.perform(i)
        if (run.isFull) await run.sendAhead()
      }
      await run.sendAhead()
      return run.results
    } finally {
      await run.land()
      socket.close()
    }
  }

  /** Deletes the devices of consecutive ops together; returns how many ops that were. */
  async #deleteLinks(ops: readonly KernelOp[], first: number, run: OpRun): Promise<number> {
    let end = first
    while (end < ops.length && isLinkDeletion(ops[end]!)) end++
    const removals = ops.slice(first, end).map((op) => {
      const name = (op.object as { name: string }).name
      run.forget(name)
      return this.#removal.delete(name, formatOp(op))
    })
    for (const [i, result] of (await Promise.all(removals)).entries()) run.results[first + i] = result
    return end - first
  }

  deleteGroup(group: number): Promise<OpResult> {
    return this.#removal.deleteGroup(group)
  }

  async read(kinds: readonly ObjectKind[]): Promise<KernelObject[]> {
    const turn = this.#dumpQueue.then(() => this.#readNow(kinds))
    this.#dumpQueue = turn.catch(() => {})
    return turn
  }

  async #readNow(kinds: readonly ObjectKind[]): Promise<KernelObject[]> {
    this.#dumpSocket ??= this.#openSocket()
    const socket = this.#dumpSocket
    const names = new CachedNames(this.#context)
    const out: KernelObject[] = []
    for (const kind of kinds) {
      const row = byKind.get(kind)!
      const reader: KindReader = {
        names,
        dump: (request, visit, restart) => dumpFamily(socket, `read ${kind}`, request, visit, restart),
      }
      if (row.read) {
        for (const object of await row.read(reader)) out.push(object)
        continue
      }
      for (const request of row.dumps) {
        const start = out.length
        await reader.dump(
          request,
          (header, payload) => {
            const object = row.decode(header, payload, names)
            if (object) out.push(object)
          },
          () => {
            out.length = start
          },
        )
      }
    }
    return out
  }

  /** A watch whose kinds another one has too listens along: messages are received and decoded once. */
  watch(kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    const shared = this.#watches.find((one) => kinds.every((kind) => one.kinds.has(kind))) ?? this.#openWatch(kinds)
    const own = { kinds: new Set(kinds), listener }
    shared.listeners.add(own)
    return {
      close: () => {
        shared.listeners.delete(own)
        const at = this.#watches.indexOf(shared)
        if (shared.listeners.size > 0 || at < 0) return
        this.#watches.splice(at, 1)
        shared.watch.close()
      },
    }
  }

  #openWatch(kinds: readonly ObjectKind[]): SharedWatch {
    const listeners: SharedWatch['listeners'] = new Set()
    const tell = (event: KernelEvent): void => {
      for (const one of [...listeners])
        if (listeners.has(one) && (event.type === 'resync' || one.kinds.has(event.object.kind))) one.listener(event)
    }
    const rowsOfKinds = kinds.map((kind) => byKind.get(kind)!)
    const shared = { kinds: new Set(kinds), listeners, watch: new RtnetlinkWatch(this.#context, rowsOfKinds, tell) }
    this.#watches.push(shared)
    return shared
  }

  close(): void {
    this.#socket.close()
    this.#dumpSocket?.close()
    this.#removal.close()
  }
}

/** Runs a dump and keeps to the family that it asks for; see DumpRequest. */
async function dumpFamily(
  socket: NetlinkSocket,
  op: string,
  { type, family, encode }: DumpRequest,
  visit: (header: MessageHeader, payload: Reader) => void,
  restart: () => void,
): Promise<void> {
  const visitFamily: typeof visit = (header, payload) => {
    if (family === undefined || payload.buffer[payload.offset] === family) visit(header, payload)
  }
  try {
    await socket.dump(op, type, encode, visitFamily, restart)
  } catch (error) {
    if (family === undefined || !(error instanceof KernelError) || error.code !== 'EAFNOSUPPORT') throw error
  }
}

const isLinkDeletion = (op: KernelOp): boolean => op.verb === 'delete' && op.object.kind === 'link'

/** Names resolved once per reading. */
class CachedNames implements DeviceNames {
  readonly #context: DriverContext
  readonly #names = new Map<number, string>()

  constructor(context: DriverContext) {
    this.#context = context
  }

  name(index: number): string {
    let name = this.#names.get(index)
    if (name === undefined) {
      name = this.#context.deviceName(index) ?? `#${index}`
      this.#names.set(index, name)
    }
    return name
  }
}
