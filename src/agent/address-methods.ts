/**
 * How a node finds its own address in the words of calico/node: `IP` and `IP6` say which, or that it is to be detected, and
 * a method says how. The words alone: what they find is in calico-addresses.ts.
 *
 *   autodetect | none | 192.0.2.10 | 192.0.2.10/24
 *   first-found | can-reach=… | interface=… | skip-interface=… | cidr=… | kubernetes-internal-ip
 *
 * Sources: Calico node/pkg/lifecycle/startup/startup.go (configureIPsAndSubnets), autodetection/autodetection_methods.go.
 */
import { Cidr, parsePrefixed } from '../net/cidr.ts'
import { type Family, Ip } from '../net/ip.ts'

export type AddressMethod =
  /** What flannel's rules find: the address that this node announces there. */
  | { readonly type: 'external' }
  | { readonly type: 'first-found' }
  /** An address, or a name that is looked up. */
  | { readonly type: 'can-reach'; readonly host: string }
  | { readonly type: 'interface'; readonly patterns: readonly RegExp[] }
  | { readonly type: 'skip-interface'; readonly patterns: readonly RegExp[] }
  | { readonly type: 'cidr'; readonly cidrs: readonly Cidr[] }
  | { readonly type: 'kubernetes-internal-ip' }

export type AddressChoice =
  | { readonly type: 'autodetect'; readonly method: AddressMethod }
  /** What the store says of this node stays; nothing is detected. */
  | { readonly type: 'none' }
  | { readonly type: 'given'; readonly ip: Ip; readonly prefixLength?: number }

const MOST_PATTERNS = 64

/** Reads `IP` or `IP6`. Throws for what is neither a word nor an address of the family. */
export function parseAddressChoice(text: string, method: AddressMethod, family: Family): AddressChoice {
  if (text === '' || text === 'autodetect') return { type: 'autodetect', method }
  if (text === 'none') return { type: 'none' }
  const given = text.includes('/') ? parsePrefixed(text) : { ip: Ip.parse(text), length: undefined }
  if (given.ip.family !== family) throw new Error(`is neither autodetect, none, nor an IPv${family} address`)
  return { type: 'given', ip: given.ip, ...(given.length === undefined ? {} : { prefixLength: given.length }) }
}

/** Reads a method; the empty text is weft's default. Throws for anything else that is none. */
export function parseAddressMethod(text: string, family: Family): AddressMethod {
  if (text === '') return { type: 'external' }
  if (text === 'first-found' || text === 'kubernetes-internal-ip') return { type: text }
  const [, type, rest] = /^(can-reach|interface|skip-interface|cidr)=(.*)$/.exec(text) ?? []
  if (type === undefined || !rest?.trim())
    throw new Error('is none of first-found, can-reach=, interface=, skip-interface=, cidr=, kubernetes-internal-ip')
  if (type === 'can-reach') return { type, host: checkHost(rest.trim()) }
  const parts = rest.trim().split(/\s*,\s*/)
  if (parts.length > MOST_PATTERNS) throw new Error(`names more than ${MOST_PATTERNS}`)
  if (type === 'cidr') return { type, cidrs: parts.map((part) => networkOf(part, family)) }
  return { type: type as 'interface' | 'skip-interface', patterns: parts.map((part) => new RegExp(part)) }
}

function networkOf(text: string, family: Family): Cidr {
  const { ip, length } = parsePrefixed(text)
  if (ip.family !== family) throw new Error(`${text} is not an IPv${family} network`)
  return Cidr.of(ip, length)
}

function checkHost(host: string): string {
  if (Ip.tryParse(host) || /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(host)) return host
  throw new Error(`${JSON.stringify(host.slice(0, 100))} is neither an address nor a name`)
}
