/**
 * Calico's BGPPeer: which nodes speak with whom, and how.
 *
 *   whose     node | nodeSelector | (neither: every node)
 *   with whom peerIP[:port] + asNumber | peerSelector over nodes | localWorkloadSelector (does not apply)
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/bgppeer.go (keys, rules), confd/pkg/backends/calico/client.go
 * (`parseIPPort`, families of reachableBy); Calico Enterprise (failureDetectionMode, restartMode).
 */
import type { BgpPeer } from '../../model/calico-bgp.ts'
import { Ip } from '../../net/ip.ts'
import { MAX_RESTART_SECONDS } from './bgp-configuration.ts'
import { readAsn, readPassword, readSeconds } from './bgp-fields.ts'
import { bgpKeysNotApplying, notApplyingWarnings } from './bgp-keys.ts'
import { type Fields, readHead, shown } from './fields.ts'
import { parseSelector } from './selector.ts'

/** Keys that are honoured. */
export const bgpPeerKeys = [
  'asNumber',
  'failureDetectionMode',
  'filters',
  'keepOriginalNextHop',
  'keepaliveTime',
  'localASNumber',
  'maxRestartTime',
  'nextHopMode',
  'node',
  'nodeSelector',
  'numAllowedLocalASNumbers',
  'password',
  'peerIP',
  'peerSelector',
  'reachableBy',
  'restartMode',
  'reversePeering',
  'sourceAddress',
  'ttlSecurity',
] as const

const MAX_FILTERS = 100
const MAX_ALLOWED_LOCAL_ASNS = 255

/** Throws ConfigError naming the object and the key. */
export function parseBgpPeer(object: unknown): { readonly peer: BgpPeer; readonly warnings: readonly string[] } {
  const { root, name } = readHead(object, 'BGPPeer')
  const spec = root.inner('spec')
  const whose = readWhose(spec)
  const withWhom = readWithWhom(spec)
  const keepOriginalNextHop = spec.flag('keepOriginalNextHop') ?? false
  const nextHopMode = spec.oneOf('nextHopMode', ['Auto', 'Self', 'Keep'])
  if (keepOriginalNextHop && nextHopMode)
    throw spec.error('keepOriginalNextHop', 'cannot be set beside nextHopMode, which says more')
  const password = readPassword(spec, 'password')
  const maxRestartSeconds = readSeconds(spec, 'maxRestartTime', 0, MAX_RESTART_SECONDS)
  const keepaliveSeconds = readSeconds(spec, 'keepaliveTime', 1, 21845)
  const ttlSecurityHops = spec.integer('ttlSecurity', 0, 255) || undefined
  if (ttlSecurityHops === 255) throw spec.error('ttlSecurity', 'must be from 1 to 254 hops; nothing travels farther')
  const localAsn = readAsn(spec, 'localASNumber')
  const peer: BgpPeer = {
    name,
    ...whose,
    ...withWhom,
    ...(localAsn !== undefined && { localAsn }),
    nextHopMode: nextHopMode ?? 'Auto',
    keepOriginalNextHop,
    ...(password && { password }),
    sourceAddress: spec.oneOf('sourceAddress', ['UseNodeIP', 'None']) ?? 'UseNodeIP',
    ...(maxRestartSeconds !== undefined && { maxRestartSeconds }),
    ...(keepaliveSeconds !== undefined && { keepaliveSeconds }),
    allowedLocalAsns: spec.integer('numAllowedLocalASNumbers', 0, MAX_ALLOWED_LOCAL_ASNS) ?? 0,
    ...(ttlSecurityHops !== undefined && { ttlSecurityHops }),
    filters: spec.texts('filters', MAX_FILTERS) ?? [],
    reversePeering: spec.oneOf('reversePeering', ['Auto', 'Manual']) ?? 'Auto',
    failureDetection: spec.oneOf('failureDetectionMode', ['None', 'BFDIfDirectlyConnected']) ?? 'None',
    restartMode: spec.oneOf('restartMode', ['GracefulRestart', 'LongLivedGracefulRestart']) ?? 'GracefulRestart',
  }
  const known = [...bgpPeerKeys, ...bgpKeysNotApplying.BGPPeer.flatMap(({ keys }) => keys)]
  return { peer, warnings: [...spec.unknown(known), ...notApplyingWarnings('BGPPeer', spec)] }
}

function readWhose(spec: Fields): Pick<BgpPeer, 'node' | 'nodeSelector'> {
  const node = spec.text('node', 253)
  const nodeSelector = readSelector(spec, 'nodeSelector')
  if (node !== undefined && nodeSelector !== undefined)
    throw spec.error('nodeSelector', 'cannot be set beside node: one of the two says whose peer it is')
  return { ...(node !== undefined && { node }), ...(nodeSelector !== undefined && { nodeSelector }) }
}

function readWithWhom(
  spec: Fields,
): Pick<BgpPeer, 'peer' | 'peerSelector' | 'asn' | 'reachableBy' | 'localWorkloadSelector'> {
  const address = spec.text('peerIP', 64)
  const peerSelector = readSelector(spec, 'peerSelector')
  const localWorkloadSelector = readSelector(spec, 'localWorkloadSelector')
  const asn = readAsn(spec, 'asNumber')
  const gateway = spec.text('reachableBy', 64)
  if (localWorkloadSelector !== undefined) {
    for (const key of ['peerIP', 'peerSelector'] as const)
      if (spec.text(key) !== undefined) throw spec.error(key, 'must be empty beside localWorkloadSelector')
    if (asn === undefined) throw spec.error('asNumber', 'is missing: localWorkloadSelector needs one')
    return { localWorkloadSelector, asn }
  }
  if (address !== undefined && peerSelector !== undefined)
    throw spec.error('peerSelector', 'cannot be set beside peerIP: one of the two says with whom')
  if (peerSelector !== undefined && asn !== undefined)
    throw spec.error('asNumber', 'must be empty beside peerSelector: nodes have their own')
  if (gateway !== undefined && address === undefined)
    throw spec.error('reachableBy', 'must be empty where peerIP is: it is the way to that address')
  if (peerSelector !== undefined) return { peerSelector }
  if (address === undefined)
    throw spec.error('peerIP', 'is missing, and so is peerSelector: one of the two says with whom')
  const peer = parseEndpoint(spec, 'peerIP', address)
  const reachableBy = gateway === undefined ? undefined : parseAddress(spec, 'reachableBy', gateway)
  if (reachableBy && reachableBy.family !== peer.address.family)
    throw spec.error('reachableBy', `${reachableBy} is of another family than the peer ${peer.address}`)
  return { peer, ...(asn !== undefined && { asn }), ...(reachableBy && { reachableBy }) }
}

/** `192.0.2.1`, `192.0.2.1:1179`, `2001:db8::1`, `[2001:db8::1]:1179`. */
function parseEndpoint(spec: Fields, key: string, text: string): { readonly address: Ip; readonly port?: number } {
  const plain = Ip.tryParse(text)
  if (plain) return { address: checkUnicast(spec, key, plain) }
  const [, v6, v4, portText] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? []
  const port = Number(portText)
  if (portText === undefined || port < 1 || port > 65535)
    throw spec.error(key, `must be an address, or address:port ([IPv6]:port), not ${shown(text)}`)
  return { address: parseAddress(spec, key, (v6 ?? v4)!), port }
}

function parseAddress(spec: Fields, key: string, text: string): Ip {
  const ip = Ip.tryParse(text)
  if (!ip) throw spec.error(key, `must be an address, not ${shown(text)}`)
  return checkUnicast(spec, key, ip)
}

function checkUnicast(spec: Fields, key: string, ip: Ip): Ip {
  if (ip.isAny || ip.isMulticast) throw spec.error(key, `${ip} is nobody's address`)
  return ip
}

function readSelector(spec: Fields, key: string): string | undefined {
  const text = spec.text(key)
  if (text === undefined) return undefined
  try {
    parseSelector(text)
  } catch (cause) {
    throw spec.error(key, `${shown(text)} is no selector: ${(cause as Error).message}`, cause)
  }
  return text
}
