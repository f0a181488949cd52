/**
 * A cluster for tests of the agent: node namespaces on one bridge (or several, joined by a router), the embedded API server
 * in the test's process listening inside the fabric, and real agent processes. Pods are bare namespaces wired by the
 * real plugin.
 *
 *   fabric: br0 172.30.0.1/24 ── n1 172.30.0.11   n2 172.30.0.12   …
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MemoryJournal } from '../../src/cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../src/cluster/embedded/store.ts'
import { calicoDefinitions } from '../../src/config/calico/definitions/index.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { listTunnelSockets, TunnelConnection } from '../../src/kernel/linux/tunnel-client.ts'
import type { KubeObject } from '../../src/lab/api/interfaces.ts'
import { writeKubeconfig } from '../../src/lab/api/kubeconfig.ts'
import { ApiServer } from '../../src/lab/api/server.ts'
import { ensureCertificate, type ServerCertificate } from '../../src/lab/certificates.ts'
import { listenIn } from '../../src/lab/connect.ts'
import { TestNamespace } from './namespace.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const PORT = 6443
const API_ADDRESS = '172.30.0.1'
const TOKEN = 'agents'
/** Far beyond what anything takes, also in an emulated machine on a busy one. */
const LIMIT_MS = 240_000

export interface TestNode {
  readonly name: string
  readonly index: number
  readonly namespace: TestNamespace
  readonly folder: string
}

export interface TestPod {
  readonly namespace: TestNamespace
  readonly address: string
  /** All of them. */
  readonly addresses: readonly string[]
  readonly containerId: string
  readonly node: TestNode
}

export interface NodeOptions {
  readonly dualStack?: boolean
  /** False: the cluster gives nodes no subnets. */
  readonly podCidrs?: boolean
  readonly labels?: Readonly<Record<string, string>>
}

const POOLS = 'ippools.crd.projectcalico.org'

/** What is particular about one agent's process. */
export interface AgentProcess {
  /** A module to load before the agent. */
  readonly preload?: string
  readonly env?: Readonly<Record<string, string>>
  /** The bundled program; left out: the sources. */
  readonly program?: string
}

export class AgentCluster {
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
  readonly fabric = new TestNamespace()
  readonly nodes = new Map<string, TestNode>()
  readonly #agents = new Map<string, ChildProcess>()
  readonly #children = new Set<ChildProcess>()
  readonly #pods = new Set<TestPod>()
  readonly #store: ObjectStore
  #api: ApiServer | undefined
  #podCount = 0

  readonly #certificate: ServerCertificate | undefined

  private constructor(store: ObjectStore, tls: boolean) {
    this.#store = store
    this.#certificate = tls ? ensureCertificate(join(this.folder, 'pki'), [API_ADDRESS]) : undefined
  }

  /** With `tls` for clients that send no token otherwise; without a configuration there is no ConfigMap. */
  static async open(
    netConfig: object | undefined,
    { tls = false }: { readonly tls?: boolean } = {},
  ): Promise<AgentCluster> {
    const cluster = new AgentCluster(await ObjectStore.open(new MemoryJournal()), tls)
    process.once('exit', () => cluster.#kill())
    cluster.fabric.run('ip link add br0 type bridge && ip link set br0 up && ip address add 172.30.0.1/24 dev br0')
    cluster.fabric.run('ip -6 address add fd00:172:30::1/64 dev br0 nodad')
    await cluster.startApi()
    await cluster.client.create('namespaces', { metadata: { name: 'kube-flannel' } })
    if (netConfig) await cluster.client.create('configmaps', configMap(netConfig))
    return cluster
  }

  get client() {
    return this.#api!.client
  }

  async startApi(): Promise<void> {
    const tokens = new Map([[TOKEN, { user: 'admin', groups: ['system:masters'] }]])
    this.#api = new ApiServer({ store: this.#store, tokens, ...(this.#certificate ? { tls: this.#certificate } : {}) })
    await this.#api.listenOn(listenIn(this.fabric.path, PORT))
  }

  async stopApi(): Promise<void> {
    await this.#api?.close()
    this.#api = undefined
  }

  /** Changes the store while nobody can reach it. */
  async whileAway(work: (client: ApiServer['client']) => Promise<void>): Promise<void> {
    const unheard = new ApiServer({ store: this.#store, tokens: new Map() })
    await work(unheard.client)
    await unheard.close()
  }

  async putNetConfig(netConfig: object | string): Promise<void> {
    const data = { 'net-conf.json': typeof netConfig === 'string' ? netConfig : JSON.stringify(netConfig) }
    await this.client.patch('configmaps', { namespace: 'kube-flannel', name: 'kube-flannel-cfg' }, { data })
  }

  /** Calico's definitions, before anything of Calico's can be written. */
  async defineCalico(): Promise<void> {
    for (const definition of calicoDefinitions)
      await this.client.create('customresourcedefinitions.apiextensions.k8s.io', definition)
  }

  /** Makes a pool, or changes keys of its spec. */
  async putPool(name: string, spec: object, annotations: Readonly<Record<string, string>> = {}): Promise<void> {
    const found = await this.client.list(POOLS)
    if (found.items.some(({ metadata }) => metadata.name === name)) await this.client.patch(POOLS, { name }, { spec })
    else
      await this.client.create(POOLS, {
        apiVersion: 'crd.projectcalico.org/v1',
        kind: 'IPPool',
        metadata: { name, annotations },
        spec,
      })
  }

  /** Puts a node's end into another subnet, 172.30.<subnet>.0/24, behind the router that the fabric is. */
  moveNode(node: TestNode, subnet: number): void {
    const bridge = `br${subnet}`
    if (!this.fabric.succeeds(`ip link show ${bridge}`)) {
      this.fabric.run(`ip link add ${bridge} type bridge && ip link set ${bridge} up`)
      this.fabric.run(`ip address add 172.30.${subnet}.1/24 dev ${bridge}`)
      this.fabric.run(`ip -6 address add fd00:172:30:${subnet}::1/64 dev ${bridge} nodad`)
      this.fabric.run('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    }
    const { namespace, index } = node
    const v6 = namespace.run('ip -6 address show dev eth0 scope global').includes('inet6')
    this.fabric.run(`ip link set n${index} master ${bridge}`)
    namespace.run('ip address flush dev eth0 scope global; ip route flush default; ip -6 route flush default')
    namespace.run(`ip address add 172.30.${subnet}.${10 + index}/24 dev eth0`)
    namespace.run(`ip route replace default via 172.30.${subnet}.1`)
    if (!v6) return
    const prefix = subnet === 0 ? 'fd00:172:30::' : `fd00:172:30:${subnet}::`
    namespace.run(`ip -6 address add ${prefix}${10 + index}/64 dev eth0 nodad`)
    namespace.run(`ip -6 route replace default via ${prefix}1`)
  }

  /** A node with its namespace on the fabric and its object in the store. */
  async addNode(name: string, options: NodeOptions = {}): Promise<TestNode> {
    const index = this.nodes.size + 1
    const namespace = new TestNamespace()
    const end = `n${index}`
    this.fabric.run(
      `ip link add ${end} type veth peer name eth0 netns ${namespace.name} && ip link set ${end} master br0 up`,
    )
    namespace.run(`ip address add 172.30.0.${10 + index}/24 dev eth0 && ip link set eth0 up`)
    namespace.run('ip route add default via 172.30.0.1')
    if (options.dualStack) namespace.run(`ip -6 address add fd00:172:30::${10 + index}/64 dev eth0 nodad`)
    if (options.dualStack) namespace.run('ip -6 route add default via fd00:172:30::1')
    const folder = join(this.folder, name)
    for (const part of ['run', 'cni-bin', 'cni-conf']) mkdirSync(join(folder, part), { recursive: true })
    writeKubeconfig(join(folder, 'kubeconfig'), {
      server: `${this.#certificate ? 'https' : 'http'}://${API_ADDRESS}:${PORT}`,
      ...(this.#certificate ? { ca: this.#certificate.ca } : {}),
      token: TOKEN,
    })
    const node: TestNode = { name, index, namespace, folder }
    this.nodes.set(name, node)
    await this.putNode(node, options)
    return node
  }

  async putNode(node: TestNode, { dualStack, podCidrs = true, labels = {} }: NodeOptions = {}): Promise<void> {
    const podCIDRs = [`10.244.${node.index}.0/24`, ...(dualStack ? [`fd00:10:244:${node.index}::/64`] : [])]
    const spec = podCidrs ? { podCIDR: podCIDRs[0], podCIDRs } : {}
    await this.client.create('nodes', { metadata: { name: node.name, labels: { ...labels } }, spec })
    const addresses = [{ type: 'InternalIP', address: `172.30.0.${10 + node.index}` }]
    await this.client.patch('nodes', { name: node.name }, { status: { addresses } }, { subresource: 'status' })
  }

  getNode(name: string): Promise<KubeObject> {
    return this.client.get('nodes', { name })
  }

  /** Starts an agent process in a node's namespace; its log goes to `<folder>/agent.log`. */
  startAgent(node: TestNode, flags: readonly string[] = [], process_: AgentProcess = {}): ChildProcess {
    const preload = process_.preload ? ['--import', process_.preload] : []
    // Of the program the flags that it is installed with.
    const loader = process_.program ? ['--max-semi-space-size=2'] : ['--import', 'tsx']
    const weft = process_.program ?? 'bin/weft.ts'
    const program = [...loader, ...preload, weft, 'agent', ...this.flags(node), ...flags]
    const child = inNetns(node.namespace.path, () =>
      spawn(process.execPath, program, {
        cwd: root,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, NODE_OPTIONS: '', ...process_.env },
      }),
    )
    const log = join(node.folder, 'agent.log')
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk) => writeFileSync(log, chunk, { flag: 'a' }))
    const standing = this.#agents.get(node.name)
    if (!standing || standing.exitCode !== null || standing.signalCode !== null) this.#agents.set(node.name, child)
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }

  flags(node: TestNode): string[] {
    const { folder } = node
    return ['--kubeconfig', `${folder}/kubeconfig`, '--node-name', node.name, '--run-dir', `${folder}/run`].concat(
      ['--cni-bin-dir', `${folder}/cni-bin`, '--cni-conf-dir', `${folder}/cni-conf`],
      process.env.WEFT_TEST_LOG ? ['--log-level', 'debug'] : [],
    )
  }

  async stopAgent(node: TestNode, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#agents.get(node.name)
    this.#agents.delete(node.name)
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await ended
  }

  signal(node: TestNode, signal: NodeJS.Signals): void {
    this.#agents.get(node.name)?.kill(signal)
  }

  log(node: TestNode): string {
    return readFileSync(join(node.folder, 'agent.log'), 'utf8')
  }

  /** Asks an agent's socket. */
  ask(node: TestNode, path: string): Promise<{ readonly status: number; readonly body: string }> {
    return new Promise((resolve, reject) => {
      const outgoing = request(
        { socketPath: `${node.folder}/run/agent.sock`, path, timeout: 5000, agent: false },
        (response) => {
          let body = ''
          response.setEncoding('utf8')
          response.on('data', (chunk) => {
            body += chunk
          })
          response.on('end', () => resolve({ status: response.statusCode!, body }))
        },
      )
      outgoing.on('error', reject)
      outgoing.end()
    })
  }

  /** Resolves when the agent says that pods can be served. */
  ready(node: TestNode): Promise<void> {
    return this.until(`agent of ${node.name} is ready`, async () => {
      const answer = await this.ask(node, '/readyz').catch((error: Error) => ({ status: 0, body: error.message }))
      return answer.status === 200 ? undefined : answer.body
    })
  }

  /** Asks again and again until the answer is undefined. Rejects after a while with the last answer and the logs. */
  async until(what: string, ask: () => unknown): Promise<void> {
    const deadline = performance.now() + LIMIT_MS
    for (;;) {
      const wrong = await ask()
      if (wrong === undefined) return
      if (performance.now() > deadline) {
        const logs = [...this.nodes.values()].map((node) => {
          try {
            return `--- ${node.name}\n${this.log(node).slice(-6000)}`
          } catch {
            return `--- ${node.name}: no log`
          }
        })
        throw new Error(`${what}: ${String(wrong)}\n${logs.join('\n')}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** A pod by the real plugin; `runtimeConfig` holds what a runtime fills in: `{ portMappings: [...] }`. */
  addPod(node: TestNode, runtimeConfig: object = {}): TestPod {
    const namespace = new TestNamespace()
    const containerId = this.#nextContainer()
    return this.#keepPod(
      node,
      namespace,
      containerId,
      this.cni(node, 'ADD', containerId, namespace.path, { runtimeConfig }),
    )
  }

  /** The same, while this process goes on answering: for addresses that the API server gives. `args` is CNI_ARGS. */
  async joinPod(node: TestNode, args = ''): Promise<TestPod> {
    const namespace = new TestNamespace()
    const containerId = this.#nextContainer()
    try {
      const stdout = await this.cniBeside(node, 'ADD', containerId, namespace.path, args)
      return this.#keepPod(node, namespace, containerId, stdout)
    } catch (error) {
      namespace.delete()
      throw error
    }
  }

  /** DEL, and the namespace goes. */
  async leavePod(pod: TestPod): Promise<void> {
    await this.cniBeside(pod.node, 'DEL', pod.containerId, pod.namespace.path)
    this.#pods.delete(pod)
    pod.namespace.delete()
  }

  #nextContainer(): string {
    return `pod${++this.#podCount}x${process.pid}`
  }

  #keepPod(node: TestNode, namespace: TestNamespace, containerId: string, stdout: string): TestPod {
    const result = JSON.parse(stdout) as { ips: { address: string }[] }
    const addresses = result.ips.map(({ address }) => address.split('/')[0]!)
    const pod = { namespace, containerId, node, address: addresses[0]!, addresses }
    this.#pods.add(pod)
    return pod
  }

  /** Calls the plugin as a runtime does, with what the conflist says; STATUS wants a later version of the protocol. */
  cni(
    node: TestNode,
    command: string,
    containerId: string,
    netns: string,
    { cniVersion, runtimeConfig = {} }: { readonly cniVersion?: string; readonly runtimeConfig?: object } = {},
  ): string {
    const { input, env, file } = this.#cniCall(node, command, containerId, netns, { cniVersion, runtimeConfig })
    const { status, stdout, stderr } = spawnSync(file, { input, encoding: 'utf8', env })
    if (status !== 0) throw new Error(`CNI ${command}: ${stdout}${stderr}`)
    return stdout
  }

  /** The same without stopping this process. */
  async cniBeside(node: TestNode, command: string, containerId: string, netns: string, args = ''): Promise<string> {
    const { input, env, file } = this.#cniCall(node, command, containerId, netns, {})
    const child = spawn(file, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...env, CNI_ARGS: args } })
    let printed = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk) => {
        printed += chunk
      })
    child.stdin.end(input)
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
    if (code !== 0) throw new Error(`CNI ${command}: ${printed}`)
    return printed
  }

  #cniCall(
    node: TestNode,
    command: string,
    containerId: string,
    netns: string,
    { cniVersion, runtimeConfig = {} }: { readonly cniVersion?: string | undefined; readonly runtimeConfig?: object },
  ) {
    const conflist = JSON.parse(readFileSync(`${node.folder}/cni-conf/10-weft.conflist`, 'utf8'))
    return {
      file: `${node.folder}/cni-bin/weft`,
      input: JSON.stringify({
        cniVersion: cniVersion ?? conflist.cniVersion,
        name: conflist.name,
        ...conflist.plugins[0],
        runtimeConfig,
      }),
      env: {
        CNI_COMMAND: command,
        CNI_CONTAINERID: containerId,
        CNI_NETNS: netns,
        CNI_IFNAME: 'eth0',
        CNI_PATH: `${node.folder}/cni-bin`,
      },
    }
  }

  async close(): Promise<void> {
    for (const node of this.nodes.values()) {
      await this.stopAgent(node, 'SIGKILL')
      // Tunnels outlive their agents; not the test.
      for (const device of listTunnelSockets(`${node.folder}/run`))
        await (await TunnelConnection.open(`${node.folder}/run`, device))?.shutdown(true)
    }
    for (const child of this.#children) child.kill('SIGKILL')
    await this.stopApi()
    this.#store.close()
    for (const { namespace } of this.#pods) namespace.delete()
    for (const { namespace } of this.nodes.values()) namespace.delete()
    this.fabric.delete()
    rmSync(this.folder, { recursive: true, force: true })
  }

  #kill(): void {
    for (const child of this.#children) child.kill('SIGKILL')
    rmSync(this.folder, { recursive: true, force: true })
  }
}

const configMap = (netConfig: object): KubeObject => ({
  metadata: { name: 'kube-flannel-cfg', namespace: 'kube-flannel' },
  data: { 'net-conf.json': JSON.stringify(netConfig) },
})
