/**
 * The programs of a real cluster: Kubernetes' own, built from the Go module of test/kubernetes, and Debian's containerd, runc
 * and etcd. Built once for each content of the module and each compiler, kept in `~/.cache/weft/kubernetes` (or
 * XDG_CACHE_HOME), so that another checkout of the same machine finds them. The first build takes minutes.
 *
 * Sources: component-base/version of Kubernetes (the variables that the linker sets).
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { projectRoot } from '../layout.ts'

/** Absolute paths. */
export interface Programs {
  /** Holds `kubernetes`, which is every Kubernetes program by its first argument, and `agnhost`, their test server. */
  readonly folder: string
  readonly etcd: string
  readonly containerd: string
  readonly ctr: string
  readonly busybox: string
  /** Reference plugins: containerd wants `loopback` of them. */
  readonly cniPlugins: string
}

type Progress = (line: string) => void

const moduleFolder = (): string => join(projectRoot(), 'test', 'kubernetes')

/** The version of Kubernetes that the module pins: `v1.35.4`. */
export function kubernetesVersion(): string {
  const found = /^\s+k8s\.io\/kubernetes (v[\d.]+)$/m.exec(readFileSync(join(moduleFolder(), 'go.mod'), 'utf8'))
  if (!found) throw new Error('test/kubernetes/go.mod names no version of Kubernetes')
  return found[1]!
}

/** Where a program is, in PATH and where Debian keeps those of the administrator. */
function which(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/go/bin', '/usr/sbin', '/usr/bin', '/sbin']
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

const CNI_PLUGINS = '/usr/lib/cni'

/** What this machine lacks for a real cluster; undefined when nothing. */
export function missingForKubernetes(): string | undefined {
  if (process.getuid?.() !== 0) return 'a cluster needs root'
  if (!existsSync('/sys/fs/cgroup/cpu')) return 'the nodes of a cluster need the controllers of cgroup v1'
  const absent = [
    ['containerd', 'containerd'],
    ['ctr', 'containerd'],
    ['runc', 'runc'],
    ['etcd', 'etcd-server'],
    ['busybox', 'busybox-static'],
    ['iptables', 'iptables'],
    ['kubectl', 'kubernetes-client'],
  ].filter(([name]) => which(name!) === undefined)
  if (absent.length > 0)
    return `there is no ${absent.map(([name, from]) => `${name} (package ${from})`).join(', ')}; scripts/setup.sh --kubernetes installs it`
  if (!existsSync(join(CNI_PLUGINS, 'loopback')))
    return `there is no ${CNI_PLUGINS}/loopback (package containernetworking-plugins)`
  return missingGo('Kubernetes', moduleFolder())
}

/** Why there is no compiler for a Go module, whose product is `what`; undefined when there is one. */
export function missingGo(what: string, module: string): string | undefined {
  const compiler = goVersion()
  const wanted = /^go ([\d.]+)$/m.exec(readFileSync(join(module, 'go.mod'), 'utf8'))![1]!
  if (compiler === undefined) return `there is no Go to build ${what} with; it needs ${wanted} or newer`
  if (older(compiler, wanted)) return `Go ${compiler} is too old to build ${what}; it needs ${wanted} or newer`
  return undefined
}

/** The Go compiler, where there is one. */
export const goCompiler = (): string | undefined => which('go')

/** `1.26.8`; undefined without Go. */
function goVersion(): string | undefined {
  const go = goCompiler()
  if (!go) return undefined
  const { status, stdout } = spawnSync(go, ['env', 'GOVERSION'], { encoding: 'utf8', cwd: '/' })
  return status === 0 ? /^go([\d.]+)/.exec(stdout)?.[1] : undefined
}

function older(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number))
  for (let i = 0; i < 3; i++) if ((a![i] ?? 0) !== (b![i] ?? 0)) return (a![i] ?? 0) < (b![i] ?? 0)
  return false
}

/** Every Go source of the module and what pins its dependencies. */
function sources(): string[] {
  return readdirSync(moduleFolder(), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.go') || /^go\.(mod|sum)$/.test(name))
    .sort()
}

/** The programs; built when this content never was. Throws when something is missing or the build fails. */
export async function ensurePrograms(progress: Progress): Promise<Programs> {
  const missing = missingForKubernetes()
  if (missing) throw new Error(missing)
  const hash = createHash('sha256').update(`${goVersion()} ${process.arch}`)
  for (const name of sources()) hash.update(`\0${name}\0`).update(readFileSync(join(moduleFolder(), name)))
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weft', 'kubernetes')
  const key = hash.digest('hex').slice(0, 16)
  const folder = join(cache, key)
  if (!existsSync(folder)) {
    progress(`building Kubernetes ${kubernetesVersion()} with Go ${goVersion()}: minutes, once`)
    const started = performance.now()
    const unfinished = join(cache, `.${key}-${process.pid}`)
    mkdirSync(unfinished, { recursive: true })
    try {
      await build(unfinished, 'kubernetes', '.')
      await build(unfinished, 'agnhost', './agnhost')
      if (!existsSync(folder)) renameSync(unfinished, folder)
    } finally {
      rmSync(unfinished, { recursive: true, force: true })
    }
    forgetOld(cache, key)
    progress(`built Kubernetes in ${Math.round((performance.now() - started) / 1000)} s`)
  }
  return {
    folder,
    etcd: which('etcd')!,
    containerd: which('containerd')!,
    ctr: which('ctr')!,
    busybox: which('busybox')!,
    cniPlugins: CNI_PLUGINS,
  }
}

async function build(folder: string, name: string, target: string): Promise<void> {
  const version = kubernetesVersion()
  const [major, minor] = version.slice(1).split('.')
  const variables = { gitVersion: version, gitMajor: major, gitMinor: minor, gitTreeState: 'clean' }
  const set = Object.entries(variables).map(([key, value]) => `-X k8s.io/component-base/version.${key}=${value}`)
  const argv = ['build', '-mod=readonly', '-trimpath', '-ldflags', `-s -w ${set.join(' ')}`, '-o', join(folder, name)]
  const child = spawn(goCompiler()!, [...argv, target], {
    cwd: moduleFolder(),
    env: { ...process.env, CGO_ENABLED: '0' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4000)
  })
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`go build of ${name} failed:\n${said}`)
}

const KEEP_MS = 14 * 86_400_000

/** Builds of other contents go after two weeks: a hundred megabytes each. */
function forgetOld(cache: string, key: string): void {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name)
    if (name !== key && Date.now() - statSync(path).mtimeMs > KEEP_MS) rmSync(path, { recursive: true, force: true })
  }
}
