/**
 * What `weft lab …` may ask a running daemon: status, switching the data path, where a pod is; faults are in
 * fault-commands.ts.
 */
import type { KubeObject } from './api/interfaces.ts'
import { sendsBy } from './arrival.ts'
import { type ControlRequest, textOf } from './control.ts'
import type { LabDaemon } from './daemon.ts'
import { fault } from './fault-commands.ts'
import { keyOfObject } from './informer.ts'
import { labPaths, netnsPath, nodePaths } from './layout.ts'
import { readTail } from './process.ts'
import { nameOfWords } from './spec.ts'
import { switchNetwork, targetOf } from './switch.ts'

type Progress = (line: string) => void

/** An emulated processor takes most of it. */
const READY_TIMEOUT_MS = 150_000
const SWITCH_TIMEOUT_MS = 60_000

export interface NodeStatus {
  readonly name: string
  readonly subnet: number
  readonly ready: boolean
  readonly reason?: string
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
  readonly backend: string
  readonly agentPid?: number
  /** No process that the lab started: a DaemonSet's pod, or none at all. */
  readonly agentElsewhere?: boolean
  readonly agentRestarts: number
  readonly pods: number
}

export interface LabStatus {
  readonly name: string
  readonly pid: number
  readonly api: string
  readonly kubeconfig: string
  readonly backend: string
  readonly ipv6: boolean
  readonly subnets: number
  readonly nodes: readonly NodeStatus[]
  readonly faults: readonly string[]
  readonly memoryBytes: number
}

/** Where a pod or a node is on this machine. */
export interface Place {
  readonly netnsPath: string
  /** The process whose namespaces to join; none for a node. */
  readonly pid?: number
  readonly env?: NodeJS.ProcessEnv
  /** The words before a command, where a node is a machine of its own. */
  readonly entry?: readonly string[]
}

export async function handleControl(daemon: LabDaemon, request: ControlRequest, progress: Progress): Promise<unknown> {
  const text = (key: string): string => textOf(request, key)
  switch (request.command) {
    case 'wait-ready':
      return waitReady(daemon, progress)
    case 'status':
      return statusOf(daemon)
    case 'switch':
      await daemon.started
      return switchNetwork(daemon.network, ...targetOf(request), progress)
    case 'locate':
      return locate(daemon, request.kind, text('target'), request.container as string | undefined)
    case 'log-path':
      return logPath(daemon, text('target'), request.container as string | undefined)
    case 'apply':
      return apply(daemon, request.objects as KubeObject[])
    case 'wait-pods':
      return waitPods(daemon, text('namespace'), request.selector as string | undefined)
    case 'fault':
      return fault(daemon, request)
    case 'load':
      throw new Error(
        `lab ${daemon.spec.name} has no images, its pods run this machine's own programs: load is for labs made with --kubernetes`,
      )
    default:
      throw new Error(`the lab does not know the command ${JSON.stringify(request.command)}`)
  }
}

// ── readiness and status ─────────────────────────────────────────────────────────────────────────────────

const condition = (object: KubeObject, type: string): { status?: string; message?: string } | undefined =>
  (object.status?.conditions as { type: string; status?: string; message?: string }[] | undefined)?.find(
    (each) => each.type === type,
  )

/**
 * Watches a resource until the test over all its objects holds. Rejects with `describe` after the time, and at once with what the
 * test throws.
 */
function waitFor(
  daemon: LabDaemon,
  resource: string,
  options: { namespace?: string; labelSelector?: string },
  test: (objects: readonly KubeObject[]) => boolean,
  timeoutMs: number,
  describe: (objects: readonly KubeObject[]) => string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const objects = new Map<string, KubeObject>()
    let synced = false
    let settled = false
    const settle = (error?: Error) => {
      if (settled) return
      settled = true
      clearTimeout(timer)
      setImmediate(() => watch.close())
      if (error) reject(error)
      else resolve()
    }
    const timer = setTimeout(() => settle(new Error(describe([...objects.values()]))), timeoutMs)
    const watch = daemon.client.watch(resource, options, (event) => {
      if (event.type === 'SYNCED') synced = true
      else if (event.type === 'DELETED') objects.delete(keyOfObject(event.object))
      else objects.set(keyOfObject(event.object), event.object)
      try {
        if (synced && test([...objects.values()])) settle()
      } catch (error) {
        settle(error as Error)
      }
    })
  })
}

async function waitReady(daemon: LabDaemon, progress: Progress): Promise<LabStatus> {
  await daemon.started
  const told = new Set<string>()
  const ready = (node: KubeObject) => condition(node, 'Ready')?.status === 'True' && !node.spec?.taints?.length
  await waitFor(
    daemon,
    'nodes',
    {},
    (nodes) => {
      for (const node of nodes) {
        const name = node.metadata.name!
        if (!ready(node) || told.has(name)) continue
        told.add(name)
        progress(`node ${name} is ready: pods ${(node.spec?.podCIDRs ?? []).join(', ')}`)
      }
      return daemon.spec.nodes.every(({ name }) => nodes.some((node) => node.metadata.name === name && ready(node)))
    },
    READY_TIMEOUT_MS,
    (nodes) => {
      const late = nodes.filter((node) => !ready(node))
      const [first] = late
      return [
        'not every node became ready:',
        ...late.map((node) => `  ${node.metadata.name}: ${condition(node, 'Ready')?.message ?? 'no answer'}`),
        ...(first
          ? [
              `the end of its agent's log:\n${readTail(nodePaths(daemon.spec.name, first.metadata.name!).agentLog, 2000)}`,
            ]
          : []),
      ].join('\n')
    },
  )
  return statusOf(daemon)
}

async function statusOf(daemon: LabDaemon): Promise<LabStatus> {
  await daemon.started
  const { spec, client } = daemon
  const [nodes, pods] = await Promise.all([client.list('nodes'), client.list('pods')])
  return {
    name: spec.name,
    pid: process.pid,
    api: `https://127.0.0.1:${spec.apiPort}`,
    kubeconfig: labPaths(spec.name).kubeconfig,
    backend: nameOfWords(await daemon.words()),
    ipv6: spec.ipv6,
    subnets: spec.subnets,
    memoryBytes: process.memoryUsage.rss(),
    faults: daemon.faults.describe(),
    nodes: spec.nodes.map((each) => {
      const node = nodes.items.find(({ metadata }) => metadata.name === each.name)
      const agent = daemon.nodes.get(each.name)?.agent.status
      const ready = node ? condition(node, 'Ready') : undefined
      return {
        name: each.name,
        subnet: each.subnet,
        ready: ready?.status === 'True',
        ...(ready?.status === 'True' ? {} : { reason: ready?.message ?? 'not registered' }),
        addresses: ((node?.status?.addresses ?? []) as { type: string; address: string }[])
          .filter(({ type }) => type === 'InternalIP')
          .map(({ address }) => address),
        podCidrs: node?.spec?.podCIDRs ?? [],
        backend: node ? sendsBy(node) : '',
        ...(agent?.pid === undefined ? {} : { agentPid: agent.pid }),
        agentRestarts: agent?.restarts ?? 0,
        pods: pods.items.filter((pod) => pod.spec?.nodeName === each.name).length,
      }
    }),
  }
}

// ── switching ────────────────────────────────────────────────────────────────────────────────────────────

/** Resolves when the test holds for every node of the lab; rejects with `late` of those for which it did not. */
export function waitForNodes(
  daemon: LabDaemon,
  test: (node: KubeObject) => boolean,
  late: (names: readonly string[]) => string,
): Promise<void> {
  const missing = (nodes: readonly KubeObject[]) => {
    const done = new Set(nodes.filter(test).map(({ metadata }) => metadata.name))
    return daemon.spec.nodes.map(({ name }) => name).filter((name) => !done.has(name))
  }
  const options = {}
  return waitFor(
    daemon,
    'nodes',
    options,
    (nodes) => missing(nodes).length === 0,
    SWITCH_TIMEOUT_MS,
    (nodes) => late(missing(nodes)),
  )
}

// ── pods ─────────────────────────────────────────────────────────────────────────────────────────────────

/** A pod by `name` or `namespace/name`; a name alone is looked for in `default`, then everywhere. */
export async function findPod(daemon: LabDaemon, target: string): Promise<KubeObject> {
  const slash = target.indexOf('/')
  const { items } = await daemon.client.list('pods', slash < 0 ? {} : { namespace: target.slice(0, slash) })
  const name = target.slice(slash + 1)
  const found = items.filter((pod) => pod.metadata.name === name)
  const chosen = found.find((pod) => pod.metadata.namespace === 'default') ?? found[0]
  if (!chosen) throw new Error(`there is no pod ${JSON.stringify(target)} in lab ${daemon.spec.name}`)
  return chosen
}

const isNode = (daemon: LabDaemon, target: string): boolean =>
  daemon.nodes.has(target) || ['router', 'outside', 'fabric'].includes(target)

/** Where a pod or a node is. Asked for a node, it does not look among the pods. */
async function locate(daemon: LabDaemon, kind: unknown, target: string, container?: string): Promise<Place> {
  await daemon.started
  if (isNode(daemon, target)) return { netnsPath: netnsPath(daemon.spec.name, target) }
  if (kind === 'node') daemon.node(target)
  const pod = await findPod(daemon, target)
  return daemon.node(pod.spec.nodeName).kubelet.locate(pod, container ?? pod.spec.containers[0].name)
}

async function logPath(daemon: LabDaemon, target: string, container?: string): Promise<string> {
  await daemon.started
  if (daemon.nodes.has(target)) return nodePaths(daemon.spec.name, target).agentLog
  const pod = await findPod(daemon, target)
  const path = daemon.node(pod.spec.nodeName).kubelet.logPath(pod, container ?? pod.spec.containers[0].name)
  if (!path) throw new Error(`pod ${target} has written nothing yet`)
  return path
}

const RESOURCES: Readonly<Record<string, string>> = {
  Pod: 'pods',
  Service: 'services',
  ConfigMap: 'configmaps',
  Namespace: 'namespaces',
  Deployment: 'deployments.apps',
  DaemonSet: 'daemonsets.apps',
}

async function apply(daemon: LabDaemon, objects: readonly KubeObject[]): Promise<string[]> {
  await daemon.started
  const out: string[] = []
  for (const object of objects) {
    const resource = RESOURCES[object.kind ?? '']
    if (!resource) throw new Error(`cannot apply a ${object.kind}`)
    const { name = '', namespace } = object.metadata
    await daemon.client.patch(resource, namespace ? { namespace, name } : { name }, object, {
      type: 'apply',
      fieldManager: 'weft-lab',
      force: true,
    })
    out.push(`${resource}/${name}`)
  }
  return out
}

/** A pod that is not ready, and what its containers or the scheduler say about it. */
function pending(pod: KubeObject): string {
  type Said = { reason?: string; message?: string }
  const statuses = (pod.status?.containerStatuses ?? []) as { state?: { waiting?: Said; terminated?: Said } }[]
  const scheduled: Said | undefined = condition(pod, 'PodScheduled')
  const states = [...statuses.map(({ state }) => state?.waiting ?? state?.terminated), scheduled]
  const words = states.map((each) => each?.message || each?.reason).filter(Boolean)
  return words.length === 0 ? keyOfObject(pod) : `${keyOfObject(pod)} (${[...new Set(words)].join('; ')})`
}

interface EndedState {
  readonly terminated?: { readonly reason?: string; readonly message?: string }
}

/** Throws for a container whose program cannot be executed: trying again changes nothing. */
function refuseUnstartable(pods: readonly KubeObject[]): void {
  for (const pod of pods) {
    const { initContainerStatuses = [], containerStatuses = [] } = pod.status ?? {}
    type Status = { name: string; state?: EndedState; lastState?: EndedState }
    for (const { name, state, lastState } of [...initContainerStatuses, ...containerStatuses] as Status[]) {
      const ended = state?.terminated ?? lastState?.terminated
      if (ended?.reason !== 'StartError') continue
      throw new Error(`pod ${keyOfObject(pod)}: container ${name} cannot be started (StartError): ${ended.message}`)
    }
  }
}

/** Waits until every chosen pod is ready or has finished; not for one that cannot start. */
async function waitPods(daemon: LabDaemon, namespace: string, labelSelector?: string) {
  await daemon.started
  const done = (pod: KubeObject) =>
    condition(pod, 'Ready')?.status === 'True' || ['Succeeded', 'Failed'].includes(pod.status?.phase)
  await waitFor(
    daemon,
    'pods',
    { namespace, ...(labelSelector ? { labelSelector } : {}) },
    (pods) => {
      refuseUnstartable(pods)
      return pods.length > 0 && pods.every(done)
    },
    READY_TIMEOUT_MS,
    (pods) =>
      `pods are not ready: ${
        pods
          .filter((pod) => !done(pod))
          .map(pending)
          .join(', ') || 'none exist'
      }`,
  )
  const { items } = await daemon.client.list('pods', { namespace, ...(labelSelector ? { labelSelector } : {}) })
  return items.map((pod) => ({
    name: pod.metadata.name,
    namespace: pod.metadata.namespace,
    node: pod.spec?.nodeName,
    phase: pod.status?.phase,
    ips: ((pod.status?.podIPs ?? []) as { ip: string }[]).map(({ ip }) => ip),
  }))
}
