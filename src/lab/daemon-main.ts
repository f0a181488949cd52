/**
 * The daemon as a process: log, signals, and what to do with errors that nobody caught.
 */
import { pino } from 'pino'
import { LabDaemon } from './daemon.ts'
import { readSpec } from './spec.ts'

/** Runs until a signal ends it. */
export async function runDaemon(lab: string): Promise<void> {
  const spec = readSpec(lab)
  if (!spec) throw new Error(`there is no lab ${lab}; weft lab up makes one`)
  const log = pino({ level: process.env.WEFT_LAB_LOG ?? 'info', base: { lab } })
  process.on('unhandledRejection', (error) => log.error({ err: error }, 'unhandled rejection'))
  const daemon = await LabDaemon.start(spec, log, (line) => log.info(line))
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve())
  })
  await daemon.close()
  process.exit(0)
}
