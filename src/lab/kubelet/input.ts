/**
 * The standard input of a container that has one, and the sizes of its terminal: FIFOs beside its log, so that whoever
 * attaches finds them by path. The container holds both ends of them and outlives the daemon; only with `stdinOnce` the
 * daemon holds the writing end, because the first client's end of input is the container's.
 *
 * Sources: fifo(7); core/v1 Container (stdin, stdinOnce, tty).
 */
import { execFileSync } from 'node:child_process'
import { closeSync, constants, existsSync, openSync, rmSync, statSync } from 'node:fs'
import { Socket } from 'node:net'
import type { ExecStreams } from '../api/interfaces.ts'
import { readLog } from './logs.ts'
import type { ContainerSpec } from './pod-spec.ts'

const inputPath = (logPath: string): string => `${logPath}.stdin`
const sizesPath = (logPath: string): string => `${logPath}.sizes`

/** Writing ends held for containers whose input ends with their first client, by path. */
const held = new Map<string, number>()

function release(path: string): void {
  const fd = held.get(path)
  if (fd !== undefined) closeSync(fd)
  held.delete(path)
}

/** Descriptors for a program's standard input and, with a terminal, its sizes (descriptor 3). */
export interface InputDescriptors {
  readonly stdin: number | 'ignore'
  readonly sizes?: number
  /** To be called when the program has them. */
  close(): void
}

/** Makes what a container reads from. Its log's folder exists. */
export function openInput(container: ContainerSpec, logPath: string): InputDescriptors {
  if (!container.stdin && !container.tty) return { stdin: 'ignore', close: () => {} }
  const paths = [inputPath(logPath), ...(container.tty ? [sizesPath(logPath)] : [])]
  for (const path of paths) rmSync(path, { force: true })
  execFileSync('mkfifo', ['-m', '600', ...paths])
  const [stdin, sizes] = paths.map((path) => openSync(path, constants.O_RDWR))
  const opened = [stdin!, ...(sizes === undefined ? [] : [sizes])]
  let reading = stdin!
  if (container.stdinOnce && !container.tty) {
    reading = openSync(paths[0]!, constants.O_RDONLY)
    held.set(paths[0]!, stdin!)
    opened[0] = reading
  }
  return {
    stdin: reading,
    ...(sizes !== undefined && { sizes }),
    close: () => {
      for (const fd of opened) closeSync(fd)
    },
  }
}

/** The container has ended: nobody will read its input any more. */
export function closeInput(logPath: string): void {
  release(inputPath(logPath))
  for (const path of [inputPath(logPath), sizesPath(logPath)]) rmSync(path, { force: true })
}

/** A writing end as a stream, or undefined when nobody reads there. */
function writer(path: string): Socket | undefined {
  if (!existsSync(path)) return undefined
  try {
    const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
    const socket = new Socket({ fd, readable: false, writable: true })
    socket.on('error', () => socket.destroy())
    return socket
  } catch {
    return undefined
  }
}

/** A run of a container, to be attached to. */
export interface AttachTarget {
  readonly container: ContainerSpec
  readonly logPath: string
  readonly exited: Promise<unknown>
}

/** Carries a client's input in, and what the container writes from now on out; resolves when it has ended. */
export async function attachTo({ container, logPath, exited }: AttachTarget, streams: ExecStreams): Promise<void> {
  let over = false
  void exited.then(() => {
    over = true
  })
  const path = inputPath(logPath)
  // Before anything goes in: the answer to the client's first words is the client's.
  const startBytes = statSync(logPath).size
  const input = container.stdin && streams.stdin ? writer(path) : undefined
  if (input && streams.stdin) {
    streams.stdin.pipe(input)
    // With the client's end of input, or when it leaves.
    if (container.stdinOnce) streams.stdin.once('close', () => release(path)).once('end', () => release(path))
  }
  const sizes = container.tty ? writer(sizesPath(logPath)) : undefined
  if (sizes) streams.onResize(({ columns, rows }) => void sizes.write(`${columns} ${rows}\n`))
  try {
    const options = { follow: true, previous: false, timestamps: false, startBytes, signal: streams.signal }
    for await (const chunk of readLog(logPath, options, () => over)) {
      if (streams.stdout && !streams.stdout.write(chunk))
        await new Promise<void>((done) => {
          streams.stdout!.once('drain', done)
          streams.signal.addEventListener('abort', () => done(), { once: true })
        })
    }
  } finally {
    input?.destroy()
    sizes?.destroy()
  }
}
