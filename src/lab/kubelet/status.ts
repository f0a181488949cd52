/**
 * From what a node knows of a pod to the status that the API shows: phase, conditions, container states.
 * Pure over its arguments.
 *
 * Sources: Kubernetes documentation, "Pod Lifecycle"; core/v1 PodStatus.
 */
import type { ContainerSpec, Pod, PodCondition } from './pod-spec.ts'
import type { ContainerRecord, EndedRun, PodRecord } from './record.ts'

/** What is known now and not on disk. */
export interface LiveFacts {
  readonly hostIps: readonly string[]
  /** Containers that answer their readiness probe, or run and have none. */
  readonly ready: ReadonlySet<string>
  readonly started: ReadonlySet<string>
  /** Why a container that should run does not, by name. */
  readonly waiting: ReadonlyMap<string, { readonly reason: string; readonly message?: string }>
  /** The pod is being deleted. */
  readonly terminating: boolean
}

export const isRunning = (record: ContainerRecord | undefined): boolean =>
  record?.process !== undefined && record.ended === undefined

const terminated = (run: EndedRun) => ({
  exitCode: run.exitCode,
  ...(run.signal ? { signal: run.signal } : {}),
  reason: run.reason,
  ...(run.message ? { message: run.message } : {}),
  startedAt: run.startedAt,
  finishedAt: run.finishedAt,
  containerID: run.containerId,
})

function containerStatus(spec: ContainerSpec, record: ContainerRecord | undefined, facts: LiveFacts) {
  const waiting = facts.waiting.get(spec.name)
  const state = isRunning(record)
    ? { running: { startedAt: record!.startedAt } }
    : record?.ended && !waiting
      ? { terminated: terminated(record.ended) }
      : { waiting: waiting ?? { reason: 'ContainerCreating' } }
  const last = isRunning(record) || !waiting ? record?.last : (record?.ended ?? record?.last)
  return {
    name: spec.name,
    image: spec.image ?? '',
    imageID: '',
    ready: facts.ready.has(spec.name),
    started: facts.started.has(spec.name),
    restartCount: record?.restartCount ?? 0,
    state,
    lastState: last ? { terminated: terminated(last) } : {},
    ...(record?.containerId ? { containerID: record.containerId } : {}),
  }
}

/** Pending, Running, Succeeded or Failed, by the rules of the pod's restart policy. */
export function phaseOf(pod: Pod, record: PodRecord): 'Pending' | 'Running' | 'Succeeded' | 'Failed' {
  const policy = pod.spec.restartPolicy ?? 'Always'
  const inits = (pod.spec.initContainers ?? []).map((c) => record.containers[c.name])
  const mains = pod.spec.containers.map((c) => record.containers[c.name])
  if (policy === 'Never' && inits.some((r) => r?.ended && r.ended.exitCode !== 0)) return 'Failed'
  const ended = mains.every((r) => r?.ended !== undefined)
  if (ended && policy !== 'Always') {
    if (mains.every((r) => r!.ended!.exitCode === 0)) return 'Succeeded'
    if (policy === 'Never') return 'Failed'
  }
  return mains.some((r) => r?.startedAt !== undefined) ? 'Running' : 'Pending'
}

/** The status to write. `now` is RFC 3339; a condition keeps its time while its status stays. */
export function podStatus(pod: Pod, record: PodRecord, facts: LiveFacts, now: string) {
  const phase = phaseOf(pod, record)
  const done = phase === 'Succeeded' || phase === 'Failed'
  const inits = pod.spec.initContainers ?? []
  const initialized = inits.every((c) => record.containers[c.name]?.ended?.exitCode === 0)
  const notReady = pod.spec.containers.filter((c) => !facts.ready.has(c.name)).map((c) => c.name)
  const before = pod.status?.conditions ?? []
  const condition = (type: string, holds: boolean, reason?: string, message?: string): PodCondition => {
    const status = holds ? 'True' : 'False'
    const old = before.find((each) => each.type === type)
    return {
      type,
      status,
      ...(holds || !reason ? {} : { reason }),
      ...(holds || !message ? {} : { message }),
      lastProbeTime: null,
      lastTransitionTime: old?.status === status && old.lastTransitionTime ? old.lastTransitionTime : now,
    }
  }
  const why = done ? 'PodCompleted' : 'ContainersNotReady'
  const message = done ? undefined : `containers with unready status: [${notReady.join(' ')}]`
  const readyNow = !done && notReady.length === 0
  const ours = [
    condition('PodReadyToStartContainers', record.sandbox === 'ready'),
    condition('Initialized', initialized, 'ContainersNotInitialized'),
    condition('Ready', readyNow, why, message),
    condition('ContainersReady', readyNow, why, message),
  ]
  const kept = before.filter((each) => !ours.some(({ type }) => type === each.type))
  return {
    phase,
    conditions: [...kept, ...ours],
    hostIP: facts.hostIps[0] ?? '',
    hostIPs: facts.hostIps.map((ip) => ({ ip })),
    ...(record.ips.length > 0 ? { podIP: record.ips[0], podIPs: record.ips.map((ip) => ({ ip })) } : {}),
    startTime: record.startedAt,
    ...(inits.length > 0
      ? { initContainerStatuses: inits.map((c) => containerStatus(c, record.containers[c.name], facts)) }
      : {}),
    containerStatuses: pod.spec.containers.map((c) => containerStatus(c, record.containers[c.name], facts)),
    qosClass: 'BestEffort',
  }
}
