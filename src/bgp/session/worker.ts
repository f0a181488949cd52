/**
 * The speaker in a thread of its own, so that a busy program never lets a session starve. The same module is the thread's
 * program and what its owner imports for the address to start it at (`workerUrl`): bundled or not, both are one file.
 */
import { isMainThread, type MessagePort, parentPort, workerData } from 'node:worker_threads'
import type { BgpEvent } from '../../model/bgp.ts'
import { ConfigError } from '../../model/errors.ts'
import { Speaker } from '../speaker.ts'
import { BfdThread } from './bfd-thread.ts'
import { ControlServer } from './control.ts'
import type { ErrorWords, FromSpeaker, LogEntry, SpeakerThreadStart, ToSpeaker } from './messages.ts'
import { NeighbourWatch } from './neighbour-watch.ts'
import { realClock } from './real-clock.ts'
import { readSurroundings } from './surroundings.ts'
import { TcpWire } from './tcp-wire.ts'

export const workerUrl = new URL(import.meta.url)
/** In the worker's data, so that nothing begins where this module is only imported. */
export const WORKER_MARK = 'weft-bgp-speaker'

const wordsOf = (error: unknown): ErrorWords => {
  if (!(error instanceof Error)) return { message: String(error) }
  if (!(error instanceof ConfigError)) return { message: error.message }
  const { object, key, message } = error
  return { message, config: { object, key, problem: message.slice(`${object}: ${key}: `.length) } }
}

async function run(port: MessagePort, start: SpeakerThreadStart): Promise<void> {
  const tell = (message: FromSpeaker): void => port.postMessage(message)
  let control: ControlServer | undefined
  const neighbours = new NeighbourWatch((device, address) => speaker.setNeighbour(device, address))
  const log = (entry: LogEntry): void => {
    control?.note(entry)
    tell({ type: 'log', entry })
  }
  const bfdLog = (level: LogEntry['level'], peer: string | undefined, message: string, reason?: string): void =>
    log({ atMs: Date.now(), level, message, fields: { peer, reason } })
  const bfd = new BfdThread({
    onPath: (peer, path) => {
      if (path.state === 'up') bfdLog('info', peer, 'BFD is up')
      else if (path.before === 'up') bfdLog('warn', peer, `BFD is ${path.state}`, path.reason)
      speaker.setPath(peer, path)
    },
    onProblem: (peer, problem) => bfdLog('error', peer, 'no BFD with this peer', problem),
    // Sessions go on by their hold timers: a fault of ours is none of the paths'.
    onCrash: ({ message }) => bfdLog('error', undefined, 'BFD ended', message),
  })
  const speaker = new Speaker({
    config: start.config,
    wire: new TcpWire(),
    clock: realClock,
    restarted: start.restarted,
    host: {
      event: (event: BgpEvent) => {
        control?.tell(event)
        tell({ type: 'event', event })
      },
      log: (level, message, fields) => log({ atMs: Date.now(), level, message, fields }),
      surroundings: readSurroundings,
      resolveNextHop: () => 0,
      watchPaths: (paths) => bfd.watch(paths),
      wantsRoutes: () => start.ownerTakesRoutes !== false || control?.watched === true,
    },
  })
  const apply = (): void => neighbours.watch(devicesOf(speaker))
  speaker.setLocalRoutes(start.routes)
  if (start.controlPath !== undefined) control = await ControlServer.open(start.controlPath, speaker)
  speaker.start()
  apply()
  port.on('message', (message: ToSpeaker) => {
    switch (message.type) {
      case 'configure':
        try {
          speaker.configure(message.config)
          if (message.routes) speaker.setLocalRoutes(message.routes)
          apply()
          tell({ type: 'done', id: message.id })
        } catch (error) {
          tell({ type: 'done', id: message.id, error: wordsOf(error) })
        }
        return
      case 'status':
        tell({ type: 'status', id: message.id, status: speaker.status() })
        return
      case 'stop':
        speaker.stop({ keepRoutes: message.keepRoutes })
        neighbours.close()
        control?.close()
        void bfd.stop()
        tell({ type: 'done', id: message.id })
        // The thread ends when its sockets have said goodbye.
        port.close()
    }
  })
  tell({ type: 'started' })
}

/** Devices whose only neighbour is a peer. */
const devicesOf = ({ config }: Speaker): readonly string[] =>
  config.peers.flatMap(({ address, device }) => (address === undefined && device !== undefined ? device : []))

if (!isMainThread && parentPort && (workerData as { mark?: string } | null)?.mark === WORKER_MARK) {
  const port = parentPort
  run(port, workerData as SpeakerThreadStart).catch((error: unknown) => {
    port.postMessage({ type: 'failed', error: wordsOf(error) } satisfies FromSpeaker)
    port.close()
  })
}
