/**
 * The workload kinds of apps/v1: Deployments, ReplicaSets, DaemonSets, StatefulSets, ControllerRevisions.
 * Sources: Kubernetes API reference, apps/v1.
 */
import { isDeepStrictEqual } from 'node:util'
import { type FieldProblem, problem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Schema } from '../schema/schema.ts'
import { formatSelector, matchesSelector } from '../selectors.ts'
import { ageColumn, type Column, defineKind, fill, type Kind, type ScalePaths, text, wide } from './kind.ts'
import { validateLabels } from './names.ts'
import { defaultPodSpec, validatePodSpec } from './pod-spec.ts'
import { replicaCount, templateColumns } from './pods.ts'

function validateWorkload(object: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const { spec } = object
  const problems: FieldProblem[] = []
  if (!spec?.selector) problems.push(problem.required('spec.selector'))
  else if (!Object.keys(spec.selector.matchLabels ?? {}).length && !spec.selector.matchExpressions?.length)
    problems.push(
      problem.invalid('spec.selector', spec.selector, `empty selector is invalid for ${object.kind?.toLowerCase()}`),
    )
  const labels = spec?.template?.metadata?.labels
  problems.push(...validateLabels(labels, 'spec.template.labels'))
  if (spec?.selector && !matchesSelector(spec.selector, labels))
    problems.push(
      problem.invalid('spec.template.metadata.labels', labels ?? {}, '`selector` does not match template `labels`'),
    )
  if (spec?.replicas < 0)
    problems.push(problem.invalid('spec.replicas', spec.replicas, 'must be greater than or equal to 0'))
  problems.push(...validatePodSpec(spec?.template?.spec ?? {}, 'spec.template.spec'))
  const policy = spec?.template?.spec?.restartPolicy
  if (policy && policy !== 'Always')
    problems.push(problem.unsupported('spec.template.spec.restartPolicy', policy, ['Always']))
  if (old && !isDeepStrictEqual(old.spec?.selector, spec?.selector))
    problems.push(problem.invalid('spec.selector', spec?.selector, 'field is immutable'))
  return problems
}

const prepareWith =
  (defaults: Record<string, unknown>, more?: (spec: KubeObject['spec']) => void) =>
  (object: KubeObject): void => {
    if (!object.spec) return
    fill(object.spec, defaults)
    more?.(object.spec)
    if (object.spec.template?.spec) defaultPodSpec(object.spec.template.spec)
  }

const scale: ScalePaths = {
  specReplicas: 'spec.replicas',
  statusReplicas: 'status.replicas',
  selector: 'spec.selector',
}
const selectorColumn: Column = wide('Selector', 'Which pods belong to it.', (o) => formatSelector(o.spec?.selector))
const ready: Column = text(
  'Ready',
  'Ready pods of wanted pods.',
  (o) => `${o.status?.readyReplicas ?? 0}/${o.spec?.replicas ?? 0}`,
)

function nodeSelectorText(object: KubeObject): string {
  const entries = Object.entries(object.spec?.template?.spec?.nodeSelector ?? {})
  return entries.map(([key, value]) => `${key}=${value}`).join(',') || '<none>'
}

const daemonColumns: readonly Column[] = [
  replicaCount('Desired', 'Nodes that should run a pod.', (o) => o.status?.desiredNumberScheduled),
  replicaCount('Current', 'Nodes that run a pod.', (o) => o.status?.currentNumberScheduled),
  replicaCount('Ready', 'Nodes whose pod is ready.', (o) => o.status?.numberReady),
  replicaCount('Up-to-date', 'Nodes whose pod follows the current template.', (o) => o.status?.updatedNumberScheduled),
  replicaCount('Available', 'Nodes whose pod is available.', (o) => o.status?.numberAvailable),
  text('Node Selector', 'Which nodes run a pod.', nodeSelectorText),
  ageColumn,
  ...templateColumns,
  selectorColumn,
]

const rollingUpdate = (spec: KubeObject['spec'], key: string, defaults: Record<string, unknown>): void => {
  spec[key] ??= {}
  fill(spec[key], { type: 'RollingUpdate' })
  if (spec[key].type !== 'RollingUpdate') return
  spec[key].rollingUpdate ??= {}
  fill(spec[key].rollingUpdate, defaults)
}

export const workloadKinds = (model: (name: string) => Schema): Kind[] => {
  const apps = { group: 'apps', version: 'v1', status: true, categories: ['all'], validate: validateWorkload }
  return [
    defineKind({
      ...apps,
      kind: 'Deployment',
      plural: 'deployments',
      shortNames: ['deploy'],
      schema: model('V1Deployment'),
      scale,
      columns: [
        ready,
        replicaCount('Up-to-date', 'Pods that follow the current template.', (o) => o.status?.updatedReplicas),
        replicaCount('Available', 'Pods that are available.', (o) => o.status?.availableReplicas),
        ageColumn,
        ...templateColumns,
        selectorColumn,
      ],
      prepare: prepareWith({ replicas: 1, revisionHistoryLimit: 10, progressDeadlineSeconds: 600 }, (spec) =>
        rollingUpdate(spec, 'strategy', { maxSurge: '25%', maxUnavailable: '25%' }),
      ),
    }),
    defineKind({
      ...apps,
      kind: 'ReplicaSet',
      plural: 'replicasets',
      shortNames: ['rs'],
      schema: model('V1ReplicaSet'),
      scale,
      selectable: ['status.replicas'],
      columns: [
        replicaCount('Desired', 'Wanted pods.', (o) => o.spec?.replicas),
        replicaCount('Current', 'Existing pods.', (o) => o.status?.replicas),
        replicaCount('Ready', 'Ready pods.', (o) => o.status?.readyReplicas),
        ageColumn,
        ...templateColumns,
        selectorColumn,
      ],
      prepare: prepareWith({ replicas: 1 }),
    }),
    defineKind({
      ...apps,
      kind: 'DaemonSet',
      plural: 'daemonsets',
      shortNames: ['ds'],
      schema: model('V1DaemonSet'),
      columns: daemonColumns,
      prepare: prepareWith({ revisionHistoryLimit: 10 }, (spec) =>
        rollingUpdate(spec, 'updateStrategy', { maxSurge: 0, maxUnavailable: 1 }),
      ),
    }),
    defineKind({
      ...apps,
      kind: 'StatefulSet',
      plural: 'statefulsets',
      shortNames: ['sts'],
      schema: model('V1StatefulSet'),
      scale,
      columns: [ready, ageColumn, ...templateColumns],
      prepare: prepareWith({ replicas: 1, revisionHistoryLimit: 10, podManagementPolicy: 'OrderedReady' }, (spec) =>
        rollingUpdate(spec, 'updateStrategy', { partition: 0 }),
      ),
    }),
    defineKind({
      group: 'apps',
      version: 'v1',
      kind: 'ControllerRevision',
      plural: 'controllerrevisions',
      schema: model('V1ControllerRevision'),
      columns: [
        text('Controller', 'Whose revision it is.', (o) => {
          const owner = o.metadata.ownerReferences?.find((reference) => reference.controller)
          return owner ? `${owner.kind.toLowerCase()}/${owner.name}` : '<none>'
        }),
        replicaCount('Revision', 'Number of the revision.', (o) => o.revision),
        ageColumn,
      ],
    }),
  ]
}
