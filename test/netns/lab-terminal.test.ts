/**
 * `kubectl exec -it` and `attach` on a terminal of the pod's own: sizes, job control, the end of input, exit codes;
 * `kubectl run -i --rm`; `kubectl cp`.
 */
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
  #ended = false
  #wake = () => {}

  constructor(line: string) {
    const shell = `stty cols 100 rows 30; tty; exec kubectl --kubeconfig ${lab.kubeconfig} ${line}`
    this.#child = spawn('script', ['-qec', shell, '/dev/null'], { env: { ...process.env, SHELL: '/bin/sh' } })
    this.#child.stdout!.on('data', (chunk: Buffer) => {
      this.#shown += chunk
      this.#wake()
    })
    this.#closed = once(this.#child, 'close').then(() => {
      this.#ended = true
      this.#wake()
    })
  }

  /** Waits until the window shows something. */
  async shows(pattern: RegExp): Promise<RegExpExecArray> {
    let late = false
    const timer = setTimeout(() => {
      late = true
      this.#wake()
    }, 30_000)
    try {
      for (;;) {
        const found = pattern.exec(this.#shown)
        if (found) return found
        if (late || this.#ended) assert.fail(`no ${pattern} in the window:\n${this.#shown}`)
        await new Promise<void>((done) => {
          this.#wake = done
        })
      }
    } finally {
      clearTimeout(timer)
    }
  }

  type(text: string): void {
    this.#child.stdin!.write(text)
  }

  async resize(columns: number, rows: number): Promise<void> {
    const [terminal] = await this.shows(/\/dev\/pts\/\d+/)
    execFileSync('stty', ['-F', terminal, 'cols', String(columns), 'rows', String(rows)])
  }

  /** The window is shut under its program. */
  close(): void {
    this.#child.kill('SIGKILL')
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
  await window.shows(/bash-\S+[#$] /)
  window.type('echo $((6*7)) in $HOSTNAME\n')
  await window.shows(/42 in tools/)
  window.type(`sh -c 'echo go""ing; exec sleep 1000'\n`)
  await window.shows(/going\r\n/)
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

test('attach: what goes in comes out, for every client anew; the end of one is not the end of the container', async () => {
  lab.apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'upper' },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'main', image: 'none', stdin: true, tty: true, command: ['bash', '--norc', '-i'] }],
    },
  })
  lab.kubectl('wait', '--for=condition=Ready', 'pod/upper', '--timeout=60s')
  const first = new Window('attach -it upper')
  // What is typed before kubectl has the terminal is lost.
  await first.shows(/press(ing)? enter/)
  first.type('stty size; marker=$((6*7))\n')
  await first.shows(/30 100/)
  await first.resize(90, 20)
  first.type('until [ "$(stty size)" = "20 90" ]; do :; done; echo re""sized\n')
  await first.shows(/resized\r\n/)
  first.close()
  await first.ends()
  const second = new Window('attach -it upper')
  await second.shows(/press(ing)? enter/)
  second.type('echo kept $marker\n')
  await second.shows(/kept 42/)
  lab.kubectl('delete', 'pod', 'upper')
  await second.ends()
})

test('kubectl run -i --rm: input to its end, output, the exit code, and the pod is gone', async () => {
  const run = ['run', 'once', '-i', '--rm', '--restart=Never', '--image=none', '--command', '--']
  const input = Array.from({ length: 20_000 }, (_, n) => `line ${n}\n`).join('')
  const out = execFileSync(
    'kubectl',
    ['--kubeconfig', lab.kubeconfig, ...run, 'sh', '-c', 'read first; wc -l; sleep 0.2'],
    {
      input,
      encoding: 'utf8',
    },
  )
  assert.match(out, /^19999$/m)
  lab.gone('pod/once')
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
