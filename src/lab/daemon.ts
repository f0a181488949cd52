/**
 * The one process behind a lab: API server, controllers, scheduler, and a kubelet per node; the agents and the pods are
 * processes of their own. Everything that it needs is on disk or in the kernel: killed at any moment and started again, it
 * takes over what runs. `weft lab up` starts it detached and speaks to it through the control socket.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import type { Server } from 'node:net'
import type { Logger } from 'pino'
import { LmdbJournal } from '../cluster/embedded/lmdb-journal.ts'
import { ObjectStore } from '../cluster/embedded/store.ts'
import { calicoDefinitions } from '../config/calico/definitions/index.ts'
import { deleteNetns } from '../kernel/linux/netns.ts'
import { AgentProcess } from './agent-process.ts'
import type { ExecStreams, KubeObject, LocalClient, LogOptions, PodRuntime } from './api/interfaces.ts'
import { ApiServer } from './api/server.ts'
import { ensureCertificate, type ServerCertificate } from './certificates.ts'
import { listenIn } from './connect.ts'
import { serveControl } from './control.ts'
import { startControllers } from './controllers/controllers.ts'
import { agentRights, Credentials } from './credentials.ts'
import { handleControl, waitForNodes } from './daemon-commands.ts'
import { Faults } from './faults.ts'
import { kubeconfigText } from './kubeconfig.ts'
import { Kubelet } from './kubelet/kubelet.ts'
import {
  apiAddress,
  FABRIC_API_PORT,
  type LabSpec,
  labPaths,
  type NodeSpec,
  netnsPath,
  netnsPrefix,
  nodePaths,
  SERVICE_CIDRS,
} from './layout.ts'
import { POOLS, poolWords } from './pools.ts'
import { endProcesses, findProcessesIn, keepDescriptors } from './process.ts'
import { type NetworkWords, withNode, writeSpec } from './spec.ts'
import { NET_CONFIG_MAP, type SwitchedCluster } from './switch.ts'
import { buildFabric, buildNode, listNetns, unplugNode } from './underlay.ts'

/** A node while the daemon runs. */
interface LiveNode {
  readonly spec: NodeSpec
  readonly agent: AgentProcess
  readonly kubelet: Kubelet
}

type Progress = (line: string) => void

const rightsResources: Readonly<Record<string, string>> = {
  Namespace: 'namespaces',
  ServiceAccount: 'serviceaccounts',
  ClusterRole: 'clusterroles.rbac.authorization.k8s.io',
  ClusterRoleBinding: 'clusterrolebindings.rbac.authorization.k8s.io',
  Role: 'roles.rbac.authorization.k8s.io',
  RoleBinding: 'rolebindings.rbac.authorization.k8s.io',
}

const netConfigMap = (text: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { ...NET_CONFIG_MAP, labels: { app: 'flannel', tier: 'node' } },
  data: { 'net-conf.json': `${text}\n` },
})

export class LabDaemon implements PodRuntime {
  spec: LabSpec
  readonly log: Logger
  readonly faults: Faults
  /** Resolves when everything is started; rejects when that failed. */
  started: Promise<void> = Promise.resolve()
  readonly #nodes = new Map<string, LiveNode>()
  #credentials: Credentials | undefined
  #certificate: ServerCertificate | undefined
  #store: ObjectStore | undefined
  #api: ApiServer | undefined
  #controllers: { close(): void } | undefined
  #control: Server | undefined

  private constructor(spec: LabSpec, log: Logger) {
    this.spec = spec
    this.log = log
    this.faults = new Faults(spec.name)
  }

  /** Brings the lab up, or takes it over, and serves until `close`. `progress` hears what happens. */
  static async start(spec: LabSpec, log: Logger, progress: Progress): Promise<LabDaemon> {
    const paths = labPaths(spec.name)
    mkdirSync(paths.run, { recursive: true, mode: 0o755 })
    const daemon = new LabDaemon(spec, log)
    let done = () => {}
    let failed: (error: unknown) => void = () => {}
    daemon.started = new Promise((resolve, reject) => {
      done = resolve
      failed = reject
    })
    daemon.started.catch(() => {})
    daemon.#control = await serveControl(paths.control, (request, tell) => handleControl(daemon, request, tell))
    writeFileSync(paths.daemonPid, `${process.pid}\n`)
    try {
      await daemon.#begin(progress)
      done()
    } catch (error) {
      failed(error)
      throw error
    }
    return daemon
  }

  get client(): LocalClient {
    if (!this.#api) throw new Error('the lab is still starting')
    return this.#api.client
  }

  get nodes(): ReadonlyMap<string, LiveNode> {
    return this.#nodes
  }

  node(name: string): LiveNode {
    const found = this.#nodes.get(name)
    if (!found)
      throw new Error(
        `lab ${this.spec.name} has no node ${JSON.stringify(name)}; it has ${[...this.#nodes.keys()].join(', ')}`,
      )
    return found
  }

  async #begin(progress: Progress): Promise<void> {
    const { spec } = this
    const paths = labPaths(spec.name)
    await buildFabric(spec)
    progress(`underlay: ${spec.subnets} subnet${spec.subnets === 1 ? '' : 's'}, a router, an outside`)
    mkdirSync(paths.objects, { recursive: true, mode: 0o700 })
    this.#store = await ObjectStore.open(new LmdbJournal(paths.objects))
    keepDescriptors()
    await this.#serveApi()
    progress(`api server: https://127.0.0.1:${this.spec.apiPort}, kubeconfig ${paths.kubeconfig}`)
    await this.#seedObjects()
    this.#controllers = startControllers(this.client, this.spec, this.log.child({ part: 'controllers' }))
    this.#sweepPods()
    const nodes = await Promise.all(this.spec.nodes.map((node) => this.#prepareNode(node)))
    // In order, so that the first node has the first part of the pod network.
    for (const node of nodes) await node.kubelet.register()
    await Promise.all(nodes.map((node) => this.#beginNode(node)))
    await this.faults.apply(this.spec)
    progress(`nodes: ${this.spec.nodes.map((node) => node.name).join(' ')}, each with its agent`)
  }

  async #serveApi(): Promise<void> {
    const { spec } = this
    const paths = labPaths(spec.name)
    const fabric = (spec.ipv6 ? ([4, 6] as const) : ([4] as const)).map((family) => String(apiAddress(family)))
    this.#certificate = ensureCertificate(paths.certificates, ['127.0.0.1', 'localhost', ...fabric])
    const credentials = new Credentials(paths.certificates)
    this.#credentials = credentials
    this.#api = new ApiServer({
      store: this.#store!,
      tls: this.#certificate,
      tokens: credentials.users,
      serviceAccountKey: credentials.serviceAccountKey(),
      podRuntime: this,
      log: this.log.child({ part: 'api' }),
      serviceCidrs: spec.ipv6 ? [SERVICE_CIDRS.v4, SERVICE_CIDRS.v6] : [SERVICE_CIDRS.v4],
    })
    const port = await this.#listenLoopback(spec.apiPort ?? 0)
    await this.#api.listenOn(listenIn(netnsPath(spec.name, 'fabric'), FABRIC_API_PORT))
    if (port !== spec.apiPort) {
      this.spec = { ...spec, apiPort: port }
      writeSpec(this.spec)
    }
    const admin = { cluster: `weft-${spec.name}`, server: `https://127.0.0.1:${port}`, user: 'admin' }
    writeFileSync(
      paths.kubeconfig,
      kubeconfigText({ ...admin, ca: this.#certificate.ca, token: credentials.token('admin') }),
      { mode: 0o600 },
    )
  }

  /** The port of last time when it is free, any other one when it is not. */
  async #listenLoopback(port: number): Promise<number> {
    try {
      return (await this.#api!.listen({ host: '127.0.0.1', port })).port
    } catch (error) {
      if (port === 0 || (error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
      return (await this.#api!.listen({ host: '127.0.0.1', port: 0 })).port
    }
  }

  async #seedObjects(): Promise<void> {
    for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease', NET_CONFIG_MAP.namespace])
      await this.#ensure('namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } })
    if (this.spec.netConfig !== undefined) await this.#ensure('configmaps', netConfigMap(this.spec.netConfig))
    for (const definition of calicoDefinitions)
      await this.#apply('customresourcedefinitions.apiextensions.k8s.io', definition as unknown as KubeObject)
    for (const pool of this.spec.pools ?? []) await this.#ensure(POOLS, pool)
    for (const object of agentRights()) {
      const resource = rightsResources[object.kind ?? '']
      if (!resource) throw new Error(`deploy/agent-rbac.yaml: a ${object.kind} is not expected there`)
      await this.#apply(resource, object)
    }
  }

  async #apply(resource: string, object: KubeObject): Promise<void> {
    const { name = '', namespace } = object.metadata
    const options = { type: 'apply', fieldManager: 'weft-lab', force: true } as const
    await this.client.patch(resource, namespace ? { namespace, name } : { name }, object, options)
  }

  async #ensure(resource: string, object: KubeObject): Promise<void> {
    try {
      await this.client.create(resource, object)
    } catch (error) {
      if ((error as { code?: number }).code !== 409) throw error
    }
  }

  /** Namespaces of pods that no node remembers: made in the moment of a kill. */
  #sweepPods(): void {
    const known = new Set<string>()
    for (const node of this.spec.nodes) {
      const folder = nodePaths(this.spec.name, node.name).pods
      if (!existsSync(folder)) continue
      for (const record of Kubelet.recordsIn(folder)) if (record.attachment) known.add(record.attachment.netnsPath)
    }
    for (const name of listNetns(this.spec.name))
      if (name.startsWith(`${netnsPrefix(this.spec.name)}pod-`) && !known.has(`/run/netns/${name}`))
        deleteNetns(`/run/netns/${name}`)
  }

  async #prepareNode(node: NodeSpec): Promise<LiveNode> {
    const { spec } = this
    await buildNode(spec, node)
    const agent = new AgentProcess(spec.name, node.name, this.log.child({ part: 'agent' }))
    const server = `https://${apiAddress(4)}:${FABRIC_API_PORT}`
    writeFileSync(
      nodePaths(spec.name, node.name).kubeconfig,
      kubeconfigText({
        cluster: `weft-${spec.name}`,
        server,
        user: 'weft-agent',
        ca: this.#certificate!.ca,
        token: this.#credentials!.token(`agent/${node.name}`),
      }),
      { mode: 0o600 },
    )
    const kubelet = new Kubelet({ spec, node, client: this.client, log: this.log.child({ part: 'kubelet' }) })
    return { spec: node, agent, kubelet }
  }

  async #beginNode(node: LiveNode): Promise<void> {
    this.#nodes.set(node.spec.name, node)
    node.agent.start()
    await node.kubelet.start()
  }

  /** A new node joins. */
  async addNode(wish: { readonly name?: string; readonly subnet?: number }): Promise<NodeSpec> {
    const { spec, node } = withNode(this.spec, wish)
    this.spec = spec
    writeSpec(spec)
    const live = await this.#prepareNode(node)
    await live.kubelet.register()
    await this.#beginNode(live)
    return node
  }

  /** A node's power fails and it never comes back: agent, pods and namespaces end at once; its Node object goes. */
  async dropNode(name: string): Promise<void> {
    const live = this.node(name)
    this.#nodes.delete(name)
    this.spec = { ...this.spec, nodes: this.spec.nodes.filter((node) => node.name !== name) }
    writeSpec(this.spec)
    await this.#powerOff(live)
    this.faults.forget(name)
    this.#credentials!.forget(name)
    await this.faults.apply(this.spec)
    rmSync(nodePaths(this.spec.name, name).base, { recursive: true, force: true })
    await this.client.delete('nodes', { name }).catch(() => {})
  }

  /** A node's power fails and comes back: what is on its disk stays, everything that ran starts anew. */
  async rebootNode(name: string): Promise<void> {
    const live = this.node(name)
    await this.#powerOff(live)
    const next = await this.#prepareNode(live.spec)
    await this.faults.apply(this.spec)
    await next.kubelet.register()
    await this.#beginNode(next)
  }

  /** Ends every process in a node's and its pods' namespaces without a warning, then the namespaces. */
  async #powerOff({ spec, agent, kubelet }: LiveNode): Promise<void> {
    const lab = this.spec.name
    agent.close()
    kubelet.close()
    const places = [netnsPath(lab, spec.name), ...kubelet.podNamespaces()]
    // Twice and more: what is ended may just have started something.
    for (let found = findProcessesIn(lab, places); found.length > 0; found = findProcessesIn(lab, places))
      await endProcesses(found, 0)
    await unplugNode(this.spec, spec)
    for (const place of places) deleteNetns(place)
  }

  /** What `switch` reads and writes. */
  get network(): SwitchedCluster {
    return {
      nodeNames: [...this.#nodes.keys()],
      words: () => this.words(),
      writeNetConfig: async (text) => {
        this.spec = { ...this.spec, netConfig: text }
        writeSpec(this.spec)
        await this.#apply('configmaps', netConfigMap(text))
      },
      writePool: (pool) => this.#apply(POOLS, poolWords(pool)),
      annotateNode: async (name, key, value) => {
        await this.client.patch('nodes', { name }, { metadata: { annotations: { [key]: value } } })
      },
      nodes: async () => (await this.client.list('nodes')).items,
      waitForNodes: (test, late) => waitForNodes(this, test, late),
    }
  }

  /** What the cluster is told of its pod network now, whoever wrote it. */
  async words(): Promise<NetworkWords> {
    const { items } = await this.client.list('configmaps', { namespace: NET_CONFIG_MAP.namespace })
    const map = items.find(({ metadata }) => metadata.name === NET_CONFIG_MAP.name)
    const pools = (await this.client.list(POOLS)).items
    return {
      ...(map ? { netConfig: String(map.data?.['net-conf.json'] ?? '') } : {}),
      ...(pools.length > 0 ? { pools } : {}),
    }
  }

  /** Stops serving. Agents and pods run on. */
  async close(): Promise<void> {
    this.#control?.close()
    this.#controllers?.close()
    for (const { agent, kubelet } of this.#nodes.values()) {
      agent.close()
      kubelet.close()
    }
    await this.#api?.close()
    await this.#store?.close()
  }

  // ── PodRuntime: to the kubelet of the pod's node ─────────────────────────────────────────────────────────

  #kubeletOf(pod: KubeObject): Kubelet {
    const name = pod.spec?.nodeName as string | undefined
    if (!name) throw new Error(`pod ${pod.metadata.name} does not have a host assigned`)
    return this.node(name).kubelet
  }

  logs(pod: KubeObject, container: string, options: LogOptions): AsyncIterable<Buffer> {
    return this.#kubeletOf(pod).logs(pod, container, options)
  }

  async exec(pod: KubeObject, container: string, argv: readonly string[], streams: ExecStreams) {
    return this.#kubeletOf(pod).exec(pod, container, argv, streams)
  }

  async attach(pod: KubeObject, container: string, streams: ExecStreams) {
    return this.#kubeletOf(pod).attach(pod, container, streams)
  }

  async portForward(pod: KubeObject, port: number) {
    return this.#kubeletOf(pod).portForward(pod, port)
  }
}
