/**
 * Queueing disciplines. Those that weft does not know are read as `foreign`.
 *
 * Sources: net/sched/sch_api.c, sch_tbf.c, sch_htb.c, sch_ingress.c; tc-tbf(8), tc-htb(8).
 */
import { Reader } from '../../../bytes/reader.ts'
import { Writer } from '../../../bytes/writer.ts'
import type { Qdisc, QdiscType } from '../../../model/traffic.ts'
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../../wire/netlink/constants.gen.ts'
import { RTM_DELQDISC, RTM_GETQDISC, RTM_NEWQDISC, RTNLGRP_TC } from '../../../wire/rtnetlink/constants.gen.ts'
import { htbOptions, tbfOptions, trafficMessage } from '../../../wire/rtnetlink/traffic.ts'
import { kernelError } from '../../errno.ts'
import type { RtnetlinkKind } from '../rtnetlink-kind.ts'
import { formatHandle, formatQdiscParent, parseHandle, parseQdiscParent } from './traffic-parent.ts'
import { bytesOf, bytesPerSecond, ticksOf, wideRate } from './traffic-rate.ts'

const EINVAL = 22
const EOPNOTSUPP = 95
/** What tc takes for a class that says no quantum. */
const RATE_TO_QUANTUM = 10
const FFFF = 0xffff0000
const knownTypes: ReadonlySet<string> = new Set<QdiscType>(['tbf', 'htb', 'ingress', 'clsact', 'fq_codel', 'noqueue'])

function encodeOptions(qdisc: Qdisc): Uint8Array | undefined {
  const writer = new Writer(96)
  if (qdisc.type === 'htb') {
    const defaultClass = qdisc.htb?.defaultClass ?? 0
    htbOptions.encode(writer, { defaults: { rateToQuantum: RATE_TO_QUANTUM, defaultClass } })
    return writer.finish()
  }
  if (qdisc.type !== 'tbf') return undefined
  const settings = qdisc.tbf
  if (!settings) throw kernelError('tc qdisc add tbf', EINVAL, { extack: 'tbf needs a rate, a burst and a limit' })
  const rateBytesPerSecond = bytesPerSecond(settings.rateBitsPerSecond)
  tbfOptions.encode(writer, {
    parameters: {
      rateBytesPerSecond,
      limitBytes: settings.limitBytes,
      bufferTicks: ticksOf(settings.burstBytes, rateBytesPerSecond),
      mtuTicks: 0,
    },
    burst: settings.burstBytes,
    rate64: wideRate(rateBytesPerSecond),
  })
  return writer.finish()
}

function tbfOf(options: Uint8Array | undefined): Qdisc['tbf'] {
  const { parameters, rate64 } = options ? tbfOptions.decode(new Reader(options)) : {}
  if (!parameters) return undefined
  const rate = rate64 === undefined ? parameters.rateBytesPerSecond : Number(rate64)
  return {
    rateBitsPerSecond: rate * 8,
    burstBytes: bytesOf(parameters.bufferTicks, rate),
    limitBytes: parameters.limitBytes,
  }
}

export const qdiscKind: RtnetlinkKind<'qdisc'> = {
  kind: 'qdisc',
  types: [RTM_NEWQDISC, RTM_DELQDISC],
  groups: [RTNLGRP_TC],
  dumps: [
    {
      type: RTM_GETQDISC,
      encode: (writer) => trafficMessage.encode(writer, { index: 0, handle: 0, parent: 0, info: 0, attributes: {} }),
    },
  ],

  encode({ verb, object }, sink) {
    const index = sink.index(object.device)
    const deleting = verb === 'delete'
    if (object.type === 'foreign' && !deleting)
      throw kernelError('tc qdisc add', EOPNOTSUPP, { extack: 'weft cannot create a qdisc of this kind' })
    const atIngress = object.type === 'ingress' || object.type === 'clsact'
    const handle = object.handle === undefined ? (atIngress ? FFFF >>> 0 : 0) : parseHandle(object.handle)
    const options = deleting ? undefined : encodeOptions(object)
    const start = sink.begin(
      deleting ? RTM_DELQDISC : RTM_NEWQDISC,
      deleting ? 0 : NLM_F_CREATE | (verb === 'add' ? NLM_F_EXCL : NLM_F_REPLACE),
    )
    trafficMessage.encode(sink.writer, {
      index,
      handle: deleting ? 0 : handle,
      parent: parseQdiscParent(object.parent),
      info: 0,
      attributes: { kind: object.type === 'foreign' ? undefined : object.type, options },
    })
    sink.end(start)
    return undefined
  },

  decode(_header, payload, names) {
    const { index, handle, parent, attributes } = trafficMessage.decode(payload)
    const { kind, options } = attributes
    if (kind === undefined) return undefined
    const tbf = kind === 'tbf' ? tbfOf(options) : undefined
    const htb = kind === 'htb' && options ? htbOptions.decode(new Reader(options)).defaults : undefined
    return {
      kind: 'qdisc',
      device: names.name(index),
      type: knownTypes.has(kind) ? (kind as QdiscType) : 'foreign',
      parent: formatQdiscParent(parent),
      ...(handle && { handle: formatHandle(handle) }),
      ...(tbf && { tbf }),
      ...(htb && { htb: { defaultClass: htb.defaultClass } }),
    }
  },
}
