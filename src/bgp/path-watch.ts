/**
 * What the speaker asks of BFD and hears from it: which peers' paths are to be watched, and how they are.
 *
 * Sources: RFC 5880 section 6.2 (states), RFC 5882 sections 3.2 and 4.3 (what a client concludes).
 */
import type { BfdConfig, PeerStatus } from '../model/bgp.ts'
import type { Ip } from '../net/ip.ts'

/** A path to watch. */
export interface WatchedPath {
  /** The peer's name. */
  readonly peer: string
  readonly remote: Ip
  /** With a link-local address. */
  readonly device: string | undefined
  readonly localAddress: Ip | undefined
  readonly config: BfdConfig
}

export interface PathState {
  readonly state: NonNullable<PeerStatus['bfd']>
  readonly before: NonNullable<PeerStatus['bfd']>
  /** For people. */
  readonly reason: string
  /** The peer's operator took the session down, which says nothing of the path. */
  readonly byPeersOperator: boolean
  /** The peer's BFD outlives its control plane: when it fails, forwarding failed. */
  readonly controlPlaneIndependent: boolean
}
