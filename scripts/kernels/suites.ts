/**
 * What runs in the kernels tier: the files of the netns tier to which another kernel adds something, and those of
 * test/kernels, which need what most machines' own kernel lacks. Longest first: two guests run at once.
 */
export interface Suite {
  /** Path from the root of the checkout. */
  readonly file: string
  /** Processors of the guest, 1 when it is not said. */
  readonly cpus?: number
  /** Modules kept from loading: the kernel is without them. */
  readonly without?: readonly string[]
  /** Further words of the kernel's command line. */
  readonly bootOptions?: string
  /** How long the guest may run, 300 s when it is not said. */
  readonly capSeconds?: number
}

export const suites: readonly Suite[] = [
  { file: 'test/kernels/lab-ipip.test.ts', cpus: 2, capSeconds: 900 },
  { file: 'test/netns/rtnetlink.test.ts' },
  { file: 'test/netns/firewall.test.ts' },
  { file: 'test/netns/twin-walk.test.ts' },
  { file: 'test/kernels/link-kinds.test.ts' },
  { file: 'test/kernels/ip-tunnels.test.ts' },
  { file: 'test/netns/nftables.test.ts' },
  { file: 'test/netns/cni-capabilities.test.ts' },
  { file: 'test/kernels/cni-vlan.test.ts', capSeconds: 480 },
  { file: 'test/kernels/sctp-host-port.test.ts' },
  { file: 'test/kernels/lab-underlay.test.ts' },
  { file: 'test/netns/pools-ipip.test.ts', cpus: 2, capSeconds: 480 },
  { file: 'test/netns/pools-geneve.test.ts', cpus: 2, capSeconds: 480 },
  { file: 'test/netns/cni-routed-pools.test.ts', cpus: 2, capSeconds: 480 },
  { file: 'test/netns/kernel-compliance.test.ts' },
  { file: 'test/netns/datapath.test.ts' },
  { file: 'test/netns/ipam-collector.test.ts' },
  { file: 'test/netns/probe.test.ts' },
  { file: 'test/kernels/features.test.ts' },
  { file: 'test/netns/conntrack.test.ts' },
  { file: 'test/netns/apply.test.ts' },
  { file: 'test/netns/rtnetlink-conversation.test.ts' },
  { file: 'test/netns/rtnetlink-class.test.ts' },
  { file: 'test/kernels/missing-features.test.ts', without: ['vxlan', 'nf_tables', 'bridge', 'tun'] },
  { file: 'test/netns/nft-compliance.test.ts' },
  { file: 'test/kernels/no-ipv6.test.ts', bootOptions: 'ipv6.disable=1' },
]
