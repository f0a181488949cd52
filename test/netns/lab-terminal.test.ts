/** `kubectl exec -it` on a terminal of the pod's own: sizes, job control, the end of input, exit codes; and `kubectl cp`. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { TestLab } from './test-lab.ts'

const lab = new TestLab()
const folder = mkdtempSync(join(tmpdir(), 'weft-terminal-'))
before(async () => {
  await lab.up('--nodes', '1')
  await lab.server('tools', 'n1')
})
after(async () => {
  await lab.down()
  rmSync(folder, { recursive: true, force: true })
})

/** A kubectl on a terminal of 100 columns and 30 rows, as in a window. */
class Window {
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>
  #shown = ''
  #wake = () => {}

  constructor(line: string) {
    const shell = `stty cols 100 rows 30; tty; exec kubectl --kubeconfig ${lab.kubeconfig} ${line}`
    this.#child = spawn('script', ['-qec', shell, '/dev/null'], { env: { ...process.env, SHELL: '/bin/sh' } })
    this.#child.stdout!.on('data', (chunk: Buffer) => {
      this.#shown += chunk
      this.#wake()
    })
    this.#closed = once(this.#child, 'close')
  }

  /** Waits until the window shows something. */
  async shows(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = pattern.exec(this.#shown)
      if (found) return found
      if (this.#child.exitCode !== null) assert.fail(`kubectl ended without ${pattern}:\n${this.#shown}`)
      await new Promise<void>((done) => {
        this.#wake = done
        this.#child.once('close', () => done())
      })
    }
  }

  type(text: string): void {
    this.#child.stdin!.write(text)
  }

  async resize(columns: number, rows: number): Promise<void> {
    const [terminal] = await this.shows(/\/dev\/pts\/\d+/)
    execFileSync('stty', ['-F', terminal, 'cols', String(columns), 'rows', String(rows)])
  }

  async ends(): Promise<number> {
    await this.#closed
    return this.#child.exitCode ?? -1
  }
}

test('the program has a terminal of the same size as the window, and follows it', async () => {
  const window = new Window(
    `exec -it tools -- sh -c 'test -t 0 && test -t 1 && echo on-terminal; stty size; trap "stty size; exit 7" WINCH; echo waiting; while :; do sleep 0.05; done'`,
  )
  await window.shows(/on-terminal\s+30 100\s+waiting/)
  await window.resize(133, 44)
  await window.shows(/waiting\s+44 133/)
  assert.equal(await window.ends(), 7)
})

test('a shell with job control: typing, interrupting, ending', async () => {
  const window = new Window('exec -it tools -- bash --norc --noprofile -i')
  window.type('echo $((6*7)) in $HOSTNAME\n')
  await window.shows(/42 in tools/)
  window.type('sleep 1000\n')
  await window.shows(/sleep 1000\s/)
  window.type('\u0003')
  window.type('echo interrupted: $?\n')
  await window.shows(/interrupted: 130/)
  window.type('exit 5\n')
  assert.equal(await window.ends(), 5)
})

test('a program that cannot be had says so on the terminal', async () => {
  const window = new Window('exec -it tools -- /no/such/program')
  await window.shows(/cannot execute \/no\/such\/program/)
  assert.equal(await window.ends(), 127)
})

test('kubectl cp carries files both ways', () => {
  const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, n) => (n * 7919) & 255))
  const from = join(folder, 'from')
  const inside = join(folder, 'inside')
  const back = join(folder, 'back')
  writeFileSync(from, bytes)
  lab.kubectl('cp', from, `default/tools:${inside}`)
  assert.deepEqual(readFileSync(inside), bytes)
  lab.kubectl('cp', `default/tools:${inside}`, back)
  assert.deepEqual(readFileSync(back), bytes)
})
