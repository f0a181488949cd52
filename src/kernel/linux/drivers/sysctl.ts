/**
 * Kernel variables under /proc/sys. What lies under net/ belongs to a namespace, and the file that opens is that of the
 * opening thread's namespace: reads and writes run inside. Nobody can list "the" variables, so `read` gives those that
 * this session was asked to set.
 *
 * Sources: proc(5); Documentation/networking/ip-sysctl.rst.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { formatOp } from '../../../model/format.ts'
import type { KernelObject } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import type { Sysctl } from '../../../model/link.ts'
import { kernelError } from '../../errno.ts'
import type { OpResult } from '../../kernel.ts'
import type { Driver, DriverContext, DriverSession } from '../driver.ts'

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

  constructor(context: DriverContext) {
    this.#context = context
  }

  async read(): Promise<KernelObject[]> {
    return this.#context.inside(() => {
      const found: Sysctl[] = []
      for (const path of this.#asked) {
        try {
          found.push({ kind: 'sysctl', path, value: readValue(fileOf(path)!) })
        } catch {
          // The device that the variable belongs to is gone: the variable does not exist now.
        }
      }
      return found
    })
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    return this.#context.inside(() => ops.map((op) => this.#perform(op)))
  }

  #perform(op: KernelOp): OpResult {
    const { path, value } = op.object as Sysctl
    const file = fileOf(path)
    if (!file) return kernelError(formatOp(op), EINVAL)
    if (op.verb === 'delete') return kernelError(formatOp(op), EOPNOTSUPP)
    try {
      // A write that changes nothing would still take locks and wake listeners.
      if (readValue(file) !== value) writeFileSync(file, value)
      this.#asked.add(path)
      return undefined
    } catch (error) {
      return kernelError(formatOp(op), -((error as { errno?: number }).errno ?? -EINVAL), {}, { cause: error })
    }
  }

  close(): void {}
}

const readValue = (file: string): string => readFileSync(file, 'utf8').trimEnd().replace(/\s+/g, ' ')
