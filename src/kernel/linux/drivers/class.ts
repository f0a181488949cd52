/**
 * Classes of htb qdiscs. Those of other qdiscs are the qdisc's own business and are not read.
 *
 * The kernel calls the parent of a class at the top the root; here it is the qdisc's handle, as one says when adding it.
 *
 * Sources: net/sched/sch_api.c (tc_ctl_tclass), sch_htb.c (htb_change_class, htb_dump_class); tc-htb(8).
 */
import { Reader } from '../../../bytes/reader.ts'
import { Writer } from '../../../bytes/writer.ts'
import type { TrafficClass } from '../../../model/traffic.ts'
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../../wire/netlink/constants.gen.ts'
import { RTM_DELTCLASS, RTM_GETTCLASS, RTM_NEWTCLASS, RTNLGRP_TC } from '../../../wire/rtnetlink/constants.gen.ts'
import { htbOptions, trafficMessage } from '../../../wire/rtnetlink/traffic.ts'
import { TC_H_ROOT } from '../../../wire/rtnetlink/traffic-constants.gen.ts'
import type { RtnetlinkKind } from '../rtnetlink-kind.ts'
import { qdiscKind } from './qdisc.ts'
import { formatHandle, parseHandle } from './traffic-parent.ts'
import { bytesOf, bytesPerSecond, ticksOf, wideRate } from './traffic-rate.ts'

function encodeOptions({ htb }: TrafficClass): Uint8Array {
  const rate = bytesPerSecond(htb.rateBitsPerSecond)
  const ceil = bytesPerSecond(htb.ceilBitsPerSecond)
  const writer = new Writer(96)
  htbOptions.encode(writer, {
    rate64: wideRate(rate),
    ceil64: wideRate(ceil),
    parameters: {
      rateBytesPerSecond: rate,
      ceilBytesPerSecond: ceil,
      bufferTicks: ticksOf(htb.burstBytes, rate),
      ceilBufferTicks: ticksOf(htb.ceilBurstBytes, ceil),
      quantumBytes: htb.quantumBytes ?? 0,
      priority: htb.priority ?? 0,
    },
  })
  return writer.finish()
}

function settingsOf(options: Uint8Array): TrafficClass['htb'] | undefined {
  const { parameters, rate64, ceil64 } = htbOptions.decode(new Reader(options))
  if (!parameters) return undefined
  const rate = rate64 === undefined ? parameters.rateBytesPerSecond : Number(rate64)
  const ceil = ceil64 === undefined ? parameters.ceilBytesPerSecond : Number(ceil64)
  return {
    rateBitsPerSecond: rate * 8,
    ceilBitsPerSecond: ceil * 8,
    burstBytes: bytesOf(parameters.bufferTicks, rate),
    ceilBurstBytes: bytesOf(parameters.ceilBufferTicks, ceil),
    priority: parameters.priority,
    quantumBytes: parameters.quantumBytes,
  }
}

export const classKind: RtnetlinkKind<'class'> = {
  kind: 'class',
  types: [RTM_NEWTCLASS, RTM_DELTCLASS],
  groups: [RTNLGRP_TC],
  dumps: [],

  encode({ verb, object }, sink) {
    const index = sink.index(object.device)
    const deleting = verb === 'delete'
    const [handle, parent] = [parseHandle(object.handle), parseHandle(object.parent)]
    const attributes = deleting ? {} : { kind: 'htb', options: encodeOptions(object) }
    const start = sink.begin(
      deleting ? RTM_DELTCLASS : RTM_NEWTCLASS,
      deleting ? 0 : NLM_F_CREATE | (verb === 'add' ? NLM_F_EXCL : NLM_F_REPLACE),
    )
    trafficMessage.encode(sink.writer, { index, handle, parent: deleting ? 0 : parent, info: 0, attributes })
    sink.end(start)
    return undefined
  },

  decode(_header, payload, names) {
    const { index, handle, parent, attributes } = trafficMessage.decode(payload)
    if (attributes.kind !== 'htb' || !attributes.options) return undefined
    const htb = settingsOf(attributes.options)
    const above = parent === TC_H_ROOT ? (handle & 0xffff0000) >>> 0 : parent
    return (
      htb && {
        kind: 'class',
        device: names.name(index),
        handle: formatHandle(handle),
        parent: formatHandle(above),
        htb,
      }
    )
  },

  /** The kernel lists the classes of one device at a time. */
  async read(reader) {
    const devices = new Set<number>()
    await reader.dump(
      qdiscKind.dumps[0]!,
      (_header, payload) => {
        const { index, attributes } = trafficMessage.decode(payload)
        if (attributes.kind === 'htb') devices.add(index)
      },
      () => devices.clear(),
    )
    const found: TrafficClass[] = []
    for (const index of devices) {
      const start = found.length
      await reader.dump(
        {
          type: RTM_GETTCLASS,
          encode: (writer) => trafficMessage.encode(writer, { index, handle: 0, parent: 0, info: 0, attributes: {} }),
        },
        (header, payload) => {
          const object = classKind.decode(header, payload, reader.names)
          if (object) found.push(object)
        },
        () => {
          found.length = start
        },
      )
    }
    return found
  },
}
