/**
 * The Linux kernel behind the Kernel interface: one network namespace, bound for good by the sockets made in it and a
 * file descriptor of it. An op list is cut into runs of one driver and performed in order; drivers are opened at their
 * first use.
 */
import type { ObjectKind, ObjectOf } from '../../model/kernel-object.ts'
import type { KernelOp } from '../../model/kernel-state.ts'
import { kernelError } from '../errno.ts'
import type { Kernel, KernelEvent, OpResult, Watch } from '../kernel.ts'
import { withLateUps } from '../late-up.ts'
import type { Driver, DriverContext, DriverSession } from './driver.ts'
import { drivers } from './drivers/registry.ts'
import { type RtnetlinkSession, rtnetlinkDriver } from './drivers/rtnetlink.ts'
import { NetlinkSocket, type NetlinkSocketOptions } from './netlink-socket.ts'
import { closeNetns, insideNetns, openNetns } from './netns.ts'
import * as syscalls from './syscalls.ts'

const EBADF = 9
const SIOCGIFNAME = 0x8910
const SIOCGIFINDEX = 0x8933
const IFNAME_BYTES = 16
/** struct ifreq. */
const IFREQ_BYTES = 40

const driverOf = new Map<ObjectKind, Driver>(drivers.flatMap((driver) => driver.kinds.map((kind) => [kind, driver])))

/** The kernel as this process's own namespace shows it. Throws KernelError. */
export function openLinuxKernel(): Kernel {
  return LinuxKernel.openOwn()
}

export class LinuxKernel implements Kernel, DriverContext {
  readonly netnsPath: string | undefined
  /** File descriptor of the namespace; undefined for the process's own. */
  readonly #netns: number | undefined
  /** Opened at once: its socket serves for interface ioctls too. */
  readonly #rtnetlink: RtnetlinkSession
  readonly #sessions = new Map<Driver, DriverSession>()
  readonly #watches = new Set<Watch>()
  #closed = false

  private constructor(netnsPath: string | undefined) {
    this.netnsPath = netnsPath
    this.#netns = netnsPath === undefined ? undefined : openNetns(netnsPath)
    try {
      this.#rtnetlink = rtnetlinkDriver.open(this)
      this.#sessions.set(rtnetlinkDriver, this.#rtnetlink)
    } catch (error) {
      if (this.#netns !== undefined) closeNetns(this.#netns)
      throw error
    }
  }

  static openOwn(): LinuxKernel {
    return new LinuxKernel(undefined)
  }

  /** The kernel of the namespace at `netnsPath`. Throws KernelError (ENOENT, EINVAL). */
  static openAt(netnsPath: string): LinuxKernel {
    return new LinuxKernel(netnsPath)
  }

  open(netnsPath: string): Kernel {
    return LinuxKernel.openAt(netnsPath)
  }

  async read<K extends ObjectKind>(...kinds: readonly K[]): Promise<ObjectOf<K>[]> {
    const parts: ObjectOf<K>[][] = []
    for (const [driver, own] of byDriver(kinds))
      parts.push((await this.#session(driver).read(own)) as unknown as ObjectOf<K>[])
    return parts.length === 1 ? parts[0]! : parts.flat()
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    const late = withLateUps(ops)
    if (!late) return this.#perform(ops)
    const results = [...(await this.#perform(late.head))]
    const ups = late.ups.filter(({ madeBy }) => results[madeBy] === undefined)
    const outcome = await this.#perform(ups.map(({ op }) => op))
    for (const [i, { madeBy }] of ups.entries()) results[madeBy] = outcome[i]
    return [...results, ...(await this.#perform(late.tail))]
  }

  /** As they are, run by run. */
  async #perform(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    const results: OpResult[] = []
    for (let start = 0; start < ops.length; ) {
      const driver = driverOf.get(ops[start]!.object.kind)!
      let end = start + 1
      while (end < ops.length && driverOf.get(ops[end]!.object.kind) === driver) end++
      const run = start === 0 && end === ops.length ? ops : ops.slice(start, end)
      const outcome = await this.#session(driver).execute(run)
      if (run === ops) return outcome
      for (const result of outcome) results.push(result)
      start = end
    }
    return results
  }

  deleteGroup(group: number): Promise<OpResult> {
    return this.#rtnetlink.deleteGroup(group)
  }

  watch(kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    const watches: Watch[] = []
    for (const [driver, own] of byDriver(kinds)) {
      const watch = this.#session(driver).watch?.(own, listener)
      if (watch) watches.push(watch)
    }
    const all: Watch = {
      close: () => {
        this.#watches.delete(all)
        for (const watch of watches) watch.close()
      },
    }
    this.#watches.add(all)
    return all
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const watch of [...this.#watches]) watch.close()
    for (const session of this.#sessions.values()) session.close()
    if (this.#netns !== undefined) closeNetns(this.#netns)
  }

  inside<T>(call: () => T): T {
    return this.#netns === undefined ? call() : insideNetns(this.#netns, this.netnsPath!, call)
  }

  openNetlink(protocol: number, options: NetlinkSocketOptions = {}): NetlinkSocket {
    return this.inside(() => new NetlinkSocket(protocol, { label: this.netnsPath ?? '', ...options }))
  }

  deviceIndex(name: string): number | undefined {
    const request = Buffer.alloc(IFREQ_BYTES)
    if (request.write(name, 0, IFNAME_BYTES - 1) !== Buffer.byteLength(name)) return undefined
    return syscalls.ioctl(this.#rtnetlink.fd, SIOCGIFINDEX, request) < 0 ? undefined : request.readInt32LE(IFNAME_BYTES)
  }

  deviceName(index: number): string | undefined {
    const request = Buffer.alloc(IFREQ_BYTES)
    request.writeInt32LE(index, IFNAME_BYTES)
    if (syscalls.ioctl(this.#rtnetlink.fd, SIOCGIFNAME, request) < 0) return undefined
    return request.toString('utf8', 0, request.indexOf(0))
  }

  #session(driver: Driver): DriverSession {
    if (this.#closed) throw kernelError('use a closed kernel', EBADF)
    let session = this.#sessions.get(driver)
    if (!session) {
      session = driver.open(this)
      this.#sessions.set(driver, session)
    }
    return session
  }
}

function byDriver(kinds: readonly ObjectKind[]): Map<Driver, ObjectKind[]> {
  const groups = new Map<Driver, ObjectKind[]>()
  for (const kind of new Set(kinds)) {
    const driver = driverOf.get(kind)
    if (!driver) throw new TypeError(`no driver for ${kind}`)
    const own = groups.get(driver)
    if (own) own.push(kind)
    else groups.set(driver, [kind])
  }
  return groups
}
