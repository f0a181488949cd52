/**
 * The line between `weft lab …` and a lab's daemon: a unix socket, one JSON request a connection, JSON lines back.
 * Lines with `progress` come as things happen; the last has `result` or `error`.
 */
import { rmSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { createInterface } from 'node:readline'

export interface ControlRequest {
  readonly command: string
  readonly [argument: string]: unknown
}

/** A word that the request must have. Throws when it is missing or empty. */
export function textOf(request: ControlRequest, key: string): string {
  const value = request[key]
  if (typeof value !== 'string' || value === '') throw new Error(`${request.command}: ${key} is missing`)
  return value
}

type Answer = { readonly progress: string } | { readonly result: unknown } | { readonly error: string }

/** Serves requests one by one per connection; `progress` writes a line to the caller. */
export function serveControl(
  path: string,
  handle: (request: ControlRequest, progress: (line: string) => void) => Promise<unknown>,
): Promise<Server> {
  rmSync(path, { force: true })
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    const send = (answer: Answer) => {
      if (socket.writable) socket.write(`${JSON.stringify(answer)}\n`)
    }
    createInterface({ input: socket }).once('line', (line) => {
      void (async () => {
        try {
          const result = await handle(JSON.parse(line) as ControlRequest, (progress) => send({ progress }))
          send({ result: result ?? null })
        } catch (error) {
          send({ error: error instanceof Error ? error.message : String(error) })
        }
        socket.end()
      })()
    })
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => resolve(server))
  })
}

/** No daemon listens there. */
export class NotRunning extends Error {
  override readonly name = 'NotRunning'
}

/** Asks a daemon and resolves with its result. Rejects with NotRunning, or with the daemon's own words. */
export function askControl<T>(
  path: string,
  request: ControlRequest,
  onProgress: (line: string) => void = () => {},
): Promise<T> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    let settled = false
    const settle = (act: () => void) => {
      settled = true
      act()
      socket.destroy()
    }
    socket.once('error', (error: NodeJS.ErrnoException) => {
      const absent = error.code === 'ENOENT' || error.code === 'ECONNREFUSED'
      settle(() => reject(absent ? new NotRunning('the lab does not run', { cause: error }) : error))
    })
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`))
    const lines = createInterface({ input: socket })
    lines.on('error', () => {})
    lines.on('line', (line) => {
      const answer = JSON.parse(line) as Answer
      if ('progress' in answer) onProgress(answer.progress)
      else if ('error' in answer) settle(() => reject(new Error(answer.error)))
      else settle(() => resolve(answer.result as T))
    })
    lines.on('close', () => {
      if (!settled) reject(new Error('the lab ended before it answered'))
    })
  })
}
