/**
 * The daemon as a process: log, signals, and what to do with errors that nobody caught.
 */
import { createServer } from 'node:net'
import { pino } from 'pino'
import { labPaths } from './layout.ts'
import { ANOTHER_DAEMON } from './process.ts'
import { readSpec } from './spec.ts'

/** Runs until a signal ends it. */
export async function runDaemon(lab: string): Promise<void> {
  const spec = readSpec(lab)
  if (!spec) throw new Error(`there is no lab ${lab}; weft lab up makes one`)
  if (!(await holdLab(lab))) process.exit(ANOTHER_DAEMON)
  const log = pino({ level: process.env.WEFT_LAB_LOG ?? 'info', base: { lab } })
  process.on('unhandledRejection', (error) => log.error({ err: error }, 'unhandled rejection'))
  const progress = (line: string): void => log.info(line)
  const daemon = spec.kubernetes
    ? await (await import('./kubernetes/daemon.ts')).KubernetesDaemon.start(spec, log, progress)
    : await (await import('./daemon.ts')).LabDaemon.start(spec, log, progress)
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve())
  })
  await daemon.close()
  process.exit(0)
}

/**
 * Takes the lab for this process, until it ends however it ends: a name in the abstract socket namespace, which the kernel
 * gives to one process. False when another has it.
 */
function holdLab(lab: string): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(false) : reject(error),
    )
    server.listen(`\0${labPaths(lab).run}/daemon`, () => resolve(true))
  })
}
