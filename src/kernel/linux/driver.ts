/**
 * How the kinds of kernel objects plug into the Linux kernel: one Driver answers for one or more kinds, opens a
 * session per network namespace, and there reads, executes and watches them. `drivers/registry.ts` lists all drivers;
 * LinuxKernel splits an op list into runs of one driver and keeps their order.
 *
 * rtnetlink's kinds (link, address, route, neighbour, fdb, rule, qdisc, class, filter) share one driver, so that mixed op
 * lists go down in one send; each of them is a row of `drivers/rtnetlink.ts` in a file of its own.
 */
import type { KernelObject, ObjectKind } from '../../model/kernel-object.ts'
import type { KernelOp } from '../../model/kernel-state.ts'
import type { KernelEvent, OpResult, Watch } from '../kernel.ts'
import type { NetlinkSocket, NetlinkSocketOptions } from './netlink-socket.ts'

/** One namespace as drivers see it. */
export interface DriverContext {
  /** Path that the namespace was opened by; undefined for the process's own. For messages only: the path may be gone. */
  readonly netnsPath: string | undefined
  /** Runs `call` with the thread inside the namespace. No await inside; what `call` opens belongs to the namespace for good. */
  inside<T>(call: () => T): T
  /** A new netlink socket of this namespace, such as NETLINK_NETFILTER or NETLINK_GENERIC. The driver closes it. */
  openNetlink(protocol: number, options?: NetlinkSocketOptions): NetlinkSocket
  /** Index of a device by name: one ioctl, nothing cached. Undefined when there is none. */
  deviceIndex(name: string): number | undefined
  /** Name of a device by index. Undefined when there is none. */
  deviceName(index: number): string | undefined
}

export interface DriverSession {
  /** Every object of these kinds. `kinds` holds only kinds of this driver, none twice. */
  read(kinds: readonly ObjectKind[]): Promise<KernelObject[]>
  /** Performs ops of this driver's kinds in order; one result per op. Never throws for what the kernel refuses. */
  execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]>
  /** Calls back for changes; left out when the kinds announce nothing. */
  watch?(kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch
  close(): void
}

export interface Driver {
  readonly name: string
  readonly kinds: readonly ObjectKind[]
  /** Called once per namespace, at the first use of one of its kinds. */
  open(context: DriverContext): DriverSession
}
