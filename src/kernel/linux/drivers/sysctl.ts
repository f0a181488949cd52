/**
 * Kernel variables under /proc/sys. What lies under net/ belongs to a namespace, and the file that opens is that of the
 * opening thread's namespace: reads and writes run inside. Nobody can list "the" variables, so `read` gives those that
 * this session was asked to set.
 *
 * The kernel announces forwarding, rp_filter, proxy_arp and their kin (RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF) and
 * nothing about the others, such as route_localnet or the bridge's: those a watch notices within a few seconds.
 *
 * Sources: proc(5); Documentation/networking/ip-sysctl.rst; net/ipv4/devinet.c (inet_netconf_notify_devconf).
 */
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { formatOp } from '../../../model/format.ts'
import type { KernelObject, ObjectKind } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import type { Sysctl } from '../../../model/link.ts'
import { NETLINK_ROUTE } from '../../../wire/netlink/constants.gen.ts'
import { RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF } from '../../../wire/rtnetlink/constants.gen.ts'
import { kernelError } from '../../errno.ts'
import type { KernelEvent, OpResult, Watch } from '../../kernel.ts'
import type { Driver, DriverContext, DriverSession } from '../driver.ts'
import { ReadingWatches } from '../reading-watch.ts'
import { noteSysctl } from '../sysctl-memory.ts'

const EINVAL = 22
const EOPNOTSUPP = 95

export const sysctlDriver: Driver = {
  name: 'sysctl',
  kinds: ['sysctl'],
  open: (context) => new SysctlSession(context),
}

/** The file of a variable. Undefined for a path that leaves /proc/sys. */
function fileOf(path: string): string | undefined {
  const safe = path !== '' && path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
  return safe && !path.includes('\0') ? `/proc/sys/${path}` : undefined
}

class SysctlSession implements DriverSession {
  readonly #context: DriverContext
  readonly #asked = new Set<string>()
  readonly #watches: ReadingWatches
  readonly #netns: number

  constructor(context: DriverContext) {
    this.#context = context
    this.#netns = context.inside(() => statSync('/proc/thread-self/ns/net').ino)
    const groups = [RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF]
    this.#watches = new ReadingWatches(
      context,
      () => this.#readAsked(),
      () => ({ protocol: NETLINK_ROUTE, groups }),
    )
  }

  async read(): Promise<KernelObject[]> {
    return this.#readAsked()
  }

  #readAsked(): Sysctl[] {
    return this.#context.inside(() => {
      const found: Sysctl[] = []
      for (const path of this.#asked) {
        try {
          found.push({ kind: 'sysctl', path, value: readValue(fileOf(path)!) })
        } catch {
          // The device that the variable belongs to is gone; whoever wants it of one that comes sets it again.
          this.#asked.delete(path)
        }
      }
      return found
    })
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    const results = this.#context.inside(() => ops.map((op) => this.#perform(op)))
    for (const [i, { object }] of ops.entries()) if (!results[i]) this.#watches.tell(object)
    return results
  }

  watch(_kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    return this.#watches.watch('sysctl', listener)
  }

  #perform(op: KernelOp): OpResult {
    const { path, value } = op.object as Sysctl
    const file = fileOf(path)
    if (!file) return kernelError(formatOp(op), EINVAL)
    if (op.verb === 'delete') return kernelError(formatOp(op), EOPNOTSUPP)
    try {
      // A write that changes nothing would still take locks and wake listeners.
      const before = readValue(file)
      noteSysctl(this.#netns, path, before)
      if (before !== value) writeFileSync(file, value)
      this.#asked.add(path)
      return undefined
    } catch (error) {
      return kernelError(formatOp(op), -((error as { errno?: number }).errno ?? -EINVAL), {}, { cause: error })
    }
  }

  close(): void {
    this.#watches.close()
  }
}

const readValue = (file: string): string => readFileSync(file, 'utf8').trimEnd().replace(/\s+/g, ' ')
