/**
 * The owner's side of BFD's thread, in the speaker's words: paths to watch in, states of paths out. The thread exists only
 * once a peer wants BFD.
 */
import type { Worker } from 'node:worker_threads'
import { BfdDiagnostic, BfdState } from '../../wire/bfd/packet.ts'
import type { PathState, WatchedPath } from '../path-watch.ts'
import type { BfdChange, BfdReport } from './bfd-host.ts'
import type { BfdPeerText, FromBfd, ToBfd } from './bfd-worker.ts'
import { openWorker } from './worker-program.ts'

export interface BfdThreadOptions {
  readonly onPath: (peer: string, path: PathState) => void
  /** A session cannot be: a socket that was refused, two sessions with one peer. */
  readonly onProblem: (peer: string, problem: string) => void
  /** The thread ended although nobody stopped it. */
  readonly onCrash: (reason: Error) => void
}

const stateNames: Readonly<Record<BfdState, PathState['state']>> = {
  [BfdState.AdminDown]: 'admin-down',
  [BfdState.Down]: 'down',
  [BfdState.Init]: 'init',
  [BfdState.Up]: 'up',
}
const diagnosticTexts: Readonly<Record<number, string>> = {
  [BfdDiagnostic.DetectionTimeExpired]: 'nothing was heard for the detection time',
  [BfdDiagnostic.NeighborSignaledDown]: 'the neighbour said that it hears nothing',
  [BfdDiagnostic.AdministrativelyDown]: 'administratively down',
}

export class BfdThread {
  readonly #options: BfdThreadOptions
  #worker: Promise<Worker> | undefined
  readonly #waiting = new Map<number, (reports: readonly BfdReport[]) => void>()
  #asked = 0
  #stopped = false

  constructor(options: BfdThreadOptions) {
    this.#options = options
  }

  /** These paths are watched from now on, and no others. */
  watch(paths: readonly WatchedPath[]): void {
    if (paths.length === 0 && !this.#worker) return
    this.#tell({ type: 'peers', peers: paths.map(textOf) })
  }

  async reports(): Promise<readonly BfdReport[]> {
    if (!this.#worker) return []
    const id = ++this.#asked
    const answer = new Promise<readonly BfdReport[]>((resolve) => this.#waiting.set(id, resolve))
    this.#tell({ type: 'ask', id })
    return answer
  }

  /** Tells the peers that this is nobody's fault. Resolves when the thread has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    const worker = await this.#worker
    if (!worker) return
    const exited = new Promise((resolve) => worker.once('exit', resolve))
    worker.postMessage({ type: 'stop' } satisfies ToBfd)
    await exited
  }

  #tell(message: ToBfd): void {
    this.#worker ??= this.#open()
    // The order of messages is that of the calls.
    void this.#worker.then((worker) => worker.postMessage(message))
  }

  async #open(): Promise<Worker> {
    const { workerUrl, WORKER_MARK } = await import('./bfd-worker.ts')
    const worker = openWorker(workerUrl, { workerData: { mark: WORKER_MARK }, name: 'bfd' })
    const end = (reason: Error): void => {
      for (const resolve of this.#waiting.values()) resolve([])
      this.#waiting.clear()
      if (!this.#stopped) this.#options.onCrash(reason)
    }
    worker.on('error', end)
    worker.on('exit', () => end(new Error('BFD ended')))
    worker.on('message', (message: FromBfd) => {
      switch (message.type) {
        case 'changed':
          return this.#options.onPath(message.change.key, pathOf(message.change))
        case 'problem':
          return this.#options.onProblem(message.key, message.problem)
        case 'reports':
          this.#waiting.get(message.id)?.(message.reports)
          this.#waiting.delete(message.id)
      }
    })
    return worker
  }
}

const textOf = ({ peer, remote, device, localAddress, config }: WatchedPath): BfdPeerText => {
  const { multihop, port, ...settings } = config
  return {
    key: peer,
    remote: remote.toString(),
    device,
    localAddress: localAddress?.toString(),
    multihop,
    port,
    settings,
  }
}

const pathOf = ({ from, to, diagnostic, byPeersOperator, controlPlaneIndependent }: BfdChange): PathState => ({
  state: stateNames[to],
  before: stateNames[from],
  reason: byPeersOperator
    ? 'the neighbour was taken down by its operator'
    : (diagnosticTexts[diagnostic] ?? `diagnostic ${diagnostic}`),
  byPeersOperator,
  controlPlaneIndependent,
})
