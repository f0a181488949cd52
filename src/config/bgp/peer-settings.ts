/**
 * What dialects do not say of a peer, decided once: timers, capabilities, families.
 *
 * Sources: RFC 4271 section 10 (timers; hold time 90 s), Calico node/filesystem/etc/calico/confd/templates/bird.cfg.template
 * (delays, retries, add-path, multihop), kube-router docs/bgp.md (restart 90 s).
 */
import { encodeUtf8 } from '../../bytes/text.ts'
import type {
  GracefulRestartConfig,
  PeerCapabilities,
  PeerConfig,
  PeerFamilyConfig,
  PeerTimers,
} from '../../model/bgp.ts'
import { bgpFamilyOf, DEFAULT_BGP_PORT } from '../../model/bgp.ts'
import { bitsOf, type Family, type Ip } from '../../net/ip.ts'

export const DEFAULT_HOLD_SECONDS = 90
export const DEFAULT_RESTART_SECONDS = 120
/** How long nothing is chosen after a restart while peers have not said everything; kube-router's 6 minutes. */
export const DEFAULT_DEFERRAL_SECONDS = 360
export const LONG_LIVED_STALE_SECONDS = 3600
/** As BIRD merges paths. */
export const MAX_PATHS = 16
/** Hops that a session may take where nobody limits them. */
export const ANY_HOPS_TTL = 64
const ADD_PATH_SEND = 8

export const timersOf = (holdSeconds: number, keepaliveSeconds?: number): PeerTimers => ({
  holdSeconds,
  ...(keepaliveSeconds !== undefined && { keepaliveSeconds }),
  connectRetrySeconds: 5,
  connectDelaySeconds: 2,
  errorWaitMinSeconds: 5,
  errorWaitMaxSeconds: 30,
})

export const capabilitiesOf = (hostName: string): PeerCapabilities => ({
  routeRefresh: true,
  extendedMessages: true,
  extendedNextHop: false,
  hostName,
})

export const restartOf = (restartSeconds: number, longLivedStaleSeconds = 0): GracefulRestartConfig => ({
  mode: 'full',
  restartSeconds,
  notification: true,
  longLivedStaleSeconds,
})

export const noRestart: GracefulRestartConfig = {
  mode: 'helper',
  restartSeconds: 0,
  notification: false,
  longLivedStaleSeconds: 0,
}

/** Three times 90 ms: a peer that is gone is noticed within 0.3 s. */
export const directBfd = {
  multihop: false,
  minTransmitMicroseconds: 90_000,
  minReceiveMicroseconds: 90_000,
  detectMultiplier: 3,
} as const

export const familyOf = (
  family: Family,
  rest: Pick<PeerFamilyConfig, 'importPolicies' | 'exportPolicies' | 'importDefault' | 'exportDefault' | 'nextHop'>,
): PeerFamilyConfig => ({
  family: bgpFamilyOf(family),
  ...rest,
  addPathReceive: true,
  addPathSend: ADD_PATH_SEND,
})

/** `192.0.2.1`, with a port behind it where that is not BGP's own: what a session is known by, whoever asked for it. */
export const peerNameOf = (address: Ip, port: number): string =>
  port === DEFAULT_BGP_PORT ? `${address}` : address.family === 4 ? `${address}:${port}` : `[${address}]:${port}`

/** By address and port. */
export const byName = (a: Pick<PeerConfig, 'name'>, b: Pick<PeerConfig, 'name'>): number =>
  a.name < b.name ? -1 : a.name > b.name ? 1 : 0

/** A number that no other node is likely to have, for a node without an IPv4 address: FNV-1a of its name. */
export function routerIdOf(name: string): string {
  let hash = 0x811c9dc5
  for (const byte of encodeUtf8(name)) hash = Math.imul(hash ^ byte, 0x01000193)
  const id = hash >>> 0 || 1
  return [24, 16, 8, 0].map((shift) => (id >>> shift) & 255).join('.')
}

export const hostPrefix = (ip: Ip): string => `${ip}/${bitsOf(ip.family)}`
