/**
 * RTM_NEWQDISC, RTM_NEWTCLASS, RTM_NEWTFILTER and their kin: struct tcmsg and the TCA_* attributes. Options depend on the
 * kind and are kept as bytes here; the tables below read and write those of tbf, htb, u32, matchall, bpf and mirred.
 *
 * Sources: include/uapi/linux/rtnetlink.h (struct tcmsg), pkt_sched.h (struct tc_tbf_qopt, tc_htb_glob, tc_htb_opt, tc_ratespec),
 * pkt_cls.h (struct tc_u32_sel), tc_act/tc_mirred.h (struct tc_mirred).
 */
import { type Codec, rawBytes, textZ, u32le, u64le } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import { attributeTable, type Decoded, nested } from '../netlink/attribute.ts'
import * as k from './constants.gen.ts'
import * as t from './traffic-constants.gen.ts'

const trafficAttributes = attributeTable('traffic', {
  kind: [k.TCA_KIND, textZ],
  options: [k.TCA_OPTIONS, rawBytes],
})

export interface TrafficMessage {
  readonly index: number
  /** Major number in the high half, minor in the low one. */
  readonly handle: number
  readonly parent: number
  /** Filters: priority in the high half, protocol in network byte order in the low one. Qdiscs: reference count. */
  readonly info: number
  readonly attributes: Decoded<typeof trafficAttributes>
}

export const trafficMessage: Codec<TrafficMessage> = {
  name: 'traffic message',
  decode(reader) {
    reader.skip(4)
    return {
      index: reader.i32le(),
      handle: reader.u32le(),
      parent: reader.u32le(),
      info: reader.u32le(),
      attributes: trafficAttributes.decode(reader),
    }
  },
  encode(writer, value) {
    writer.u32le(0)
    writer.i32le(value.index)
    writer.u32le(value.handle)
    writer.u32le(value.parent)
    writer.u32le(value.info)
    trafficAttributes.encode(writer, value.attributes)
  },
}

/** struct tc_tbf_qopt without a rate table: the kernel computes from the rate itself. Peak rate is unused. */
export interface TbfParameters {
  readonly rateBytesPerSecond: number
  readonly limitBytes: number
  /** Burst as time at the rate, in scheduler ticks of 64 ns. */
  readonly bufferTicks: number
  /** Largest packet as time at the peak rate; 0 without one. */
  readonly mtuTicks: number
}

const LINKLAYER_ETHERNET = 1

const tbfParameters: Codec<TbfParameters> = {
  name: 'tbf parameters',
  decode(reader) {
    const rateBytesPerSecond = rateOf(reader)
    rateOf(reader)
    return {
      rateBytesPerSecond,
      limitBytes: reader.u32le(),
      bufferTicks: reader.u32le(),
      mtuTicks: reader.u32le(),
    }
  },
  encode(writer, value) {
    putRate(writer, value.rateBytesPerSecond)
    putRate(writer, 0)
    writer.u32le(value.limitBytes)
    writer.u32le(value.bufferTicks)
    writer.u32le(value.mtuTicks)
  },
  size: () => 36,
}

/** struct tc_ratespec: only the rate matters here; 0xffffffff stands for "see the 64-bit attribute". */
function rateOf(reader: Reader): number {
  reader.skip(8)
  return reader.u32le()
}

function putRate(writer: Writer, bytesPerSecond: number): void {
  writer.u8(0)
  writer.u8(bytesPerSecond ? LINKLAYER_ETHERNET : 0)
  writer.zeros(6)
  writer.u32le(Math.min(bytesPerSecond, 0xffffffff))
}

export const tbfOptions = attributeTable('tbf', {
  parameters: [t.TCA_TBF_PARMS, tbfParameters],
  rate64: [t.TCA_TBF_RATE64, u64le],
  /** Burst in bytes; write only. */
  burst: [t.TCA_TBF_BURST, u32le],
})

/** struct tc_htb_glob: an htb qdisc as a whole. */
export interface HtbDefaults {
  /** Quantum of a class that says none: its rate in bytes by this. */
  readonly rateToQuantum: number
  /** Minor number of the class of what no filter sorts. */
  readonly defaultClass: number
}

const htbDefaults: Codec<HtbDefaults> = {
  name: 'htb defaults',
  decode(reader) {
    reader.skip(4)
    const value = { rateToQuantum: reader.u32le(), defaultClass: reader.u32le() }
    reader.skip(8)
    return value
  },
  encode(writer, value) {
    writer.u32le(t.TC_HTB_PROTOVER)
    writer.u32le(value.rateToQuantum)
    writer.u32le(value.defaultClass)
    writer.zeros(8)
  },
  size: () => 20,
}

/** struct tc_htb_opt without rate tables: the kernel computes from the rates themselves. */
export interface HtbParameters {
  readonly rateBytesPerSecond: number
  readonly ceilBytesPerSecond: number
  /** Bursts as time at the rate and at the ceiling, in scheduler ticks of 64 ns. */
  readonly bufferTicks: number
  readonly ceilBufferTicks: number
  /** 0: from the rate. */
  readonly quantumBytes: number
  readonly priority: number
}

const htbParameters: Codec<HtbParameters> = {
  name: 'htb parameters',
  decode(reader) {
    const rateBytesPerSecond = rateOf(reader)
    const ceilBytesPerSecond = rateOf(reader)
    const [bufferTicks, ceilBufferTicks, quantumBytes] = [reader.u32le(), reader.u32le(), reader.u32le()]
    reader.skip(4)
    return {
      rateBytesPerSecond,
      ceilBytesPerSecond,
      bufferTicks,
      ceilBufferTicks,
      quantumBytes,
      priority: reader.u32le(),
    }
  },
  encode(writer, value) {
    putRate(writer, value.rateBytesPerSecond)
    putRate(writer, value.ceilBytesPerSecond)
    writer.u32le(value.bufferTicks)
    writer.u32le(value.ceilBufferTicks)
    writer.u32le(value.quantumBytes)
    writer.u32le(0)
    writer.u32le(value.priority)
  },
  size: () => 44,
}

/** Options of an htb qdisc (`defaults`) and of an htb class (the others). */
export const htbOptions = attributeTable('htb', {
  defaults: [t.TCA_HTB_INIT, htbDefaults],
  parameters: [t.TCA_HTB_PARMS, htbParameters],
  rate64: [t.TCA_HTB_RATE64, u64le],
  ceil64: [t.TCA_HTB_CEIL64, u64le],
})

/** struct tc_mirred. */
export interface Mirred {
  /** TC_ACT_*: what happens to the packet afterwards. */
  readonly action: number
  /** TCA_EGRESS_REDIR and its kin. */
  readonly direction: number
  readonly index: number
}

const mirred: Codec<Mirred> = {
  name: 'mirred',
  decode(reader) {
    reader.skip(8)
    const action = reader.i32le()
    reader.skip(8)
    return { action, direction: reader.i32le(), index: reader.u32le() }
  },
  encode(writer, value) {
    writer.zeros(8)
    writer.i32le(value.action)
    writer.zeros(8)
    writer.i32le(value.direction)
    writer.u32le(value.index)
  },
  size: () => 28,
}

const mirredOptions = attributeTable('mirred options', { parameters: [t.TCA_MIRRED_PARMS, mirred] })

/** One action: its kind, and its options when it is mirred. */
const action = attributeTable('action', {
  kind: [t.TCA_ACT_KIND, textZ],
  options: nested(t.TCA_ACT_OPTIONS, mirredOptions),
})

/** Actions are numbered by their order from 1; weft uses one. */
const actions = attributeTable('actions', { first: nested(1, action) })

export const u32Options = attributeTable('u32', {
  /** struct tc_u32_sel with its keys. */
  selector: [t.TCA_U32_SEL, rawBytes],
  actions: nested(t.TCA_U32_ACT, actions),
})

export const matchallOptions = attributeTable('matchall', { actions: nested(t.TCA_MATCHALL_ACT, actions) })

export const bpfOptions = attributeTable('bpf', {
  fd: [t.TCA_BPF_FD, u32le],
  name: [t.TCA_BPF_NAME, textZ],
  flags: [t.TCA_BPF_FLAGS, u32le],
  id: [t.TCA_BPF_ID, u32le],
})

/** struct tc_u32_sel of one key with an empty mask: every packet. */
export function everyPacket(): Uint8Array {
  const selector = new Uint8Array(32)
  selector[0] = t.TC_U32_TERMINAL
  selector[2] = 1
  return selector
}
