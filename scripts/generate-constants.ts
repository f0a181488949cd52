/**
 * Writes the kernel's numbers that weft speaks as TypeScript constants, read out of the uapi headers of this machine
 * (package linux-libc-dev) with the C compiler, so that no number is retyped. The output is committed; run this again
 * when a header gains what is needed.
 *
 *   tsx scripts/generate-constants.ts
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

interface Target {
  readonly output: string
  readonly headers: readonly string[]
  /** Names wanted: whole words in the headers that match. */
  readonly names: RegExp
}

const targets: readonly Target[] = [
  {
    output: 'src/wire/netlink/constants.gen.ts',
    headers: ['linux/netlink.h'],
    names:
      /^(NETLINK_(ROUTE|NETFILTER|GENERIC)|NLM_F_\w+|NLMSG_(NOOP|ERROR|DONE|OVERRUN|MIN_TYPE)|NLMSGERR_ATTR_\w+|NLA_F_\w+|NLA_TYPE_MASK|NETLINK_(ADD_MEMBERSHIP|DROP_MEMBERSHIP|NO_ENOBUFS|CAP_ACK|EXT_ACK|GET_STRICT_CHK|BROADCAST_ERROR))$/,
  },
  {
    output: 'src/wire/rtnetlink/constants.gen.ts',
    headers: [
      'linux/rtnetlink.h',
      'linux/if_link.h',
      'linux/if_addr.h',
      'linux/if.h',
      'linux/if_bridge.h',
      'linux/if_tunnel.h',
      'linux/if_arp.h',
      'linux/neighbour.h',
      'linux/fib_rules.h',
      'linux/veth.h',
      'linux/lwtunnel.h',
      'linux/ip6_tunnel.h',
    ],
    names:
      /^(RTM_(NEW|DEL|GET|SET)(LINK|ADDR|ROUTE|NEIGH|RULE|QDISC|TCLASS|TFILTER|NETCONF|NSID)|RTA_(DST|SRC|IIF|OIF|GATEWAY|PRIORITY|PREFSRC|METRICS|MULTIPATH|FLOW|CACHEINFO|TABLE|MARK|VIA|PREF|ENCAP_TYPE|ENCAP|EXPIRES|NH_ID)|RTAX_(LOCK|MTU|WINDOW|ADVMSS|HOPLIMIT|INITCWND)|RTN_(UNICAST|LOCAL|BROADCAST|ANYCAST|MULTICAST|BLACKHOLE|UNREACHABLE|PROHIBIT|THROW)|RTPROT_(UNSPEC|REDIRECT|KERNEL|BOOT|STATIC)|RT_SCOPE_\w+|RT_TABLE_(UNSPEC|DEFAULT|MAIN|LOCAL|COMPAT)|RTNH_F_\w+|RTM_F_CLONED|RTNLGRP_(LINK|NEIGH|TC|IPV4_IFADDR|IPV4_ROUTE|IPV4_RULE|IPV6_IFADDR|IPV6_ROUTE|IPV6_RULE|IPV4_NETCONF|IPV6_NETCONF|NSID)|RTEXT_FILTER_(VF|BRVLAN|SKIP_STATS)|IFLA_(ADDRESS|BROADCAST|IFNAME|MTU|LINK|QDISC|MASTER|PROTINFO|TXQLEN|OPERSTATE|LINKINFO|NET_NS_PID|IFALIAS|NET_NS_FD|AF_SPEC|GROUP|EXT_MASK|LINK_NETNSID|GSO_MAX_SIZE|GSO_MAX_SEGS|ALT_IFNAME|NUM_TX_QUEUES|NUM_RX_QUEUES|BRIDGE_(FLAGS|VLAN_INFO)|INFO_\w+|INET6_ADDR_GEN_MODE|BR_(STP_STATE|VLAN_FILTERING|MCAST_SNOOPING|FORWARD_DELAY|AGEING_TIME)|BRPORT_(STATE|MODE|GUARD|LEARNING|UNICAST_FLOOD|ISOLATED|NEIGH_SUPPRESS)|VXLAN_\w+|GENEVE_\w+|IPTUN_\w+|GRE_\w+|TUN_\w+|VLAN_(ID|PROTOCOL)|MACVLAN_MODE|IPVLAN_MODE|VRF_TABLE)|IN6_ADDR_GEN_MODE_\w+|BRIDGE_FLAGS_(MASTER|SELF)|BRIDGE_VLAN_INFO_(PVID|UNTAGGED)|MACVLAN_MODE_\w+|IPVLAN_MODE_\w+|IFA_(ADDRESS|LOCAL|LABEL|BROADCAST|CACHEINFO|FLAGS|RT_PRIORITY|PROTO)|IFA_F_(NODAD|PERMANENT|NOPREFIXROUTE|TENTATIVE|DADFAILED|SECONDARY|MANAGETEMPADDR|DEPRECATED|OPTIMISTIC)|IFF_(UP|BROADCAST|LOOPBACK|POINTOPOINT|RUNNING|NOARP|PROMISC|MULTICAST|LOWER_UP)|VETH_INFO_PEER|NDA_(DST|LLADDR|CACHEINFO|PROBES|VLAN|PORT|VNI|IFINDEX|MASTER|LINK_NETNSID|SRC_VNI|PROTOCOL|FLAGS_EXT|NH_ID)|NUD_\w+|NTF_(USE|SELF|MASTER|PROXY|EXT_LEARNED|OFFLOADED|STICKY|ROUTER)|FRA_(DST|SRC|IIFNAME|GOTO|PRIORITY|FWMARK|FWMASK|TABLE|OIFNAME|SUPPRESS_PREFIXLEN|SUPPRESS_IFGROUP|PROTOCOL|L3MDEV|IP_PROTO|SPORT_RANGE|DPORT_RANGE|UID_RANGE|FLOW|TUN_ID)|FR_ACT_\w+|TCA_(KIND|OPTIONS|STATS|RATE|STATS2|CHAIN|INGRESS_BLOCK|EGRESS_BLOCK)|TUNNEL_ENCAP_(NONE|FOU|GUE)|TUNNEL_ENCAP_FLAG_(CSUM|CSUM6)|IP6_TNL_F_IGN_ENCAP_LIMIT|LWTUNNEL_ENCAP_(IP|IP6)|LWTUNNEL_IP6?_(ID|DST|SRC)|LWTUNNEL_IP_TTL|LWTUNNEL_IP6_HOPLIMIT|ARPHRD_(ETHER|LOOPBACK|NONE|TUNNEL|IPGRE|SIT|TUNNEL6))$/,
  },
  {
    output: 'src/wire/rtnetlink/traffic-constants.gen.ts',
    headers: ['linux/pkt_sched.h', 'linux/pkt_cls.h', 'linux/tc_act/tc_mirred.h'],
    names:
      /^(TC_H_(UNSPEC|ROOT|INGRESS|CLSACT|MIN_INGRESS|MIN_EGRESS)|TCA_TBF_\w+|TCA_HTB_\w+|TC_HTB_PROTOVER|TCA_U32_(SEL|ACT|CLASSID)|TC_U32_TERMINAL|TCA_MATCHALL_(ACT|FLAGS|CLASSID)|TCA_BPF_(FD|NAME|FLAGS|ID|TAG|FLAG_ACT_DIRECT)|TCA_MIRRED_PARMS|TCA_EGRESS_REDIR|TCA_EGRESS_MIRROR|TCA_INGRESS_REDIR|TCA_ACT_(KIND|OPTIONS|INDEX|STATS)|TC_ACT_(OK|STOLEN|SHOT|PIPE|UNSPEC))$/,
  },
  {
    output: 'src/wire/nftables/constants.gen.ts',
    headers: [
      'linux/netlink.h',
      'linux/netfilter/nf_tables.h',
      'linux/netfilter/nfnetlink.h',
      'linux/netfilter/nf_nat.h',
      'linux/netfilter/nf_log.h',
    ],
    names:
      /^(NFNL_SUBSYS_(NFTABLES|CTNETLINK|IPSET)|NFNL_MSG_BATCH_\w+|NFNLGRP_(NFTABLES|NFTRACE|CONNTRACK_NEW|CONNTRACK_UPDATE|CONNTRACK_DESTROY)|NFT_MSG_(NEW|DEL|GET)(TABLE|CHAIN|RULE|SET|SETELEM|OBJ|GEN)|NFT_REG32_00|NFT_(CONTINUE|BREAK|JUMP|GOTO|RETURN)|NFT_DATA_VERDICT|NFT_OBJECT_COUNTER|NFT_SET_(ANONYMOUS|CONSTANT|INTERVAL|MAP|TIMEOUT|EVAL|OBJECT|CONCAT|ELEM_INTERVAL_END)|NFT_(PAYLOAD_(LL|NETWORK|TRANSPORT)_HEADER|META_(PROTOCOL|MARK|IIFNAME|OIFNAME|IIFTYPE|NFPROTO|L4PROTO|PKTTYPE)|CT_(STATE|DIRECTION|STATUS|MARK)|CMP_\w+|RANGE_\w+|LOOKUP_F_INV|NAT_(SNAT|DNAT)|LIMIT_PKTS|REJECT_\w+|FIB_RESULT_\w+)|NFTA_FIB_F_\w+|NFTA_(LIST_ELEM|HOOK_(HOOKNUM|PRIORITY|DEV)|TABLE_\w+|CHAIN_\w+|RULE_\w+|SET_(TABLE|NAME|FLAGS|KEY_TYPE|KEY_LEN|DATA_TYPE|DATA_LEN|POLICY|DESC|ID|TIMEOUT|GC_INTERVAL|USERDATA|HANDLE)|SET_DESC_(SIZE|CONCAT)|SET_FIELD_LEN|SET_ELEM_\w+|DATA_(VALUE|VERDICT)|VERDICT_(CODE|CHAIN)|EXPR_(NAME|DATA)|IMMEDIATE_\w+|BITWISE_(SREG|DREG|LEN|MASK|XOR|OP|DATA)|LOOKUP_\w+|RANGE_\w+|CMP_\w+|PAYLOAD_(DREG|BASE|OFFSET|LEN|SREG)|META_\w+|CT_(DREG|KEY|DIRECTION|SREG)|COUNTER_(BYTES|PACKETS)|LOG_\w+|LIMIT_\w+|REJECT_\w+|NAT_\w+|MASQ_\w+|FIB_\w+|OBJREF_\w+|OBJ_\w+|GEN_\w+)|NF_NAT_RANGE_\w+)$/,
  },
  {
    output: 'src/wire/conntrack/constants.gen.ts',
    headers: ['linux/netfilter/nfnetlink_conntrack.h', 'linux/netfilter/nf_conntrack_common.h'],
    names:
      /^(IPCTNL_MSG_CT_(NEW|GET|DELETE|GET_CTRZERO)|CTA_(TUPLE_ORIG|TUPLE_REPLY|STATUS|PROTOINFO|TIMEOUT|MARK|COUNTERS_ORIG|COUNTERS_REPLY|ID|ZONE|MARK_MASK|FILTER|STATUS_MASK|TUPLE_(IP|PROTO|ZONE)|IP_V4_SRC|IP_V4_DST|IP_V6_SRC|IP_V6_DST|PROTO_NUM|PROTO_SRC_PORT|PROTO_DST_PORT|PROTO_ICMP_(ID|TYPE|CODE)|PROTO_ICMPV6_(ID|TYPE|CODE)|COUNTERS_PACKETS|COUNTERS_BYTES|PROTOINFO_(TCP|SCTP)|PROTOINFO_TCP_STATE)|IPS_\w+)$/,
  },
  {
    output: 'src/wire/genetlink/constants.gen.ts',
    headers: ['linux/genetlink.h'],
    names:
      /^(GENL_ID_CTRL|CTRL_CMD_(GETFAMILY|NEWFAMILY)|CTRL_ATTR_(FAMILY_ID|FAMILY_NAME|VERSION|MCAST_GROUPS|MCAST_GRP_NAME|MCAST_GRP_ID))$/,
  },
  {
    output: 'src/wire/fou/constants.gen.ts',
    headers: ['linux/fou.h'],
    names:
      /^(FOU_GENL_VERSION|FOU_CMD_(ADD|DEL|GET)|FOU_ENCAP_(DIRECT|GUE)|FOU_ATTR_(PORT|AF|IPPROTO|TYPE|REMCSUM_NOPARTIAL))$/,
  },
  {
    output: 'src/wire/ethtool/constants.gen.ts',
    headers: ['linux/ethtool_netlink.h', 'linux/ethtool.h', 'linux/sockios.h'],
    names:
      /^(ETHTOOL_MSG_FEATURES_(GET|SET|NTF|GET_REPLY|SET_REPLY)|ETHTOOL_A_HEADER_(DEV_INDEX|DEV_NAME|FLAGS)|ETHTOOL_A_FEATURES_\w+|ETHTOOL_A_BITSET_(NOMASK|SIZE|BITS|VALUE|MASK)|ETHTOOL_A_BITSET_BITS_BIT|ETHTOOL_A_BITSET_BIT_\w+|ETHTOOL_FLAG_\w+)$/,
  },
]

const root = fileURLToPath(new URL('..', import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'weft-constants-'))

function generate(target: Target): void {
  const texts = target.headers.map((header) =>
    readFileSync(`/usr/include/${header}`, 'utf8').replace(/\/\*.*?\*\//gs, ' '),
  )
  const defined = new Set(
    texts.flatMap((text) => text.match(/\b[A-Z][A-Za-z0-9_]+\b/g) ?? []).filter((name) => target.names.test(name)),
  )
  const names = [...defined].filter((name) => /_REG_PROTO_MAX$/.test(name) || !/_MAX$|^__/.test(name))
  const source = [
    '#include <stdio.h>',
    ...target.headers.map((header) => `#include <${header}>`),
    'int main(void) {',
    ...names.map((name) => `  printf("%s %llu\\n", "${name}", (unsigned long long)(${name}) & 0xffffffffull);`),
    '}',
  ].join('\n')
  const file = join(scratch, 'constants.c')
  writeFileSync(file, source)
  execFileSync('cc', ['-o', join(scratch, 'constants'), file], { stdio: ['ignore', 'inherit', 'inherit'] })
  const printed = execFileSync(join(scratch, 'constants'), { encoding: 'utf8' }).trim().split('\n')
  const lines = printed.map((line) => line.replace(/^(\S+) (\d+)$/, 'export const $1 = $2'))
  const head = `/**\n * Generated by scripts/generate-constants.ts; do not edit.\n *\n * Sources: ${target.headers.map((header) => `include/uapi/${header}`).join(', ')}.\n */\n`
  writeFileSync(join(root, target.output), `${head}${lines.join('\n')}\n`)
  console.log(`${target.output}: ${lines.length} constants`)
}

try {
  for (const target of targets) generate(target)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
