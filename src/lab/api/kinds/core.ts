/**
 * Kinds of the core group besides Pods and Services: Nodes, Namespaces, ConfigMaps, Secrets, ServiceAccounts,
 * Endpoints.
 * Sources: Kubernetes API reference, v1 core.
 */
import { isDeepStrictEqual } from 'node:util'
import { type FieldProblem, problem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Schema } from '../schema/schema.ts'
import { ageColumn, type Column, count, defineKind, type Kind, text, wide } from './kind.ts'

// biome-ignore lint/suspicious/noExplicitAny: shape is checked against the schema before it comes here
type Json = any

const cidrPattern = /^[0-9a-fA-F:.]+\/\d{1,3}$/

function prepareNode(node: KubeObject): void {
  node.spec ??= {}
  node.status ??= {}
  const { spec } = node
  if (spec.podCIDR && !spec.podCIDRs?.length) spec.podCIDRs = [spec.podCIDR]
  if (!spec.podCIDR && spec.podCIDRs?.length) spec.podCIDR = spec.podCIDRs[0]
}

function validateNode(node: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const problems: FieldProblem[] = []
  const cidrs: string[] = node.spec.podCIDRs ?? []
  for (const [n, cidr] of cidrs.entries())
    if (!cidrPattern.test(cidr)) problems.push(problem.invalid(`spec.podCIDRs[${n}]`, cidr, 'must be a valid CIDR'))
  if (cidrs.length && node.spec.podCIDR !== cidrs[0])
    problems.push(problem.invalid('spec.podCIDR', node.spec.podCIDR, 'must match podCIDRs[0]'))
  if (cidrs.length > 2) problems.push(problem.invalid('spec.podCIDRs', cidrs, 'may hold no more than one per family'))
  if (old?.spec?.podCIDRs?.length && !isDeepStrictEqual(old.spec.podCIDRs, cidrs))
    problems.push(problem.forbidden('spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid'))
  if (old?.spec?.providerID && old.spec.providerID !== node.spec.providerID)
    problems.push(
      problem.forbidden('spec.providerID', 'node updates may not change providerID except from "" to valid'),
    )
  for (const [n, taint] of (node.spec.taints ?? []).entries()) {
    const effects = ['NoSchedule', 'PreferNoSchedule', 'NoExecute']
    if (!taint.key) problems.push(problem.required(`spec.taints[${n}].key`))
    if (!effects.includes(taint.effect))
      problems.push(problem.unsupported(`spec.taints[${n}].effect`, taint.effect, effects))
  }
  return problems
}

function nodeStatus(node: KubeObject): string {
  const ready = node.status?.conditions?.find((c: Json) => c.type === 'Ready')
  const words = [ready ? (ready.status === 'True' ? 'Ready' : 'NotReady') : 'Unknown']
  if (node.spec?.unschedulable) words.push('SchedulingDisabled')
  return words.join(',')
}

function nodeRoles(node: KubeObject): string {
  const roles = new Set<string>()
  for (const [key, value] of Object.entries(node.metadata.labels ?? {})) {
    const role = /^node-role\.kubernetes\.io\/(.+)$/.exec(key)?.[1] ?? (key === 'kubernetes.io/role' ? value : '')
    if (role) roles.add(role)
  }
  return [...roles].sort().join(',') || '<none>'
}

const address = (type: string) => (node: KubeObject) =>
  node.status?.addresses?.find((a: Json) => a.type === type)?.address ?? '<none>'
const info = (key: string) => (node: KubeObject) => node.status?.nodeInfo?.[key] || '<unknown>'

const nodeColumns: readonly Column[] = [
  text('Status', 'Whether the node is ready and takes pods.', nodeStatus),
  text('Roles', 'Roles from the labels.', nodeRoles),
  ageColumn,
  text('Version', 'Version of the kubelet.', (node) => node.status?.nodeInfo?.kubeletVersion ?? ''),
  wide('Internal-IP', 'First internal address.', address('InternalIP')),
  wide('External-IP', 'First external address.', address('ExternalIP')),
  wide('OS-Image', 'Operating system.', info('osImage')),
  wide('Kernel-Version', 'Kernel release.', info('kernelVersion')),
  wide('Container-Runtime', 'What runs the containers.', info('containerRuntimeVersion')),
]

function prepareNamespace(namespace: KubeObject, old: KubeObject | undefined): void {
  namespace.metadata.labels = { ...namespace.metadata.labels, 'kubernetes.io/metadata.name': namespace.metadata.name! }
  if (old) {
    namespace.spec ??= old.spec
    return
  }
  namespace.spec = { finalizers: ['kubernetes'] }
  namespace.status = { phase: 'Active' }
}

function prepareSecret(secret: KubeObject): void {
  secret.type ??= 'Opaque'
  if (!secret.stringData) return
  secret.data ??= {}
  for (const [key, value] of Object.entries(secret.stringData))
    secret.data[key] = Buffer.from(String(value)).toString('base64')
  delete secret.stringData
}

const keyPattern = /^[-._a-zA-Z0-9]{1,253}$/
/** Bytes that a ConfigMap or Secret may hold. */
const contentLimit = 1024 * 1024

function validateContent(object: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const problems: FieldProblem[] = []
  let bytes = 0
  for (const part of ['data', 'binaryData'])
    for (const [key, value] of Object.entries((object[part] ?? {}) as Record<string, string>)) {
      if (!keyPattern.test(key))
        problems.push(
          problem.invalid(
            `${part}[${key}]`,
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
          ),
        )
      bytes += value.length
      const encoded = part === 'binaryData' || object.kind === 'Secret'
      if (encoded && Buffer.from(value, 'base64').toString('base64') !== value.replace(/\s/g, ''))
        problems.push(problem.invalid(`${part}[${key}]`, '<contents>', 'illegal base64 data'))
    }
  if (bytes > contentLimit)
    problems.push({
      reason: 'FieldValueTooLong',
      field: 'data',
      message: `Too long: may not be more than ${contentLimit} bytes`,
    })
  if (old?.immutable) {
    if (!object.immutable) problems.push(problem.forbidden('immutable', 'field is immutable when `immutable` is set'))
    if (!isDeepStrictEqual([old.data, old.binaryData], [object.data, object.binaryData]))
      problems.push(problem.forbidden('data', 'field is immutable when `immutable` is set'))
  }
  if (old && object.kind === 'Secret' && old.type !== object.type)
    problems.push(problem.invalid('type', object.type, 'field is immutable'))
  return problems
}

const entries = (object: KubeObject): number =>
  Object.keys(object.data ?? {}).length + Object.keys(object.binaryData ?? {}).length

function endpointsText(object: KubeObject): string {
  const shown: string[] = []
  let total = 0
  for (const subset of object.subsets ?? [])
    for (const port of subset.ports?.length ? subset.ports : [undefined])
      for (const { ip } of subset.addresses ?? []) {
        total++
        if (shown.length < 3) shown.push(port ? `${ip.includes(':') ? `[${ip}]` : ip}:${port.port}` : ip)
      }
  if (total === 0) return '<none>'
  return total > 3 ? `${shown.join(',')} + ${total - 3} more...` : shown.join(',')
}

export const coreKinds = (model: (name: string) => Schema): Kind[] => {
  const core = { group: '', version: 'v1' }
  return [
    defineKind({
      ...core,
      kind: 'Node',
      plural: 'nodes',
      shortNames: ['no'],
      namespaced: false,
      status: true,
      schema: model('V1Node'),
      selectable: ['spec.unschedulable'],
      columns: nodeColumns,
      prepare: prepareNode,
      validate: validateNode,
    }),
    defineKind({
      ...core,
      kind: 'Namespace',
      plural: 'namespaces',
      shortNames: ['ns'],
      namespaced: false,
      status: true,
      nameForm: 'label',
      schema: model('V1Namespace'),
      selectable: ['status.phase'],
      columns: [text('Status', 'Phase of the namespace.', (o) => o.status?.phase ?? ''), ageColumn],
      admit: prepareNamespace,
    }),
    defineKind({
      ...core,
      kind: 'ConfigMap',
      plural: 'configmaps',
      shortNames: ['cm'],
      schema: model('V1ConfigMap'),
      columns: [count('Data', 'Number of keys.', entries), ageColumn],
      validate: validateContent,
    }),
    defineKind({
      ...core,
      kind: 'Secret',
      plural: 'secrets',
      schema: model('V1Secret'),
      selectable: ['type'],
      columns: [
        text('Type', 'What it is for.', (o) => o.type ?? ''),
        count('Data', 'Number of keys.', entries),
        ageColumn,
      ],
      prepare: prepareSecret,
      validate: validateContent,
    }),
    defineKind({
      ...core,
      kind: 'ServiceAccount',
      plural: 'serviceaccounts',
      shortNames: ['sa'],
      schema: model('V1ServiceAccount'),
      columns: [count('Secrets', 'Number of secrets.', (o) => o.secrets?.length ?? 0), ageColumn],
    }),
    defineKind({
      ...core,
      kind: 'Endpoints',
      plural: 'endpoints',
      singular: 'endpoints',
      shortNames: ['ep'],
      schema: model('V1Endpoints'),
      columns: [text('Endpoints', 'Addresses and ports.', endpointsText), ageColumn],
    }),
  ]
}
