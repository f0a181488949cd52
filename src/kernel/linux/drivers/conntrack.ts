/**
 * Connection tracking of a namespace: list, delete and watch its entries. Not a kind of wanted object: entries are the
 * kernel's memory of traffic, and what weft does with them is forget those that lead to where nobody is any more (a
 * removed host port), and show them.
 *
 * Sources: include/uapi/linux/netfilter/nfnetlink_conntrack.h; conntrack(8).
 */
import type { Family, Ip } from '../../../net/ip.ts'
import * as ct from '../../../wire/conntrack/constants.gen.ts'
import {
  conntrackMessageType,
  type FlowMessage,
  flowMessage,
  type TupleMessage,
} from '../../../wire/conntrack/message.ts'
import { NETLINK_NETFILTER } from '../../../wire/netlink/constants.gen.ts'
import { readMessages } from '../../../wire/netlink/message.ts'
import {
  NFNL_SUBSYS_CTNETLINK,
  NFNLGRP_CONNTRACK_DESTROY,
  NFNLGRP_CONNTRACK_NEW,
} from '../../../wire/nftables/constants.gen.ts'
import { describeNfnetlink } from '../../../wire/nftables/describe.ts'
import { readNfgenmsg, writeNfgenmsg } from '../../../wire/nftables/message.ts'
import type { Kernel, Watch } from '../../kernel.ts'
import type { DriverContext } from '../driver.ts'
import { MulticastSocket } from '../multicast-socket.ts'
import { failureError, type NetlinkSocket } from '../netlink-socket.ts'

const AF_INET = 2
const AF_INET6 = 10
const ENOENT = 2
const IPPROTO_UDP = 17

/** One direction of a flow. */
export interface FlowTuple {
  readonly source: Ip
  readonly destination: Ip
  readonly sourcePort?: number
  readonly destinationPort?: number
}

export interface Flow {
  readonly family: Family
  /** IP protocol number. */
  readonly protocol: number
  /** As the first packet was sent. */
  readonly original: FlowTuple
  /** As answers come back: its source is where packets really go. */
  readonly reply: FlowTuple
  /** IPS_* bits. */
  readonly status: number
  readonly mark: number
  readonly timeoutSeconds?: number
  readonly packets?: bigint
  readonly bytes?: bigint
  /** The entry as it came, to name it when it is deleted. */
  readonly message: FlowMessage
}

/** What must hold of a flow; fields left out always hold. */
export interface FlowFilter {
  readonly family?: Family
  /** IP protocol number: 6 TCP, 17 UDP, 132 SCTP. */
  readonly protocol?: number
  readonly originalSource?: Ip
  readonly originalDestination?: Ip
  readonly originalDestinationPort?: number
  /** Where packets really go. */
  readonly replySource?: Ip
  readonly replySourcePort?: number
}

export interface FlowEvent {
  readonly type: 'new' | 'delete'
  readonly flow: Flow
}

const same = (wanted: Ip | undefined, ip: Ip): boolean => wanted === undefined || wanted.equals(ip)

/** Whether a flow is one that the filter means. */
export const matchesFlow = (filter: FlowFilter, { family, protocol, original, reply }: Flow): boolean =>
  (filter.family ?? family) === family &&
  (filter.protocol ?? protocol) === protocol &&
  same(filter.originalSource, original.source) &&
  same(filter.originalDestination, original.destination) &&
  (filter.originalDestinationPort ?? original.destinationPort) === original.destinationPort &&
  same(filter.replySource, reply.source) &&
  (filter.replySourcePort ?? reply.sourcePort) === reply.sourcePort

function decodeTuple({ ip, proto }: TupleMessage = {}): FlowTuple | undefined {
  const source = ip?.v4Source ?? ip?.v6Source
  const destination = ip?.v4Destination ?? ip?.v6Destination
  if (!source || !destination) return undefined
  return {
    source,
    destination,
    ...(proto?.sourcePort !== undefined && { sourcePort: proto.sourcePort }),
    ...(proto?.destinationPort !== undefined && { destinationPort: proto.destinationPort }),
  }
}

function decodeFlow(message: FlowMessage): Flow | undefined {
  const original = decodeTuple(message.original)
  const reply = decodeTuple(message.reply)
  if (!original || !reply) return undefined
  const { originalCounters: sent, replyCounters: received } = message
  return {
    family: original.source.family,
    protocol: message.original?.proto?.number ?? 0,
    original,
    reply,
    status: message.status ?? 0,
    mark: message.mark ?? 0,
    ...(message.timeoutSeconds !== undefined && { timeoutSeconds: message.timeoutSeconds }),
    ...(sent && {
      packets: (sent.packets ?? 0n) + (received?.packets ?? 0n),
      bytes: (sent.bytes ?? 0n) + (received?.bytes ?? 0n),
    }),
    message,
  }
}

const addressFamily = (family: Family | undefined): number =>
  family === undefined ? 0 : family === 4 ? AF_INET : AF_INET6

/** The flows of one namespace, over a socket of its own. */
export class Conntrack {
  readonly #context: DriverContext
  readonly #socket: NetlinkSocket
  #queue: Promise<unknown> = Promise.resolve()

  constructor(context: DriverContext) {
    this.#context = context
    this.#socket = context.openNetlink(NETLINK_NETFILTER, { describe: describeNfnetlink })
  }

  /** The flows that a filter means. Throws KernelError. */
  list(filter: FlowFilter = {}): Promise<Flow[]> {
    const turn = this.#queue.then(() => this.#list(filter))
    this.#queue = turn.catch(() => {})
    return turn
  }

  async #list(filter: FlowFilter): Promise<Flow[]> {
    const out: Flow[] = []
    await this.#socket.dump(
      'conntrack -L',
      conntrackMessageType(ct.IPCTNL_MSG_CT_GET),
      (writer) => writeNfgenmsg(writer, addressFamily(filter.family)),
      (_header, payload) => {
        readNfgenmsg(payload)
        const flow = decodeFlow(flowMessage.decode(payload))
        if (flow && matchesFlow(filter, flow)) out.push(flow)
      },
      () => {
        out.length = 0
      },
    )
    return out
  }

  /** Makes the kernel forget the flows that a filter means; returns how many. Throws KernelError. */
  async delete(filter: FlowFilter): Promise<number> {
    return this.forget(await this.list(filter))
  }

  /** Makes the kernel forget flows that were listed; returns how many were still there. Throws KernelError. */
  forget(flows: readonly Flow[]): number {
    let deleted = 0
    for (let at = 0; at < flows.length; ) {
      const batch = this.#socket.batch()
      for (; at < flows.length && !batch.isFull; at++) {
        const { family, message } = flows[at]!
        const start = batch.begin(conntrackMessageType(ct.IPCTNL_MSG_CT_DELETE), 0)
        writeNfgenmsg(batch.writer, addressFamily(family))
        const { original, id, zone } = message
        flowMessage.encode(batch.writer, {
          original,
          ...(zone !== undefined && { zone }),
          ...(id !== undefined && { id }),
        })
        batch.end(start)
      }
      const failures = this.#socket.transact(batch)
      deleted += batch.count - failures.size
      // Gone by itself meanwhile is as good as deleted.
      for (const failure of failures.values()) if (failure.errno !== ENOENT) throw failureError('conntrack -D', failure)
    }
    return deleted
  }

  /** Calls back for flows that begin and end; `lost` when the kernel had to drop announcements. */
  watch(listener: (event: FlowEvent) => void, lost: () => void = () => {}): Watch {
    const groups = [NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY]
    return this.#context.inside(
      () =>
        new MulticastSocket(NETLINK_NETFILTER, groups, {
          describe: describeNfnetlink,
          lost,
          datagram: (bytes) =>
            readMessages(bytes, ({ type }, payload) => {
              if (type >> 8 !== NFNL_SUBSYS_CTNETLINK) return
              readNfgenmsg(payload)
              const flow = decodeFlow(flowMessage.decode(payload))
              const isNew = (type & 255) === ct.IPCTNL_MSG_CT_NEW
              if (flow) listener({ type: isNew ? 'new' : 'delete', flow })
            }),
        }),
    )
  }

  close(): void {
    this.#socket.close()
  }
}

const isContext = (kernel: Kernel): kernel is Kernel & DriverContext => 'openNetlink' in kernel

/**
 * Forgets the flows that a filter means in a kernel's namespace and returns how many there were; none in a kernel that
 * tracks nothing (the twin). Throws KernelError.
 */
export async function deleteFlows(kernel: Kernel, ...filters: readonly FlowFilter[]): Promise<number> {
  if (!isContext(kernel)) return 0
  const conntrack = new Conntrack(kernel)
  try {
    let count = 0
    for (const filter of filters) count += await conntrack.delete(filter)
    return count
  } finally {
    conntrack.close()
  }
}

/** A port of the node that is mapped to a pod, or was. */
export interface MappedPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly hostPort: number
}

/**
 * Forgets the UDP flows to this node's mapped ports that do not lead to one of `targets`: after a mapping was added
 * (flows that began before it), moved or removed (no targets). Without this a client that keeps sending keeps its old
 * way for ever. TCP needs nothing: its connections end by themselves. Returns how many flows were forgotten.
 */
export async function forgetMappedFlows(
  kernel: Kernel,
  mappings: readonly MappedPort[],
  targets: readonly Ip[],
): Promise<number> {
  const ports = new Set(mappings.filter(({ protocol }) => protocol === 'udp').map(({ hostPort }) => hostPort))
  if (ports.size === 0 || !isContext(kernel)) return 0
  const conntrack = new Conntrack(kernel)
  try {
    const local = new Set((await kernel.read('address')).map(({ ip }) => `${ip}`))
    const flows = await conntrack.list({ protocol: IPPROTO_UDP })
    return conntrack.forget(
      flows.filter(
        ({ original, reply }) =>
          ports.has(original.destinationPort ?? -1) &&
          local.has(`${original.destination}`) &&
          !targets.some((target) => target.equals(reply.source)),
      ),
    )
  } finally {
    conntrack.close()
  }
}
