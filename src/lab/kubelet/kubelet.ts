/**
 * One node's kubelet: registers the Node, renews its Lease, says whether the network is ready, and gives every Pod bound to
 * the node a worker. It runs inside the lab's daemon but reports only while the node reaches the API server over the
 * underlay: a node that is cut off goes silent, as a real one does.
 */
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { Logger } from 'pino'
import type { ExecStreams, KubeObject, LocalClient, LogOptions } from '../api/interfaces.ts'
import { connectIn } from '../connect.ts'
import { Informer, isNotFound } from '../informer.ts'
import {
  apiAddress,
  FABRIC_API_PORT,
  type LabSpec,
  type NodeSpec,
  netnsPath,
  nodeAddress,
  nodePaths,
} from '../layout.ts'
import { LAB_VARIABLE } from '../process.ts'
import { CniRuntime } from './cni.ts'
import { recordPodEvent } from './events.ts'
import { execJoined, type JoinTarget } from './exec.ts'
import { attachTo } from './input.ts'
import { readLog } from './logs.ts'
import type { Pod, PodCondition } from './pod-spec.ts'
import { PodWorker, type WorkerContext } from './pod-worker.ts'
import { type PodRecord, PodRecords } from './record.ts'

export const HEARTBEAT_MS = 2000
/** Where plugins other than weft's are looked for, for chains that name them. */
const OTHER_CNI_DIRS = ['/opt/cni/bin', '/usr/lib/cni']
const ADDS_AT_ONCE = 8
const PODS_PER_NODE = 250

const nowText = (): string => `${new Date().toISOString().slice(0, 19)}Z`

export class Kubelet {
  readonly node: NodeSpec
  readonly #spec: LabSpec
  readonly #client: LocalClient
  readonly #log: Logger
  readonly #cni: CniRuntime
  readonly #context: WorkerContext
  readonly #workers = new Map<string, PodWorker>()
  readonly #records: PodRecords
  readonly #netns: string
  #pods: Informer<Pod> | undefined
  #beat: NodeJS.Timeout | undefined
  #reachable = true
  #unready: string | undefined = 'cni config uninitialized'
  #closed = false
  #adds = 0
  readonly #queue: (() => void)[] = []

  constructor(options: { spec: LabSpec; node: NodeSpec; client: LocalClient; log: Logger }) {
    const { spec, node, client, log } = options
    this.#spec = spec
    this.node = node
    this.#client = client
    this.#log = log.child({ node: node.name })
    const paths = nodePaths(spec.name, node.name)
    this.#netns = netnsPath(spec.name, node.name)
    const env = {
      PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      [LAB_VARIABLE]: spec.name,
      KUBERNETES_SERVICE_HOST: '10.96.0.1',
      KUBERNETES_SERVICE_PORT: '443',
    }
    this.#cni = new CniRuntime({
      confDir: paths.cniConf,
      binDirs: [paths.cniBin, ...OTHER_CNI_DIRS],
      cacheDir: paths.cniCache,
      nodeNetns: this.#netns,
      env,
    })
    this.#records = new PodRecords(paths.pods)
    this.#context = {
      lab: spec.name,
      nodeName: node.name,
      nodeNetns: this.#netns,
      hostIps: (spec.ipv6 ? ([4, 6] as const) : ([4] as const)).map((family) => String(nodeAddress(node, family))),
      logFolder: join(paths.log, 'pods'),
      client,
      cni: this.#cni,
      records: this.#records,
      log: this.#log,
      env,
      limit: (task) => this.#limit(task),
      recordEvent: (pod, type, reason, message) =>
        void recordPodEvent(client, pod, { component: 'kubelet', host: node.name }, type, reason, message),
    }
  }

  /** What a node remembers of its pods, read without a kubelet. */
  static recordsIn(folder: string): PodRecord[] {
    return new PodRecords(folder).readAll()
  }

  /** Where a pod's process, namespace and log are, for tools on the same machine. Throws when it does not run here. */
  locate(pod: KubeObject, container: string): Omit<JoinTarget, 'argv'> {
    return this.#workerHere(pod).containerOf(container)
  }

  logPath(pod: KubeObject, container: string): string | undefined {
    return this.#workerHere(pod).record.containers[container]?.logPath
  }

  recordOf(pod: KubeObject): PodRecord {
    return this.#workerOf(pod).record
  }

  async start(): Promise<void> {
    const known = new Map(this.#records.readAll().map((record) => [record.uid, record]))
    this.#pods = new Informer<Pod>(this.#client, 'pods', { fieldSelector: `spec.nodeName=${this.node.name}` })
    this.#pods.onChange((pod, gone) => {
      const uid = pod.metadata.uid!
      const worker = this.#workers.get(uid)
      if (gone) worker?.vanish()
      else if (worker) worker.update(pod)
      else this.#admit(pod, known.get(uid))
      known.delete(uid)
    })
    await this.#pods.synced
    for (const record of known.values()) this.#sweep(record.uid, record)
    await this.heartbeat()
    void this.#collectGarbage()
  }

  #admit(pod: Pod, record: PodRecord | undefined): void {
    const uid = pod.metadata.uid!
    const phase = pod.status?.phase
    if (!record && (phase === 'Succeeded' || phase === 'Failed') && !pod.metadata.deletionTimestamp) return
    this.#workers.set(uid, new PodWorker(this.#context, pod, record, () => this.#workers.delete(uid)))
  }

  /** A record whose pod the API no longer has: it was deleted while no daemon ran. */
  #sweep(uid: string, record: PodRecord): void {
    const pod = { metadata: { name: record.name, namespace: record.namespace, uid }, spec: { containers: [] } } as Pod
    const worker = new PodWorker(this.#context, pod, record, () => this.#workers.delete(uid))
    this.#workers.set(uid, worker)
    worker.vanish()
  }

  /** Stops looking after the node; its pods run on. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#beat)
    this.#pods?.close()
    for (const worker of this.#workers.values()) worker.abandon()
    this.#workers.clear()
  }

  /** Network namespaces of the node's pods, as its records have them. Absolute paths. */
  podNamespaces(): string[] {
    return this.#records.readAll().flatMap(({ attachment }) => (attachment ? [attachment.netnsPath] : []))
  }

  // ── node status ────────────────────────────────────────────────────────────────────────────────────────

  /** Makes the Node object when there is none, and says what the node is. */
  async register(): Promise<void> {
    const { name } = this.node
    try {
      await this.#client.get('nodes', { name })
    } catch (error) {
      if (!isNotFound(error)) throw error
      await this.#client.create('nodes', {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: {
          name,
          labels: {
            'kubernetes.io/hostname': name,
            'kubernetes.io/arch': process.arch === 'x64' ? 'amd64' : process.arch,
            'kubernetes.io/os': 'linux',
            'weft.dev/subnet': `net${this.node.subnet}`,
          },
        },
        spec: { taints: [{ key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' }] },
      })
    }
    const resources = {
      cpu: String(cpus().length),
      memory: `${Math.floor(totalmem() / 1024)}Ki`,
      pods: String(PODS_PER_NODE),
    }
    await this.#client.patch(
      'nodes',
      { name },
      {
        status: {
          addresses: [
            ...this.#context.hostIps.map((address) => ({ type: 'InternalIP', address })),
            { type: 'Hostname', address: name },
          ],
          capacity: resources,
          allocatable: resources,
          nodeInfo: {
            architecture: process.arch === 'x64' ? 'amd64' : process.arch,
            bootID: '',
            containerRuntimeVersion: 'weft://0.1.0',
            kernelVersion: release(),
            kubeProxyVersion: '',
            kubeletVersion: 'v1.32.0-weft',
            machineID: '',
            operatingSystem: 'linux',
            osImage: `weft lab ${this.#spec.name}`,
            systemUUID: '',
          },
        },
      },
      { subresource: 'status' },
    )
  }

  /** One beat: network readiness, the Node's conditions when they changed, the Lease. Schedules the next. */
  async heartbeat(): Promise<void> {
    clearTimeout(this.#beat)
    if (this.#closed) return
    try {
      const before = this.#reachable
      this.#reachable = await this.#reachesApi()
      if (this.#reachable) {
        // What was said of the node and its pods while it was silent is not what this kubelet said last.
        if (!before) for (const worker of this.#workers.values()) worker.resync()
        this.#unready = await this.#cni.unreadyReason()
        await this.#pushConditions()
        await this.#renewLease()
      }
    } catch (error) {
      this.#log.warn({ err: error }, 'heartbeat failed')
    }
    if (!this.#closed) this.#beat = setTimeout(() => void this.heartbeat(), this.#unready ? 100 : HEARTBEAT_MS)
  }

  #reachesApi(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connectIn(this.#netns, String(apiAddress(4)), FABRIC_API_PORT)
      const answer = (reached: boolean) => {
        socket.destroy()
        resolve(reached)
      }
      socket.setTimeout(1000, () => answer(false))
      socket.once('connect', () => answer(true))
      socket.once('error', () => answer(false))
    })
  }

  async #pushConditions(): Promise<void> {
    const { name } = this.node
    const node = await this.#client.get('nodes', { name })
    const before = (node.status?.conditions ?? []) as (PodCondition & { lastHeartbeatTime?: string })[]
    const now = nowText()
    const make = (type: string, status: 'True' | 'False', reason: string, message: string) => {
      const old = before.find((each) => each.type === type)
      return {
        type,
        status,
        reason,
        message,
        lastHeartbeatTime: old && old.status === status && old.reason === reason ? old.lastHeartbeatTime : now,
        lastTransitionTime: old?.status === status ? old.lastTransitionTime : now,
      }
    }
    const ready = this.#unready === undefined
    const ours = [
      make('MemoryPressure', 'False', 'KubeletHasSufficientMemory', 'kubelet has sufficient memory available'),
      make('DiskPressure', 'False', 'KubeletHasNoDiskPressure', 'kubelet has no disk pressure'),
      make('PIDPressure', 'False', 'KubeletHasSufficientPID', 'kubelet has sufficient PID available'),
      ready
        ? make('Ready', 'True', 'KubeletReady', 'kubelet is posting ready status')
        : make(
            'Ready',
            'False',
            'KubeletNotReady',
            `container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: ${this.#unready}`,
          ),
    ]
    const shown = (each: Omit<PodCondition, 'lastTransitionTime'> | undefined) =>
      `${each?.status} ${each?.reason} ${each?.message}`
    if (ours.every((each) => shown(before.find(({ type }) => type === each.type)) === shown(each))) return
    const conditions = [...before.filter((each) => !ours.some(({ type }) => type === each.type)), ...ours]
    const { resourceVersion } = node.metadata
    await this.#client.patch(
      'nodes',
      { name },
      { metadata: { resourceVersion }, status: { conditions } },
      { subresource: 'status' },
    )
  }

  async #renewLease(): Promise<void> {
    const name = { namespace: 'kube-node-lease', name: this.node.name }
    const spec = {
      holderIdentity: this.node.name,
      leaseDurationSeconds: 8,
      renewTime: new Date().toISOString().replace('Z', '000Z'),
    }
    try {
      await this.#client.patch('leases.coordination.k8s.io', name, { spec })
    } catch (error) {
      if (!isNotFound(error)) throw error
      const lease: KubeObject = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: name, spec }
      await this.#client.create('leases.coordination.k8s.io', lease)
    }
  }

  async #collectGarbage(): Promise<void> {
    const valid = this.#records
      .readAll()
      .flatMap(({ attachment }) =>
        attachment ? [{ containerId: attachment.containerId, ifName: attachment.ifName }] : [],
      )
    try {
      await this.#cni.collectGarbage(valid)
    } catch (error) {
      this.#log.info({ err: error }, 'the plugin could not collect garbage yet')
    }
  }

  async #limit<T>(task: () => Promise<T>): Promise<T> {
    if (this.#adds >= ADDS_AT_ONCE) await new Promise<void>((resolve) => this.#queue.push(resolve))
    this.#adds++
    try {
      return await task()
    } finally {
      this.#adds--
      this.#queue.shift()?.()
    }
  }

  // ── what the API server asks ───────────────────────────────────────────────────────────────────────────

  /** As the API server reaches a pod: over the underlay. */
  #workerOf(pod: KubeObject): PodWorker {
    if (!this.#reachable) throw new Error(`dial tcp ${this.#context.hostIps[0]}:10250: no route to host`)
    return this.#workerHere(pod)
  }

  #workerHere(pod: KubeObject): PodWorker {
    const worker = this.#workers.get(pod.metadata.uid!)
    if (!worker) throw new Error(`pod ${pod.metadata.name} is not on node ${this.node.name}`)
    return worker
  }

  logs(pod: KubeObject, container: string, options: LogOptions): AsyncIterable<Buffer> {
    const record = this.#workerOf(pod).record.containers[container]
    const path = options.previous ? record?.lastLogPath : record?.logPath
    if (!path)
      throw new Error(
        options.previous
          ? `previous terminated container ${container} in pod ${pod.metadata.name} not found`
          : `container ${container} in pod ${pod.metadata.name} is waiting to start`,
      )
    return readLog(path, options, () => options.previous || record?.ended !== undefined)
  }

  exec(
    pod: KubeObject,
    container: string,
    argv: readonly string[],
    streams: ExecStreams,
  ): Promise<{ exitCode: number }> {
    return execJoined({ argv, ...this.#workerOf(pod).containerOf(container) }, streams)
  }

  /** As in Kubernetes, how the container ended is not told here: the pod's status says it. */
  async attach(pod: KubeObject, container: string, streams: ExecStreams): Promise<{ exitCode: number }> {
    await attachTo(this.#workerOf(pod).attachTarget(container), streams)
    return { exitCode: 0 }
  }

  portForward(pod: KubeObject, port: number): Promise<Duplex> {
    const netns = this.#workerOf(pod).record.netnsPath
    if (!netns) throw new Error(`pod ${pod.metadata.name} has no network yet`)
    return new Promise((resolve, reject) => {
      const socket = connectIn(netns, '127.0.0.1', port)
      socket.once('connect', () => resolve(socket))
      socket.once('error', reject)
    })
  }
}
