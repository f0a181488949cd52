/**
 * What a node says of itself in Calico's words, as annotations of its Node object.
 *
 *   projectcalico.org/IPv4Address           "192.0.2.1/24"   IPv6Address            "2001:db8::1/64"
 *   projectcalico.org/IPv4IPIPTunnelAddr    "172.26.0.1"     ASNumber               "64512" or "1.10"
 *   projectcalico.org/IPv4VXLANTunnelAddr   "172.26.0.0"     VXLANTunnelMACAddr     "66:2d:0e:…"
 *   projectcalico.org/IPv6VXLANTunnelAddr   "fd00::1"        VXLANTunnelMACAddrV6   "66:2d:0e:…"
 *   projectcalico.org/RouteReflectorClusterID "244.0.0.1"
 *
 * A part that cannot be read is left out and told; the rest stands.
 *
 * Sources: Calico libcalico-go lib/backend/k8s/resources/node.go (names, what is removed), lib/validator/v3 (ValidateCIDRv4:
 * an address without a length is a host), api/pkg/lib/numorstring (AS numbers in plain and dotted form).
 */
import type { CalicoNode } from '../../model/calico.ts'
import { bitsOf, type Family, Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'

const PREFIX = 'projectcalico.org/'
const MAX_TEXT = 64
const MAX_AS_NUMBER = 2 ** 32 - 1

type Word<T> = { readonly key: string; parse(text: string): T; format(value: T): string }

const word = <T>(key: string, parse: (text: string) => T, format: (value: T) => string = String): Word<T> => ({
  key: PREFIX + key,
  parse,
  format,
})

const wordOf = {
  ipv4: word('IPv4Address', (text) => parseInterface(text, 4), formatInterface),
  ipv6: word('IPv6Address', (text) => parseInterface(text, 6), formatInterface),
  asNumber: word('ASNumber', parseAsNumber),
  routeReflectorClusterId: word('RouteReflectorClusterID', (text) => `${parseIp(text, 4)}`),
  ipv4IpipTunnelAddr: word('IPv4IPIPTunnelAddr', (text) => parseIp(text, 4)),
  ipv4VxlanTunnelAddr: word('IPv4VXLANTunnelAddr', (text) => parseIp(text, 4)),
  ipv6VxlanTunnelAddr: word('IPv6VXLANTunnelAddr', (text) => parseIp(text, 6)),
  vxlanTunnelMac: word('VXLANTunnelMACAddr', parseMac),
  vxlanTunnelMacV6: word('VXLANTunnelMACAddrV6', parseMac),
} satisfies { readonly [K in keyof CalicoNode]-?: Word<NonNullable<CalicoNode[K]>> }

/** Fields that are an administrator's (`calicoctl patch node`): never removed because a node does not say them. */
const administered: ReadonlySet<string> = new Set(['asNumber', 'routeReflectorClusterId'])

const words = Object.entries(wordOf) as [keyof CalicoNode, Word<unknown>][]

/** Every annotation that `parseNodeAnnotations` reads, by its whole name. */
export const nodeAnnotationKeys: readonly string[] = words.map(([, { key }]) => key)

/** Those that a node itself writes, and that its agent takes back when it goes. */
export const ownNodeAnnotationKeys: readonly string[] = words
  .filter(([field]) => !administered.has(field))
  .map(([, { key }]) => key)

/** Undefined when the node says nothing in Calico's words. `onProblem` gets the annotation and what is wrong with it. */
export function parseNodeAnnotations(
  annotations: Readonly<Record<string, string>>,
  onProblem: (key: string, problem: Error) => void = () => {},
): CalicoNode | undefined {
  const said: Record<string, unknown> = {}
  for (const [field, { key, parse }] of words) {
    const text = annotations[key]
    if (text === undefined || text === '') continue
    try {
      if (text.length > MAX_TEXT) throw new Error(`is longer than ${MAX_TEXT} characters`)
      said[field] = parse(text)
    } catch (error) {
      onProblem(key, error as Error)
    }
  }
  return Object.keys(said).length > 0 ? (said as CalicoNode) : undefined
}

/**
 * What to write of a node: every own key, null for what it does not say (any more). An administrator's words are written
 * when given and otherwise left alone. null as a whole takes back all own words.
 */
export function formatNodeAnnotations(node: CalicoNode | null): Record<string, string | null> {
  const text: Record<string, string | null> = {}
  for (const [field, { key, format }] of words) {
    const value = node?.[field]
    if (value !== undefined) text[key] = format(value)
    else if (!administered.has(field)) text[key] = null
  }
  return text
}

function parseIp(text: string, family: Family): Ip {
  const ip = Ip.parse(text)
  if (ip.family !== family) throw new Error(`${text} is not an IPv${family} address`)
  return ip
}

/** `address/length`, host bits kept; without a length the address alone. */
export function parseInterface(text: string, family: Family): { readonly ip: Ip; readonly prefixLength: number } {
  const [address = '', length, further] = text.split('/')
  const ip = parseIp(address, family)
  if (ip.isAny || ip.isMulticast || ip.isLoopback) throw new Error(`${text} cannot be a node's address`)
  if (length === undefined) return { ip, prefixLength: bitsOf(family) }
  if (further !== undefined || !/^\d{1,3}$/.test(length) || Number(length) > bitsOf(family))
    throw new Error(`${text} is not an address with a prefix length`)
  return { ip, prefixLength: Number(length) }
}

export function formatInterface({ ip, prefixLength }: { readonly ip: Ip; readonly prefixLength: number }): string {
  return `${ip}/${prefixLength}`
}

function parseMac(text: string): Mac {
  const mac = Mac.parse(text)
  if (mac.isMulticast || mac.isZero) throw new Error(`${text} cannot be a device's address`)
  return mac
}

/** Plain, or dotted: high and low 16 bits. */
export function parseAsNumber(text: string): number {
  const dotted = /^(\d{1,5})\.(\d{1,5})$/.exec(text)
  const number = dotted ? Number(dotted[1]) * 65536 + Number(dotted[2]) : /^\d{1,10}$/.test(text) ? Number(text) : -1
  const isWhole = !dotted || (Number(dotted[1]) < 65536 && Number(dotted[2]) < 65536)
  if (number < 0 || number > MAX_AS_NUMBER || !isWhole) throw new Error(`${text} is not an AS number`)
  return number
}
