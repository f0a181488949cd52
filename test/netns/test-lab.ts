/**
 * Labs for tests: named `t<pid>x<n>`, ended with the test's process, or by the next test when it was killed. They run the
 * built program as a user does.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { labPaths } from '../../src/lab/layout.ts'
import { findLabProcesses } from '../../src/lab/process.ts'
import { labNames } from '../../src/lab/spec.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
export const program = join(root, 'weft')

let made = 0
const standing = new Set<string>()

function sweep(): void {
  for (const name of labNames()) {
    const pid = /^t(\d+)x\d+$/.exec(name)?.[1]
    if (pid && !existsSync(`/proc/${pid}`)) spawnSync(program, ['lab', 'down', '--name', name])
  }
}

/** What a lab may leave behind, by kind; all empty when nothing is left. */
export interface Leftovers {
  readonly namespaces: readonly string[]
  readonly processes: readonly number[]
  readonly folders: readonly string[]
  readonly mounts: readonly string[]
}

export class TestLab {
  readonly name: string

  constructor() {
    if (made === 0) {
      sweep()
      process.once('exit', () => {
        for (const name of standing) spawnSync(program, ['lab', 'down', '--name', name])
      })
    }
    this.name = `t${process.pid}x${++made}`
    standing.add(this.name)
  }

  /** `weft lab <command…> --name <this>`; resolves with what it printed, rejects with that when it fails. */
  weft(...argv: readonly string[]): Promise<string> {
    const at = argv.indexOf('--')
    const words = at < 0 ? [...argv] : argv.slice(0, at)
    const rest = at < 0 ? [] : argv.slice(at)
    return new Promise((resolve, reject) => {
      execFile(program, ['lab', ...words, '--name', this.name, ...rest], (error, stdout, stderr) => {
        if (error) reject(new Error(`weft lab ${argv.join(' ')}: ${stdout}${stderr}`))
        else resolve(stdout)
      })
    })
  }

  async up(...options: readonly string[]): Promise<void> {
    await this.weft('up', ...options)
  }

  async down(): Promise<void> {
    await this.weft('down')
    standing.delete(this.name)
  }

  get kubeconfig(): string {
    return labPaths(this.name).kubeconfig
  }

  get daemonPid(): number {
    return Number(readFileSync(labPaths(this.name).daemonPid, 'utf8'))
  }

  kubectl(...argv: readonly string[]): string {
    return execFileSync('kubectl', ['--kubeconfig', this.kubeconfig, ...argv], {
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
    })
  }

  /** Waits until the objects are gone. A kubectl before 1.24 calls it an error when they are gone already. */
  gone(...what: readonly string[]): void {
    try {
      this.kubectl('wait', '--for=delete', ...what, '--timeout=60s')
    } catch (error) {
      if (!String((error as { stderr?: string }).stderr).includes('no matching resources found')) throw error
    }
  }

  /** Waits until a field of an object has a value, without `wait --for=jsonpath`, which a kubectl before 1.23 lacks. */
  async reaches(what: string, field: string, value: string): Promise<void> {
    const deadline = performance.now() + 60_000
    for (let now = ''; now !== value; now = this.kubectl('get', what, '-o', `jsonpath={${field}}`)) {
      if (performance.now() > deadline) throw new Error(`${what} ${field} is ${now} and not ${value}`)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  apply(manifest: object): string {
    return execFileSync('kubectl', ['--kubeconfig', this.kubeconfig, 'apply', '-f', '-'], {
      encoding: 'utf8',
      input: JSON.stringify(manifest),
    })
  }

  /** A pod of the built-in server on a node, ready. */
  async server(name: string, node: string): Promise<{ readonly ip: string; readonly ip6: string | undefined }> {
    await this.weft('run', name, '--node', node)
    const ips = JSON.parse(this.kubectl('get', 'pod', name, '-o', 'json')).status.podIPs as { ip: string }[]
    return { ip: ips[0]!.ip, ip6: ips[1]?.ip }
  }

  /** Whether a ping from a pod is answered. */
  async pings(pod: string, ip: string): Promise<boolean> {
    try {
      await this.weft('exec', pod, '--', 'ping', '-n', '-c', '2', '-i', '0.2', '-W', '2', ip)
      return true
    } catch {
      return false
    }
  }

  leftovers(): Leftovers {
    const marks = [`weft-${this.name}-`]
    const paths = labPaths(this.name)
    return {
      namespaces: existsSync('/run/netns')
        ? readdirSync('/run/netns').filter((name) => name.startsWith(marks[0]!))
        : [],
      processes: findLabProcesses(this.name).map(({ pid }) => pid),
      folders: [paths.run, paths.store].filter(existsSync),
      mounts: readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .filter((line) => line.includes(marks[0]!)),
    }
  }
}

export const nothingLeft: Leftovers = { namespaces: [], processes: [], folders: [], mounts: [] }

/** What of the machine itself a lab must not touch, as text. Counters and ages are left out. */
export function machineState(): string {
  const read = (command: string) => spawnSync('sh', ['-c', command], { encoding: 'utf8' }).stdout
  return [
    'ip -o link show | cut -d: -f2',
    'ip -o address show scope global | sed "s/ *valid_lft.*//"',
    'ip route show table all type unicast | sed "s/expires [0-9]*sec//"',
    'ip rule',
    'ip -6 rule',
    'nft list ruleset',
    'sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv6.conf.all.forwarding net.ipv4.conf.default.forwarding',
  ]
    .map(read)
    .join('---\n')
}
