/**
 * The log of a long-running program: one JSON object a line on standard error, or the same as text for people. Its level is
 * changed while it runs, by signal or through the status socket; how often each level was spoken at is counted.
 *
 * Secrets are not logged. As a second guard, fields that are named like one are blotted out whatever they hold.
 */
import { type DestinationStream, destination, type Logger, pino } from 'pino'
import { isLogLevel, type LogFormat, type LogLevel, logLevels } from './log-level.ts'

export interface LogOptions {
  readonly level: string
  readonly format: LogFormat
  /** Fields of every line, such as the node's name. */
  readonly base: Readonly<Record<string, string>>
  /** Called for every message that is written, with its level. */
  readonly onMessage?: (level: string) => void
}

const SECRETS = ['password', 'token', 'authorization', 'secret']
const redacted = SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`])

/** Opens a log; lines go to `to` as they come. */
export function openLog(options: LogOptions, to: DestinationStream = destination({ fd: 2, sync: true })): Logger {
  const { level, format, base, onMessage } = options
  return pino(
    {
      level,
      base,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: redacted, censor: '(not shown)' },
      hooks: {
        logMethod(args, method, number) {
          onMessage?.(pino.levels.labels[number] ?? '')
          method.apply(this, args)
        },
      },
    },
    format === 'json' ? to : { write: (line: string) => to.write(formatLine(line, Object.keys(base))) },
  )
}

/** False when there is no such level. The change itself is told at the new level or above. */
export function setLogLevel(log: Logger, level: string): boolean {
  if (!isLogLevel(level)) return false
  const before = log.level
  log.level = level
  if (before !== level) log[level === 'error' ? 'error' : 'warn']({ before, now: level }, 'log level changed')
  return true
}

/** One level more (`+1`) or fewer (`-1`) of what is said; at either end nothing changes. */
export function stepLogLevel(log: Logger, step: 1 | -1): void {
  const next = logLevels[logLevels.indexOf(log.level as LogLevel) + step]
  if (next) setLogLevel(log, next)
}

/** Turns debug on, or back to the level of before, at each call. */
export function levelToggle(log: Logger): () => void {
  const usual = log.level
  return () => setLogLevel(log, log.level === 'debug' ? (usual === 'debug' ? 'info' : usual) : 'debug')
}

const plain = /^[\w.:/@%+,*-]+$/

/** `2026-01-02T03:04:05.678Z WARN  the message key=value other="two words"`; always one line. */
function formatLine(line: string, hidden: readonly string[]): string {
  const { time, level, msg, ...fields } = JSON.parse(line) as Record<string, unknown>
  const words = Object.entries(fields)
    .filter(([key]) => !hidden.includes(key))
    .map(([key, value]) => `${key}=${formatValue(value)}`)
  const head = `${String(time)} ${String(level).toUpperCase().padEnd(5)} ${oneLine(String(msg ?? ''))}`
  return `${[head, ...words].join(' ')}\n`
}

function formatValue(value: unknown): string {
  const error = value as { readonly message?: unknown; readonly stack?: unknown } | null
  if (typeof error?.stack === 'string') return JSON.stringify(error.message)
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return plain.test(text) ? text : typeof value === 'string' ? JSON.stringify(text) : text
}

/** Words of others may be in a message: nobody begins a line of their own with it. */
const oneLine = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (found) => JSON.stringify(found).slice(1, -1))
