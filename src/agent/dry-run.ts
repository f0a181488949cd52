/**
 * `weft agent --dry-run`: the agent with its hands tied. It reads the cluster and the kernel as always, prints every
 * operation as the command that an operator would type, in order, and exits. Nothing is written anywhere: no kernel
 * object, no annotation, no file. May run beside a live agent; what that one gave pods is known by the journal in its state
 * directory, so a dry run with another directory says that host ports of pods would go, as an agent with that directory
 * would have it.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Applier } from '../apply/applier.ts'
import type { Announcement, ClusterEvent, ClusterListener, ClusterSource, NodeReport } from '../cluster/cluster.ts'
import { attachmentFragment } from '../cni/attachment-fragment.ts'
import { Journal, readBootId } from '../cni/journal.ts'
import { openLinuxKernel } from '../kernel/linux/linux-kernel.ts'
import { formatForwardChange } from '../model/forward-chain.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import type { Sysctl } from '../model/link.ts'
import type { Check } from '../status/checks.ts'
import { openLog } from '../status/log.ts'
import { openCalico } from './calico-store.ts'
import { echoStore } from './echo-store.ts'
import { missingEncapsulations } from './encapsulations.ts'
import { planForwardRules } from './forward-rules.ts'
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
  const journal = join(options.stateDir, 'cni', 'journal')
  const living = Journal.readLiving(journal, readBootId())
  let said = living !== undefined
  const show = (line: string, { object }: KernelOp) => {
    if (object.kind === 'sysctl' && holdsSysctl(object)) return
    if (!said && line.startsWith('nft delete element inet weft hostport'))
      print(`# there is no ${journal}: what pods were given is not known (--state-dir)`)
    said ||= line.startsWith('nft delete element inet weft hostport')
    print(line)
  }
  const applier = new Applier(kernel, { dryRun: show, onReport: (report) => loop.onReport(report) })
  applier.set(...(living ?? []).flatMap((attachment) => attachmentFragment(attachment) ?? []))
  const source = new EchoSource(await openSource(options, log), options.nodeName, (report) => {
    print(`# event on node ${report.node}: ${report.reason}: ${report.message}`)
  })
  const calico = await openCalico(options, log)
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
      ...(options.overlay && { overlay: options.overlay }),
    },
    wiring: options.wiring,
    ...(calico && {
      calico: {
        source: calico.source,
        store: echoStore(calico.store),
        settings: { fullyRandom: options.masquerade.fullyRandom, missing: await missingEncapsulations() },
        spareAddresses: 0,
        now: Date.now,
      },
    }),
    onOwnNode: ({ node, wishes }) => nodeWatch.setNode(node.addresses, wishes, node.calico),
    onPodNetwork: async ({ podCidrs, mtuBytes, allNetworks, routed }) => {
      const addresses = routed?.addresses ? 'addresses out of pools' : podCidrs.join(', ')
      print(`# pods: ${addresses}${routed ? ', routed' : ' on cni0'}, MTU ${mtuBytes}`)
      const { changes, problems } = await planForwardRules(kernel, allNetworks, options.forwardRules)
      for (const change of changes) print(formatForwardChange(change))
      for (const problem of problems) print(`# ${problem}`)
    },
    onConfigError: () => {},
    onPeerProblem: () => {},
    onIdle: () => finish(0),
  })
  const nodeWatch = new NodeWatch({
    kernel,
    options: options.interface,
    addresses: options.addresses,
    onDetected: (detected) => loop.onDetected(detected),
    onProblem: (error) => log.error({ err: error.message }, 'the external interface is not known'),
  })
  let connectionProblem: string | undefined
  const giveUp = () => {
    for (const problem of rootCauses(loop.checks())) console.error(`weft: ${problem}`)
    if (connectionProblem) console.error(`weft: ${connectionProblem}`)
    finish(1)
  }
  const timer = setTimeout(giveUp, PATIENCE_MS)
  try {
    await applier.start()
    await nodeWatch.start()
    source.start((event) => {
      if (event.type === 'connection') connectionProblem = event.up ? undefined : event.problem
      loop.onCluster(event)
      // Whoever is not in the complete list does not appear by being waited for.
      if (event.type === 'synced' && !source.hasOwnNode) giveUp()
    })
    calico?.source.start((event) => loop.onCalico(event))
    return await finished
  } finally {
    clearTimeout(timer)
    loop.close()
    nodeWatch.close()
    await source.close()
    await calico?.close()
    await applier.close()
    kernel.close()
  }
}

/** Variables are read only once they were written, which a dry run never does. */
function holdsSysctl({ path, value }: Sysctl): boolean {
  try {
    return readFileSync(`/proc/sys/${path}`, 'utf8').trim() === value.trim()
  } catch {
    return false
  }
}

/** Each follows from the ones before. */
const chainOfCauses: readonly string[] = ['cluster', 'net-conf', 'node', 'pools', 'lease', 'node-address']

/** What is missing by itself, without what only follows from it. */
function rootCauses(checks: readonly Check[]): string[] {
  const failing = checks.filter(({ problem }) => problem !== undefined)
  const chain = chainOfCauses.map((cause) => failing.find(({ name }) => name === cause)).find((check) => check)
  const own = failing.filter((check) => check === chain || check.name === 'interface')
  return (own.length > 0 ? own : failing).map(({ problem }) => problem!)
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

  get hasOwnNode(): boolean {
    return this.#own !== undefined
  }

  async announce({ lease, weft, calico }: Announcement): Promise<void> {
    const own = this.#own
    if (!own) return
    this.#own = { ...own, node: { ...own.node, ...(lease && { lease }), weft, ...(calico && { calico }) } }
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
