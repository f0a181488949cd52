/**
 * `weft agent --dry-run`: the agent with its hands tied. It reads the cluster and the kernel as always, prints every
 * operation as the command that an operator would type, in order, and exits. Nothing is written anywhere: no kernel
 * object, no annotation, no file. May run beside a live agent.
 */
import { Applier } from '../apply/applier.ts'
import type { Announcement, ClusterEvent, ClusterListener, ClusterSource, NodeReport } from '../cluster/cluster.ts'
import { openLinuxKernel } from '../kernel/linux/linux-kernel.ts'
import { openLog } from '../status/log.ts'
import { NetworkLoop } from './network-loop.ts'
import { NodeWatch } from './node-watch.ts'
import type { AgentOptions } from './options.ts'
import { openSource } from './source.ts'

const PATIENCE_MS = 30_000

/** Resolves with the exit code: 1 when there is not enough to plan by, which is then said on standard error. */
export async function runDry(options: AgentOptions, print: (line: string) => void): Promise<number> {
  const { logLevel, logFormat: format, nodeName: node } = options
  const log = openLog({ level: logLevel === 'info' ? 'error' : logLevel, format, base: { node } })
  const kernel = openLinuxKernel()
  const applier = new Applier(kernel, { dryRun: print, onReport: (report) => loop.onReport(report) })
  const source = new EchoSource(await openSource(options, log), options.nodeName, (report) => {
    print(`# event on node ${report.node}: ${report.reason}: ${report.message}`)
  })
  let finish: (code: number) => void = () => {}
  const finished = new Promise<number>((resolve) => {
    finish = resolve
  })
  const loop: NetworkLoop = new NetworkLoop({
    nodeName: options.nodeName,
    source,
    writer: applier,
    log,
    previousSubnets: [],
    settings: {
      masquerade: options.masquerade.enabled,
      fullyRandom: options.masquerade.fullyRandom,
      blackhole: options.blackholeRoute,
    },
    onOwnNode: ({ node, wishes }) => nodeWatch.setNode(node.addresses, wishes),
    onPodNetwork: async ({ podCidrs, mtuBytes }) => print(`# pods: ${podCidrs.join(', ')} on cni0, MTU ${mtuBytes}`),
    onConfigError: () => {},
    onPeerProblem: () => {},
    onIdle: () => finish(0),
  })
  const nodeWatch = new NodeWatch({
    kernel,
    options: options.interface,
    onDetected: (detected) => loop.onDetected(detected),
    onProblem: (error) => log.error({ err: error.message }, 'the external interface is not known'),
  })
  const timer = setTimeout(() => {
    for (const { problem } of loop.checks()) if (problem) console.error(`weft: ${problem}`)
    finish(1)
  }, PATIENCE_MS)
  try {
    await applier.start()
    await nodeWatch.start()
    source.start((event) => loop.onCluster(event))
    return await finished
  } finally {
    clearTimeout(timer)
    loop.close()
    nodeWatch.close()
    await source.close()
    await applier.close()
    kernel.close()
  }
}

/** A source whose writes come back as if the store had taken them, and go nowhere. */
class EchoSource implements ClusterSource {
  readonly #source: ClusterSource
  readonly #nodeName: string
  readonly #onReport: (report: NodeReport) => void
  #listener: ClusterListener = () => {}
  #own: Extract<ClusterEvent, { type: 'node' }> | undefined

  constructor(source: ClusterSource, nodeName: string, onReport: (report: NodeReport) => void) {
    this.#source = source
    this.#nodeName = nodeName
    this.#onReport = onReport
  }

  start(listener: ClusterListener): void {
    this.#listener = listener
    this.#source.start((event) => {
      if (event.type === 'node' && event.node.name === this.#nodeName) this.#own = event
      listener(event)
    })
  }

  async announce({ lease, weft }: Announcement): Promise<void> {
    const own = this.#own
    if (!own) return
    this.#own = { ...own, node: { ...own.node, lease, weft } }
    setImmediate(() => this.#listener(this.#own!))
  }

  async setNetworkAvailable(): Promise<void> {}

  report(report: NodeReport): void {
    this.#onReport(report)
  }

  reconnect(): void {
    this.#source.reconnect()
  }

  close(): Promise<void> {
    return this.#source.close()
  }
}
