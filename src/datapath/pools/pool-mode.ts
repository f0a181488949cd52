/**
 * Which way packets to a pool's addresses are to go to one peer:
 *
 *                  peer in this node's subnet   elsewhere
 *   Never          plain                        plain: nothing of weft's own, the network between must know the way
 *   CrossSubnet    plain                        wrapped
 *   Always         wrapped                      wrapped
 *
 * Sources: Calico api ippool.go (modes), felix/calc/l3_route_resolver.go (what counts as the same subnet).
 */
import type { CalicoNode, EncapsulationMode, FelixSettings, IpPool } from '../../model/calico.ts'
import { bitsOf, type Family, type Ip } from '../../net/ip.ts'
import type { PathId } from '../path.ts'
import { formatPoolPath, genevePath } from './pool-path.ts'

export const plainPath: PathId = formatPoolPath({ type: 'plain' })
export const ipipPath: PathId = formatPoolPath({ type: 'ipip' })

export const vxlanPath = ({ vxlanVni: vni, vxlanPort: port }: FelixSettings, family: Family): PathId =>
  formatPoolPath({ type: 'vxlan', family, vni, port, detour: false })

/** How a pool's packets are wrapped, and when. */
export interface PoolMode {
  readonly mode: EncapsulationMode
  /** The plain path when the mode is `Never`. */
  readonly wrapped: PathId
}

/** `knowsGeneve` is false for a real Calico node, to which such a pool has no encapsulation. */
export function modeOf(pool: IpPool, settings: FelixSettings, knowsGeneve = true): PoolMode {
  const { ipipMode, vxlanMode, geneveMode } = pool
  const { family } = pool.cidr
  if (vxlanMode !== 'Never') return { mode: vxlanMode, wrapped: vxlanPath(settings, family) }
  if (ipipMode !== 'Never' && family === 4) return { mode: ipipMode, wrapped: ipipPath }
  if (geneveMode !== 'Never' && knowsGeneve) return { mode: geneveMode, wrapped: genevePath }
  return { mode: 'Never', wrapped: plainPath }
}

/** What a pool asks for towards a node in this node's subnet, or elsewhere. */
export const wantedPath = ({ mode, wrapped }: PoolMode, isSameSubnet: boolean): PathId =>
  mode === 'Always' || (mode === 'CrossSubnet' && !isSameSubnet) ? wrapped : plainPath

/** Every path that a pool's mode may ask for. */
export const pathsOfMode = ({ mode, wrapped }: PoolMode): readonly PathId[] =>
  mode === 'CrossSubnet' ? [wrapped, plainPath] : [wrapped]

/** A node's address in a family with the length of its subnet's prefix. */
export const addressOf = (node: CalicoNode | undefined, family: Family): CalicoNode['ipv4'] =>
  family === 4 ? node?.ipv4 : node?.ipv6

/**
 * True when each of the two lies in the subnet that the other names. One that names no subnet (a prefix of one address) is
 * taken to be elsewhere: wrapping always works.
 */
export function isSameSubnet(own: CalicoNode['ipv4'], peer: CalicoNode['ipv4']): boolean {
  if (!own || !peer) return false
  const isIn = (ip: Ip, subnet: NonNullable<CalicoNode['ipv4']>) =>
    subnet.prefixLength < bitsOf(ip.family) &&
    ip.masked(subnet.prefixLength).equals(subnet.ip.masked(subnet.prefixLength))
  return isIn(peer.ip, own) && isIn(own.ip, peer)
}
