/**
 * `weft agent`: the list of what it is made of, and how that starts and stops.
 *
 *   lock ─► status socket ─► kernel, applier ─► CNI server (answers "try again later") ─► interface, cluster ─► loop
 *
 * Stopping undoes nothing: what the kernel has stays, and the next agent goes on from it.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Logger } from 'pino'
import { Applier, type ApplyReport } from '../apply/applier.ts'
import type { ClusterSource } from '../cluster/cluster.ts'
import { applierSink } from '../cni/applier-sink.ts'
import { conflistName } from '../cni/install.ts'
import type { CniServerOptions } from '../cni/network.ts'
import { RuntimeFiles } from '../cni/runtime-files.ts'
import { CniServer } from '../cni/server.ts'
import type { Kernel } from '../kernel/kernel.ts'
import { isFeatureOff } from '../kernel/linux/drivers/offload.ts'
import { openLinuxKernel } from '../kernel/linux/linux-kernel.ts'
import { makeSysctlsWritable } from '../kernel/linux/proc-sys.ts'
import { rememberSysctls } from '../kernel/linux/sysctl-memory.ts'
import { useTunnelDirectory } from '../kernel/linux/tunnel-client.ts'
import { formatOp } from '../model/format.ts'
import type { Check } from '../status/checks.ts'
import { EventLoopWatch } from '../status/event-loop.ts'
import { openLog, setLogLevel } from '../status/log.ts'
import { listenToLogSignals } from '../status/log-signals.ts'
import { StatusServer } from '../status/status-server.ts'
import { type CalicoAccess, openCachedCalico } from './calico-store.ts'
import { CHECKSUM_FEATURE, ChecksumRepair } from './checksum-repair.ts'
import { missingEncapsulations } from './encapsulations.ts'
import { ForwardRules } from './forward-rules.ts'
import { readMetrics } from './metric-readings.ts'
import { AgentMetrics } from './metrics.ts'
import { at, atAsync } from './named-place.ts'
import { NetworkLoop } from './network-loop.ts'
import { NodeWatch } from './node-watch.ts'
import type { AgentOptions } from './options.ts'
import { sysctlFile } from './own-files.ts'
import type { PodNetwork } from './pod-network.ts'
import { RunLock } from './run-lock.ts'
import { openCachedSource, type SourceObserver } from './source.ts'
import { readPreviousSubnets, writeSubnetEnv } from './subnet-env.ts'
import { trafficReader } from './traffic.ts'

/**
 * Runs until a signal; resolves with the exit code. `version` is weft's own, for whoever asks. Throws ConfigError for what the
 * user must change.
 */
export async function runAgent(options: AgentOptions, version: string): Promise<number> {
  if (options.dryRun) {
    const { runDry } = await import('./dry-run.ts')
    return runDry(options, (line) => process.stdout.write(`${line}\n`))
  }
  const metrics = new AgentMetrics(version)
  const log = openLog({
    level: options.logLevel,
    format: options.logFormat,
    base: { node: options.nodeName },
    onMessage: (level) => metrics.process.countMessage(level),
  })
  const lock = await atAsync(`--run-dir ${options.runDir}`, () => RunLock.take(options.runDir))
  const observer: SourceObserver = {
    request: (...seen) => metrics.process.observeRequest(...seen),
    list: (...seen) => metrics.countList(...seen),
    watchEnd: (...seen) => metrics.countWatchEnd(...seen),
  }
  const source = await openCachedSource(options, log, observer)
  const calico = await openCachedCalico(options, log, observer)
  const agent = new Agent(options, log, metrics, source, calico)
  const stopListening = listenToLogSignals(log)
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'the agent fails; what is programmed stays')
    process.exit(70)
  })
  try {
    await agent.start()
    const signal = await new Promise<string>((resolve) => {
      for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name))
    })
    log.info({ signal }, 'stopping; what is programmed stays')
    return 0
  } finally {
    stopListening()
    await agent.close()
    lock.release()
  }
}

/** How many things that the kernel refuses are told at once. */
const REFUSALS_TOLD = 3

class Agent {
  readonly #options: AgentOptions
  readonly #log: Logger
  readonly #metrics: AgentMetrics
  readonly #kernel: Kernel
  readonly #applier: Applier
  readonly #source: ClusterSource
  readonly #calico: CalicoAccess | undefined
  /** Encapsulations that this kernel has not, by a sentence; known before anything is planned. */
  readonly #missing = new Map<'ipip' | 'vxlan' | 'geneve', string>()
  readonly #node: NodeWatch
  readonly #forward: ForwardRules
  readonly #checksums: ChecksumRepair
  readonly #loop: NetworkLoop
  readonly #cni: CniServer
  readonly #runtimeFiles: RuntimeFiles
  readonly #status: StatusServer
  readonly #eventLoop: EventLoopWatch
  #driftSeen = 0
  #conflistWritten = false
  #available = false
  #isSynced = false

  constructor(
    options: AgentOptions,
    log: Logger,
    metrics: AgentMetrics,
    source: ClusterSource,
    calico: CalicoAccess | undefined,
  ) {
    this.#options = options
    this.#log = log
    this.#metrics = metrics
    this.#eventLoop = new EventLoopWatch((seconds) => metrics.process.observeLag(seconds))
    useTunnelDirectory(options.runDir, { leaveContainer: options.tunnelLeavesContainer })
    makeSysctlsWritable()
    rememberSysctls(sysctlFile(options.stateDir))
    this.#kernel = openLinuxKernel()
    this.#applier = new Applier(this.#kernel, {
      onReport: (report) => this.#onReport(report),
      onFound: () => this.#loop.onFound(),
      onReadError: (error) => {
        metrics.readErrors.inc()
        log.warn({ err: (error as Error).message }, 'the kernel could not be read; trying again')
      },
    })
    this.#source = source
    this.#calico = calico
    this.#loop = new NetworkLoop({
      nodeName: options.nodeName,
      source: this.#source,
      writer: this.#applier,
      log,
      previousSubnets: readPreviousSubnets(options.subnetFile),
      settings: {
        masquerade: options.masquerade.enabled,
        fullyRandom: options.masquerade.fullyRandom,
        blackhole: options.blackholeRoute,
        ...(options.overlay && { overlay: options.overlay }),
      },
      wiring: options.wiring,
      ...(calico && {
        calico: {
          ...calico,
          settings: { fullyRandom: options.masquerade.fullyRandom, missing: this.#missing },
          spareAddresses: options.calico.spareAddresses,
          handles: options.calico.handles,
          now: Date.now,
        },
      }),
      readTraffic: trafficReader((call) => call()),
      onOwnNode: ({ node, wishes }) => this.#node.setNode(node.addresses, wishes, node.calico),
      onPodNetwork: (network) => this.#servePods(network),
      onConfigError: () => metrics.configErrors.inc(),
      onPeerProblem: () => metrics.peerProblems.inc(),
    })
    this.#node = new NodeWatch({
      kernel: this.#kernel,
      options: options.interface,
      addresses: options.addresses,
      onDetected: (detected) => this.#loop.onDetected(detected),
      onProblem: (error) => log.warn({ err: error.message }, 'the external interface is not known'),
    })
    this.#forward = new ForwardRules({
      kernel: this.#kernel,
      enabled: options.forwardRules,
      log,
      onProblem: (message) =>
        source.report({ node: options.nodeName, severity: 'Warning', reason: 'ForwardedPacketsDropped', message }),
    })
    this.#checksums = new ChecksumRepair({
      kernel: this.#kernel,
      applier: this.#applier,
      log,
      isOff: (device) => isFeatureOff(device, CHECKSUM_FEATURE),
      override: () => options.checksumOffloadBroken ?? this.#loop.felix?.checksumOffloadBroken,
      onBroken: (message) =>
        source.report({ node: options.nodeName, severity: 'Warning', reason: 'ChecksumOffloadBroken', message }),
    })
    const cniOptions: CniServerOptions = {
      kernel: this.#kernel,
      runDir: options.runDir,
      stateDir: `${options.stateDir}/cni`,
      ...(options.hostLocalDir ? { hostLocalDir: options.hostLocalDir } : {}),
      sink: applierSink(this.#applier),
      log,
      metrics: {
        observe: (command, code, milliseconds) => metrics.observeCni(command, code, milliseconds),
        gauge: (attachments, draining) => {
          metrics.cniAttachments.set(attachments)
          metrics.felixEndpoints.set(attachments)
          metrics.cniDraining.set(draining)
        },
      },
    }
    this.#cni = at(`--state-dir ${options.stateDir}`, () => new CniServer(cniOptions))
    // A node whose pods are bridged again still has addresses of pools to give back.
    if (this.#loop.poolAddresses) this.#cni.giveBackTo(this.#loop.poolAddresses)
    this.#runtimeFiles = new RuntimeFiles({
      binDir: options.cniBinDir,
      confDir: options.cniConfDir,
      runDir: options.runDir,
      log,
      onOvertaken: (fileName) =>
        source.report({
          node: options.nodeName,
          severity: 'Normal',
          reason: 'OtherNetworkFirst',
          message: `The container runtime takes ${fileName} of ${options.cniConfDir} before ${conflistName}`,
        }),
    })
    const parts = {
      kernel: this.#kernel,
      applier: this.#applier,
      loop: this.#loop,
      cni: this.#cni,
      runDir: options.runDir,
      live: () => this.#live(),
      ready: () => this.#ready(),
    }
    this.#status = new StatusServer({
      socketPath: `${options.runDir}/agent.sock`,
      tcp: options.healthz,
      live: () => this.#live(),
      ready: () => this.#ready(),
      remark: () => this.#remark(),
      metrics: () => readMetrics(metrics, parts),
      addresses: () =>
        this.#cni
          .heldAddresses()
          .map((held) => `${held.join(' ')}\n`)
          .join(''),
      state: () => ({ ...this.#loop.state(), failures: this.#failures(), applied: this.#applier.counts }),
      logLevel: { get: () => log.level, set: (level) => setLogLevel(log, level) },
    })
  }

  async start(): Promise<void> {
    const { runDir, stateDir, healthz } = this.#options
    const address = healthz.port > 0 ? ` or --healthz-port ${healthz.port}` : ''
    await atAsync(`--run-dir ${runDir}${address}`, () => this.#status.listen())
    await this.#applier.start()
    const recovered = await atAsync(`--run-dir ${runDir} or --state-dir ${stateDir}`, () => this.#cni.start())
    this.#log.info({ recovered }, 'CNI server')
    this.#installPlugin()
    if (this.#calico) for (const [kind, why] of await missingEncapsulations()) this.#missing.set(kind, why)
    await this.#node.start()
    this.#source.start((event) => {
      if (event.type === 'connection') this.#metrics.connected.set(event.up ? 1 : 0)
      if (event.type === 'node' && !this.#isSynced) this.#metrics.felixState.set(2)
      if (event.type === 'remembered') this.#metrics.remembered.set(1)
      if (event.type === 'synced') {
        this.#metrics.connected.set(1)
        this.#metrics.synced.set(1)
        this.#metrics.felixState.set(3)
        this.#isSynced = true
        this.#metrics.remembered.set(0)
      }
      this.#loop.onCluster(event)
    })
    this.#calico?.source.start((event) => this.#loop.onCalico(event))
  }

  async close(): Promise<void> {
    this.#eventLoop.close()
    this.#loop.close()
    this.#node.close()
    this.#forward.close()
    await this.#checksums.close()
    this.#status.close()
    this.#runtimeFiles.close()
    await this.#cni.close()
    await this.#loop.retire()
    await Promise.all([this.#source.close(), this.#calico?.close()])
    await this.#applier.close()
    this.#kernel.close()
  }

  async #servePods(network: PodNetwork): Promise<void> {
    const { subnetFile, masquerade, cniConfDir, setNodeNetworkUnavailable } = this.#options
    await this.#cni.setNetwork(network)
    this.#forward.setBlocks(network.allNetworks)
    this.#checksums.start()
    const { clusterNetworks: networks, podCidrs: subnets, mtuBytes } = network
    const env = { networks, subnets, mtuBytes, masquerade: masquerade.enabled }
    if (networks.length > 0) at(`--subnet-file ${subnetFile}`, () => writeSubnetEnv(subnetFile, env))
    this.#log.info({ ...network, routed: network.routed?.families }, 'pods can be served')
    if (cniConfDir && !this.#conflistWritten) {
      at(`--cni-conf-dir ${cniConfDir}`, () => this.#runtimeFiles.keepConflist())
      this.#conflistWritten = true
    }
    if (setNodeNetworkUnavailable && !this.#available) {
      this.#available = true
      this.#source.setNetworkAvailable().catch((error: Error) => {
        this.#log.warn({ err: error.message }, 'the condition NetworkUnavailable cannot be set')
      })
    }
  }

  /** Puts the plugin binary where the runtime looks. Without one, a plugin that is there already goes on working. */
  #installPlugin(): void {
    const { cniBinDir, cniPlugin } = this.#options
    if (!cniBinDir) return
    const plugin = cniPlugin ?? pluginBesideProgram()
    if (plugin) at(`--cni-bin-dir ${cniBinDir}`, () => this.#runtimeFiles.keepPlugin(plugin))
    else this.#log.warn({}, 'there is no dist/native/weft-cni and no --cni-plugin: no plugin is put in place')
  }

  #onReport(report: ApplyReport): void {
    this.#metrics.observeApply(report)
    const { driftSeen } = this.#applier.counts
    if (driftSeen > this.#driftSeen) {
      const first = report.ops.slice(0, 8).map(formatOp)
      this.#log.info({ ops: report.ops.length, first }, 'put right what was changed by another hand')
      this.#driftSeen = driftSeen
    }
    this.#log.debug({ ops: report.ops.length, failed: report.failures.length }, 'programmed')
    this.#loop.onReport(report)
  }

  #live(): Check[] {
    return [{ name: 'event-loop', problem: this.#eventLoop.problem }]
  }

  /** What the loop waits for, then what the container runtime needs: somebody at the socket, and a configuration. */
  #ready(): Check[] {
    const { runDir, cniConfDir } = this.#options
    const conflist = cniConfDir && join(cniConfDir, conflistName)
    const missing = conflist && !existsSync(conflist) ? `there is no ${conflist}` : undefined
    return [
      ...this.#loop.checks(),
      { name: 'cni-socket', problem: this.#cni.isListening ? undefined : `nobody serves ${runDir}/cni.sock` },
      { name: 'conflist', problem: this.#runtimeFiles.problem ?? missing },
    ]
  }

  /** What does not keep pods from being served, and should be known. */
  #remark(): string | undefined {
    const { remembered } = this.#loop
    const cached = remembered && `working from the cache of ${remembered}`
    const lost = this.#forward.problem && `warning: ${this.#forward.problem}`
    const { broken } = this.#checksums
    const sums = broken.length > 0 ? `checksum offload is off on ${broken.join(', ')}` : undefined
    const pools = this.#loop.remarks.map((remark) => `warning: ${remark}`)
    const refused = this.#applier.failures().map(({ error }) => `warning: the kernel refuses: ${error.message}`)
    return (
      [cached, lost, sums, ...pools, ...refused.slice(0, REFUSALS_TOLD)]
        .filter((remark) => remark !== undefined)
        .join('\n') || undefined
    )
  }

  #failures(): object[] {
    return this.#applier.failures().map(({ key, error, sources }) => ({ key, error: error.message, sources }))
  }
}

/** `native/weft-cni` beside the bundle, or under dist/ of the checkout. */
function pluginBesideProgram(): string | undefined {
  for (const candidate of ['./native/weft-cni', '../native/weft-cni', '../../dist/native/weft-cni']) {
    const path = fileURLToPath(new URL(candidate, import.meta.url))
    if (existsSync(path)) return path
  }
  return undefined
}
