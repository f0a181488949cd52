/**
 * A cluster for controllers: the lab's API server on loopback with the rights of deploy/controller-rbac.yaml, and for each
 * replica a proxy of its own, which notes what it asks, can hold requests back, and can be away.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import { MemoryJournal } from '../../src/cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../src/cluster/embedded/store.ts'
import type { FlagValues } from '../../src/config/flag-table.ts'
import { Controller } from '../../src/controller/controller.ts'
import { ControllerMetrics } from '../../src/controller/metrics.ts'
import { parseControllerOptions } from '../../src/controller/options.ts'
import { serviceAccountGroups, serviceAccountUser } from '../../src/lab/api/access/rbac.ts'
import type { KubeObject, LocalClient, TokenUser } from '../../src/lab/api/interfaces.ts'
import { writeKubeconfig } from '../../src/lab/api/kubeconfig.ts'
import { ApiServer } from '../../src/lab/api/server.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const TIMEOUT_MS = 60_000

const resources: Readonly<Record<string, string>> = {
  Namespace: 'namespaces',
  ServiceAccount: 'serviceaccounts',
  ClusterRole: 'clusterroles.rbac.authorization.k8s.io',
  ClusterRoleBinding: 'clusterrolebindings.rbac.authorization.k8s.io',
  Role: 'roles.rbac.authorization.k8s.io',
  RoleBinding: 'rolebindings.rbac.authorization.k8s.io',
}

/** The documents of deploy/controller-rbac.yaml. */
export const controllerRights = (): KubeObject[] =>
  parseAllDocuments(readFileSync(join(root, 'deploy', 'controller-rbac.yaml'), 'utf8')).map(
    (document) => document.toJS() as KubeObject,
  )

export interface Asked {
  readonly method: string
  readonly url: string
  /** Undefined while there is no answer. */
  status?: number
}

/** Between one replica and the API server. */
export class ApiProxy {
  readonly asked: Asked[] = []
  #hold: ((asked: Asked) => boolean) | undefined
  onRequest: (asked: Asked) => void = () => {}
  #held: (() => void)[] = []
  #server: Server | undefined
  #port = 0
  readonly #target: () => number

  constructor(target: () => number) {
    this.#target = target
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  async open(): Promise<void> {
    const server = createServer((incoming, response) => {
      this.#pass(incoming, response).catch(() => response.destroy())
    })
    this.#server = server
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve))
    this.#port = (server.address() as AddressInfo).port
  }

  /** Nobody listens any more, and what was open is cut. */
  async shut(): Promise<void> {
    const server = this.#server
    if (!server) return
    this.#server = undefined
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }

  /** Requests for which `what` is true are not sent on until `release`. Resolves with the first one. */
  holdWhen(what: (asked: Asked) => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#hold = (asked) => {
        const held = what(asked)
        if (held) resolve()
        return held
      }
    })
  }

  release(): void {
    this.#hold = undefined
    for (const go of this.#held.splice(0)) go()
  }

  async #pass(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked: Asked = { method: incoming.method!, url: incoming.url! }
    this.asked.push(asked)
    const body = await buffer(incoming)
    if (this.#hold?.(asked))
      await new Promise<void>((resolve) => {
        this.#held.push(resolve)
        this.onRequest(asked)
      })
    else this.onRequest(asked)
    const { method, url, headers } = incoming
    const outgoing = request({ host: '127.0.0.1', port: this.#target(), method, path: url, headers }, (answer) => {
      asked.status = answer.statusCode!
      if (!response.destroyed) response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
      answer.on('error', () => response.destroy())
    })
    outgoing.on('error', () => response.destroy())
    response.on('close', () => {
      // A write goes on although nobody waits for its answer any more, as packets under way do.
      if (method === 'GET') outgoing.destroy()
    })
    outgoing.end(body)
  }
}

export interface Replica {
  readonly proxy: ApiProxy
  readonly process: ChildProcess
  /** Its log, line by line. */
  readonly lines: Record<string, unknown>[]
  /** Resolves with the first line, past or to come, that has this message. */
  said(message: string): Promise<Record<string, unknown>>
  end(signal: NodeJS.Signals): Promise<number | null>
}

export class ControllerCluster {
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-controller-'))
  readonly #journal = new MemoryJournal()
  readonly #tokens = new Map<string, TokenUser>()
  readonly #closers: (() => unknown)[] = []
  #store: ObjectStore | undefined
  #server: ApiServer | undefined
  #port = 0

  static async start(): Promise<ControllerCluster> {
    const cluster = new ControllerCluster()
    await cluster.startServer()
    for (const object of controllerRights()) await cluster.client.create(resources[object.kind!]!, object)
    return cluster
  }

  get client(): LocalClient {
    return this.#server!.client
  }

  async startServer(): Promise<void> {
    this.#store = await ObjectStore.open(this.#journal)
    this.#server = new ApiServer({ store: this.#store, tokens: this.#tokens })
    this.#port = (await this.#server.listen({ host: '127.0.0.1', port: this.#port })).port
  }

  async stopServer(): Promise<void> {
    await this.#server!.close()
    await this.#store!.close()
  }

  async close(): Promise<void> {
    for (const close of this.#closers.reverse()) await close()
    await this.stopServer()
    rmSync(this.folder, { recursive: true, force: true })
  }

  async #account(name: string): Promise<{ proxy: ApiProxy; kubeconfig: string }> {
    const token = `token-${name}`
    this.#tokens.set(token, {
      user: serviceAccountUser('kube-flannel', 'weft-controller'),
      groups: serviceAccountGroups('kube-flannel'),
    })
    const proxy = new ApiProxy(() => this.#port)
    await proxy.open()
    const kubeconfig = join(this.folder, `${name}.yaml`)
    writeKubeconfig(kubeconfig, { server: proxy.url, token })
    this.#closers.push(() => proxy.shut())
    return { proxy, kubeconfig }
  }

  /** A replica in this process. */
  async run(
    name: string,
    flags: FlagValues,
  ): Promise<{ proxy: ApiProxy; controller: Controller; metrics: ControllerMetrics }> {
    const { proxy, kubeconfig } = await this.#account(name)
    const metrics = new ControllerMetrics()
    const silent = { debug() {}, info() {}, warn() {}, error() {} }
    const options = parseControllerOptions({ kubeconfig, 'leader-elect': false, ...flags })
    const controller = new Controller(options, name, metrics, silent)
    controller.start()
    this.#closers.push(() => controller.close())
    return { proxy, controller, metrics }
  }

  /** A replica in a process of its own, which ends with this one at the latest. `clockMs`: how far its wall clock is off. */
  async spawn(name: string, flags: readonly string[], clockMs = 0): Promise<Replica> {
    const { proxy, kubeconfig } = await this.#account(name)
    const clock = join(this.folder, `${name}.clock`)
    writeFileSync(clock, String(clockMs))
    const child = spawn(
      'setpriv',
      [
        ...['--pdeathsig', 'KILL', process.execPath, '--import', 'tsx', '--import', './test/netns/shifted-clock.ts'],
        ...['bin/weft.ts', 'controller', '--kubeconfig', kubeconfig, ...flags],
      ],
      { cwd: root, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, WEFT_TEST_CLOCK: clock } },
    )
    const replica = watchReplica(proxy, child)
    this.#closers.push(() => replica.end('SIGKILL'))
    return replica
  }

  async addNode(name: string, podCIDRs: readonly string[] = [], more: Partial<KubeObject> = {}): Promise<KubeObject> {
    const { metadata, ...rest } = more
    return this.client.create('nodes', {
      apiVersion: 'v1',
      kind: 'Node',
      spec: podCIDRs.length > 0 ? { podCIDR: podCIDRs[0], podCIDRs: [...podCIDRs] } : {},
      ...rest,
      metadata: { name, ...metadata },
    })
  }

  /** Resolves with the objects of a resource as soon as they are as wished. */
  until(resource: string, wished: (objects: KubeObject[]) => boolean): Promise<KubeObject[]> {
    return new Promise((resolve, reject) => {
      const objects = new Map<string, KubeObject>()
      let synced = false
      const timer = setTimeout(() => {
        watch.close()
        reject(
          new Error(`${resource} did not become as wished: ${JSON.stringify([...objects.values()]).slice(0, 4000)}`),
        )
      }, TIMEOUT_MS)
      const watch = this.client.watch(resource, {}, (event) => {
        if (event.type === 'SYNCED') synced = true
        else if (event.type === 'DELETED') objects.delete(event.object.metadata.uid!)
        else objects.set(event.object.metadata.uid!, event.object)
        const all = [...objects.values()]
        if (!synced || !wished(all)) return
        clearTimeout(timer)
        setImmediate(() => watch.close())
        resolve(all)
      })
    })
  }

  /** Resolves when all nodes have podCIDRs, with those; asserts that no address is in two of them. */
  async allGiven(count: number): Promise<Map<string, string[]>> {
    const nodes = await this.until(
      'nodes',
      (all) => all.length === count && all.every(({ spec }) => spec.podCIDRs?.length > 0),
    )
    const given = new Map(nodes.map((node) => [node.metadata.name!, node.spec.podCIDRs as string[]]))
    const all = [...given.values()].flat()
    assert.equal(new Set(all).size, all.length, `a pod CIDR was given twice: ${all.sort().join(' ')}`)
    return given
  }
}

function watchReplica(proxy: ApiProxy, child: ChildProcess): Replica {
  const lines: Record<string, unknown>[] = []
  const waiting: { message: string; resolve: (line: Record<string, unknown>) => void }[] = []
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  let rest = ''
  child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop()!
    for (const part of parts) {
      const line = part.startsWith('{') ? (JSON.parse(part) as Record<string, unknown>) : { msg: part }
      lines.push(line)
      for (const { message, resolve } of waiting) if (line.msg === message) resolve(line)
    }
  })
  return {
    proxy,
    process: child,
    lines,
    said: (message) =>
      new Promise((resolve, reject) => {
        const past = lines.find(({ msg }) => msg === message)
        if (past) return resolve(past)
        const timer = setTimeout(
          () => reject(new Error(`the replica did not say ${JSON.stringify(message)}: ${JSON.stringify(lines)}`)),
          TIMEOUT_MS,
        )
        waiting.push({
          message,
          resolve: (line) => {
            clearTimeout(timer)
            resolve(line)
          },
        })
      }),
    end: async (signal) => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal)
      return ended
    },
  }
}
