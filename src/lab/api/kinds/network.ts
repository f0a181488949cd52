/**
 * Services, EndpointSlices, NetworkPolicies, and Leases. Addresses and node ports of Services are given out by
 * service-addresses.ts.
 * Sources: Kubernetes API reference, Service v1 core, EndpointSlice v1 discovery.k8s.io, NetworkPolicy v1
 * networking.k8s.io, Lease v1 coordination.k8s.io.
 */
import { isIP, isIPv4, isIPv6 } from 'node:net'
import { type FieldProblem, problem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Schema } from '../schema/schema.ts'
import { formatSelector } from '../selectors.ts'
import { ageColumn, type Column, defineKind, fill, type Kind, text, wide } from './kind.ts'
import { labelPattern, labelText } from './names.ts'

// biome-ignore lint/suspicious/noExplicitAny: shape is checked against the schema before it comes here
type Json = any

const protocols = ['SCTP', 'TCP', 'UDP']
const serviceTypes = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort']

function prepareService(service: KubeObject, old: KubeObject | undefined): void {
  service.spec ??= {}
  const { spec } = service
  fill(spec, { type: 'ClusterIP', sessionAffinity: 'None' })
  for (const port of spec.ports ?? []) fill(port, { protocol: 'TCP', targetPort: port.port })
  if (spec.type !== 'ExternalName') fill(spec, { internalTrafficPolicy: 'Cluster' })
  if (spec.type === 'NodePort' || spec.type === 'LoadBalancer') fill(spec, { externalTrafficPolicy: 'Cluster' })
  else delete spec.externalTrafficPolicy
  if (spec.type === 'LoadBalancer') fill(spec, { allocateLoadBalancerNodePorts: true })
  if (spec.sessionAffinity === 'ClientIP')
    fill(spec, { sessionAffinityConfig: { clientIP: { timeoutSeconds: 10_800 } } })
  if (!old) service.status = { loadBalancer: {} }
}

function validateServicePort(port: Json, path: string, several: boolean): FieldProblem[] {
  const problems: FieldProblem[] = []
  if (!port.name && several) problems.push(problem.required(`${path}.name`))
  if (port.name && !labelPattern.test(port.name)) problems.push(problem.invalid(`${path}.name`, port.name, labelText))
  if (!(port.port >= 1 && port.port <= 65_535))
    problems.push(problem.invalid(`${path}.port`, port.port ?? 0, 'must be between 1 and 65535, inclusive'))
  if (!protocols.includes(port.protocol))
    problems.push(problem.unsupported(`${path}.protocol`, port.protocol, protocols))
  const target = port.targetPort
  if (typeof target === 'number' && !(target >= 1 && target <= 65_535))
    problems.push(problem.invalid(`${path}.targetPort`, target, 'must be between 1 and 65535, inclusive'))
  return problems
}

function validateService(service: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const { spec } = service
  const problems: FieldProblem[] = []
  if (!serviceTypes.includes(spec.type)) problems.push(problem.unsupported('spec.type', spec.type, serviceTypes))
  const ports: Json[] = spec.ports ?? []
  const headless = spec.clusterIP === 'None'
  if (!ports.length && spec.type !== 'ExternalName' && !headless) problems.push(problem.required('spec.ports'))
  const seen = new Set<string>()
  const names = new Set<string>()
  for (const [n, port] of ports.entries()) {
    problems.push(...validateServicePort(port, `spec.ports[${n}]`, ports.length > 1))
    const key = `${port.protocol} ${port.port}`
    if (seen.has(key))
      problems.push(problem.duplicate(`spec.ports[${n}]`, { port: port.port, protocol: port.protocol }))
    if (port.name && names.has(port.name)) problems.push(problem.duplicate(`spec.ports[${n}].name`, port.name))
    seen.add(key)
    names.add(port.name)
  }
  if (spec.type === 'ExternalName' && !spec.externalName) problems.push(problem.required('spec.externalName'))
  for (const [key, allowed] of [
    ['sessionAffinity', ['ClientIP', 'None']],
    ['internalTrafficPolicy', ['Cluster', 'Local']],
    ['externalTrafficPolicy', ['Cluster', 'Local']],
    ['ipFamilyPolicy', ['SingleStack', 'PreferDualStack', 'RequireDualStack']],
  ] as const)
    if (spec[key] !== undefined && !(allowed as readonly string[]).includes(spec[key]))
      problems.push(problem.unsupported(`spec.${key}`, spec[key], allowed))
  for (const [n, ip] of (spec.externalIPs ?? []).entries())
    if (!isIP(ip)) problems.push(problem.invalid(`spec.externalIPs[${n}]`, ip, 'must be a valid IP address'))
  const kept = old?.spec?.clusterIP
  if (kept && spec.clusterIP !== kept && spec.type !== 'ExternalName' && old?.spec?.type !== 'ExternalName')
    problems.push(problem.invalid('spec.clusterIPs[0]', [spec.clusterIP ?? ''], 'may not change once set'))
  return problems
}

function externalIp(service: KubeObject): string {
  const { spec = {}, status } = service
  const given: string[] = spec.externalIPs ?? []
  if (spec.type === 'ExternalName') return spec.externalName ?? '<none>'
  if (spec.type === 'LoadBalancer') {
    const ingress = (status?.loadBalancer?.ingress ?? []).map((entry: Json) => entry.ip || entry.hostname)
    return [...ingress, ...given].join(',') || '<pending>'
  }
  return given.join(',') || '<none>'
}

const servicePorts = (service: KubeObject): string =>
  (service.spec?.ports ?? [])
    .map((p: Json) => (p.nodePort ? `${p.port}:${p.nodePort}/${p.protocol}` : `${p.port}/${p.protocol}`))
    .join(',') || '<none>'

const serviceColumns: readonly Column[] = [
  text('Type', 'How it is reached.', (o) => o.spec?.type ?? ''),
  text('Cluster-IP', 'Address inside the cluster.', (o) => o.spec?.clusterIP || '<none>'),
  text('External-IP', 'Addresses outside of the cluster.', externalIp),
  text('Port(s)', 'Ports, node ports and protocols.', servicePorts),
  ageColumn,
  wide('Selector', 'Which pods stand behind it.', (o) => formatSelector({ matchLabels: o.spec?.selector ?? {} })),
]

function prepareSlice(slice: KubeObject): void {
  slice.endpoints ??= []
  for (const port of slice.ports ?? []) fill(port, { name: '', protocol: 'TCP' })
}

function validateSlice(slice: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const problems: FieldProblem[] = []
  const types = ['FQDN', 'IPv4', 'IPv6']
  if (!types.includes(slice.addressType))
    return [
      slice.addressType
        ? problem.unsupported('addressType', slice.addressType, types)
        : problem.required('addressType'),
    ]
  if (old && old.addressType !== slice.addressType)
    problems.push(problem.invalid('addressType', slice.addressType, 'field is immutable'))
  if (slice.endpoints.length > 1000)
    problems.push(problem.invalid('endpoints', slice.endpoints.length, 'must have at most 1000 items'))
  const fits = slice.addressType === 'IPv4' ? isIPv4 : slice.addressType === 'IPv6' ? isIPv6 : () => true
  for (const [n, endpoint] of slice.endpoints.entries()) {
    if (!endpoint.addresses?.length) problems.push(problem.required(`endpoints[${n}].addresses`))
    for (const [m, address] of (endpoint.addresses ?? []).entries())
      if (!fits(address))
        problems.push(
          problem.invalid(`endpoints[${n}].addresses[${m}]`, address, `must be a valid ${slice.addressType} address`),
        )
  }
  return problems
}

const first = (items: readonly string[], most: number): string => {
  if (items.length === 0) return '<unset>'
  return items.length > most ? `${items.slice(0, most).join(',')} + ${items.length - most} more...` : items.join(',')
}

function preparePolicy(policy: KubeObject): void {
  policy.spec ??= {}
  const { spec } = policy
  spec.podSelector ??= {}
  if (!spec.policyTypes?.length) spec.policyTypes = spec.egress?.length ? ['Ingress', 'Egress'] : ['Ingress']
  for (const rule of [...(spec.ingress ?? []), ...(spec.egress ?? [])])
    for (const port of rule.ports ?? []) fill(port, { protocol: 'TCP' })
}

function validatePolicy(policy: KubeObject): FieldProblem[] {
  const problems: FieldProblem[] = []
  for (const [n, type] of policy.spec.policyTypes.entries())
    if (type !== 'Ingress' && type !== 'Egress')
      problems.push(problem.unsupported(`spec.policyTypes[${n}]`, type, ['Egress', 'Ingress']))
  for (const [direction, peersKey] of [
    ['ingress', 'from'],
    ['egress', 'to'],
  ] as const)
    for (const [n, rule] of (policy.spec[direction] ?? []).entries()) {
      const path = `spec.${direction}[${n}]`
      for (const [m, port] of (rule.ports ?? []).entries()) {
        if (!protocols.includes(port.protocol))
          problems.push(problem.unsupported(`${path}.ports[${m}].protocol`, port.protocol, protocols))
        if (port.endPort !== undefined && (typeof port.port !== 'number' || port.endPort < port.port))
          problems.push(
            problem.invalid(`${path}.ports[${m}].endPort`, port.endPort, 'must be greater than or equal to `port`'),
          )
      }
      for (const [m, peer] of (rule[peersKey] ?? []).entries()) {
        const at = `${path}.${peersKey}[${m}]`
        const kinds = Object.keys(peer)
        if (kinds.length === 0) problems.push(problem.required(at, 'must specify a peer'))
        if (peer.ipBlock && kinds.length > 1)
          problems.push(problem.forbidden(at, 'may not specify both ipBlock and another peer'))
        for (const cidr of peer.ipBlock ? [peer.ipBlock.cidr, ...(peer.ipBlock.except ?? [])] : [])
          if (!/^[0-9a-fA-F:.]+\/\d{1,3}$/.test(cidr ?? ''))
            problems.push(problem.invalid(`${at}.ipBlock.cidr`, cidr, 'must be a valid CIDR'))
      }
    }
  return problems
}

export const networkKinds = (model: (name: string) => Schema): Kind[] => [
  defineKind({
    group: '',
    version: 'v1',
    kind: 'Service',
    plural: 'services',
    shortNames: ['svc'],
    categories: ['all'],
    status: true,
    nameForm: 'label',
    schema: model('V1Service'),
    selectable: ['spec.clusterIP', 'spec.type'],
    columns: serviceColumns,
    prepare: prepareService,
    validate: validateService,
  }),
  defineKind({
    group: 'discovery.k8s.io',
    version: 'v1',
    kind: 'EndpointSlice',
    plural: 'endpointslices',
    schema: model('V1EndpointSlice'),
    columns: [
      text('AddressType', 'Family of the addresses.', (o) => o.addressType ?? ''),
      text('Ports', 'Ports of the endpoints.', (o) =>
        first(
          (o.ports ?? []).map((p: Json) => String(p.port ?? '*')),
          3,
        ),
      ),
      text('Endpoints', 'Addresses of the endpoints.', (o) =>
        first(
          (o.endpoints ?? []).flatMap((e: Json) => e.addresses ?? []),
          3,
        ),
      ),
      ageColumn,
    ],
    prepare: prepareSlice,
    validate: validateSlice,
  }),
  defineKind({
    group: 'networking.k8s.io',
    version: 'v1',
    kind: 'NetworkPolicy',
    plural: 'networkpolicies',
    shortNames: ['netpol'],
    schema: model('V1NetworkPolicy'),
    columns: [text('Pod-Selector', 'Which pods it holds for.', (o) => formatSelector(o.spec?.podSelector)), ageColumn],
    prepare: preparePolicy,
    validate: validatePolicy,
  }),
  defineKind({
    group: 'coordination.k8s.io',
    version: 'v1',
    kind: 'Lease',
    plural: 'leases',
    schema: model('V1Lease'),
    columns: [text('Holder', 'Who holds it.', (o) => o.spec?.holderIdentity ?? ''), ageColumn],
    unmanaged: true,
  }),
]
