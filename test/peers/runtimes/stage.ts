/**
 * Where another project's caller of CNI runs in these tests: the network of a node, and a /var/lib of its own, because
 * libcni keeps its results, host-local its addresses and podman its containers there. Network namespaces that the caller
 * makes under /run/netns are seen outside, as a runtime's are by an agent.
 */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { TestNamespace } from '../../netns/namespace.ts'
import { type BuiltPeer, buildGoProgram } from '../go-program.ts'

const packages = {
  cnitool: 'github.com/containernetworking/cni/cnitool',
  portmap: 'github.com/containernetworking/plugins/plugins/meta/portmap',
  bandwidth: 'github.com/containernetworking/plugins/plugins/meta/bandwidth',
  tuning: 'github.com/containernetworking/plugins/plugins/meta/tuning',
  firewall: 'github.com/containernetworking/plugins/plugins/meta/firewall',
  multus: 'gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus',
} as const

/** A caller of CNI or a plugin, or why there is none on this machine. */
export const buildTool = (name: keyof typeof packages): BuiltPeer | { readonly missing: string } =>
  buildGoProgram(fileURLToPath(new URL('.', import.meta.url)), name, packages[name], { CGO_ENABLED: '0' })

/** The last Multus that moves default routes. */
export const buildEarlierMultus = (): BuiltPeer | { readonly missing: string } =>
  buildGoProgram(fileURLToPath(new URL('earlier-multus', import.meta.url)), 'multus', packages.multus, {
    CGO_ENABLED: '0',
  })

/** Debian's reference plugins. */
export const PLUGINS = '/usr/lib/cni'

export interface Ended {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string
}

// Mounts of its own, but the namespaces under /run/netns stay shared; it ends with the test, when its input does.
const script = `set -e
mount --make-private "$(findmnt -nT /var/lib -o TARGET)"
mount --bind "$1" /var/lib
echo ready
exec cat`

export class Stage {
  readonly varLib: string
  readonly #node: TestNamespace
  readonly #holder: ChildProcess

  private constructor(node: TestNamespace, varLib: string, holder: ChildProcess) {
    this.#node = node
    this.varLib = varLib
    this.#holder = holder
  }

  /** `folder` is the test's own; /var/lib is a folder in it. */
  static async open(node: TestNamespace, folder: string): Promise<Stage> {
    const varLib = join(folder, 'var-lib')
    mkdirSync(varLib, { recursive: true })
    const holder = spawn('unshare', ['--mount', '--propagation', 'unchanged', 'sh', '-c', script, 'sh', varLib], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    await new Promise<void>((resolve, reject) => {
      holder.stdout.once('data', () => resolve())
      holder.once('exit', (code) => reject(new Error(`No mount namespace: unshare ended with ${code}`)))
    })
    return new Stage(node, varLib, holder)
  }

  /** Starts a program here; its environment is PATH and what is given. */
  start(argv: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcessWithoutNullStreams {
    const enter = ['--target', String(this.#holder.pid), '--mount', `--net=${this.#node.path}`, '--']
    return spawn('nsenter', [...enter, ...argv], { env: { PATH: process.env.PATH, ...env }, stdio: 'pipe' })
  }

  /** Runs a program here to its end. */
  run(argv: readonly string[], { env = {}, stdin = '' }: RunOptions = {}): Promise<Ended> {
    const child = this.start(argv, env)
    child.stdin.on('error', () => {})
    child.stdin.end(stdin)
    const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)]
    // Not `close`: a container's monitor may keep the pipes.
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code) =>
        setImmediate(() => resolve({ exitCode: code ?? -1, stdout: stdout(), stderr: stderr() })),
      )
    })
  }

  close(): void {
    this.#holder.kill('SIGKILL')
  }
}

/** Takes away the cgroups under one of a test's own that a caller left. */
export function removeCgroups(name: string): void {
  const remove = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory()) remove(join(folder, entry.name))
    rmdirSync(folder)
  }
  for (const controller of readdirSync('/sys/fs/cgroup'))
    if (existsSync(`/sys/fs/cgroup/${controller}/${name}`)) remove(`/sys/fs/cgroup/${controller}/${name}`)
}

function collect(stream: Readable): () => string {
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  return () => Buffer.concat(chunks).toString()
}
