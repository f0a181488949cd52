/**
 * The agent's log: one JSON object a line on standard error, its level changeable while it runs.
 */
import { type DestinationStream, destination, type Logger, pino } from 'pino'

const levels = ['trace', 'debug', 'info', 'warn', 'error'] as const

export function openLog(
  level: string,
  node: string,
  to: DestinationStream = destination({ fd: 2, sync: true }),
): Logger {
  return pino(
    {
      level,
      base: { node },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    to,
  )
}

/** False when there is no such level. */
export function setLogLevel(log: Logger, level: string): boolean {
  if (!(levels as readonly string[]).includes(level)) return false
  log.level = level
  return true
}

/** Turns debug on, or back to the level of before, at each call. */
export function levelToggle(log: Logger): () => void {
  const usual = log.level
  return () => {
    log.level = log.level === 'debug' ? (usual === 'debug' ? 'info' : usual) : 'debug'
    log.warn({ level: log.level }, 'log level changed')
  }
}
