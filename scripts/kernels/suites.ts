/**
 * What runs in the kernels tier: the files of the netns tier to which another kernel adds something, and those of
 * test/kernels, which need what most machines' own kernel lacks. Two guests run at once, so the files that need nothing particular
 * share two boots of one processor each, which take about as long as each other; what is particular has a boot of its own.
 */
export interface Suite {
  /** Path from the root of the checkout. */
  readonly file: string
  /** How long it may run, 300 s when it is not said. */
  readonly capSeconds?: number
}

/** One guest, and the files that it runs one after the other. */
export interface Boot {
  readonly suites: readonly Suite[]
  /** Processors of the guest, 1 when it is not said. */
  readonly cpus?: number
  /** Modules kept from loading: the kernel is without them. */
  readonly without?: readonly string[]
  /** Further words of the kernel's command line. */
  readonly bootOptions?: string
}

export const boots: readonly Boot[] = [
  {
    suites: [{ file: 'test/kernels/lab-ipip.test.ts', capSeconds: 900 }],
    cpus: 2,
  },
  {
    suites: [
      // Before anything loads modules whose fallback devices every namespace has from then on.
      { file: 'test/netns/twin-walk.test.ts' },
      { file: 'test/netns/nftables.test.ts' },
      { file: 'test/netns/firewall.test.ts' },
      { file: 'test/netns/rtnetlink.test.ts' },
      { file: 'test/kernels/ip-tunnel-switch.test.ts', capSeconds: 480 },
      { file: 'test/netns/pools-ipip.test.ts', capSeconds: 480 },
      { file: 'test/netns/pools-geneve.test.ts', capSeconds: 480 },
      { file: 'test/kernels/link-kinds.test.ts' },
      { file: 'test/kernels/ip-tunnels.test.ts' },
    ],
  },
  {
    suites: [
      { file: 'test/kernels/cni-vlan.test.ts', capSeconds: 480 },
      { file: 'test/netns/cni-routed-pools.test.ts', capSeconds: 480 },
      { file: 'test/netns/cni-capabilities.test.ts' },
      { file: 'test/kernels/sctp-host-port.test.ts' },
      { file: 'test/kernels/lab-underlay.test.ts' },
      { file: 'test/netns/kernel-compliance.test.ts' },
      { file: 'test/netns/datapath.test.ts' },
      { file: 'test/netns/ipam-collector.test.ts' },
      { file: 'test/netns/probe.test.ts' },
      { file: 'test/kernels/features.test.ts' },
      { file: 'test/netns/conntrack.test.ts' },
      { file: 'test/netns/apply.test.ts' },
      { file: 'test/netns/rtnetlink-conversation.test.ts' },
      { file: 'test/netns/rtnetlink-class.test.ts' },
      { file: 'test/netns/nft-compliance.test.ts' },
    ],
  },
  {
    suites: [{ file: 'test/kernels/missing-features.test.ts' }],
    without: ['vxlan', 'nf_tables', 'bridge', 'tun'],
  },
  { suites: [{ file: 'test/kernels/no-ipv6.test.ts' }], bootOptions: 'ipv6.disable=1' },
]
