/**
 * A node as a machine of its own: besides the network namespace that every node of a lab has, one for processes, mounts,
 * cgroups and the host name, so that programs find their usual paths (/etc/kubernetes, /var/lib/kubelet, /opt/cni/bin,
 * /run/containerd) and see nothing of the other nodes. All of it hangs on the machine's first process: when that one is killed,
 * the kernel ends every process and mount of the machine, as a power failure would.
 *
 *   <store>/nodes/<node>/disk/{etc,opt,run,var}  what the machine sees as /etc, /opt, /run, /var/lib and /var/log
 *   /sys/fs/cgroup/<hierarchy>/weft-<lab>-<node>  the root of its cgroups
 *
 * Sources: cgroup_namespaces(7), pid_namespaces(7), mount_namespaces(7), cgroups(7) section "Cgroups version 1".
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inNetns } from '../../kernel/linux/netns.ts'
import { labPaths, type NodeSpec, nativeProgram, netnsPath, netnsPrefix, nodePaths, projectRoot } from '../layout.ts'
import { endProcesses, findProcessesIn, LAB_VARIABLE, readTail, waitUntil } from '../process.ts'
import { Program, type ProgramPlan } from './process.ts'

const CGROUP_ROOT = '/sys/fs/cgroup'
const BOOT_TIMEOUT_MS = 20_000

/** The cgroup hierarchies of this machine, as boot.sh takes them. */
function hierarchies(): string[] {
  if (!existsSync('/proc/self/cgroup')) return []
  return readFileSync('/proc/self/cgroup', 'utf8')
    .trim()
    .split('\n')
    .map((line) => (line.startsWith('0::') ? 'unified' : line.split(':')[1]!))
    .filter((name) => existsSync(join(CGROUP_ROOT, name.replace('name=', ''))))
}

const cgroupsOf = (name: string): string[] =>
  hierarchies().map((each) => join(CGROUP_ROOT, each.replace('name=', ''), name))

/** Makes the machine's cgroup in every hierarchy. */
function makeCgroups(name: string): string[] {
  const folders = cgroupsOf(name)
  for (const folder of folders) {
    mkdirSync(folder, { recursive: true })
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      const path = join(folder, file)
      if (existsSync(path)) writeFileSync(path, readFileSync(join(folder, '..', file)))
    }
  }
  return folders
}

/** Removes cgroups and those below them; they must be without processes. */
function removeCgroup(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroup(join(folder, entry.name))
  rmdirSync(folder)
}

/** Removes every cgroup of a lab's machines, which have ended. */
export async function removeCgroups(lab: string): Promise<void> {
  for (const hierarchy of hierarchies()) {
    const root = join(CGROUP_ROOT, hierarchy.replace('name=', ''))
    for (const name of readdirSync(root).filter((each) => each.startsWith(netnsPrefix(lab)))) {
      // The last process of a cgroup is counted for a moment after its end.
      const gone = await waitUntil(() => {
        try {
          removeCgroup(join(root, name))
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false
          if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
        }
        return true
      }, 5_000)
      if (!gone) throw new Error(`cgroup ${join(root, name)} is still in use`)
    }
  }
}

export class Machine {
  readonly lab: string
  readonly node: NodeSpec
  /** What the machine sees as `/etc`, `/run`, … is here. */
  readonly disk: string
  readonly #programs: string
  readonly #init: Program

  /** `programs` is the folder that the machine sees as /opt/kubernetes. */
  constructor(lab: string, node: NodeSpec, programs: string) {
    this.lab = lab
    this.node = node
    this.#programs = programs
    this.disk = join(labPaths(lab).store, 'nodes', node.name, 'disk')
    this.#init = new Program({
      name: 'init',
      log: join(this.logs, 'boot.log'),
      state: this.stateOf('init'),
      wrapped: true,
      spawn: (output) => this.#boot(output),
    })
  }

  get logs(): string {
    return nodePaths(this.lab, this.node.name).log
  }

  get netns(): string {
    return netnsPath(this.lab, this.node.name)
  }

  /** Process id of the machine's first process, seen from outside; undefined while it is off. */
  get initPid(): number | undefined {
    return this.#init.pid
  }

  stateOf(program: string): string {
    return join(nodePaths(this.lab, this.node.name).base, 'programs', `${program}.json`)
  }

  /** Where a path of the machine is on this one. */
  outside(path: string): string {
    return join(this.disk, path)
  }

  writeFile(path: string, text: string, mode = 0o644): void {
    const at = this.outside(path)
    mkdirSync(join(at, '..'), { recursive: true })
    writeFileSync(at, text, { mode })
  }

  /** The disk as a new machine has it; one that is there stays. Nothing is written before `power`. */
  format(): void {
    if (existsSync(this.disk)) return
    for (const folder of ['opt/kubernetes', 'opt/weft', 'opt/cni/bin', 'run', 'var/lib', 'var/log', 'sysctl'])
      mkdirSync(join(this.disk, folder), { recursive: true })
    cpSync('/etc', join(this.disk, 'etc'), { recursive: true, verbatimSymlinks: true })
    for (const folder of ['cni', 'containerd', 'kubernetes', 'weft'])
      rmSync(join(this.disk, 'etc', folder), { recursive: true, force: true })
    mkdirSync(join(this.disk, 'etc/cni/net.d'), { recursive: true })
  }

  /** Turns it on, unless it is; its network namespace must stand. */
  async power(): Promise<void> {
    if (this.initPid !== undefined) return
    rmSync(join(this.disk, 'run'), { recursive: true, force: true })
    mkdirSync(join(this.disk, 'run'))
    await this.#init.start()
    this.#init.close()
    const booted = () => existsSync(join(this.disk, 'run/booted')) || this.initPid === undefined
    if (!(await waitUntil(booted, BOOT_TIMEOUT_MS)) || this.initPid === undefined)
      throw new Error(`${this.node.name} does not boot: ${readTail(join(this.logs, 'boot.log'), 2000)}`)
  }

  #boot(output: number): ChildProcess {
    const name = `${netnsPrefix(this.lab)}${this.node.name}`
    const cgroups = makeCgroups(name).map((folder) => join(folder, 'cgroup.procs'))
    const script = join(projectRoot(), 'src/lab/kubernetes/boot.sh')
    const boot = [script, this.disk, this.node.name, this.#programs, projectRoot(), nativeProgram('weft-pod')]
    const unshare = ['unshare', '--mount', '--pid', '--uts', '--ipc', '--cgroup', '--fork', 'bash', ...boot]
    const enter = 'for file in $CGROUPS; do echo $$ >"$file"; done; exec "$@"'
    return inNetns(this.netns, () =>
      spawn('bash', ['-c', enter, 'boot', ...unshare, ...hierarchies()], {
        cwd: '/',
        detached: true,
        stdio: ['ignore', output, output],
        env: { ...this.environment, CGROUPS: cgroups.join(' ') },
      }),
    )
  }

  /** The words before a command that runs on the machine. */
  get entry(): readonly string[] {
    const pid = this.initPid
    if (pid === undefined) throw new Error(`${this.node.name} is off`)
    return [
      'nsenter',
      '--target',
      String(pid),
      '--mount',
      '--uts',
      '--ipc',
      '--net',
      '--pid',
      '--cgroup',
      '--wd=/',
      '--',
    ]
  }

  get environment(): NodeJS.ProcessEnv {
    return {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      [LAB_VARIABLE]: this.lab,
    }
  }

  /** A program that runs on the machine and is kept up. */
  program(name: string, argv: readonly string[], env: NodeJS.ProcessEnv = {}): Program {
    const plan: ProgramPlan = {
      name,
      log: join(this.logs, `${name}.log`),
      state: this.stateOf(name),
      wrapped: true,
      spawn: (output) => {
        const [command, ...rest] = [...this.entry, ...argv]
        return spawn(command!, rest, {
          cwd: '/',
          detached: true,
          stdio: ['ignore', output, output],
          env: { ...this.environment, ...env },
        })
      },
    }
    return new Program(plan)
  }

  /** Power failure: every process and mount of the machine ends at once. What is on its disk stays. */
  async cut(): Promise<void> {
    await this.#init.stop('SIGKILL')
    const left = () => findProcessesIn(this.lab, [this.netns])
    for (let found = left(); found.length > 0; found = left()) await endProcesses(found, 0)
  }

  /** Takes its disk away. It must be off. */
  scrap(): void {
    rmSync(join(this.disk, '..'), { recursive: true, force: true })
  }

  /** Runs a command on the machine and returns what it printed. Throws with its complaint. */
  run(...argv: readonly string[]): string {
    const [command, ...rest] = [...this.entry, ...argv]
    return execFileSync(command!, rest, {
      encoding: 'utf8',
      env: this.environment,
      maxBuffer: 64 << 20,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }
}
