/**
 * Pods: defaults, what may change after creation, and kubectl's columns.
 * Sources: Kubernetes API reference, Pod v1 core; documentation, "Pod Lifecycle".
 */
import { isDeepStrictEqual } from 'node:util'
import { type FieldProblem, problem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Schema } from '../schema/schema.ts'
import { ageColumn, ageOf, type Column, count, defineKind, type Kind, text, wide } from './kind.ts'
import { containersOf, defaultPodSpec, validatePodSpec } from './pod-spec.ts'

// biome-ignore lint/suspicious/noExplicitAny: shape is checked against the schema before it comes here
type Json = any

function qosClass(spec: Json): string {
  let guaranteed = true
  let any = false
  for (const container of [...(spec.initContainers ?? []), ...spec.containers]) {
    const { limits = {}, requests = {} } = container.resources ?? {}
    for (const name of ['cpu', 'memory']) {
      if (limits[name] !== undefined || requests[name] !== undefined) any = true
      if (limits[name] === undefined || String(limits[name]) !== String(requests[name] ?? limits[name]))
        guaranteed = false
    }
  }
  return any ? (guaranteed ? 'Guaranteed' : 'Burstable') : 'BestEffort'
}

function prepare(pod: KubeObject): void {
  if (!pod.spec) return
  defaultPodSpec(pod.spec)
  pod.spec.enableServiceLinks ??= true
}

function admit(pod: KubeObject, old: KubeObject | undefined): void {
  if (!pod.spec || old) return
  const { spec } = pod
  spec.serviceAccountName ||= 'default'
  spec.serviceAccount ??= spec.serviceAccountName
  spec.priority ??= 0
  spec.preemptionPolicy ??= 'PreemptLowerPriority'
  spec.tolerations ??= []
  const tolerations: Json[] = spec.tolerations
  for (const key of ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'])
    if (!tolerations.some((t) => (t.key === key || !t.key) && (!t.effect || t.effect === 'NoExecute')))
      tolerations.push({ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 })
  pod.status = { ...pod.status, phase: pod.status?.phase ?? 'Pending', qosClass: qosClass({ containers: [], ...spec }) }
}

/** A running pod's spec may change in a few places only. */
function withoutMutable(spec: Json): Json {
  const {
    activeDeadlineSeconds,
    terminationGracePeriodSeconds,
    tolerations,
    ephemeralContainers,
    schedulingGates,
    ...rest
  } = structuredClone(spec)
  for (const container of containersOf(rest)) {
    delete container.image
    delete container.imagePullPolicy
  }
  return rest
}

function validate(pod: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const problems = validatePodSpec(pod.spec, 'spec')
  if (old && !isDeepStrictEqual(withoutMutable(pod.spec), withoutMutable(old.spec)))
    problems.push(
      problem.forbidden(
        'spec',
        'pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)',
      ),
    )
  return problems
}

const conditionTrue = (pod: KubeObject, type: string): boolean =>
  pod.status?.conditions?.some((c: Json) => c.type === type && c.status === 'True') ?? false

const signalOrExit = (terminated: Json): string =>
  terminated.signal ? `Signal:${terminated.signal}` : `ExitCode:${terminated.exitCode}`

/** What the Status column shows: the phase, or why the pod is not further. */
export function podStatus(pod: KubeObject): string {
  const status = pod.status ?? {}
  let reason: string = status.reason || status.phase || 'Unknown'
  const gates = pod.spec?.schedulingGates?.length ? 'SchedulingGated' : undefined
  if (gates) reason = gates
  const restartable = new Set(
    (pod.spec?.initContainers ?? []).filter((c: Json) => c.restartPolicy === 'Always').map((c: Json) => c.name),
  )
  let initializing = false
  for (const [n, container] of (status.initContainerStatuses ?? []).entries()) {
    const { terminated, waiting } = container.state ?? {}
    if (terminated?.exitCode === 0 || (restartable.has(container.name) && container.started)) continue
    if (terminated) reason = `Init:${terminated.reason || signalOrExit(terminated)}`
    else if (waiting?.reason && waiting.reason !== 'PodInitializing') reason = `Init:${waiting.reason}`
    else reason = `Init:${n}/${pod.spec.initContainers?.length ?? 0}`
    initializing = true
    break
  }
  if (!initializing) {
    let running = false
    for (const container of [...(status.containerStatuses ?? [])].reverse()) {
      const { terminated, waiting } = container.state ?? {}
      if (waiting?.reason) reason = waiting.reason
      else if (terminated) reason = terminated.reason || signalOrExit(terminated)
      else if (container.ready && container.state?.running) running = true
    }
    if (reason === 'Completed' && running) reason = conditionTrue(pod, 'Ready') ? 'Running' : 'NotReady'
  }
  if (pod.metadata.deletionTimestamp) {
    if (status.reason === 'NodeLost') return 'Unknown'
    if (status.phase !== 'Succeeded' && status.phase !== 'Failed') return 'Terminating'
  }
  return reason
}

function restarts(pod: KubeObject, now: number): string {
  let total = 0
  let last = 0
  for (const container of pod.status?.containerStatuses ?? []) {
    total += container.restartCount ?? 0
    last = Math.max(last, Date.parse(container.lastState?.terminated?.finishedAt ?? '') || 0)
  }
  return total > 0 && last > 0 ? `${total} (${ageOf(new Date(last).toISOString(), now)} ago)` : String(total)
}

function readiness(pod: KubeObject): string {
  const statuses: Json[] = pod.status?.containerStatuses ?? []
  return `${statuses.filter((c) => c.ready && c.state?.running).length}/${pod.spec?.containers?.length ?? 0}`
}

function gates(pod: KubeObject): string {
  const wanted: Json[] = pod.spec?.readinessGates ?? []
  return wanted.length
    ? `${wanted.filter((g) => conditionTrue(pod, g.conditionType)).length}/${wanted.length}`
    : '<none>'
}

const podColumns: readonly Column[] = [
  text('Ready', 'Ready containers of all containers.', readiness),
  text('Status', 'Phase of the pod, or what holds it up.', podStatus),
  text('Restarts', 'How often containers were restarted, and when last.', restarts),
  ageColumn,
  wide('IP', 'First address of the pod.', (pod) => pod.status?.podIPs?.[0]?.ip ?? (pod.status?.podIP || '<none>')),
  wide('Node', 'Node that the pod runs on.', (pod) => pod.spec?.nodeName || '<none>'),
  wide('Nominated Node', 'Node that is being cleared for the pod.', (pod) => pod.status?.nominatedNodeName || '<none>'),
  wide('Readiness Gates', 'Fulfilled gates of all gates.', gates),
]

/** Columns Containers and Images of workload kinds. */
export const templateColumns: readonly Column[] = [
  wide('Containers', 'Names of the containers in the template.', (o) =>
    (o.spec?.template?.spec?.containers ?? []).map((c: Json) => c.name).join(','),
  ),
  wide('Images', 'Images of the containers in the template.', (o) =>
    (o.spec?.template?.spec?.containers ?? []).map((c: Json) => c.image).join(','),
  ),
]

export const replicaCount = (name: string, description: string, of: (object: KubeObject) => unknown): Column =>
  count(name, description, (object) => Number(of(object) ?? 0))

export const podKinds = (model: (name: string) => Schema): Kind[] => [
  defineKind({
    group: '',
    version: 'v1',
    kind: 'Pod',
    plural: 'pods',
    shortNames: ['po'],
    categories: ['all'],
    schema: model('V1Pod'),
    status: true,
    selectable: [
      'spec.nodeName',
      'spec.restartPolicy',
      'spec.schedulerName',
      'spec.serviceAccountName',
      'spec.hostNetwork',
      'status.phase',
      'status.podIP',
      'status.nominatedNodeName',
    ],
    columns: podColumns,
    prepare,
    admit,
    validate,
  }),
]
