/**
 * Programs run beside a container: `kubectl exec`, exec probes. They join the namespaces of the container's process.
 * A terminal is weft-pod's: Node has none of its own; its sizes go there as lines on a pipe.
 */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { readlinkSync, statSync } from 'node:fs'
import type { Writable } from 'node:stream'
import type { ExecStreams } from '../api/interfaces.ts'
import { nativeProgram } from '../layout.ts'
import { waitUntil } from '../process.ts'

export interface JoinTarget {
  readonly argv: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** Process whose namespaces to join. */
  readonly pid: number
  /** The network namespace that the process is on its way into. */
  readonly netnsPath: string
}

/** A process just started may still stand in the namespaces of this machine: nothing may join it there. */
async function entered({ pid, netnsPath }: JoinTarget): Promise<void> {
  const wanted = `net:[${statSync(netnsPath).ino}]`
  const inside = () => {
    try {
      return readlinkSync(`/proc/${pid}/ns/net`) === wanted
    } catch {
      return false
    }
  }
  if (!(await waitUntil(inside, 2000))) throw new Error('the container does not run')
}

const runner = (target: JoinTarget, flags: readonly string[] = []): string[] => [
  'run',
  ...flags,
  '--join',
  String(target.pid),
  '--mount-ns',
  '--',
  ...target.argv,
]

/** Runs a program to its end and resolves with its exit code; kills it after the timeout (rejects). */
export async function runJoined(target: JoinTarget, timeoutMs: number): Promise<number> {
  await entered(target)
  return new Promise((resolve, reject) => {
    const child = spawn(nativeProgram('weft-pod'), runner(target), { env: target.env, stdio: 'ignore', detached: true })
    const timer = setTimeout(() => {
      endGroup(child, 'SIGKILL')
      reject(new Error(`command timed out after ${timeoutMs} ms`))
    }, timeoutMs)
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      clearTimeout(timer)
      resolve(code ?? (signal ? 137 : 1))
    })
  })
}

function endGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(-child.pid, signal)
  } catch {
    child.kill(signal)
  }
}

/** Runs a program on the client's streams. Resolves when it ended and its output was handed on. */
export async function execJoined(target: JoinTarget, streams: ExecStreams): Promise<{ exitCode: number }> {
  await entered(target)
  const child = spawn(nativeProgram('weft-pod'), runner(target, streams.tty ? ['--tty', '--sizes', '3'] : []), {
    env: streams.tty ? { TERM: 'xterm', ...target.env } : target.env,
    stdio: streams.tty ? ['pipe', 'pipe', 'pipe', 'pipe'] : ['pipe', 'pipe', 'pipe'],
    detached: true,
  }) as ChildProcessWithoutNullStreams
  if (streams.tty) sendSizes(streams, child.stdio[3] as unknown as Writable)
  const stop = () => endGroup(child, 'SIGKILL')
  streams.signal.addEventListener('abort', stop)
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject)
      child.stdin.on('error', () => {})
      if (streams.stdin) streams.stdin.pipe(child.stdin)
      else child.stdin.end()
      forward(child.stdout, streams.stdout)
      forward(child.stderr, streams.stderr ?? streams.stdout)
      child.once('close', (code, signal) => resolve({ exitCode: code ?? (signal ? 137 : 1) }))
    })
  } finally {
    streams.signal.removeEventListener('abort', stop)
    streams.stdin?.unpipe(child.stdin)
  }
}

function forward(from: NodeJS.ReadableStream, to: NodeJS.WritableStream | undefined): void {
  if (to) from.pipe(to, { end: false })
  else from.resume()
}

/** Hands every size of the client's terminal on. */
function sendSizes(streams: ExecStreams, pipe: Writable): void {
  pipe.on('error', () => {})
  streams.onResize(({ columns, rows }) => {
    if (pipe.writable) pipe.write(`${columns} ${rows}\n`)
  })
}
