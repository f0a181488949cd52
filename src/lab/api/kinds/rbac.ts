/**
 * RBAC kinds: their shape, columns and rules. What they allow is decided in access/.
 * Sources: Kubernetes API reference, rbac.authorization.k8s.io/v1.
 */
import { type FieldProblem, problem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Schema } from '../schema/schema.ts'
import { ageColumn, type Column, createdColumn, defineKind, type Kind, text, wide } from './kind.ts'

const subjects = (kind: string) => (object: KubeObject) =>
  (object.subjects ?? [])
    .filter((subject: { kind: string }) => subject.kind === kind)
    .map((subject: { name: string; namespace?: string }) =>
      subject.namespace ? `${subject.namespace}/${subject.name}` : subject.name,
    )
    .join(', ')

const bindingColumns: readonly Column[] = [
  text('Role', 'Role that is given.', (o) => `${o.roleRef?.kind ?? ''}/${o.roleRef?.name ?? ''}`),
  ageColumn,
  wide('Users', 'Users that get the role.', subjects('User')),
  wide('Groups', 'Groups that get the role.', subjects('Group')),
  wide('ServiceAccounts', 'Service accounts that get the role.', subjects('ServiceAccount')),
]

function validateBinding(object: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const problems: FieldProblem[] = []
  if (!object.roleRef?.name) problems.push(problem.required('roleRef.name'))
  if (old && (old.roleRef?.name !== object.roleRef?.name || old.roleRef?.kind !== object.roleRef?.kind))
    problems.push(problem.invalid('roleRef', object.roleRef, 'cannot change roleRef'))
  return problems
}

function prepareBinding(object: KubeObject): void {
  if (object.roleRef) object.roleRef.apiGroup ??= 'rbac.authorization.k8s.io'
  for (const subject of object.subjects ?? [])
    if (subject.kind !== 'ServiceAccount') subject.apiGroup ??= 'rbac.authorization.k8s.io'
}

export const rbacKinds = (model: (name: string) => Schema): Kind[] => {
  const rbac = { group: 'rbac.authorization.k8s.io', version: 'v1', nameForm: 'path' as const }
  const binding = { ...rbac, columns: bindingColumns, prepare: prepareBinding, validate: validateBinding }
  return [
    defineKind({ ...rbac, kind: 'Role', plural: 'roles', schema: model('V1Role'), columns: [createdColumn] }),
    defineKind({ ...binding, kind: 'RoleBinding', plural: 'rolebindings', schema: model('V1RoleBinding') }),
    defineKind({
      ...rbac,
      kind: 'ClusterRole',
      plural: 'clusterroles',
      namespaced: false,
      schema: model('V1ClusterRole'),
      columns: [createdColumn],
    }),
    defineKind({
      ...binding,
      kind: 'ClusterRoleBinding',
      plural: 'clusterrolebindings',
      namespaced: false,
      schema: model('V1ClusterRoleBinding'),
    }),
  ]
}
