/**
 * Where a speaker of ours meets another project's: two namespaces and a cable, the real programs in them with files and
 * sockets of their own. Nothing of the machine's own network is touched; what was started ends with the test.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { stringify } from 'yaml'
import { askSpeaker } from '../../src/bgp/session/control-client.ts'
import type { PeerStatus, RibRoute } from '../../src/model/bgp.ts'
import { TestNamespace } from '../netns/namespace.ts'

const started = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of started) child.kill('SIGKILL')
})

/** Whether a program of the machine can be run. */
export function hasProgram(name: string): boolean {
  try {
    execFileSync('sh', ['-c', `PATH="$PATH:/usr/sbin:/usr/lib/frr" command -v ${name}`])
    return true
  } catch {
    return false
  }
}

/** Waits until it is so. Fails after so many seconds with what `describe` says. */
export async function until(
  what: string,
  done: () => boolean | Promise<boolean>,
  describe: () => string = () => '',
  seconds = 90,
): Promise<void> {
  const end = Date.now() + seconds * 1000
  while (!(await done())) {
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} s\n${describe()}`)
    await pause(50)
  }
}

/** A program in a namespace, with its output in a file. */
export class Program {
  readonly logFile: string
  readonly child: ChildProcess
  readonly ended: Promise<void>

  constructor(namespace: TestNamespace, command: readonly string[], logFile: string, env: NodeJS.ProcessEnv = {}) {
    this.logFile = logFile
    const path = `${process.env.PATH}:/usr/sbin:/usr/lib/frr`
    this.child = spawn('sh', ['-c', `exec ip netns exec ${namespace.name} "$@" >>"$0" 2>&1`, logFile, ...command], {
      stdio: 'ignore',
      env: { ...process.env, PATH: path, ...env },
    })
    started.add(this.child)
    this.ended = new Promise((resolve) =>
      this.child.once('exit', () => {
        started.delete(this.child)
        resolve()
      }),
    )
  }

  get log(): string {
    try {
      return readFileSync(this.logFile, 'utf8')
    } catch {
      return ''
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.child.kill(signal)
    await this.ended
  }
}

/** Two hosts and a cable: `weft` is 10.0.0.1 and fd00::1 on its side, the other project's daemon 10.0.0.2 and fd00::2. */
export class Bench {
  readonly weft = new TestNamespace()
  readonly other = new TestNamespace()
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-interop-'))
  #programs: Program[] = []
  #files = 0

  constructor() {
    // Link-local addresses that are still checked for doubles are none to the daemons, and they complain.
    for (const end of [this.weft, this.other]) end.run('sysctl -qw net.ipv6.conf.default.accept_dad=0')
    this.weft.run(`ip link add eth0 type veth peer name eth0 netns ${this.other.name}`)
    for (const [namespace, last] of [
      [this.weft, 1],
      [this.other, 2],
    ] as const)
      namespace.run(
        `ip addr add 10.0.0.${last}/24 dev eth0 && ip addr add fd00::${last}/64 dev eth0 nodad && ip link set eth0 up`,
      )
  }

  /** A folder or file of this test. */
  path(name: string): string {
    return join(this.folder, name)
  }

  write(name: string, text: string): string {
    const path = this.path(name)
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, text)
    return path
  }

  run(namespace: TestNamespace, name: string, command: readonly string[], env: NodeJS.ProcessEnv = {}): Program {
    const program = new Program(namespace, command, this.path(`${name}-${++this.#files}.log`), env)
    this.#programs.push(program)
    return program
  }

  async startWeft(config: object, more: readonly string[] = []): Promise<WeftSpeaker> {
    const speaker = new WeftSpeaker(this, config, more)
    await until(
      'weft runs',
      () => speaker.program.log.includes('speaker started') || speaker.program.child.exitCode !== null,
      () => speaker.program.log,
    )
    return speaker
  }

  async close(): Promise<void> {
    for (const program of this.#programs) if (program.child.exitCode === null) await program.stop('SIGKILL')
    this.weft.delete()
    this.other.delete()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** `weft bgp serve` as its users run it. */
export class WeftSpeaker {
  readonly program: Program
  readonly #bench: Bench
  readonly #control: string

  constructor(bench: Bench, config: object, more: readonly string[]) {
    this.#bench = bench
    this.#control = bench.path('weft.sock')
    const file = bench.write('weft.yaml', stringify(config))
    const serve = ['bin/weft.ts', 'bgp', 'serve', '--config', file, '--control', this.#control]
    this.program = bench.run(bench.weft, 'weft', [process.execPath, '--import', 'tsx', ...serve, ...more])
  }

  /** Writes the file anew and has it read. */
  reload(config: object): void {
    this.#bench.write('weft.yaml', stringify(config))
    this.program.child.kill('SIGHUP')
  }

  async ask<T>(request: Readonly<Record<string, unknown>>): Promise<T[]> {
    const items: T[] = []
    for await (const item of askSpeaker<T>(this.#control, request)) items.push(item)
    return items
  }

  async peer(name = 'other'): Promise<PeerStatus> {
    return (await this.ask<PeerStatus>({ command: 'neighbor', peer: name }))[0]!
  }

  async up(name = 'other'): Promise<boolean> {
    return (await this.peer(name)).state === 'established'
  }

  /** Prefixes that were learned from peers and are the best. */
  async learned(): Promise<string[]> {
    const routes = await this.ask<RibRoute>({ command: 'rib' })
    return routes.filter(({ best, fromPeer }) => best && fromPeer !== undefined).map(({ prefix }) => prefix)
  }

  async route(prefix: string): Promise<RibRoute | undefined> {
    return (await this.ask<RibRoute>({ command: 'rib', prefix })).find(({ best }) => best)
  }
}
