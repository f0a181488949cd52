/**
 * The log level by signal: SIGHUP turns debug on and off, SIGUSR1 says more, SIGUSR2 less.
 */
import type { Logger } from 'pino'
import { levelToggle, stepLogLevel } from './log.ts'

/** Listens; returns what ends that. (Without a listener SIGUSR1 would start Node's debugger.) */
export function listenToLogSignals(log: Logger): () => void {
  const signals = [
    ['SIGHUP', levelToggle(log)],
    ['SIGUSR1', () => stepLogLevel(log, 1)],
    ['SIGUSR2', () => stepLogLevel(log, -1)],
  ] as const
  for (const [signal, change] of signals) process.on(signal, change)
  return () => {
    for (const [signal, change] of signals) process.off(signal, change)
  }
}
