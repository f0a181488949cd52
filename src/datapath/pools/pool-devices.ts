/**
 * This node's own end of the ways to pools' addresses: what it takes to accept packets by a path.
 *
 *   tunl0                                 IPIP   the kernel's own device of the module, from any node, to any
 *   vxlan.calico, vxlan-v6.calico         VXLAN  nothing learnt; MAC and tunnel address as Calico's nodes expect them
 *   geneve.weft                           GENEVE routes name the remote end (collect-metadata mode)
 *
 * A tunnel address is one of a pool. Pods do not need it: it is the source of what the node itself sends to pods elsewhere,
 * so that the answers come back by the tunnel; and Calico's routes name it as the gateway of VXLAN. A device that has none
 * of IPv4, as GENEVE's never has, gets the node's own address: the kernel drops what comes in by a device without any unless the
 * answer would go out by it, whatever rp_filter says, and in a switch the two directions change at different times.
 *
 * Sources: Calico felix/dataplane/linux/{vxlan_mgr,ipip_mgr,int_dataplane}.go (devices, what wrapping costs),
 * felix/calc/vxlan_resolver.go (MAC); RFC 8926; net/ipv4/fib_frontend.c (__fib_validate_source:
 * no_addr).
 */
import type { CalicoNode, FelixSettings } from '../../model/calico.ts'
import type { NodeContext } from '../../model/cluster.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Fragment } from '../../model/kernel-state.ts'
import type { Link } from '../../model/link.ts'
import { bitsOf, type Family, type Ip } from '../../net/ip.ts'
import type { Mac } from '../../net/mac.ts'
import type { PathId } from '../path.ts'
import { addressOf } from './pool-mode.ts'
import { deviceOfPoolPath, type PoolPath, parsePoolPath } from './pool-path.ts'

/** This node, as the plans of pools need it. */
export interface PoolNode {
  readonly context: NodeContext
  /** Its addresses and subnets; tunnel addresses as far as they have been given. */
  readonly words: CalicoNode
  readonly settings: FelixSettings
  /** MACs of its tunnel ends. */
  macOf(path: PoolPath): Mac | undefined
}

const overheadBytes = {
  ipip: 20,
  /** Outer IP, UDP 8, VXLAN 8 or GENEVE 8 without options, inner Ethernet 14. */
  4: 50,
  6: 70,
} as const

/** Families that a path carries here: those that it can carry and this node has an address of. */
export function familiesOfPath(path: PoolPath, words: CalicoNode): readonly Family[] {
  const able: readonly Family[] = path.type === 'ipip' ? [4] : path.type === 'vxlan' ? [path.family] : [4, 6]
  return able.filter((family) => addressOf(words, family))
}

/** Largest inner packet of a path; undefined where this node has no address that it needs. */
export function mtuOfPath(path: PoolPath, { context, words, settings }: Omit<PoolNode, 'macOf'>): number | undefined {
  const families = familiesOfPath(path, words)
  if (families.length === 0) return undefined
  const { mtuBytes } = context.external
  if (path.type === 'plain') return mtuBytes
  if (path.type === 'ipip') return settings.ipipMtuBytes ?? mtuBytes - overheadBytes.ipip
  const auto = mtuBytes - Math.max(...families.map((family) => overheadBytes[family]))
  if (path.type === 'geneve') return auto
  return (path.family === 4 ? settings.vxlanMtuBytes : settings.vxlanMtuV6Bytes) ?? auto
}

/** The address of this node's end, or of a peer's, that a path's device has or is to have. */
export function tunnelAddressOf(path: PoolPath, words: CalicoNode | undefined): Ip | undefined {
  if (path.type === 'ipip') return words?.ipv4IpipTunnelAddr
  if (path.type !== 'vxlan') return undefined
  return path.family === 4 ? words?.ipv4VxlanTunnelAddr : words?.ipv6VxlanTunnelAddr
}

export const poolPathSource = (path: PathId): string => `calico/path/${path}`

/** What it takes to accept by a path. Source is `calico/path/<path id>`. */
export function planPoolPath(id: PathId, node: PoolNode): Fragment {
  const path = parsePoolPath(id)!
  const objects: KernelObject[] = []
  const link = planLink(path, node)
  if (link) {
    objects.push(link)
    const families = familiesOfPath(path, node.words)
    const ip = tunnelAddressOf(path, node.words) ?? (families.includes(4) ? node.words.ipv4?.ip : undefined)
    if (ip) {
      const noDad = ip.family === 6 ? { noDad: true } : {}
      objects.push({ kind: 'address', device: link.name, ip, prefixLength: bitsOf(ip.family), ...noDad })
    }
  }
  objects.push(...planForwarding(familiesOfPath(path, node.words), link?.name, node))
  return { source: poolPathSource(id), objects }
}

/** In a switch packets may come in by another way than answers go out: the reverse path is checked loosely. */
function planForwarding(families: readonly Family[], device: string | undefined, node: PoolNode): KernelObject[] {
  const out: KernelObject[] = []
  const sysctl = (path: string, value: string) => out.push({ kind: 'sysctl', path, value })
  if (families.includes(4)) {
    if (node.settings.ipForwarding) sysctl('net/ipv4/ip_forward', '1')
    for (const name of [node.context.external.device, device])
      if (name !== undefined) sysctl(`net/ipv4/conf/${name}/rp_filter`, '2')
  }
  if (families.includes(6) && node.settings.ipForwarding) sysctl('net/ipv6/conf/all/forwarding', '1')
  return out
}

function planLink(path: PoolPath, node: PoolNode): Link | undefined {
  const common = {
    kind: 'link',
    name: deviceOfPoolPath(path) ?? '',
    mtuBytes: mtuOfPath(path, node)!,
    up: true,
  } as const
  const mac = node.macOf(path)
  const ether = { ...(mac && { mac }), addressGeneration: 'none' } as const
  switch (path.type) {
    case 'plain':
      return undefined
    case 'ipip':
      return { ...common, type: 'ipip', settings: {}, alias: 'weft:ipip' }
    case 'vxlan': {
      const { vni, port, family } = path
      return {
        ...common,
        ...ether,
        type: 'vxlan',
        settings: {
          vni,
          port,
          lower: node.context.external.device,
          local: addressOf(node.words, family)!.ip,
          learning: false,
        },
        alias: 'weft:vxlan',
      }
    }
    case 'geneve':
      return {
        ...common,
        ...ether,
        type: 'geneve',
        settings: { vni: 0, port: path.port, external: true },
        alias: 'weft:geneve',
      }
  }
}
