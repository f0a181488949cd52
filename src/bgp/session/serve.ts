/**
 * `weft bgp serve`: a speaker from a file, until a signal. SIGHUP reads the file again; a file with an error changes
 * nothing. SIGTERM closes the sessions without a word where graceful restart is configured as `full` anywhere, so that
 * peers keep the routes for the next run, and says goodbye otherwise; SIGINT always says goodbye.
 */
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { parseSpeakerFile, type SpeakerFile } from '../../config/speaker-file/speaker-file.ts'
import type { BgpEvent } from '../../model/bgp.ts'
import { ConfigError } from '../../model/errors.ts'
import type { LogEntry } from './messages.ts'
import { SpeakerThread } from './speaker-thread.ts'

const FILE_BYTES_MAX = 64 * 1024 * 1024

export interface ServeOptions {
  readonly file: string
  readonly controlPath: string
  /** The speaker before this one left its routes in place (RFC 4724). */
  readonly restarted: boolean
  readonly log: (entry: LogEntry) => void
}

/** Throws ConfigError naming the file and the key. */
export function readSpeakerFile(file: string): SpeakerFile {
  let value: unknown
  try {
    const text = readFileSync(file, 'utf8')
    if (text.length > FILE_BYTES_MAX) throw new Error(`is larger than ${FILE_BYTES_MAX} bytes`)
    value = parse(text)
  } catch (cause) {
    throw new ConfigError(file, '(whole)', (cause as Error).message, { cause })
  }
  return parseSpeakerFile(value, file)
}

/** Resolves with the exit code when a signal has ended it. Rejects when it cannot start. */
export async function serve({ file, controlPath, restarted, log }: ServeOptions): Promise<number> {
  let { config, routes } = readSpeakerFile(file)
  const say = (level: LogEntry['level'], message: string, fields: LogEntry['fields'] = {}): void =>
    log({ atMs: Date.now(), level, message, fields })
  return new Promise((resolve, reject) => {
    const started = SpeakerThread.start({
      config,
      routes,
      restarted,
      controlPath,
      ownerTakesRoutes: false,
      onEvent: (event) => tellSession(event, say),
      onLog: log,
      onCrash: reject,
    })
    started.then(() => say('info', 'speaker started', { asn: config.asn, routerId: config.routerId }), reject)
    const reload = async (thread: SpeakerThread): Promise<void> => {
      try {
        const next = readSpeakerFile(file)
        await thread.configure(next.config, next.routes)
        ;({ config, routes } = next)
        say('info', 'file read again', { file })
      } catch (error) {
        say('error', 'the file was not taken over', { reason: (error as Error).message })
      }
    }
    const end = (keepRoutes: boolean) => async (thread: SpeakerThread) => {
      await thread.stop(keepRoutes)
      resolve(0)
    }
    const restarts = (): boolean => config.peers.some(({ gracefulRestart }) => gracefulRestart.mode === 'full')
    process.on('SIGHUP', () => void started.then(reload).catch(reject))
    process.once('SIGTERM', () => void started.then(end(restarts())).catch(reject))
    process.once('SIGINT', () => void started.then(end(false)).catch(reject))
  })
}

function tellSession(
  event: BgpEvent,
  say: (level: LogEntry['level'], message: string, fields: LogEntry['fields']) => void,
) {
  if (event.type === 'session') say('debug', 'session', { peer: event.peer, state: event.state, reason: event.reason })
  if (event.type === 'converged') say('info', 'converged', { family: event.family })
}
