/**
 * The process behind a lab of real Kubernetes programs: keeps them up, answers `weft lab …`, and carries connections from a
 * port of this machine's loopback to the API server in the fabric. Killed and started again, it takes over what runs.
 */
import { existsSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import type { Logger } from 'pino'
import type { KubeObject } from '../api/interfaces.ts'
import { sendsBy } from '../arrival.ts'
import { connectIn } from '../connect.ts'
import { type ControlRequest, serveControl, textOf } from '../control.ts'
import type { LabStatus, NodeStatus, Place } from '../daemon-commands.ts'
import { type FaultTarget, fault } from '../fault-commands.ts'
import { apiAddress, FABRIC_API_PORT, type LabSpec, labPaths, netnsPath } from '../layout.ts'
import { nameOfWords, writeSpec } from '../spec.ts'
import { switchNetwork, targetOf } from '../switch.ts'
import { KubernetesCluster } from './cluster.ts'

type Progress = (line: string) => void

interface NodeList {
  readonly items: readonly KubeObject[]
}

export class KubernetesDaemon {
  readonly #log: Logger
  readonly #tellers = new Set<Progress>()
  #cluster: KubernetesCluster | undefined
  #started: Promise<void> = Promise.resolve()
  #control: Server | undefined
  #proxy: Server | undefined
  #port = 0

  private constructor(log: Logger) {
    this.#log = log
  }

  static async start(spec: LabSpec, log: Logger, progress: Progress): Promise<KubernetesDaemon> {
    const paths = labPaths(spec.name)
    const daemon = new KubernetesDaemon(log)
    const tell = (line: string) => {
      progress(line)
      for (const each of daemon.#tellers) each(line)
    }
    daemon.#control = await serveControl(paths.control, (request, answer) => daemon.#handle(request, answer))
    writeFileSync(paths.daemonPid, `${process.pid}\n`)
    daemon.#started = daemon.#begin(spec, tell)
    await daemon.#started
    return daemon
  }

  async #begin(spec: LabSpec, progress: Progress): Promise<void> {
    const cluster = await KubernetesCluster.start(spec, progress)
    this.#cluster = cluster
    await this.#serveLoopback(spec)
    const paths = labPaths(spec.name)
    cluster.spec = { ...cluster.spec, apiPort: this.#port }
    writeSpec(cluster.spec)
    const admin = { commonName: 'kubernetes-admin', organizations: ['system:masters'], usages: ['client'] } as const
    writeFileSync(paths.kubeconfig, cluster.plane.issueKubeconfig(admin, `https://127.0.0.1:${this.#port}`), {
      mode: 0o600,
    })
    progress(`api server: https://127.0.0.1:${this.#port}, kubeconfig ${paths.kubeconfig}`)
    if (!spec.agents) return
    await cluster.prepareAgents()
    await cluster.startAgents()
    await cluster.waitReady()
    progress('agents: as plain processes; every node is ready')
  }

  /** Carries connections of a loopback port; that of last time when it is free. */
  async #serveLoopback(spec: LabSpec): Promise<void> {
    const fabric = netnsPath(spec.name, 'fabric')
    const server = createServer((near) => {
      const far = connectIn(fabric, String(apiAddress(4)), FABRIC_API_PORT)
      for (const socket of [near, far]) socket.setNoDelay(true)
      near.pipe(far).pipe(near)
      near.on('error', () => far.destroy()).on('close', () => far.destroy())
      far.on('error', () => near.destroy()).on('close', () => near.destroy())
    })
    const listen = (port: number) =>
      new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(port, '127.0.0.1', () => {
          server.off('error', reject)
          resolve()
        })
      })
    await listen(spec.apiPort ?? 0).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EADDRINUSE') throw error
      return listen(0)
    })
    this.#proxy = server
    this.#port = (server.address() as { port: number }).port
  }

  async #handle(request: ControlRequest, progress: Progress): Promise<unknown> {
    this.#tellers.add(progress)
    try {
      await this.#started
    } finally {
      this.#tellers.delete(progress)
    }
    const cluster = this.#cluster!
    const text = (key: string): string => textOf(request, key)
    switch (request.command) {
      case 'wait-ready':
      case 'status':
        return this.#status(cluster)
      case 'load':
        for (const node of cluster.nodes) {
          node.loadImage(text('archive'))
          progress(`node ${node.name} has it`)
        }
        return null
      case 'switch':
        return switchNetwork(cluster.network, ...targetOf(request), progress)
      case 'locate':
        return locate(cluster, request.kind, text('target'))
      case 'log-path':
        return agentLog(cluster, text('target'))
      case 'fault':
        return fault(new ClusterFaults(cluster), request)
      default:
        throw new Error(`lab ${cluster.name} has real kubelets: make and remove its objects with kubectl`)
    }
  }

  async #status(cluster: KubernetesCluster): Promise<LabStatus> {
    const [{ items }, pods] = await Promise.all([
      cluster.get<NodeList>('nodes'),
      cluster.get<NodeList>('pods', '--all-namespaces'),
    ])
    const nodes = cluster.nodes.map((node): NodeStatus => {
      const object = items.find(({ metadata }) => metadata.name === node.name)
      const ready = (
        object?.status?.conditions as { type: string; status: string; message: string }[] | undefined
      )?.find(({ type }) => type === 'Ready')
      return {
        name: node.name,
        subnet: node.spec.subnet,
        ready: ready?.status === 'True',
        ...(ready?.status === 'True' ? {} : { reason: ready?.message ?? 'not registered' }),
        addresses: ((object?.status?.addresses ?? []) as { type: string; address: string }[])
          .filter(({ type }) => type === 'InternalIP')
          .map(({ address }) => address),
        podCidrs: object?.spec?.podCIDRs ?? [],
        backend: object ? sendsBy(object) : '',
        ...(node.agent.pid === undefined ? {} : { agentPid: node.agent.pid }),
        agentElsewhere: !cluster.spec.agents,
        agentRestarts: node.agent.restarts,
        pods: pods.items.filter((pod) => pod.spec?.nodeName === node.name).length,
      }
    })
    return {
      name: cluster.name,
      pid: process.pid,
      api: `https://127.0.0.1:${this.#port}`,
      kubeconfig: labPaths(cluster.name).kubeconfig,
      backend: nameOfWords(await cluster.words()),
      ipv6: cluster.spec.ipv6,
      subnets: cluster.spec.subnets,
      nodes,
      faults: cluster.faults.describe(),
      memoryBytes: process.memoryUsage.rss(),
    }
  }

  /** Stops serving; the programs run on. */
  async close(): Promise<void> {
    this.#log.info('the daemon ends; the cluster runs on')
    this.#control?.close()
    this.#proxy?.close()
    this.#cluster?.close()
  }
}

/** The log of an agent that is a plain process. */
function agentLog(cluster: KubernetesCluster, target: string): string {
  const { log } = cluster.node(target).agent.plan
  if (existsSync(log)) return log
  throw new Error(`no agent of ${target} was started as a plain process; where it is a pod, use kubectl logs`)
}

function locate(cluster: KubernetesCluster, kind: unknown, target: string): Place {
  if (['router', 'outside', 'fabric'].includes(target)) return { netnsPath: netnsPath(cluster.name, target) }
  if (kind !== 'node') throw new Error(`lab ${cluster.name} has real kubelets: use kubectl exec`)
  return { netnsPath: netnsPath(cluster.name, target), entry: cluster.node(target).machine.entry }
}

/** A cluster as the commands of `weft lab fault` see a lab. */
class ClusterFaults implements FaultTarget {
  readonly started = Promise.resolve()
  readonly #cluster: KubernetesCluster

  constructor(cluster: KubernetesCluster) {
    this.#cluster = cluster
  }

  get spec(): LabSpec {
    return this.#cluster.spec
  }

  get faults() {
    return this.#cluster.faults
  }

  node(name: string) {
    const { spec, agent } = this.#cluster.node(name)
    return {
      spec,
      agent: {
        kill: async (signal: 'SIGKILL', keepDown: boolean): Promise<void> => {
          if (keepDown) await agent.stop(signal)
          else agent.signal(signal)
        },
        freeze: (frozen: boolean) => agent.signal(frozen ? 'SIGSTOP' : 'SIGCONT'),
        raise: () => void agent.start(),
      },
    }
  }

  async addNode(wish: { readonly name?: string; readonly subnet?: number }) {
    const added = await this.#cluster.addNode(wish)
    await this.#startAgent(added.name)
    return added.spec
  }

  async rebootNode(name: string): Promise<void> {
    await this.#cluster.rebootNode(name)
    await this.#startAgent(name)
  }

  async dropNode(name: string): Promise<void> {
    await this.#cluster.dropNode(name)
    await this.#cluster.kubectl('delete', 'node', name, '--wait=false')
  }

  async #startAgent(name: string): Promise<void> {
    if (this.#cluster.spec.agents) await this.#cluster.startAgents([name])
  }
}
