/**
 * The language of x-kubernetes-validations: CEL with Kubernetes' libraries of lists, regular expressions, IP addresses and
 * CIDRs. What else Kubernetes has (quantities, URLs, semantic versions, named formats) is not there: a rule that uses it
 * does not compile, and the definition's author is told.
 *
 * Sources: Kubernetes documentation, "Common Expression Language in Kubernetes"; k8s.io/apiserver/pkg/cel/library (ip.go,
 * cidr.go, lists.go, regex.go).
 */
import { Environment } from '@marcbachmann/cel-js'
import { Cidr, parsePrefixed } from '../../../net/cidr.ts'
import { Ip } from '../../../net/ip.ts'

/** An address with a prefix length, host bits kept. */
class Prefix {
  readonly ip: Ip
  readonly length: number

  constructor(ip: Ip, length: number) {
    this.ip = ip
    this.length = length
  }

  get block(): Cidr {
    return Cidr.of(this.ip, this.length)
  }

  toString(): string {
    return `${this.ip}/${this.length}`
  }
}

/** Go's netip, as Kubernetes uses it, has no IPv4 within IPv6 here. */
function parseIp(text: string): Ip {
  const ip = Ip.tryParse(text)
  if (!ip || isMapped(ip)) throw new Error(`IP Address ${JSON.stringify(text)} parse error`)
  return ip
}

function parseCidr(text: string): Prefix {
  try {
    const { ip, length } = parsePrefixed(text)
    if (!isMapped(ip)) return new Prefix(ip, length)
  } catch {
    // Told below.
  }
  throw new Error(`network address parse error during conversion from string: ${JSON.stringify(text)}`)
}

const isMapped = (ip: Ip): boolean => ip.family === 6 && ip.w0 === 0 && ip.w1 === 0 && ip.w2 === 0xffff
const isGlobalUnicast = (ip: Ip): boolean =>
  !ip.isAny && !ip.isLoopback && !ip.isMulticast && !ip.isLinkLocal && `${ip}` !== '255.255.255.255'
const isLinkLocalMulticast = (ip: Ip): boolean =>
  ip.family === 4 ? ip.w3 >>> 8 === 0xe00000 : ((ip.w0 >>> 16) & 0xff0f) === 0xff02

const succeeds = (run: () => unknown): boolean => {
  try {
    run()
    return true
  } catch {
    return false
  }
}

type Item = string | number | bigint
const least = (list: readonly Item[], sign: 1 | -1): Item => {
  if (list.length === 0) throw new Error(`${sign > 0 ? 'min' : 'max'} called on empty list`)
  return list.reduce((found, item) => ((sign > 0 ? item < found : item > found) ? item : found))
}

const patterns = new Map<string, RegExp>()
/** RE2 has no look-around and no back-references; what both know means the same. */
function patternOf(text: string): RegExp {
  const known = patterns.get(text)
  if (known) return known
  const pattern = new RegExp(text, 'gu')
  if (patterns.size > 1000) patterns.clear()
  patterns.set(text, pattern)
  return pattern
}

/** Variables `self` and `oldSelf`; of values whose type is not known, operators and functions are chosen when they run. */
export const celEnvironment: Environment = new Environment({
  enableOptionalTypes: true,
  homogeneousAggregateLiterals: false,
  limits: { maxAstNodes: 10_000, maxDepth: 100, maxListElements: 1000, maxMapEntries: 1000, maxCallArguments: 16 },
})
  .registerVariable('self', 'dyn')
  .registerVariable('oldSelf', 'dyn')
  .registerType('net.IP', { ctor: Ip, fields: {} })
  .registerType('net.CIDR', { ctor: Prefix, fields: {} })
  .registerFunction('ip(string): net.IP', parseIp)
  .registerFunction('isIP(string): bool', (text: string) => succeeds(() => parseIp(text)))
  .registerFunction('string(net.IP): string', String)
  .registerOperator('net.IP == net.IP', (a: Ip, b: Ip) => a.equals(b))
  .registerFunction('net.IP.family(): int', (ip: Ip) => BigInt(ip.family))
  .registerFunction('net.IP.isUnspecified(): bool', (ip: Ip) => ip.isAny)
  .registerFunction('net.IP.isLoopback(): bool', (ip: Ip) => ip.isLoopback)
  .registerFunction('net.IP.isLinkLocalMulticast(): bool', isLinkLocalMulticast)
  .registerFunction('net.IP.isLinkLocalUnicast(): bool', (ip: Ip) => ip.isLinkLocal)
  .registerFunction('net.IP.isGlobalUnicast(): bool', isGlobalUnicast)
  .registerFunction('cidr(string): net.CIDR', parseCidr)
  .registerFunction('isCIDR(string): bool', (text: string) => succeeds(() => parseCidr(text)))
  .registerFunction('string(net.CIDR): string', String)
  .registerOperator('net.CIDR == net.CIDR', (a: Prefix, b: Prefix) => a.length === b.length && a.ip.equals(b.ip))
  .registerFunction('net.CIDR.ip(): net.IP', (prefix: Prefix) => prefix.ip)
  .registerFunction('net.CIDR.prefixLength(): int', (prefix: Prefix) => BigInt(prefix.length))
  .registerFunction('net.CIDR.masked(): net.CIDR', ({ block }: Prefix) => new Prefix(block.base, block.length))
  .registerFunction('net.CIDR.containsIP(net.IP): bool', (prefix: Prefix, ip: Ip) => prefix.block.contains(ip))
  .registerFunction('net.CIDR.containsIP(string): bool', (prefix: Prefix, text: string) =>
    prefix.block.contains(parseIp(text)),
  )
  .registerFunction('net.CIDR.containsCIDR(net.CIDR): bool', (prefix: Prefix, other: Prefix) =>
    prefix.block.covers(other.block),
  )
  .registerFunction('net.CIDR.containsCIDR(string): bool', (prefix: Prefix, text: string) =>
    prefix.block.covers(parseCidr(text).block),
  )
  .registerFunction('list.isSorted(): bool', (list: readonly Item[]) =>
    list.every((item, n) => n === 0 || list[n - 1]! <= item),
  )
  .registerFunction('list.sum(): dyn', (list: readonly Item[]) =>
    typeof list[0] === 'number'
      ? list.reduce((sum: number, item) => sum + Number(item), 0)
      : list.reduce((sum: bigint, item) => sum + BigInt(item), 0n),
  )
  .registerFunction('list.min(): dyn', (list: readonly Item[]) => least(list, 1))
  .registerFunction('list.max(): dyn', (list: readonly Item[]) => least(list, -1))
  .registerFunction('list.indexOf(dyn): int', (list: readonly unknown[], item: unknown) => BigInt(list.indexOf(item)))
  .registerFunction('list.lastIndexOf(dyn): int', (list: readonly unknown[], item: unknown) =>
    BigInt(list.lastIndexOf(item)),
  )
  .registerFunction(
    'string.find(string): string',
    (text: string, pattern: string) => text.match(patternOf(pattern))?.[0] ?? '',
  )
  .registerFunction('string.findAll(string): list<string>', (text: string, pattern: string) => [
    ...(text.match(patternOf(pattern)) ?? []),
  ])
