/**
 * What this kernel can do, found out by trying, in a nameless namespace that is gone afterwards: version numbers and
 * configuration files lie (modules that are not shipped, features that a vendor took out), an attempt does not.
 * `NotSupported` and every choice between two ways of doing something come from here.
 *
 * Sources: the manual pages of what is tried: ip-link(8), nft(8), udp(7), tun (Documentation/networking/tuntap.rst).
 */
import { release } from 'node:os'
import type { KernelObject } from '../model/kernel-object.ts'
import type { Link, LinkKind } from '../model/link.ts'
import type { NftStatement } from '../model/nft.ts'
import { Ip } from '../net/ip.ts'
import { NETLINK_GENERIC } from '../wire/netlink/constants.gen.ts'
import type { Kernel } from './kernel.ts'
import { Conntrack } from './linux/drivers/conntrack.ts'
import { resolveFamily } from './linux/generic-family.ts'
import { LinuxKernel } from './linux/linux-kernel.ts'
import { closeNetns, openNewNetns } from './linux/netns.ts'
import * as syscalls from './linux/syscalls.ts'

const SOL_UDP = 17
const UDP_SEGMENT = 103
const UDP_GRO = 104

export interface KernelFeatures {
  /** As uname says; for people. */
  readonly release: string
  /** Kinds of devices that can be made. */
  readonly links: Readonly<Record<LinkKind, boolean>>
  readonly nftables: {
    /** Tables, chains, sets and transactions at all. */
    readonly tables: boolean
    readonly nat: boolean
    readonly fullyRandom: boolean
    readonly fib: boolean
    /** Ranges in sets of concatenations (5.6). */
    readonly rangeConcatenations: boolean
    /** A chain on a device's ingress. */
    readonly ingress: boolean
    readonly log: boolean
    readonly reject: boolean
  }
  readonly conntrack: boolean
  /** One send, many datagrams (UDP_SEGMENT), and one receive of many (UDP_GRO). */
  readonly udpSegmentation: boolean
  readonly udpReceiveOffload: boolean
  /** A TUN device that passes offload state (IFF_VNET_HDR). */
  readonly tunVnetHeader: boolean
  readonly ethtool: boolean
  readonly ipvs: boolean
  readonly wireguard: boolean
}

const loopbackV4 = Ip.parse('127.0.0.1')
const loopbackV6 = Ip.parse('::1')

/** A device of each kind, over `base` where it needs a lower one. */
const samples: Readonly<Record<LinkKind, Link>> = {
  bridge: { kind: 'link', type: 'bridge', name: 'p-bridge' },
  veth: { kind: 'link', type: 'veth', name: 'p-veth', settings: { peer: { name: 'p-veth-peer' } } },
  vxlan: { kind: 'link', type: 'vxlan', name: 'p-vxlan', settings: { vni: 1, port: 8472 } },
  geneve: { kind: 'link', type: 'geneve', name: 'p-geneve', settings: { vni: 1, port: 6081, remote: loopbackV4 } },
  ipip: { kind: 'link', type: 'ipip', name: 'p-ipip', settings: { local: loopbackV4, remote: loopbackV4 } },
  ip6tnl: { kind: 'link', type: 'ip6tnl', name: 'p-ip6tnl', settings: { local: loopbackV6, remote: loopbackV6 } },
  gre: { kind: 'link', type: 'gre', name: 'p-gre', settings: { local: loopbackV4, remote: loopbackV4 } },
  tun: { kind: 'link', type: 'tun', name: 'p-tun', settings: { mode: 'tun' } },
  vlan: { kind: 'link', type: 'vlan', name: 'p-vlan', settings: { id: 1, lower: 'base' } },
  macvlan: { kind: 'link', type: 'macvlan', name: 'p-macvlan', settings: { mode: 'bridge', lower: 'base' } },
  ipvlan: { kind: 'link', type: 'ipvlan', name: 'p-ipvlan', settings: { mode: 'l3', lower: 'base-peer' } },
  vrf: { kind: 'link', type: 'vrf', name: 'p-vrf', settings: { table: 10 } },
  ifb: { kind: 'link', type: 'ifb', name: 'p-ifb' },
  dummy: { kind: 'link', type: 'dummy', name: 'p-dummy' },
}

async function works(kernel: Kernel, ...objects: readonly KernelObject[]): Promise<boolean> {
  const results = await kernel.execute(objects.map((object) => ({ verb: 'add', object })))
  return results.every((result) => result === undefined)
}

async function probeLinks(kernel: Kernel): Promise<Record<LinkKind, boolean>> {
  await works(kernel, { kind: 'link', type: 'veth', name: 'base', settings: { peer: { name: 'base-peer' } } })
  const links = {} as Record<LinkKind, boolean>
  for (const [kind, sample] of Object.entries(samples)) links[kind as LinkKind] = await works(kernel, sample)
  return links
}

const probeTable = { family: 'inet', table: 'weft-probe' } as const

/** Whether a chain with this one rule is accepted. */
function probeRule(
  kernel: Kernel,
  name: string,
  type: 'filter' | 'nat',
  hook: 'prerouting' | 'postrouting' | 'input',
  ...statements: NftStatement[]
): Promise<boolean> {
  const priority = type === 'nat' ? 100 : 0
  return works(kernel, {
    kind: 'nft-chain',
    ...probeTable,
    name,
    base: { type, hook, priority },
    rules: [{ statements }],
  })
}

async function probeNftables(kernel: Kernel): Promise<KernelFeatures['nftables']> {
  const tables = await works(
    kernel,
    { kind: 'nft-table', family: 'inet', name: probeTable.table },
    { kind: 'nft-set', ...probeTable, name: 's', type: ['ipv4_addr'], flags: ['interval'] },
    { kind: 'nft-element', ...probeTable, set: 's', key: '10.0.0.0/8' },
  )
  return {
    tables,
    nat: await probeRule(kernel, 'nat', 'nat', 'prerouting', { dnat: { to: '10.0.0.1' } }),
    fullyRandom: await probeRule(kernel, 'random', 'nat', 'postrouting', { masquerade: { fullyRandom: true } }),
    fib: await probeRule(kernel, 'fib', 'filter', 'prerouting', { match: ['fib daddr type'], right: 'local' }),
    rangeConcatenations: await works(
      kernel,
      { kind: 'nft-set', ...probeTable, name: 'c', type: ['ether_addr', 'ipv4_addr'], flags: ['interval'] },
      { kind: 'nft-element', ...probeTable, set: 'c', key: '02:00:00:00:00:01 . 10.0.0.0/8' },
    ),
    ingress: await works(
      kernel,
      { kind: 'nft-table', family: 'netdev', name: probeTable.table },
      {
        kind: 'nft-chain',
        family: 'netdev',
        table: probeTable.table,
        name: 'ingress',
        base: { type: 'filter', hook: 'ingress', priority: 0, device: 'lo' },
        rules: [],
      },
    ),
    log: await probeRule(kernel, 'log', 'filter', 'input', { log: { group: 1 } }),
    reject: await probeRule(kernel, 'reject', 'filter', 'input', { reject: 'icmp-admin-prohibited' }),
  }
}

/** Whether a UDP socket takes an option. */
function takesUdpOption(kernel: LinuxKernel, option: number, value: number): boolean {
  return kernel.inside(() => {
    const fd = syscalls.socket(syscalls.AF_INET, syscalls.SOCK_DGRAM | syscalls.SOCK_CLOEXEC, 0)
    if (fd < 0) return false
    const set = syscalls.setsockoptInt(fd, SOL_UDP, option, value)
    syscalls.close(fd)
    return set >= 0
  })
}

function hasFamily(kernel: LinuxKernel, name: string): boolean {
  const socket = kernel.openNetlink(NETLINK_GENERIC)
  try {
    resolveFamily(socket, name)
    return true
  } catch {
    return false
  } finally {
    socket.close()
  }
}

async function tracksFlows(kernel: LinuxKernel): Promise<boolean> {
  const conntrack = new Conntrack(kernel)
  try {
    await conntrack.list()
    return true
  } catch {
    return false
  } finally {
    conntrack.close()
  }
}

function openNameless(): LinuxKernel {
  const netns = openNewNetns()
  try {
    return LinuxKernel.openAt(`/proc/self/fd/${netns}`)
  } finally {
    closeNetns(netns)
  }
}

/** Which of these kinds of devices can be made. Throws KernelError when not even a namespace can be made (EPERM). */
export async function probeLinkKinds<K extends LinkKind>(kinds: readonly K[]): Promise<ReadonlySet<K>> {
  const kernel = openNameless()
  try {
    const found = new Set<K>()
    for (const kind of kinds) if (await works(kernel, samples[kind])) found.add(kind)
    return found
  } finally {
    kernel.close()
  }
}

/** Tries everything, in a fraction of a second. Throws KernelError when not even a namespace can be made (EPERM). */
export async function probeKernel(): Promise<KernelFeatures> {
  const kernel = openNameless()
  try {
    return {
      release: release(),
      links: await probeLinks(kernel),
      nftables: await probeNftables(kernel),
      conntrack: await tracksFlows(kernel),
      udpSegmentation: takesUdpOption(kernel, UDP_SEGMENT, 1200),
      udpReceiveOffload: takesUdpOption(kernel, UDP_GRO, 1),
      tunVnetHeader: await works(kernel, {
        kind: 'link',
        type: 'tun',
        name: 'p-vnet',
        settings: { mode: 'tun', vnetHeader: true },
      }),
      ethtool: hasFamily(kernel, 'ethtool'),
      ipvs: hasFamily(kernel, 'IPVS'),
      wireguard: hasFamily(kernel, 'wireguard'),
    }
  } finally {
    kernel.close()
  }
}
