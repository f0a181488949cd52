/**
 * Network namespaces for tests: `weft-test-<pid>-<n>`, removed when the test's process ends in any way that lets it,
 * and by the next test when it was killed: every first use sweeps those whose process is gone.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import type { Kernel } from '../../src/kernel/kernel.ts'
import { LinuxKernel } from '../../src/kernel/linux/linux-kernel.ts'
import { createNetns, deleteNetns } from '../../src/kernel/linux/netns.ts'
import type { Link } from '../../src/model/link.ts'

const folder = '/run/netns'
const pattern = /^weft-test-(\d+)-\d+/
let made = 0
const standing = new Set<string>()

function sweep(): void {
  if (!existsSync(folder)) return
  for (const name of readdirSync(folder)) {
    const pid = pattern.exec(name)?.[1]
    if (pid && !existsSync(`/proc/${pid}`)) deleteNetns(`${folder}/${name}`)
  }
}

/** A namespace of a test, with its loopback up. */
export class TestNamespace {
  readonly name: string
  readonly path: string
  #kernel: Kernel | undefined

  constructor() {
    if (made === 0) {
      sweep()
      process.once('exit', () => {
        for (const path of standing) deleteNetns(path)
      })
    }
    this.name = `weft-test-${process.pid}-${++made}`
    this.path = `${folder}/${this.name}`
    createNetns(this.path)
    standing.add(this.path)
    this.run('ip link set lo up')
  }

  /** The kernel as seen from inside; closed with the namespace. */
  get kernel(): Kernel {
    this.#kernel ??= LinuxKernel.openAt(this.path)
    return this.#kernel
  }

  /** Runs a shell command inside and returns what it printed. Throws when it fails. */
  run(command: string): string {
    return execFileSync('ip', ['netns', 'exec', this.name, 'sh', '-c', command], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  /** Whether a shell command succeeds inside. */
  succeeds(command: string): boolean {
    return spawnSync('ip', ['netns', 'exec', this.name, 'sh', '-c', command], { stdio: 'ignore' }).status === 0
  }

  /** What a command that prints JSON printed. */
  json<T = Record<string, unknown>[]>(command: string): T {
    return JSON.parse(this.run(command) || '[]') as T
  }

  delete(): void {
    this.#kernel?.close()
    this.#kernel = undefined
    deleteNetns(this.path)
    standing.delete(this.path)
  }

  [Symbol.dispose](): void {
    this.delete()
  }
}

/** Whether this kernel can make such a device: tried in a namespace of its own. */
export async function canCreate(link: Link): Promise<boolean> {
  const probe = new TestNamespace()
  try {
    const [result] = await probe.kernel.execute([{ verb: 'add', object: link }])
    return result?.code !== 'EOPNOTSUPP' && result?.code !== 'ENODEV'
  } finally {
    probe.delete()
  }
}
