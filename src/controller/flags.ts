/**
 * Every flag of `weft controller`, with its text for --help and its default. How they are checked: options.ts.
 *
 * Sources: Kubernetes documentation, kube-controller-manager (names, meanings and defaults of the flags that it has).
 */
import { FlagTable } from '../config/flag-table.ts'

const KUBERNETES = 'Kubernetes'
const CIDRS = "Pod CIDRs (kube-controller-manager's flags)"
const NODES = 'State of nodes'
const ELECTION = "Leader election (flags of Kubernetes' components)"
const PROGRAM = 'Program'

export const controllerFlags = new FlagTable('WEFT_CONTROLLER', [
  {
    group: KUBERNETES,
    flags: '--kubeconfig <file>',
    description: 'how to reach the API server; inside a pod its service account is used when left out',
  },
  {
    group: KUBERNETES,
    flags: '--kube-api-url <url>',
    description: 'address of the API server, instead of the one in the kubeconfig',
  },
  {
    group: KUBERNETES,
    flags: '--kube-annotation-prefix <prefix>',
    default: 'flannel.alpha.coreos.com',
    description: 'prefix of the node annotations, as the agents have it',
  },
  {
    group: CIDRS,
    flags: '--allocate-node-cidrs [boolean]',
    default: 'true',
    description:
      'give a pod CIDR to each node that has none; needs kube-controller-manager --allocate-node-cidrs=false',
  },
  {
    group: CIDRS,
    flags: '--cluster-cidr <networks>',
    description: 'the pod network, one of each family, comma separated, the primary one first',
    defaultText: "net-conf.json's",
  },
  {
    group: CIDRS,
    flags: '--node-cidr-mask-size <bits>',
    description: 'prefix length of a pod CIDR, when --cluster-cidr is of one family',
  },
  {
    group: CIDRS,
    flags: '--node-cidr-mask-size-ipv4 <bits>',
    description: 'the same for IPv4',
    defaultText: '24',
  },
  {
    group: CIDRS,
    flags: '--node-cidr-mask-size-ipv6 <bits>',
    description: 'the same for IPv6',
    defaultText: '64',
  },
  {
    group: CIDRS,
    flags: '--service-cluster-ip-range <networks>',
    description: 'the network of services, comma separated: no pod CIDR is taken from it',
  },
  {
    group: CIDRS,
    flags: '--net-config <file>',
    description: 'net-conf.json as a file, in place of --cluster-cidr; followed',
  },
  {
    group: CIDRS,
    flags: '--net-config-map <namespace/name>',
    default: 'kube-flannel/kube-flannel-cfg',
    description: 'the ConfigMap with net-conf.json, when neither of the two is given; followed',
  },
  {
    group: CIDRS,
    flags: '--cidr-reuse-delay <duration>',
    default: '1m0s',
    description: 'how long the pod CIDR of a deleted node is kept back',
  },
  {
    group: CIDRS,
    flags: '--ledger-name <name>',
    default: 'weft-pod-cidrs',
    description: 'the ConfigMap with promised pod CIDRs, in the namespace of the Lease',
  },
  {
    group: NODES,
    flags: '--set-network-unavailable [boolean]',
    default: 'false',
    description: 'set the condition NetworkUnavailable of new nodes to True, until their agent sets it to False',
  },
  {
    group: NODES,
    flags: '--agent-pods <namespace/selector>',
    description: "the agents' pods, such as kube-flannel/app=weft-agent; without it no agent is missed",
  },
  {
    group: NODES,
    flags: '--agent-missed-after <duration>',
    default: '2m0s',
    description: 'a node whose agent is not ready for so long gets NetworkUnavailable=True',
  },
  {
    group: NODES,
    flags: '--agent-forget-after <duration>',
    default: '0s',
    description: 'after so long its annotations are removed, and other nodes drop their routes to it; 0s: never',
  },
  {
    group: NODES,
    flags: '--leak-check-interval <duration>',
    default: '10m0s',
    description:
      'how often addresses that nodes and blocks hold are compared with those of pods; 0s: never. With --agent-pods',
  },
  {
    group: ELECTION,
    flags: '--leader-elect [boolean]',
    default: 'true',
    description: 'work only while holding the Lease; needed as soon as there are two replicas',
  },
  {
    group: ELECTION,
    flags: '--leader-elect-lease-duration <duration>',
    default: '15s',
    description: 'how long others wait for a leader that says nothing',
  },
  {
    group: ELECTION,
    flags: '--leader-elect-renew-deadline <duration>',
    default: '10s',
    description: 'how long a leader goes on that cannot renew',
  },
  {
    group: ELECTION,
    flags: '--leader-elect-retry-period <duration>',
    default: '2s',
    description: 'time between attempts to take or renew the Lease',
  },
  {
    group: ELECTION,
    flags: '--leader-elect-resource-name <name>',
    default: 'weft-controller',
    description: 'name of the Lease',
  },
  {
    group: ELECTION,
    flags: '--leader-elect-resource-namespace <namespace>',
    default: 'kube-flannel',
    description: 'its namespace',
  },
  {
    group: PROGRAM,
    flags: '--healthz-ip <address>',
    default: '0.0.0.0',
    description: 'address of /healthz, /readyz and /metrics',
  },
  { group: PROGRAM, flags: '--healthz-port <port>', default: '0', description: 'their port; 0 for none' },
  {
    group: PROGRAM,
    flags: '--status-socket <path>',
    description: 'a socket with the same, and with /state and /loglevel',
  },
  {
    group: PROGRAM,
    flags: '--log-level <level>',
    default: 'info',
    description: 'error, warn, info, debug or trace; SIGHUP turns debug on and off, SIGUSR1 and SIGUSR2 step it',
  },
  { group: PROGRAM, flags: '--log-format <format>', default: 'json', description: 'json, or text for people' },
])
