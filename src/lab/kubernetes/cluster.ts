/**
 * A real Kubernetes cluster in a lab's underlay: the control plane in the fabric, every node a machine of its own. What runs
 * and where is on disk and in the kernel, so that a second object for the same lab takes over what the first left.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { calicoDefinitions } from '../../config/calico/definitions/index.ts'
import type { KubeObject } from '../api/interfaces.ts'
import { Authority } from '../certificates.ts'
import { Credentials } from '../credentials.ts'
import { Faults } from '../faults.ts'
import {
  type LabSpec,
  labPaths,
  nativeProgram,
  netnsPath,
  nodeAddress,
  projectRoot,
  underlaySubnet,
} from '../layout.ts'
import { POOLS, poolWords } from '../pools.ts'
import { LAB_VARIABLE } from '../process.ts'
import { type NetworkWords, withNewAddress, withNode, writeSpec } from '../spec.ts'
import { NET_CONFIG_MAP, type SwitchedCluster, switchNetwork } from '../switch.ts'
import { buildFabric, buildNode } from '../underlay.ts'
import { ControlPlane } from './control-plane.ts'
import { writeImageArchive } from './image-archive.ts'
import { ClusterNode, PAUSE_IMAGE, TEST_IMAGE } from './node.ts'
import { ensurePrograms, kubernetesVersion, type Programs } from './programs.ts'
import { findSnapshotter } from './snapshotter.ts'

type Progress = (line: string) => void

const AGENT_ACCOUNT = '/api/v1/namespaces/kube-flannel/serviceaccounts/weft-agent'

const API_TIMEOUT_MS = 90_000
const SWITCH_TIMEOUT_MS = 60_000

export interface Finished {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export class KubernetesCluster {
  spec: LabSpec
  readonly programs: Programs
  readonly plane: ControlPlane
  /** Of the underlay: partitions, losses, delays, the API server away. */
  readonly faults: Faults
  readonly #nodes = new Map<string, ClusterNode>()
  readonly #snapshotter: string

  private constructor(spec: LabSpec, programs: Programs) {
    this.spec = spec
    this.programs = programs
    this.faults = new Faults(spec.name)
    const { certificates, store, run } = labPaths(spec.name)
    mkdirSync(run, { recursive: true, mode: 0o755 })
    mkdirSync(store, { recursive: true, mode: 0o700 })
    const authority = Authority.ensure(certificates)
    new Credentials(certificates).serviceAccountKey()
    this.plane = new ControlPlane(spec, programs, authority)
    this.#snapshotter = findSnapshotter(store)
  }

  /**
   * Brings the cluster up, or takes it over: resolves when the API server is ready and every node has registered. Nodes are not
   * Ready before somebody gives them a network: `startAgents`, or a DaemonSet.
   */
  static async start(spec: LabSpec, progress: Progress = () => {}): Promise<KubernetesCluster> {
    const programs = await ensurePrograms(progress)
    const cluster = new KubernetesCluster(spec, programs)
    writeSpec(spec)
    await buildFabric(spec)
    await cluster.faults.apply(spec)
    for (const program of cluster.plane.all) await program.start()
    await cluster.#apiReady()
    progress(`control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler ${cluster.version}`)
    await Promise.all(spec.nodes.map((node) => cluster.#startNode(node)))
    await cluster.#registered(spec.nodes.map(({ name }) => name))
    progress(`nodes: ${spec.nodes.map(({ name }) => name).join(' ')}, each with containerd, kubelet and kube-proxy`)
    return cluster
  }

  get name(): string {
    return this.spec.name
  }

  /** Of Kubernetes. */
  get version(): string {
    return kubernetesVersion()
  }

  get nodes(): readonly ClusterNode[] {
    return [...this.#nodes.values()]
  }

  node(name: string): ClusterNode {
    const found = this.#nodes.get(name)
    if (!found) throw new Error(`lab ${this.name} has no node ${name}; it has ${[...this.#nodes.keys()].join(', ')}`)
    return found
  }

  /** The administrator's kubeconfig, for programs inside the fabric: `nsenter --net=<fabricNetns>`. */
  get kubeconfig(): string {
    return this.plane.kubeconfig('admin')
  }

  get fabricNetns(): string {
    return netnsPath(this.name, 'fabric')
  }

  // ── kubectl ──────────────────────────────────────────────────────────────────────────────────────────────

  /** A command in the fabric, where the API server is; KUBECONFIG is the administrator's. Not rejected when it fails. */
  inFabric(argv: readonly string[], input?: string): Promise<Finished> {
    return run(['nsenter', `--net=${this.fabricNetns}`, '--', ...argv], input, {
      ...process.env,
      KUBECONFIG: this.kubeconfig,
      [LAB_VARIABLE]: this.name,
    })
  }

  /** `kubectl` as administrator; resolves with what it printed, rejects with its complaint. */
  async kubectl(...argv: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.inFabric(['kubectl', ...argv])
    if (code !== 0) throw new Error(`kubectl ${argv.join(' ')}: ${stderr.trim() || stdout.trim()}`)
    return stdout
  }

  /** `kubectl apply` of objects or of a manifest's text. */
  async apply(what: string | object | readonly object[]): Promise<void> {
    const text =
      typeof what === 'string'
        ? what
        : JSON.stringify(Array.isArray(what) ? { apiVersion: 'v1', kind: 'List', items: what } : what)
    const { code, stderr } = await this.inFabric(['kubectl', 'apply', '-f', '-'], text)
    if (code !== 0) throw new Error(`kubectl apply: ${stderr.trim()}`)
  }

  /** `kubectl get … -o json`. */
  async get<T>(...what: readonly string[]): Promise<T> {
    return JSON.parse(await this.kubectl('get', ...what, '-o', 'json')) as T
  }

  async #apiReady(): Promise<void> {
    const deadline = performance.now() + API_TIMEOUT_MS
    for (;;) {
      const { code, stderr } = await this.inFabric(['kubectl', 'get', '--raw=/readyz', '--request-timeout=2s'])
      if (code === 0) return
      if (performance.now() > deadline)
        throw new Error(`the API server is not ready: ${stderr}\n${this.plane.apiserver.logTail()}`)
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }

  // ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────

  async #startNode(spec: LabSpec['nodes'][number]): Promise<ClusterNode> {
    const node = new ClusterNode(this.spec, spec, this.programs, this.plane, this.#snapshotter)
    this.#nodes.set(spec.name, node)
    await node.start(this.#images())
    return node
  }

  /** Archives of the images that every node starts with: the sandbox's and the test server's. */
  #images(): string[] {
    const folder = join(labPaths(this.name).store, 'images')
    const weftPod = nativeProgram('weft-pod')
    const pause = join(folder, 'pause.tar')
    if (!existsSync(pause))
      writeImageArchive(pause, {
        name: PAUSE_IMAGE,
        files: { '/weft-pod': weftPod },
        entrypoint: ['/weft-pod', 'pause'],
      })
    const agnhost = join(folder, 'agnhost.tar')
    if (!existsSync(agnhost)) {
      const applets = ['sh', 'cat', 'ls', 'ip', 'nc', 'ping', 'ping6', 'sleep', 'wget', 'hostname', 'echo', 'env']
      writeImageArchive(agnhost, {
        name: TEST_IMAGE,
        files: {
          '/agnhost': join(this.programs.folder, 'agnhost'),
          '/weft-pod': weftPod,
          '/bin/busybox': this.programs.busybox,
          ...Object.fromEntries(applets.map((applet) => [`/bin/${applet}`, { link: 'busybox' }])),
        },
        entrypoint: ['/agnhost'],
      })
    }
    return [pause, agnhost]
  }

  async #registered(names: readonly string[]): Promise<void> {
    const deadline = performance.now() + API_TIMEOUT_MS
    for (;;) {
      const { code } = await this.inFabric(['kubectl', 'get', 'node', ...names, '-o', 'name'])
      if (code === 0) return
      if (performance.now() > deadline)
        throw new Error(`not all of ${names} register: ${this.node(names[0]!).kubelet.logTail()}`)
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }

  /** A new node joins; resolves when it has registered. It has no agent. */
  async addNode(wish: { readonly name?: string; readonly subnet?: number } = {}): Promise<ClusterNode> {
    const { spec, node } = withNode(this.spec, wish)
    this.spec = spec
    writeSpec(spec)
    const added = await this.#startNode(node)
    await this.#registered([node.name])
    return added
  }

  /** A node's power fails for good and its disk is lost; its Node object stays until somebody deletes it. */
  async dropNode(name: string): Promise<void> {
    const node = this.node(name)
    this.#nodes.delete(name)
    this.spec = { ...this.spec, nodes: this.spec.nodes.filter((each) => each.name !== name) }
    writeSpec(this.spec)
    await node.cut()
    node.machine.scrap()
    this.faults.forget(name)
    await this.faults.apply(this.spec)
  }

  /** A node's power fails and comes back. An agent that was a plain process is to be started again by the caller. */
  async rebootNode(name: string): Promise<void> {
    const node = this.node(name)
    await node.cut()
    await node.start([])
    await this.faults.apply(this.spec)
  }

  /**
   * A running node gets another address on its subnet, as a DHCP server would have it: first its interface, and after `between`
   * its kubelet, which tells the cluster. Everything else on the node runs on.
   */
  async readdressNode(name: string, between: () => Promise<void> = async () => {}): Promise<void> {
    const before = this.node(name)
    const { spec, node } = withNewAddress(this.spec, name)
    for (const family of spec.ipv6 ? ([4, 6] as const) : ([4] as const)) {
      const { length } = underlaySubnet(node.subnet, family)
      before.machine.run('ip', 'address', 'delete', `${nodeAddress(before.spec, family)}/${length}`, 'dev', 'eth0')
    }
    this.spec = spec
    writeSpec(spec)
    await buildNode(spec, node)
    await this.faults.apply(spec)
    await between()
    const after = new ClusterNode(spec, node, this.programs, this.plane, this.#snapshotter)
    this.#nodes.set(name, after)
    before.close()
    await Promise.all(after.all.filter(({ pid }) => pid !== undefined).map((program) => program.start()))
    await after.kubelet.restart()
  }

  /** Resolves when the nodes (all by default) are Ready. */
  async waitReady(names: readonly string[] = [...this.#nodes.keys()], timeoutSeconds = 60): Promise<void> {
    const nodes = names.map((name) => `node/${name}`)
    await this.kubectl('wait', '--for=condition=Ready', ...nodes, `--timeout=${timeoutSeconds}s`)
  }

  /** Gives every node the images of an archive. */
  loadImage(archive: string): void {
    for (const node of this.#nodes.values()) node.loadImage(archive)
  }

  // ── weft as plain processes ──────────────────────────────────────────────────────────────────────────────

  /** The objects of deploy/agent-rbac.yaml, definitions of Calico's objects, and what the agents are told of the pod network. */
  async prepareAgents(): Promise<void> {
    await this.kubectl('apply', '-f', join(projectRoot(), 'deploy', 'agent-rbac.yaml'))
    await this.apply(calicoDefinitions)
    const names = calicoDefinitions.map(({ metadata }) => `customresourcedefinition/${metadata.name}`)
    await this.kubectl('wait', '--for=condition=Established', ...names, '--timeout=30s')
    // What is there may have been edited since.
    const there = await this.words()
    const { netConfig, pools } = this.spec
    if (netConfig !== undefined && there.netConfig === undefined) await this.writeNetConfig(netConfig)
    if (pools && !there.pools) await this.apply(pools)
  }

  /** What the cluster is told of its pod network now, whoever wrote it. */
  async words(): Promise<NetworkWords> {
    const { namespace, name } = NET_CONFIG_MAP
    const map = await this.#find(['configmap', '--namespace', namespace, name])
    const pools = (await this.#find([POOLS]))?.items as KubeObject[] | undefined
    return {
      ...(map ? { netConfig: String(map.data?.['net-conf.json'] ?? '') } : {}),
      ...(pools?.length ? { pools } : {}),
    }
  }

  /** `kubectl get … -o json` of what may not be there, its kind neither. */
  async #find(what: readonly string[]): Promise<KubeObject | undefined> {
    const { code, stdout, stderr } = await this.inFabric(['kubectl', 'get', ...what, '-o', 'json'])
    if (code === 0) return JSON.parse(stdout) as KubeObject
    if (/NotFound|the server doesn't have a resource type/.test(stderr)) return undefined
    throw new Error(`kubectl get ${what.join(' ')}: ${stderr.trim()}`)
  }

  /** What `switch` reads and writes. */
  get network(): SwitchedCluster {
    const nodes = async () => (await this.get<{ items: KubeObject[] }>('nodes')).items
    return {
      nodeNames: [...this.#nodes.keys()],
      words: () => this.words(),
      writeNetConfig: (text) => this.writeNetConfig(text),
      writePool: (pool) => this.apply(poolWords(pool)),
      annotateNode: async (name, key, value) => {
        await this.kubectl('annotate', '--overwrite', 'node', name, value === null ? `${key}-` : `${key}=${value}`)
      },
      nodes,
      waitForNodes: async (test, late) => {
        const deadline = performance.now() + SWITCH_TIMEOUT_MS
        for (;;) {
          const done = (await nodes()).filter(test).map(({ metadata }) => metadata.name)
          const missing = [...this.#nodes.keys()].filter((name) => !done.includes(name))
          if (missing.length === 0) return
          if (performance.now() > deadline) throw new Error(late(missing))
        }
      },
    }
  }

  /** Writes net-conf.json; resolves with the milliseconds until every node sends by it and accepts nothing else. */
  async switchTo(netConfig: string, progress: Progress = () => {}): Promise<number> {
    return (await switchNetwork(this.network, { netConfig }, undefined, progress)).milliseconds
  }

  async writeNetConfig(netConfig: string): Promise<void> {
    this.spec = { ...this.spec, netConfig }
    writeSpec(this.spec)
    await this.apply({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { ...NET_CONFIG_MAP, labels: { app: 'flannel', tier: 'node' } },
      data: { 'net-conf.json': `${netConfig}\n` },
    })
  }

  /** A token of the agents' service account, bound to the node's object. */
  async agentToken(node: string): Promise<string> {
    const { uid } = (await this.get<{ metadata: { uid: string } }>('node', node)).metadata
    const boundObjectRef = { apiVersion: 'v1', kind: 'Node', name: node, uid }
    return this.token({ boundObjectRef, expirationSeconds: 86_400 })
  }

  /** A token of the agents' service account, as a TokenRequest's spec wants it: Debian's kubectl has no `create token` yet. */
  async token(spec: object): Promise<string> {
    const request = JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec })
    const { code, stdout, stderr } = await this.inFabric(
      ['kubectl', 'create', '--raw', `${AGENT_ACCOUNT}/token`, '-f', '-'],
      request,
    )
    if (code !== 0) throw new Error(`no token for ${AGENT_ACCOUNT}: ${stderr.trim()}`)
    return (JSON.parse(stdout) as { status: { token: string } }).status.token
  }

  /** Starts an agent on each of the nodes (all by default), as a plain process with the rights of deploy/agent-rbac.yaml. */
  async startAgents(names: readonly string[] = [...this.#nodes.keys()]): Promise<void> {
    await Promise.all(
      names.map(async (name) => {
        const token = await this.agentToken(name)
        await this.node(name).startAgent(token)
      }),
    )
  }

  /** Looks after the programs no longer; all of it runs on. `removeLab` of lifecycle.ts ends it. */
  close(): void {
    for (const program of this.plane.all) program.close()
    for (const node of this.#nodes.values()) node.close()
  }
}

function run(argv: readonly string[], input: string | undefined, env: NodeJS.ProcessEnv): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0]!, argv.slice(1), { env, stdio: ['pipe', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.stdin.on('error', () => {})
    child.stdin.end(input ?? '')
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code: code ?? (signal ? 128 : 1), stdout, stderr }))
  })
}
