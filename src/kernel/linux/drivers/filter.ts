/**
 * Traffic filters: redirect everything to another device (u32 with an empty mask and the mirred action, which every
 * kernel with traffic control has), or run a BPF program in direct-action mode. A matchall filter of the same meaning
 * is read as the same thing.
 *
 * A BPF filter cannot be read back with its file descriptor: `bpfFd` is then -1.
 *
 * Sources: net/sched/cls_api.c, cls_u32.c, cls_bpf.c, act_mirred.c; tc-u32(8), tc-mirred(8), tc-bpf(8).
 */
import { Reader } from '../../../bytes/reader.ts'
import { Writer } from '../../../bytes/writer.ts'
import type { Filter } from '../../../model/traffic.ts'
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../../wire/netlink/constants.gen.ts'
import { RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER } from '../../../wire/rtnetlink/constants.gen.ts'
import {
  bpfOptions,
  everyPacket,
  matchallOptions,
  type TrafficMessage,
  trafficMessage,
  u32Options,
} from '../../../wire/rtnetlink/traffic.ts'
import {
  TC_ACT_STOLEN,
  TCA_BPF_FLAG_ACT_DIRECT,
  TCA_EGRESS_REDIR,
} from '../../../wire/rtnetlink/traffic-constants.gen.ts'
import type { DeviceNames, KindReader, RequestSink, RtnetlinkKind } from '../rtnetlink-kind.ts'
import { qdiscKind } from './qdisc.ts'
import { parseFilterParent, parseHandle } from './traffic-parent.ts'

const swap16 = (value: number): number => ((value & 0xff) << 8) | ((value >>> 8) & 0xff)

function encodeAction(filter: Filter, sink: RequestSink): { kind: string; options: Uint8Array } {
  const writer = new Writer(128)
  const { action } = filter
  if ('redirectTo' in action) {
    const index = sink.index(action.redirectTo)
    const mirred = { action: TC_ACT_STOLEN, direction: TCA_EGRESS_REDIR, index }
    u32Options.encode(writer, {
      selector: everyPacket(),
      actions: { first: { kind: 'mirred', options: { parameters: mirred } } },
    })
    return { kind: 'u32', options: writer.finish() }
  }
  bpfOptions.encode(writer, { fd: action.bpfFd, name: action.name, flags: TCA_BPF_FLAG_ACT_DIRECT })
  return { kind: 'bpf', options: writer.finish() }
}

function actionOf({ attributes: { kind, options } }: TrafficMessage, names: DeviceNames): Filter['action'] | undefined {
  if (!options) return undefined
  const reader = new Reader(options)
  if (kind === 'bpf') return { bpfFd: -1, name: bpfOptions.decode(reader).name ?? '' }
  if (kind !== 'u32' && kind !== 'matchall') return undefined
  const { actions } = kind === 'u32' ? u32Options.decode(reader) : matchallOptions.decode(reader)
  const mirred = actions?.first?.options?.parameters
  return mirred?.direction === TCA_EGRESS_REDIR ? { redirectTo: names.name(mirred.index) } : undefined
}

/** The filters of one place in one device's tree. */
async function readParent(reader: KindReader, index: number, parent: string): Promise<Filter[]> {
  let found: Filter[] = []
  await reader.dump(
    {
      type: RTM_GETTFILTER,
      encode: (writer) =>
        trafficMessage.encode(writer, { index, handle: 0, parent: parseFilterParent(parent), info: 0, attributes: {} }),
    },
    (_header, payload) => {
      const message = trafficMessage.decode(payload)
      const action = actionOf(message, reader.names)
      if (!action) return
      found.push({
        kind: 'filter',
        device: reader.names.name(index),
        parent,
        priority: message.info >>> 16,
        protocol: swap16(message.info & 0xffff),
        action,
      })
    },
    () => {
      found = []
    },
  )
  return found
}

export const filterKind: RtnetlinkKind<'filter'> = {
  kind: 'filter',
  types: [RTM_NEWTFILTER, RTM_DELTFILTER],
  groups: [],
  dumps: [],

  encode({ verb, object }, sink) {
    const index = sink.index(object.device)
    const deleting = verb === 'delete'
    const content = deleting ? undefined : encodeAction(object, sink)
    const start = sink.begin(
      deleting ? RTM_DELTFILTER : RTM_NEWTFILTER,
      deleting ? 0 : NLM_F_CREATE | (verb === 'add' ? NLM_F_EXCL : NLM_F_REPLACE),
    )
    trafficMessage.encode(sink.writer, {
      index,
      handle: 0,
      parent: parseFilterParent(object.parent),
      info: ((object.priority << 16) | swap16(object.protocol)) >>> 0,
      attributes: { kind: content?.kind, options: content?.options },
    })
    sink.end(start)
    return undefined
  },

  decode: () => undefined,

  async read(reader) {
    let places: { index: number; parent: string }[] = []
    await reader.dump(
      qdiscKind.dumps[0]!,
      (header, payload) => {
        const start = payload.offset
        const { index } = trafficMessage.decode(payload)
        payload.offset = start
        const qdisc = qdiscKind.decode(header, payload, reader.names)
        if (!qdisc) return
        if (qdisc.type === 'ingress' || qdisc.type === 'clsact') places.push({ index, parent: 'ingress' })
        if (qdisc.type === 'clsact') places.push({ index, parent: 'egress' })
        if (qdisc.handle && qdisc.type === 'htb' && parseHandle(qdisc.handle))
          places.push({ index, parent: qdisc.handle })
      },
      () => {
        places = []
      },
    )
    const found: Filter[] = []
    for (const { index, parent } of places) found.push(...(await readParent(reader, index, parent)))
    return found
  },
}
