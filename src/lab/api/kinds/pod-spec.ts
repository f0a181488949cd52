/**
 * Defaults and rules of PodSpec, shared by Pods and by the templates of the workload kinds.
 * Sources: Kubernetes API reference, PodSpec v1 core.
 */
import { isIP } from 'node:net'
import { type FieldProblem, problem } from '../api-error.ts'
import { fill } from './kind.ts'
import { labelPattern, labelText, namePattern, nameText } from './names.ts'

// biome-ignore lint/suspicious/noExplicitAny: shape is checked against the schema before it comes here
type Json = any

function defaultProbe(probe: Json): void {
  if (!probe) return
  fill(probe, { timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 })
  fill(probe.httpGet, { path: '/', scheme: 'HTTP' })
  fill(probe.grpc, { service: '' })
}

function defaultContainer(container: Json): void {
  const image: string = container.image ?? ''
  const tag = /:([^/:@]+)$/.exec(image)?.[1]
  const latest = !image.includes('@') && (tag === undefined || tag === 'latest')
  fill(container, {
    imagePullPolicy: latest ? 'Always' : 'IfNotPresent',
    resources: {},
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'File',
  })
  for (const port of container.ports ?? []) fill(port, { protocol: 'TCP' })
  for (const env of container.env ?? []) fill(env.valueFrom?.fieldRef, { apiVersion: 'v1' })
  for (const probe of ['livenessProbe', 'readinessProbe', 'startupProbe']) defaultProbe(container[probe])
  for (const hook of ['postStart', 'preStop']) fill(container.lifecycle?.[hook]?.httpGet, { path: '/', scheme: 'HTTP' })
  // Limits stand in for requests that are not given.
  const { limits } = container.resources
  if (limits) container.resources.requests = { ...limits, ...container.resources.requests }
}

export const containersOf = (spec: Json): Json[] => [
  ...(spec.initContainers ?? []),
  ...(spec.containers ?? []),
  ...(spec.ephemeralContainers ?? []),
]

export function defaultPodSpec(spec: Json): void {
  fill(spec, {
    restartPolicy: 'Always',
    dnsPolicy: 'ClusterFirst',
    terminationGracePeriodSeconds: 30,
    schedulerName: 'default-scheduler',
    securityContext: {},
  })
  if (spec.serviceAccountName && !spec.serviceAccount) spec.serviceAccount = spec.serviceAccountName
  if (spec.serviceAccount && !spec.serviceAccountName) spec.serviceAccountName = spec.serviceAccount
  for (const container of containersOf(spec)) defaultContainer(container)
  for (const volume of spec.volumes ?? []) {
    for (const source of ['configMap', 'secret', 'projected', 'downwardAPI']) fill(volume[source], { defaultMode: 420 })
    fill(volume.hostPath, { type: '' })
    const sources = Object.keys(volume).filter((key) => key !== 'name')
    if (sources.length === 0) volume.emptyDir = {}
  }
  if (spec.hostNetwork)
    for (const container of containersOf(spec))
      for (const port of container.ports ?? []) fill(port, { hostPort: port.containerPort })
}

const validPort = (port: unknown): boolean =>
  Number.isInteger(port) && (port as number) > 0 && (port as number) < 65_536
const portRange = 'must be between 1 and 65535, inclusive'

function validateProbe(probe: Json, path: string): FieldProblem[] {
  const problems: FieldProblem[] = []
  const handlers = ['exec', 'httpGet', 'tcpSocket', 'grpc'].filter((name) => probe[name])
  if (handlers.length === 0) problems.push(problem.required(path, 'must specify a handler type'))
  if (handlers.length > 1)
    problems.push(problem.forbidden(`${path}.${handlers[1]}`, 'may not specify more than 1 handler type'))
  if (probe.exec && !probe.exec.command?.length) problems.push(problem.required(`${path}.exec.command`))
  for (const name of ['httpGet', 'tcpSocket']) {
    const port = probe[name]?.port
    if (probe[name] && typeof port !== 'string' && !validPort(port))
      problems.push(problem.invalid(`${path}.${name}.port`, port ?? 0, portRange))
  }
  return problems
}

function validateContainer(container: Json, path: string, seen: Set<string>, volumes: Set<string>): FieldProblem[] {
  const problems: FieldProblem[] = []
  const { name } = container
  if (!name) problems.push(problem.required(`${path}.name`))
  else if (!labelPattern.test(name)) problems.push(problem.invalid(`${path}.name`, name, labelText))
  else if (seen.has(name)) problems.push(problem.duplicate(`${path}.name`, name))
  seen.add(name)
  if (!container.image) problems.push(problem.required(`${path}.image`))
  if (!['Always', 'IfNotPresent', 'Never'].includes(container.imagePullPolicy))
    problems.push(
      problem.unsupported(`${path}.imagePullPolicy`, container.imagePullPolicy, ['Always', 'IfNotPresent', 'Never']),
    )
  const portNames = new Set<string>()
  for (const [n, port] of (container.ports ?? []).entries()) {
    const at = `${path}.ports[${n}]`
    if (!validPort(port.containerPort))
      problems.push(problem.invalid(`${at}.containerPort`, port.containerPort ?? 0, portRange))
    if (port.hostPort !== undefined && port.hostPort !== 0 && !validPort(port.hostPort))
      problems.push(problem.invalid(`${at}.hostPort`, port.hostPort, portRange))
    if (port.hostIP && !isIP(port.hostIP))
      problems.push(problem.invalid(`${at}.hostIP`, port.hostIP, 'must be a valid IP address'))
    if (!['TCP', 'UDP', 'SCTP'].includes(port.protocol))
      problems.push(problem.unsupported(`${at}.protocol`, port.protocol, ['SCTP', 'TCP', 'UDP']))
    if (port.name) {
      if (!/^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/.test(port.name) || !/[a-z]/.test(port.name))
        problems.push(problem.invalid(`${at}.name`, port.name, 'must be a service name of at most 15 characters'))
      if (portNames.has(port.name)) problems.push(problem.duplicate(`${at}.name`, port.name))
      portNames.add(port.name)
    }
  }
  for (const [n, env] of (container.env ?? []).entries())
    if (!env.name) problems.push(problem.required(`${path}.env[${n}].name`))
  for (const [n, mount] of (container.volumeMounts ?? []).entries()) {
    if (!mount.mountPath) problems.push(problem.required(`${path}.volumeMounts[${n}].mountPath`))
    if (!volumes.has(mount.name))
      problems.push({
        reason: 'FieldValueInvalid',
        field: `${path}.volumeMounts[${n}].name`,
        message: `Not found: ${JSON.stringify(mount.name ?? '')}`,
      })
  }
  for (const kind of ['livenessProbe', 'readinessProbe', 'startupProbe'])
    if (container[kind]) problems.push(...validateProbe(container[kind], `${path}.${kind}`))
  return problems
}

export function validatePodSpec(spec: Json, path: string): FieldProblem[] {
  const problems: FieldProblem[] = []
  if (!spec?.containers?.length) return [problem.required(`${path}.containers`)]
  const volumes = new Set<string>()
  for (const [n, volume] of (spec.volumes ?? []).entries()) {
    const at = `${path}.volumes[${n}].name`
    if (!volume.name) problems.push(problem.required(at))
    else if (volumes.has(volume.name)) problems.push(problem.duplicate(at, volume.name))
    volumes.add(volume.name)
  }
  const seen = new Set<string>()
  for (const list of ['initContainers', 'containers', 'ephemeralContainers'])
    for (const [n, container] of (spec[list] ?? []).entries())
      problems.push(...validateContainer(container, `${path}.${list}[${n}]`, seen, volumes))
  const choices: [string, string[]][] = [
    ['restartPolicy', ['Always', 'OnFailure', 'Never']],
    ['dnsPolicy', ['ClusterFirstWithHostNet', 'ClusterFirst', 'Default', 'None']],
  ]
  for (const [key, allowed] of choices)
    if (!allowed.includes(spec[key])) problems.push(problem.unsupported(`${path}.${key}`, spec[key], allowed))
  if (spec.terminationGracePeriodSeconds < 0)
    problems.push(
      problem.invalid(
        `${path}.terminationGracePeriodSeconds`,
        spec.terminationGracePeriodSeconds,
        'must be greater than or equal to 0',
      ),
    )
  for (const key of ['nodeName', 'serviceAccountName'])
    if (spec[key] && !namePattern.test(spec[key])) problems.push(problem.invalid(`${path}.${key}`, spec[key], nameText))
  for (const [n, alias] of (spec.hostAliases ?? []).entries())
    if (!isIP(alias.ip ?? ''))
      problems.push(problem.invalid(`${path}.hostAliases[${n}].ip`, alias.ip ?? '', 'must be a valid IP address'))
  return problems
}
