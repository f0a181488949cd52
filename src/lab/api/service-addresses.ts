/**
 * Gives out cluster addresses and node ports of Services. What is taken is read from the Services themselves,
 * so nothing can leak or disagree.
 * Sources: Kubernetes documentation, "Service ClusterIP allocation", "type: NodePort", "IPv4/IPv6 dual-stack".
 */
import { randomInt } from 'node:crypto'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { type FieldProblem, problem } from './api-error.ts'
import type { KubeObject } from './interfaces.ts'

/** Addresses from the start of a range that are given out on request only, as Kubernetes keeps them. */
const reservedAddresses = 16

export class ServiceAddresses {
  readonly #cidrs: readonly Cidr[]
  readonly #ports: readonly [number, number]
  readonly #services: () => Iterable<KubeObject>

  constructor(
    cidrs: readonly string[],
    ports: readonly [from: number, to: number],
    services: () => Iterable<KubeObject>,
  ) {
    this.#cidrs = cidrs.map((cidr) => Cidr.parse(cidr))
    this.#ports = ports
    this.#services = services
  }

  /** The first address of the range, by custom that of the API's own Service. */
  get first(): string {
    return this.#cidrs[0]!.base.plus(1).toString()
  }

  /** Fills addresses, families and node ports of a Service, in place; gives back what cannot be had. */
  assign(service: KubeObject, old: KubeObject | undefined): FieldProblem[] {
    const { spec } = service
    if (spec.type === 'ExternalName') {
      for (const key of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy', 'internalTrafficPolicy'])
        delete spec[key]
      return []
    }
    if (old?.spec?.type !== 'ExternalName' && old?.spec?.clusterIP && !spec.clusterIP) {
      spec.clusterIP = old.spec.clusterIP
      spec.clusterIPs ??= old.spec.clusterIPs
    }
    return [...this.#families(service), ...this.#addresses(service), ...this.#nodePorts(service, old)]
  }

  /** ipFamilies and ipFamilyPolicy. */
  #families({ spec }: KubeObject): FieldProblem[] {
    const served = this.#cidrs.map((cidr) => `IPv${cidr.family}`)
    const given: string[] = spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : [])
    const fromAddresses = given.flatMap((text) => Ip.tryParse(text)?.family ?? []).map((family) => `IPv${family}`)
    spec.ipFamilyPolicy ??=
      Math.max(spec.ipFamilies?.length ?? 0, fromAddresses.length) > 1 ? 'RequireDualStack' : 'SingleStack'
    if (!spec.ipFamilies?.length) spec.ipFamilies = fromAddresses.length ? fromAddresses : [served[0]]
    for (const [n, family] of spec.ipFamilies.entries())
      if (!served.includes(family) && given[0] !== 'None')
        return [problem.invalid(`spec.ipFamilies[${n}]`, family, 'not configured on this cluster')]
    const other = served.find((family) => !spec.ipFamilies.includes(family))
    if (spec.ipFamilyPolicy !== 'SingleStack' && spec.ipFamilies.length < 2) {
      if (other) spec.ipFamilies.push(other)
      else if (spec.ipFamilyPolicy === 'RequireDualStack')
        return [
          problem.invalid(
            'spec.ipFamilyPolicy',
            spec.ipFamilyPolicy,
            'this cluster is not configured for dual-stack services',
          ),
        ]
    }
    if (spec.ipFamilyPolicy === 'SingleStack') spec.ipFamilies = spec.ipFamilies.slice(0, 1)
    return []
  }

  #addresses(service: KubeObject): FieldProblem[] {
    const { spec } = service
    if (spec.clusterIP === 'None') {
      spec.clusterIPs = ['None']
      return []
    }
    const taken = new Set<string>()
    for (const other of this.#services())
      if (!isSame(other, service)) for (const address of other.spec?.clusterIPs ?? []) taken.add(address)
    const wanted: string[] = spec.clusterIPs?.length ? [...spec.clusterIPs] : []
    if (spec.clusterIP && wanted[0] !== spec.clusterIP) wanted[0] = spec.clusterIP
    const given: string[] = []
    for (const [n, family] of (spec.ipFamilies as string[]).entries()) {
      const cidr = this.#cidrs.find((candidate) => `IPv${candidate.family}` === family)
      if (!cidr) continue
      const request = wanted[n]
      if (request) {
        const ip = Ip.tryParse(request)
        if (!ip || !cidr.contains(ip))
          return [
            problem.invalid(`spec.clusterIPs[${n}]`, request, `the provided IP is not in the valid range ${cidr}`),
          ]
        if (taken.has(request))
          return [problem.invalid(`spec.clusterIPs[${n}]`, request, 'provided IP is already allocated')]
        given.push(ip.toString())
      } else {
        const free = freeAddress(cidr, taken)
        if (!free) return [problem.invalid('spec.clusterIPs', wanted, `no free address is left in ${cidr}`)]
        given.push(free)
      }
    }
    spec.clusterIPs = given
    spec.clusterIP = given[0]
    return []
  }

  #nodePorts(service: KubeObject, old: KubeObject | undefined): FieldProblem[] {
    const { spec } = service
    const needed =
      spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false)
    if (!needed) {
      if (spec.type === 'ClusterIP') for (const port of spec.ports ?? []) delete port.nodePort
      return []
    }
    const taken = new Set<string>()
    for (const other of this.#services())
      if (!isSame(other, service))
        for (const port of other.spec?.ports ?? []) if (port.nodePort) taken.add(`${port.protocol} ${port.nodePort}`)
    const problems: FieldProblem[] = []
    const [from, to] = this.#ports
    for (const [n, port] of (spec.ports ?? []).entries()) {
      port.nodePort ||= old?.spec?.ports?.find(
        (p: KubeObject['spec']) => p.port === port.port && p.protocol === port.protocol,
      )?.nodePort
      const at = `spec.ports[${n}].nodePort`
      if (port.nodePort) {
        if (port.nodePort < from || port.nodePort > to)
          problems.push(
            problem.invalid(
              at,
              port.nodePort,
              `provided port is not in the valid range. The range of valid ports is ${from}-${to}`,
            ),
          )
        else if (taken.has(`${port.protocol} ${port.nodePort}`))
          problems.push(problem.invalid(at, port.nodePort, 'provided port is already allocated'))
      } else {
        const start = randomInt(to - from + 1)
        for (let k = 0; k <= to - from && !port.nodePort; k++) {
          const candidate = from + ((start + k) % (to - from + 1))
          if (!taken.has(`${port.protocol} ${candidate}`)) port.nodePort = candidate
        }
        if (!port.nodePort) problems.push(problem.invalid(at, 0, 'no free node port is left'))
      }
      taken.add(`${port.protocol} ${port.nodePort}`)
    }
    return problems
  }
}

const isSame = (a: KubeObject, b: KubeObject): boolean =>
  a.metadata.name === b.metadata.name && a.metadata.namespace === b.metadata.namespace

function freeAddress(cidr: Cidr, taken: ReadonlySet<string>): string | undefined {
  // The first address is the network's, the last of IPv4 its broadcast.
  const usable = Number(cidr.size > 65_536n ? 65_536n : cidr.size) - (cidr.family === 4 ? 2 : 1)
  const skipped = usable > 4 * reservedAddresses ? reservedAddresses : 0
  const base = cidr.base.toBigInt() + 1n
  const span = usable - skipped
  if (span <= 0) return undefined
  const start = randomInt(span)
  for (let n = 0; n < span; n++) {
    const address = Ip.fromBigInt(cidr.family, base + BigInt(skipped + ((start + n) % span))).toString()
    if (!taken.has(address)) return address
  }
  return undefined
}
