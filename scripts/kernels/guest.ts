/**
 * Guests: some test files, or one command, in one freshly booted kernel of the distribution, in QEMU without hardware
 * support, so that it runs wherever a process runs. The guest's root is the machine's own, read-only by 9p, with a memory
 * overlay; it has no network. What it reports comes through a folder of its own.
 *
 *   runner ── esbuild ──► bundles of the test files, in .cache/kernels/tests/ (the guest sees the checkout)
 *      │                                                    │
 *      └─ qemu -kernel … ──► init.c ──► session.sh ──► node bundle, … ──► report/tests-0, report/status-0, …, console
 *                                            └──────► command … ──► the second serial port, which is this terminal
 *
 * Sources: qemu(1); Documentation/admin-guide/kernel-parameters.txt.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build, type Plugin } from 'esbuild'
import { emptyReport, type FileReport } from '../file-report.ts'
import { buildInitramfs } from './initramfs.ts'
import type { TestLine } from './reporter.ts'
import type { Boot, Suite } from './suites.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const kernelsFolder = join(root, '.cache/kernels')
const testsFolder = join(kernelsFolder, 'tests')
const memoryMiB = 1536
/** How long a test file may run. */
const CAP_SECONDS = 300
/** How often to look whether a test file has ended. */
const LOOK_MS = 250
const qemu = 'qemu-system-x86_64'
/** What the emulator knows, without page tables of five levels, which only cost. */
const processor = 'max,la57=off'
/** What timeout(1) ends with when the time was over. */
const TIMED_OUT = '124'
/** The second serial port, as a guest sees it. */
const port = '/dev/ttyS1'

/** The kernel that guests run, as unpacked by fetch.sh, or undefined when there is none. */
function findKernel(): { readonly release: string; readonly folder: string } | undefined {
  if (!existsSync(kernelsFolder)) return undefined
  const release = readdirSync(kernelsFolder)
    .filter((name) => existsSync(join(kernelsFolder, name, 'ready')))
    .sort()
    .at(-1)
  return release === undefined ? undefined : { release, folder: join(kernelsFolder, release) }
}

/** The kernel image, unpacked if fetch.sh could. */
function imageOf(folder: string, release: string): string {
  const [unpacked, packed] = ['vmlinux', 'vmlinuz'].map((name) => join(folder, 'boot', `${name}-${release}`))
  return existsSync(unpacked!) ? unpacked! : packed!
}

/** Modules stand in the bundle under the address of their source: what they find beside themselves, they find. */
const sourceAddresses: Plugin = {
  name: 'source addresses',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8')
      return { loader: 'ts', contents: text.replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href)) }
    })
  },
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** What a guest is made like and for how long. */
interface GuestShape {
  readonly cpus?: number
  readonly bootOptions?: string
  /** Its serial ports, as words of QEMU's; the first is the kernel's console. */
  readonly serials: readonly string[]
  /** What QEMU prints goes where this process prints. */
  readonly attached?: boolean
  /** With `attached`: QEMU reads this process's terminal. */
  readonly terminal?: boolean
  readonly capSeconds: number
}

/** How a command in a guest is run. */
export interface GuestCommand {
  readonly argv: readonly string[]
  readonly cpus: number
  /** A terminal of so many rows and columns, which is this process's own; without it the command's output alone is passed on. */
  readonly terminal?: { readonly rows: number; readonly columns: number }
  readonly env?: Readonly<Record<string, string>>
  readonly capSeconds: number
}

/** What a command in a guest ended with, and the files that it left in its folder /report. */
export interface CommandEnd {
  readonly exitCode: number
  readonly files: ReadonlyMap<string, string>
}

/** Bundles a file for a guest, which would need seconds to compile it itself. Returns the path of the bundle. */
export async function bundleForGuest(file: string): Promise<string> {
  const outfile = join(
    testsFolder,
    `${file
      .replace(/^(test|scripts)\//, '')
      .replace(/\.ts$/, '')
      .replaceAll('/', '-')}.mjs`,
  )
  await build({
    absWorkingDir: root,
    entryPoints: [file],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    packages: 'external',
    sourcemap: 'linked',
    logLevel: 'error',
    plugins: [sourceAddresses],
  })
  return outfile
}

export class Guests {
  readonly release: string
  readonly #kernelFolder: string
  readonly #workFolder: string
  readonly #running = new Set<ChildProcess>()

  private constructor(release: string, kernelFolder: string, workFolder: string) {
    this.release = release
    this.#kernelFolder = kernelFolder
    this.#workFolder = workFolder
  }

  /** Makes ready what all guests share. Returns the reason when no guest can run on this machine. */
  static async open(): Promise<Guests | string> {
    const kernel = findKernel()
    if (!kernel) return 'there is no kernel in .cache/kernels; scripts/setup.sh --kernels fetches one'
    if (spawnSync(qemu, ['--version']).error) return `there is no ${qemu}; scripts/setup.sh --kernels installs it`
    const workFolder = mkdtempSync(join(tmpdir(), 'weft-kernels-'))
    const guests = new Guests(kernel.release, kernel.folder, workFolder)
    try {
      writeFileSync(join(workFolder, 'initramfs'), buildInitramfs(kernel.folder, kernel.release, workFolder))
      mkdirSync(testsFolder, { recursive: true })
      await bundleForGuest('test/netns/cni-agent.ts')
      await build({
        absWorkingDir: root,
        entryPoints: ['scripts/kernels/reporter.ts'],
        outfile: join(testsFolder, 'reporter.mjs'),
        platform: 'node',
        format: 'esm',
        logLevel: 'error',
      })
      return guests
    } catch (error) {
      guests.close()
      return `the guests' first file system cannot be built: ${(error as Error).message}`
    }
  }

  /** Ends what still runs and removes what the guests shared. */
  close(): void {
    for (const child of this.#running) child.kill('SIGTERM')
    rmSync(this.#workFolder, { recursive: true, force: true })
  }

  /**
   * Runs the test files of a boot in one guest, one after the other, and tells what each reported, also when the guest crashed
   * or hung. A file's time is counted from the end of the one before it; the first one's has the boot in it.
   */
  async run(boot: Boot, onReport: (suite: Suite, report: FileReport, seconds: number) => void): Promise<void> {
    const folder = mkdtempSync(join(this.#workFolder, 'guest-'))
    const runs: string[] = []
    for (const [i, { file, capSeconds = CAP_SECONDS }] of boot.suites.entries()) {
      const reporter = `--test-reporter=${join(testsFolder, 'reporter.mjs')}`
      const argv = [
        ...['timeout', '--kill-after=10', `${capSeconds}`, 'node', '--enable-source-maps', reporter],
        ...[`--test-reporter-destination=/report/tests-${i}`, await bundleForGuest(file)],
      ]
      // Renamed into place, so that whoever sees it can read it.
      runs.push(`${argv.map(quote).join(' ')}; echo $? >/report/status; mv /report/status /report/status-${i}`)
    }
    const environment = `WEFT_TEST_BUNDLES=${testsFolder}`
    this.#writeStart(folder, boot.without ?? [], ['env', environment, 'bash', '-c', runs.join('\n')])
    let [done, startedAt, shown] = [0, performance.now(), 0]
    const tell = (console: string, ending?: string) => {
      const suite = boot.suites[done++]!
      const report = readReport(folder, done - 1, suite.capSeconds ?? CAP_SECONDS, ending)
      report.output = console.slice(shown).slice(-20_000)
      shown = console.length
      onReport(suite, report, (performance.now() - startedAt) / 1000)
      startedAt = performance.now()
    }
    const tellEnded = (console: string) => {
      while (done < boot.suites.length && existsSync(join(folder, `status-${done}`))) tell(console)
    }
    const capSeconds = boot.suites.reduce((sum, suite) => sum + (suite.capSeconds ?? CAP_SECONDS), 60)
    const shape = { ...boot, serials: ['-serial', 'stdio'], capSeconds }
    const { console, ending } = await this.#boot(folder, shape, tellEnded)
    tellEnded(console)
    while (done < boot.suites.length) tell(console, ending)
    rmSync(folder, { recursive: true, force: true })
  }

  /**
   * Runs a command in a guest of its own, at the root of the checkout. Its output comes out of this process's standard output. Throws
   * when the guest ended before the command did.
   */
  async command({ argv, cpus, terminal, env = {}, capSeconds }: GuestCommand): Promise<CommandEnd> {
    const folder = mkdtempSync(join(this.#workFolder, 'guest-'))
    const console = join(folder, 'console')
    const line = terminal ? `rows ${terminal.rows} cols ${terminal.columns}` : 'raw -echo'
    const variables = Object.entries(env).map(([key, value]) => `${key}=${value}`)
    const onPort = `exec <>${port} >&0 2>&0; stty ${line}; exec setsid -c env "$@"`
    this.#writeStart(folder, [], ['bash', '-c', onPort, 'command', ...variables, ...argv])
    // By the monitor, Ctrl-a x ends a guest that does not answer.
    const monitor = terminal ? ['-mon', 'chardev=port'] : []
    const { ending } = await this.#boot(folder, {
      cpus,
      serials: [
        ...['-serial', `file:${console}`],
        ...[
          '-chardev',
          `stdio,id=port,signal=off,mux=${terminal ? 'on' : 'off'}`,
          '-serial',
          'chardev:port',
          ...monitor,
        ],
      ],
      attached: true,
      terminal: terminal !== undefined,
      capSeconds,
    })
    const files = new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]))
    rmSync(folder, { recursive: true, force: true })
    const status = files.get('status')?.trim()
    if (status === undefined) {
      const why = ending === 'timeout' ? `did not end within ${capSeconds} s` : `ended before its command (${ending})`
      throw new Error(`the guest ${why}; the end of its console:\n${readable(files.get('console') ?? '').slice(-4000)}`)
    }
    return { exitCode: Number(status), files }
  }

  /** Writes what the guest's first process starts. */
  #writeStart(folder: string, without: readonly string[], argv: readonly string[]): void {
    const words = [join(root, 'scripts/kernels/session.sh'), root, this.#kernelFolder, without.join(' '), ...argv]
    writeFileSync(join(folder, 'start'), `exec bash ${words.map(quote).join(' ')}\n`)
  }

  /**
   * Boots a kernel over a report folder and waits for its end; meanwhile calls `onLook` again and again with what the console
   * has said, which is empty when the guest is attached.
   */
  #boot(
    folder: string,
    shape: GuestShape,
    onLook: (console: string) => void = () => {},
  ): Promise<{ console: string; ending: string }> {
    const share = (tag: string, path: string, more: string) =>
      [
        '-virtfs',
        `local,path=${path.replaceAll(',', ',,')},mount_tag=${tag},security_model=none,multidevs=remap${more}`,
      ] as const
    const words = [
      ...['--pdeathsig', 'KILL', qemu, '-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', processor],
      ...['-smp', `${shape.cpus ?? 1}`, '-m', `${memoryMiB}`, '-nodefaults', '-no-reboot', '-display', 'none'],
      ...shape.serials,
      ...['-kernel', imageOf(this.#kernelFolder, this.release)],
      ...['-initrd', join(this.#workFolder, 'initramfs')],
      ...share('machine', '/', ',readonly=on'),
      ...share('report', folder, ''),
      ...['-append', `console=ttyS0 quiet panic=-1 oops=panic edd=off mitigations=off ${shape.bootOptions ?? ''}`],
    ]
    const child = spawn('setpriv', words, {
      stdio: shape.attached ? [shape.terminal ? 'inherit' : 'ignore', 'inherit', 'inherit'] : 'pipe',
    })
    this.#running.add(child)
    return new Promise((resolve) => {
      let text = ''
      let ending: string | undefined
      const hear = (chunk: Buffer) => {
        text += chunk.toString()
      }
      const looking = setInterval(() => onLook(readable(text)), LOOK_MS)
      child.stdin?.end()
      child.stdout?.on('data', hear)
      child.stderr?.on('data', hear)
      const timer = setTimeout(() => {
        ending = 'timeout'
        // Told to end, QEMU gives the terminal back as it was.
        child.kill(shape.attached ? 'SIGTERM' : 'SIGKILL')
      }, shape.capSeconds * 1000)
      const end = (how: string) => {
        clearTimeout(timer)
        clearInterval(looking)
        this.#running.delete(child)
        resolve({ console: readable(text), ending: ending ?? how })
      }
      child.once('error', (error) => end(error.message))
      child.once('close', (code, signal) => end(signal ?? `exit code ${code}`))
    })
  }
}

/** A console's text without colours and carriage returns. */
const readable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the firmware and the tests colour what they print
  text.replace(/\x1b(\[[0-9;?]*[a-zA-Z]|c)|\r/g, '')

/**
 * The tests that a file of a guest reported; the last line may be cut short. `ending` is how the guest ended when it did so before
 * the file.
 */
function readReport(folder: string, index: number, capSeconds: number, ending: string | undefined): FileReport {
  const report = emptyReport()
  const path = join(folder, `tests-${index}`)
  const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : []
  for (const line of lines) {
    const { name, passed, skip, error } = JSON.parse(line) as TestLine
    if (skip !== undefined) report.skips.push({ name, reason: skip })
    else if (passed) {
      report.passed++
      report.passes.push(name)
    } else {
      report.failed++
      report.failures.push(`${name}\n${error}`)
    }
  }
  const status = ending === undefined ? readFileSync(join(folder, `status-${index}`), 'utf8').trim() : undefined
  const isEmpty = report.passed + report.failed + report.skips.length === 0
  const wrong = (text: string): void => {
    report.failed++
    report.failures.push(text)
  }
  if (status === undefined) wrong(`the guest ended before its tests did (${ending})`)
  else if (status === TIMED_OUT) wrong(`did not end within ${capSeconds} s`)
  else if (isEmpty || (status !== '0' && report.failed === 0))
    wrong(`node ended with ${status} after ${report.passed} tests`)
  return report
}
