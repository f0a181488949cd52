/**
 * Forms of names, labels and annotations.
 * Sources: Kubernetes documentation, "Object Names and IDs", "Labels and Selectors"; RFC 1123.
 */
import { type FieldProblem, problem } from '../api-error.ts'
import type { ObjectMeta } from '../interfaces.ts'

export const labelPattern = /^(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
export const labelText =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
export const namePattern = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
export const nameText =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"

const qualifiedName = /^(?:([^/]{1,253})\/)?([A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)$/
const labelValue = /^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/
/** Bytes of all annotations together. */
const annotationLimit = 256 * 1024

const validKey = (key: string): boolean => {
  const match = qualifiedName.exec(key)
  return match !== null && (match[1] === undefined || namePattern.test(match[1]))
}
const keyText =
  "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
const valueText =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"

export function validateLabels(labels: Record<string, string> | undefined, path: string): FieldProblem[] {
  const problems: FieldProblem[] = []
  for (const [key, value] of Object.entries(labels ?? {})) {
    if (!validKey(key)) problems.push(problem.invalid(path, key, keyText))
    if (!labelValue.test(value)) problems.push(problem.invalid(path, value, valueText))
  }
  return problems
}

/** What holds for the metadata of every kind. */
export function validateMetadata(
  metadata: ObjectMeta,
  namespaced: boolean,
  form: 'label' | 'path' | 'subdomain',
): FieldProblem[] {
  const problems: FieldProblem[] = []
  const { name } = metadata
  if (!name) problems.push(problem.required('metadata.name', 'name or generateName is required'))
  else if (form === 'label' && !labelPattern.test(name))
    problems.push(problem.invalid('metadata.name', name, labelText))
  else if (form === 'path' && (name === '.' || name === '..' || /[/%\0]/.test(name) || name.length > 253))
    problems.push(problem.invalid('metadata.name', name, "may not be '.' or '..' or contain '/' or '%'"))
  else if (form === 'subdomain' && !namePattern.test(name))
    problems.push(problem.invalid('metadata.name', name, nameText))
  if (namespaced && !metadata.namespace) problems.push(problem.required('metadata.namespace'))
  problems.push(...validateLabels(metadata.labels, 'metadata.labels'))
  let annotationBytes = 0
  for (const [key, value] of Object.entries(metadata.annotations ?? {})) {
    if (!validKey(key.toLowerCase())) problems.push(problem.invalid('metadata.annotations', key, keyText))
    annotationBytes += Buffer.byteLength(key) + Buffer.byteLength(value)
  }
  if (annotationBytes > annotationLimit)
    problems.push({
      reason: 'FieldValueTooLong',
      field: 'metadata.annotations',
      message: `Too long: may not be more than ${annotationLimit} bytes`,
    })
  for (const [n, owner] of (metadata.ownerReferences ?? []).entries())
    for (const key of ['apiVersion', 'kind', 'name', 'uid'] as const)
      if (!owner[key]) problems.push(problem.required(`metadata.ownerReferences[${n}].${key}`))
  for (const [n, finalizer] of (metadata.finalizers ?? []).entries())
    if (!validKey(finalizer)) problems.push(problem.invalid(`metadata.finalizers[${n}]`, finalizer, keyText))
  return problems
}
