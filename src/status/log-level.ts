/**
 * How much is said, by name and by the verbosity numbers of Kubernetes' components. Apart from the log itself, so that a
 * command line that only reads its flags loads no log.
 *
 * Sources: Kubernetes component-base `--v` and PUT /debug/flags/v.
 */

/** From the least that is said to the most. */
export const logLevels = ['error', 'warn', 'info', 'debug', 'trace'] as const
export type LogLevel = (typeof logLevels)[number]

export const logFormats = ['json', 'text'] as const
export type LogFormat = (typeof logFormats)[number]

export const isLogLevel = (level: string): level is LogLevel => (logLevels as readonly string[]).includes(level)

/** The lowest verbosity number that means a level. */
const VERBOSITY: Readonly<Record<LogLevel, number>> = { error: 0, warn: 1, info: 2, debug: 4, trace: 6 }

/** The level that a verbosity number asks for. */
export const levelOfVerbosity = (verbosity: number): LogLevel =>
  logLevels.findLast((level) => verbosity >= VERBOSITY[level]) ?? 'error'

export const verbosityOf = (level: string): number => (isLogLevel(level) ? VERBOSITY[level] : 0)
