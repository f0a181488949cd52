/**
 * A command's streams, whatever carries them, and how its end is told to the client.
 * Sources: Kubernetes client and server protocol names `v4.channel.k8s.io` and `v5.channel.k8s.io`.
 */
import type { Readable, Writable } from 'node:stream'
import { ApiError } from '../api-error.ts'
import type { ExecStreams } from '../interfaces.ts'

export interface TerminalSize {
  readonly columns: number
  readonly rows: number
}

/** Which streams a client asks for. */
export interface StreamChoice {
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
  readonly tty: boolean
}

export interface Session {
  readonly stdin?: Readable
  readonly stdout?: Writable
  readonly stderr?: Writable
  readonly signal: AbortSignal
  onResize(listener: (size: TerminalSize) => void): void
  /** Sends the outcome and ends the connection. */
  finish(outcome: Outcome): Promise<void>
}

/** As written to the error stream: a Status. */
export type Outcome = Readonly<Record<string, unknown>>

export const success: Outcome = { metadata: {}, status: 'Success' }

export const exited = (exitCode: number): Outcome =>
  exitCode === 0
    ? success
    : {
        metadata: {},
        status: 'Failure',
        message: `command terminated with non-zero exit code: exit status ${exitCode}`,
        reason: 'NonZeroExitCode',
        details: { causes: [{ reason: 'ExitCode', message: String(exitCode) }] },
      }

export const failed = (error: unknown): Outcome => {
  const { message } = error instanceof Error ? error : new Error(String(error))
  const reason = error instanceof ApiError ? error.reason : 'InternalError'
  const code = error instanceof ApiError ? error.code : 500
  return { metadata: {}, status: 'Failure', message, reason, code }
}

/** Runs a command with the session's streams and tells the client how it ended. */
export async function runSession(
  session: Session,
  tty: boolean,
  command: (streams: ExecStreams) => Promise<{ readonly exitCode: number }>,
): Promise<void> {
  const { stdin, stdout, stderr, signal } = session
  const streams: ExecStreams = {
    ...(stdin && { stdin }),
    ...(stdout && { stdout }),
    ...(stderr && { stderr }),
    tty,
    signal,
    onResize: (listener) => session.onResize(listener),
  }
  let outcome: Outcome
  try {
    const { exitCode } = await command(streams)
    outcome = exited(exitCode)
  } catch (error) {
    outcome = failed(error)
  }
  if (!signal.aborted) await session.finish(outcome)
}

/** `{"Width":80,"Height":24}` */
export function parseSize(text: string): TerminalSize | undefined {
  try {
    const { Width, Height } = JSON.parse(text) as { Width?: unknown; Height?: unknown }
    const valid = (n: unknown): n is number => Number.isInteger(n) && (n as number) > 0 && (n as number) < 65_536
    return valid(Width) && valid(Height) ? { columns: Width, rows: Height } : undefined
  } catch {
    return undefined
  }
}
