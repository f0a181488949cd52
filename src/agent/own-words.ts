/**
 * One node object for several parts: what each has to say is put together, and what one that is not ready yet said before
 * stays as it is, so that nobody hears of paths that ended only because an agent started anew.
 */
import type { Announcement } from '../cluster/cluster.ts'
import type { CalicoNode } from '../model/calico.ts'
import type { NodeInfo, WeftNodeStatus } from '../model/cluster.ts'
import type { PartWords } from './network-part.ts'

export interface Speaker {
  /** Undefined: its former words stay. */
  readonly words: PartWords | undefined
  ownsPath(path: string): boolean
}

/** What to announce; undefined while no part has anything to say. */
export function mergeWords(speakers: readonly Speaker[], own: NodeInfo | undefined): Announcement | undefined {
  if (!speakers.some(({ words }) => words)) return undefined
  const statuses = speakers.map(({ words, ownsPath }) => words?.status ?? partOf(own?.weft, ownsPath))
  const endpoints = Object.assign({}, ...statuses.map((status) => status.endpoints ?? {}))
  const lease = speakers.map(({ words }) => words?.lease).find((said) => said !== undefined)
  const calico = speakers.map(({ words }) => words?.calico).find((said) => said !== undefined)
  return {
    ...(lease === undefined || (lease === null && !own?.lease) ? {} : { lease }),
    weft: {
      accepts: statuses.flatMap(({ accepts }) => accepts),
      sends: statuses.flatMap(({ sends }) => sends),
      ...(Object.keys(endpoints).length > 0 ? { endpoints } : {}),
    },
    ...(calico === undefined || (calico === null && !own?.calico) ? {} : { calico }),
  }
}

/** Of a status what concerns some paths. */
function partOf(status: WeftNodeStatus | undefined, ownsPath: (path: string) => boolean): WeftNodeStatus {
  const endpoints = Object.entries(status?.endpoints ?? {}).filter(([path]) => ownsPath(path))
  return {
    accepts: (status?.accepts ?? []).filter(ownsPath),
    sends: (status?.sends ?? []).filter(ownsPath),
    ...(endpoints.length > 0 ? { endpoints: Object.fromEntries(endpoints) } : {}),
  }
}

/** True when the store's words of this node are the announced ones. */
export function saysAlready(own: NodeInfo | undefined, { lease, weft, calico }: Announcement): boolean {
  const same = (a: unknown, b: unknown) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null)
  return (
    same(own?.weft, weft) &&
    (lease === undefined || same(own?.lease, lease)) &&
    (calico === undefined || same(ownCalico(own?.calico), ownCalico(calico)))
  )
}

/** What a node's own agent writes, in one order; the rest is an administrator's. */
function ownCalico(calico: CalicoNode | null | undefined): unknown {
  if (!calico) return undefined
  const { ipv4, ipv6, ipv4IpipTunnelAddr, ipv4VxlanTunnelAddr, ipv6VxlanTunnelAddr, vxlanTunnelMac, vxlanTunnelMacV6 } =
    calico
  return [
    ipv4 && `${ipv4.ip}/${ipv4.prefixLength}`,
    ipv6 && `${ipv6.ip}/${ipv6.prefixLength}`,
    ...[ipv4IpipTunnelAddr, ipv4VxlanTunnelAddr, ipv6VxlanTunnelAddr, vxlanTunnelMac, vxlanTunnelMacV6],
  ]
}
