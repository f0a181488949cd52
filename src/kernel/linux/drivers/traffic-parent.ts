/**
 * Places in a device's traffic control tree, as text and as the kernel's numbers.
 *
 * Sources: include/uapi/linux/pkt_sched.h (TC_H_*); tc(8).
 */
import {
  TC_H_CLSACT,
  TC_H_MIN_EGRESS,
  TC_H_MIN_INGRESS,
  TC_H_ROOT,
} from '../../../wire/rtnetlink/traffic-constants.gen.ts'
import { kernelError } from '../../errno.ts'

const INGRESS_FILTERS = ((TC_H_CLSACT & 0xffff0000) | TC_H_MIN_INGRESS) >>> 0
const EGRESS_FILTERS = ((TC_H_CLSACT & 0xffff0000) | TC_H_MIN_EGRESS) >>> 0

/** `1:` or `1:10`, hexadecimal, as a handle. Throws KernelError EINVAL. */
export function parseHandle(text: string): number {
  const match = /^([0-9a-f]{1,4}):([0-9a-f]{0,4})$/i.exec(text)
  if (!match) throw kernelError(`read ${JSON.stringify(text)} as a traffic control handle`, 22)
  return ((Number.parseInt(match[1]!, 16) << 16) | Number.parseInt(match[2] || '0', 16)) >>> 0
}

export const formatHandle = (handle: number): string => {
  const minor = handle & 0xffff
  return `${(handle >>> 16).toString(16)}:${minor ? minor.toString(16) : ''}`
}

/** Where a qdisc hangs. `ingress` is the place of the ingress and clsact qdiscs. */
export const parseQdiscParent = (text: string): number =>
  text === 'root' ? TC_H_ROOT : text === 'ingress' ? TC_H_CLSACT : parseHandle(text)

export const formatQdiscParent = (parent: number): string =>
  parent === TC_H_ROOT ? 'root' : parent === TC_H_CLSACT ? 'ingress' : formatHandle(parent)

/** Where a filter hangs: `ingress` and `egress` of an ingress or clsact qdisc, or a qdisc's handle. */
export const parseFilterParent = (text: string): number =>
  text === 'root'
    ? TC_H_ROOT
    : text === 'ingress'
      ? INGRESS_FILTERS
      : text === 'egress'
        ? EGRESS_FILTERS
        : parseHandle(text)
