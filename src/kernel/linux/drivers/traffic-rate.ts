/**
 * Rates and bursts as traffic control keeps them: a burst is time at a rate, in ticks of 64 ns, so that it reads back up to
 * a few bytes off; it is rounded up, which undoes the kernel's rounding down for every rate below 15 MB/s.
 *
 * Sources: include/net/pkt_sched.h (PSCHED_SHIFT); net/sched/sch_generic.c (psched_ratecfg_precompute).
 */

const NANOSECONDS_PER_TICK = 64
const U32_MAX = 0xffffffff

export const bytesPerSecond = (bitsPerSecond: number): number => Math.floor(bitsPerSecond / 8)

/** Ticks that `bytes` take at a rate, as far as the kernel's field reaches. */
export const ticksOf = (bytes: number, rateBytesPerSecond: number): number =>
  Math.min(Math.ceil((bytes * 1e9) / rateBytesPerSecond / NANOSECONDS_PER_TICK), U32_MAX)

/** Bytes that a rate lets pass in `ticks`. */
export const bytesOf = (ticks: number, rateBytesPerSecond: number): number =>
  Math.round((ticks * NANOSECONDS_PER_TICK * rateBytesPerSecond) / 1e9)

/** The 64-bit attribute of a rate that does not fit 32 bits. */
export const wideRate = (rateBytesPerSecond: number): bigint | undefined =>
  rateBytesPerSecond > U32_MAX ? BigInt(rateBytesPerSecond) : undefined
