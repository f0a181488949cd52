/**
 * Who may send packets into this node's tunnels, and which pods' packets they may hold. Both addresses are looked up at once
 * while the packet is still wrapped: the inner one is read from where it stands behind the outer header.
 *
 *   outer source . first bits of the inner source ∈ origins ──► let in
 *   a node at all?  no ──► dropped, counted                      from a stranger
 *   a pod's source inside? yes ──► dropped, counted              of another node's pods
 *
 * An inner source of the other family than the outer one's is no node's. Sources outside the pod network are not judged:
 * peers need not masquerade. The user-space tunnel's process checks the inner source by itself.
 *
 * Sources: RFC 7348 section 5 (VXLAN header); RFC 2003, RFC 2473 (IP in IP); draft-ietf-intarea-gue (GUE header).
 */
import type { NftChain, NftRule, NftSelector, NftStatement } from '../../model/nft.ts'
import type { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Family } from '../../net/ip.ts'
import { chain, daddr, families, originBits, prefixSelectors, rule, saddr, setName } from './names.ts'

/** A tunnel that this node accepts packets from. */
export interface FirewallTunnel {
  /** `ipip`: IPv4 in IPv4 and IPv6 in IPv6; `gue`: the same inside UDP. */
  readonly type: 'vxlan' | 'udp' | 'ipip' | 'gue'
  readonly device: string
  /** UDP port that it listens on; undefined for `ipip`. */
  readonly port?: number
}

export const strangerCounter = 'forged-tunnel-source'
export const innerCounter = 'forged-inner-source'

const accept: NftStatement = { verdict: 'accept' }
const drop: NftStatement = { verdict: 'drop' }
const notrack: NftStatement = { notrack: true }
const count = (name: string): NftStatement => ({ counter: name })

/** Devices that share a port share its chain. */
export function distinctTunnels(tunnels: readonly FirewallTunnel[]): FirewallTunnel[] {
  const byChain = new Map(tunnels.map((tunnel) => [tunnelChain(tunnel), tunnel]))
  return [...byChain.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, tunnel]) => tunnel)
}

export const tunnelChain = ({ type, port }: FirewallTunnel): string => (port === undefined ? type : `${type}-${port}`)

/**
 * `selector & mask == value`, or without the mask where it covers all: an address of which `selector` is `bits` from bit `from`
 * on begins with the block's prefix, as far as those bits go.
 */
export function beginsWith(
  selector: NftSelector,
  { base, family, length }: Cidr,
  from: number,
  bits: number,
): NftStatement {
  const ones = (count: bigint) => (1n << count) - 1n
  const value = (base.toBigInt() >> BigInt(bitsOf(family) - from - bits)) & ones(BigInt(bits))
  const free = BigInt(Math.max(0, from + bits - length))
  return free === 0n
    ? { match: [selector], right: `0x${value.toString(16)}` }
    : { masked: selector, mask: ones(BigInt(bits)) - ones(free), value }
}

/** Where a tunnel's packets say what is inside, and the inner source: its first `originBits`, and whole. */
interface Inside {
  isOf(family: Family): NftStatement
  readonly source: Readonly<Record<Family, { readonly prefix: NftSelector; readonly whole: NftSelector }>>
}

const insides: Readonly<Record<'vxlan' | 'ipip' | 'gue', Inside>> = {
  // The EtherType stands behind 8 bytes of UDP, 8 of VXLAN and two addresses of Ethernet.
  vxlan: {
    isOf: (family) => ({ match: ['@th,224,16'], right: family === 4 ? '0x800' : '0x86dd' }),
    source: {
      4: { prefix: prefixSelectors[4].inner, whole: prefixSelectors[4].wholeInner },
      6: { prefix: prefixSelectors[6].inner, whole: prefixSelectors[6].wholeInner },
    },
  },
  // Inner and outer family are one: the protocol number says both.
  ipip: {
    isOf: (family) => ({ match: ['meta nfproto'], right: family === 4 ? 'ipv4' : 'ipv6' }),
    source: {
      4: { prefix: '@th,96,24', whole: '@th,96,32' },
      6: { prefix: '@th,64,64', whole: '@th,64,128' },
    },
  },
  // Behind 8 bytes of UDP and 4 of GUE: version 0, a data packet, without further words, and the protocol number.
  gue: {
    isOf: (family) => ({ match: ['@th,64,16'], right: family === 4 ? '0x4' : '0x29' }),
    source: {
      4: { prefix: '@th,192,24', whole: '@th,192,32' },
      6: { prefix: '@th,160,64', whole: '@th,160,128' },
    },
  },
}

const insideOf = ({ type }: FirewallTunnel): Inside | undefined => (type === 'udp' ? undefined : insides[type])

/** What tells a tunnel's packets from others, one way for each family where they differ; the rarest first. */
export function packetsOf({ port }: FirewallTunnel): readonly (readonly NftStatement[])[] {
  if (port === undefined) return families.map(isWrapped)
  return [
    [
      { match: ['th dport'], right: `${port}` },
      { match: ['meta l4proto'], right: 'udp' },
    ],
  ]
}

/** IPv4 in IPv4, IPv6 in IPv6. */
const isWrapped = (family: Family): readonly NftStatement[] => [
  { match: ['meta l4proto'], right: family === 4 ? '4' : '41' },
  { match: ['meta nfproto'], right: family === 4 ? 'ipv4' : 'ipv6' },
]

/** What a tunnel's packets go through. The first rules let in what a node's pods send; all else ends up behind them. */
export function planTunnel(tunnel: FirewallTunnel, clusterCidrs: readonly Cidr[]): NftChain {
  const inside = insideOf(tunnel)
  const fromNodesPods = ({ isOf, source }: Inside, family: Family): NftRule[] =>
    (['origins', 'origin-ranges'] as const).map((name) => {
      const pair = [saddr(family), name === 'origins' ? source[family].prefix : source[family].whole]
      const isOrigin: NftStatement = { match: pair, right: `@${setName(name, family)}` }
      return rule("of the sender's pods", isOf(family), isOrigin, notrack, accept)
    })
  const fromNoNode = (family: Family): NftRule =>
    rule(
      'from no known node',
      { match: [saddr(family), prefixSelectors[family].source], op: '!=', right: `@${setName('origins', family)}` },
      count(strangerCounter),
      drop,
    )
  const fromOtherPods = (inside: Inside, cidr: Cidr): NftRule =>
    rule(
      `of ${cidr}, but no subnet of its sender`,
      inside.isOf(cidr.family),
      isInnerSource(inside, cidr),
      count(innerCounter),
      drop,
    )
  return chain(tunnelChain(tunnel), undefined, [
    ...(inside ? families.flatMap((family) => fromNodesPods(inside, family)) : []),
    rule('passes through', { match: ['fib daddr type'], op: '!=', right: 'local' }, { verdict: 'return' }),
    ...families.map(fromNoNode),
    ...(inside ? clusterCidrs.map((cidr) => fromOtherPods(inside, cidr)) : []),
    rule(undefined, notrack),
  ])
}

/** Whether the inner source address is in the block. */
function isInnerSource({ source }: Inside, cidr: Cidr): NftStatement {
  const { prefix, whole } = source[cidr.family]
  const bits = originBits(cidr.family)
  return cidr.length <= bits ? beginsWith(prefix, cidr, 0, bits) : beginsWith(whole, cidr, 0, bitsOf(cidr.family))
}

/**
 * What this node sends with an own pod source inside is its own wrapping: a comparison tells, and no set is asked. Else to
 * nodes only: anything else on these ports may be a service's, which connection tracking translates.
 */
export function planUntracked(tunnels: readonly FirewallTunnel[], localCidrs: readonly Cidr[]): NftChain {
  const own = tunnels.flatMap((tunnel) => {
    const inside = tunnel.port === undefined ? undefined : insideOf(tunnel)
    if (!inside) return []
    return packetsOf(tunnel).flatMap((isIts) =>
      localCidrs.map((cidr) =>
        rule('own pods, wrapped', ...isIts, inside.isOf(cidr.family), isInnerSource(inside, cidr), notrack, accept),
      ),
    )
  })
  const toNodes = tunnels.flatMap((tunnel) =>
    families.flatMap((family) => {
      const isToNode: NftStatement = {
        match: [daddr(family), prefixSelectors[family].destination],
        right: `@${setName('origins', family)}`,
      }
      const ways = tunnel.port === undefined ? [isWrapped(family)] : packetsOf(tunnel)
      return ways.map((isIts) => rule('tunnels to nodes', ...isIts, isToNode, notrack))
    }),
  )
  return chain('untracked', { type: 'filter', hook: 'output', priority: -300 }, [...own, ...toNodes])
}
