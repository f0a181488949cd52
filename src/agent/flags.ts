/**
 * Every flag of `weft agent` as one table: its text for --help, its default and its environment variables. weft's own flags
 * read `WEFT_<FLAG>`; those that flannel has read `FLANNELD_<FLAG>` as well, those that stand for a variable of calico/node read
 * that one too. How they are checked: options.ts.
 *
 * Sources: flannel Documentation/configuration.md and main.go (names, meanings and defaults of its flags); kube-router
 * pkg/options/options.go; Calico node/pkg/lifecycle/startup (IP, IP6 and the methods), libcalico-go lib/apiconfig
 * (DATASTORE_TYPE, ETCD_…).
 */
import { FlagTable } from '../config/flag-table.ts'

const WEFT = 'Agent'
const FLANNEL = "Network (flannel's flags)"
const CALICO = "Address pools (calico/node's variables)"
const KUBE_ROUTER = "Overlay (kube-router's flags)"
const ETCD = "etcd (flannel's flags)"
const KUBERNETES = 'Kubernetes'

export const agentFlags = new FlagTable('WEFT', [
  {
    group: KUBERNETES,
    flags: '--kubeconfig <file>',
    description: 'how to reach the API server; inside a pod its service account is used when left out',
  },
  {
    group: KUBERNETES,
    flags: '--kubeconfig-file <file>',
    flannel: true,
    description: "flannel's name for --kubeconfig",
  },
  {
    group: KUBERNETES,
    flags: '--kube-api-url <url>',
    flannel: true,
    description: 'address of the API server, instead of the one in the kubeconfig',
  },
  {
    group: KUBERNETES,
    flags: '--kube-api-qps <requests>',
    default: '10',
    description: 'requests to the API server a second, once the burst is used up; 0 for no limit',
  },
  {
    group: KUBERNETES,
    flags: '--kube-api-burst <requests>',
    default: '50',
    description: 'requests that may go at once',
  },
  {
    group: KUBERNETES,
    flags: '--node-name <name>',
    calico: 'NODENAME',
    description: 'name of this node',
    defaultText: 'NODE_NAME, else the host name',
  },
  {
    group: KUBERNETES,
    flags: '--kube-subnet-mgr [boolean]',
    flannel: true,
    description: 'take subnets and peers from Kubernetes rather than etcd',
    defaultText: 'true unless --etcd-endpoints is given',
  },
  {
    group: KUBERNETES,
    flags: '--kube-annotation-prefix <prefix>',
    flannel: true,
    default: 'flannel.alpha.coreos.com',
    description: 'prefix of the node annotations',
  },
  {
    group: KUBERNETES,
    flags: '--set-node-network-unavailable [boolean]',
    flannel: true,
    default: true,
    description: 'set the node condition NetworkUnavailable to False when the network works',
  },
  { group: KUBERNETES, flags: '--net-config <file>', description: 'net-conf.json as a file; watched for changes' },
  {
    group: KUBERNETES,
    flags: '--net-config-path <file>',
    flannel: true,
    description: "flannel's name for --net-config",
  },
  {
    group: KUBERNETES,
    flags: '--net-config-map <namespace/name>',
    default: 'kube-flannel/kube-flannel-cfg',
    description: 'ConfigMap whose key net-conf.json is used when no file is given',
  },
  {
    group: WEFT,
    flags: '--run-dir <directory>',
    default: '/run/weft',
    description: 'sockets, lock and state of this agent; one agent a directory',
  },
  {
    group: WEFT,
    flags: '--state-dir <directory>',
    description: 'what should outlive a reboot (rotation of pod addresses)',
    defaultText: '/var/lib/weft for /run/weft, else the run directory',
  },
  {
    group: WEFT,
    flags: '--cni-bin-dir <directory>',
    default: '/opt/cni/bin',
    description: 'where the CNI plugin is put; "" to leave it alone',
  },
  {
    group: WEFT,
    flags: '--cni-conf-dir <directory>',
    default: '/etc/cni/net.d',
    description: 'where 10-weft.conflist is written once pods can be served; "" for none',
  },
  {
    group: WEFT,
    flags: '--cni-plugin <file>',
    description: 'the plugin binary to put there',
    defaultText: 'dist/native/weft-cni of this installation',
  },
  {
    group: WEFT,
    flags: '--host-local-dir <directory>',
    description: "the reference host-local plugin's data; addresses recorded there are not given out",
  },
  {
    group: WEFT,
    flags: '--tunnel-leaves-container [boolean]',
    default: false,
    description: "start udp's tunnel outside of this container, to live on when it ends; needs hostPID and privileges",
  },
  {
    group: WEFT,
    flags: '--dry-run [boolean]',
    default: false,
    description: 'print what would be done to the kernel, one command a line, and exit',
  },
  {
    group: WEFT,
    flags: '--log-level <level>',
    default: 'info',
    description: 'error, warn, info, debug or trace; SIGHUP turns debug on and off, SIGUSR1 says more, SIGUSR2 less',
  },
  {
    group: WEFT,
    flags: '--log-format <format>',
    default: 'json',
    description: 'json, or text for people',
  },
  {
    group: WEFT,
    flags: '--healthz-ip <address>',
    flannel: true,
    default: '0.0.0.0',
    description: 'address of /healthz, /livez, /readyz and /metrics',
  },
  {
    group: WEFT,
    flags: '--healthz-port <port>',
    flannel: true,
    default: '0',
    description: 'its port; 0 for none. The same is always served on <run-dir>/agent.sock',
  },
  {
    group: FLANNEL,
    flags: '--iface <name...>',
    flannel: true,
    description: 'external interface by name or address; repeat for alternatives',
    defaultText: "the default route's",
  },
  {
    group: FLANNEL,
    flags: '--iface-regex <pattern...>',
    flannel: true,
    description: 'the first interface whose name or address matches; after --iface',
  },
  {
    group: FLANNEL,
    flags: '--iface-can-reach <address>',
    flannel: true,
    description: 'the interface that packets to this address leave by',
  },
  {
    group: FLANNEL,
    flags: '--public-ip <address>',
    flannel: true,
    description: 'address that other nodes reach this one by',
    defaultText: "the interface's",
  },
  { group: FLANNEL, flags: '--public-ipv6 <address>', flannel: true, description: 'the same for IPv6' },
  {
    group: FLANNEL,
    flags: '--ip-masq [boolean]',
    flannel: true,
    default: true,
    description: 'masquerade what leaves the pod network',
  },
  {
    group: FLANNEL,
    flags: '--ip-masq-fully-random-disable [boolean]',
    flannel: true,
    default: false,
    description: 'masquerade without random source ports',
  },
  {
    group: FLANNEL,
    flags: '--iptables-forward-rules [boolean]',
    flannel: true,
    default: true,
    description: "accept the pod network in iptables' FORWARD where that drops; other tables that drop are reported",
  },
  {
    group: FLANNEL,
    flags: '--ip-blackhole-route [boolean]',
    flannel: true,
    default: false,
    description: "a blackhole route for this node's own subnet, below its connected route",
  },
  {
    group: FLANNEL,
    flags: '--subnet-file <file>',
    flannel: true,
    description: 'subnet.env',
    defaultText: '/run/flannel/subnet.env for /run/weft, else in the run directory',
  },
  {
    group: FLANNEL,
    flags: '--iptables-resync <seconds>',
    flannel: true,
    default: '5',
    description: 'accepted and not needed: rules are watched, not rewritten',
  },
  {
    group: KUBE_ROUTER,
    flags: '--enable-overlay [boolean]',
    description: 'a tunnel for each node, in place of the Backend of net-conf.json; false: plain routes',
    defaultText: 'true with another of these flags, else as net-conf.json says',
  },
  {
    group: KUBE_ROUTER,
    flags: '--overlay-type <which>',
    description: 'subnet: tunnels to nodes of other subnets; full: to all nodes',
    defaultText: 'subnet',
  },
  {
    group: KUBE_ROUTER,
    flags: '--overlay-encap <encapsulation>',
    description: 'ipip, or fou: the same inside UDP',
    defaultText: 'ipip',
  },
  {
    group: KUBE_ROUTER,
    flags: '--overlay-encap-port <port>',
    description: 'UDP port of fou',
    defaultText: '5555',
  },
  {
    group: KUBE_ROUTER,
    flags: '--auto-mtu [boolean]',
    description: 'pods are told what fits into the tunnel; else what the external interface takes',
    defaultText: 'true',
  },
  {
    group: CALICO,
    flags: '--wiring <shape>',
    default: 'auto',
    description:
      'new pods: bridge, routed (an address of their own behind 169.254.1.1), or auto: routed where an address pool selects this node. The annotation weft.dev/wiring of the Node goes before',
  },
  {
    group: CALICO,
    flags: '--ip <address>',
    calico: 'IP',
    default: 'autodetect',
    description: "this node's IPv4 address, perhaps with the prefix length of its subnet; autodetect, or none",
  },
  {
    group: CALICO,
    flags: '--ip-autodetection-method <method>',
    calico: 'IP_AUTODETECTION_METHOD',
    description:
      'first-found, can-reach=<address or name>, interface=<patterns>, skip-interface=<patterns>, cidr=<networks> or kubernetes-internal-ip; comma separated',
    defaultText: 'the external interface, as --iface and its kin find it',
  },
  {
    group: CALICO,
    flags: '--ip6 <address>',
    calico: 'IP6',
    default: 'autodetect',
    description: 'the same for IPv6',
  },
  {
    group: CALICO,
    flags: '--ip6-autodetection-method <method>',
    calico: 'IP6_AUTODETECTION_METHOD',
    description: 'the same for IPv6',
    defaultText: 'the external interface',
  },
  {
    group: CALICO,
    flags: '--feature-detect-override <words>',
    calico: 'FELIX_FEATUREDETECTOVERRIDE',
    description:
      'ChecksumOffloadBroken=true or =false: whether VXLAN devices leave checksums to the network card; other words are not needed',
    defaultText: 'found out by a packet to another node',
  },
  {
    group: CALICO,
    flags: '--spare-addresses <count>',
    default: '8',
    description:
      'addresses of each pool that a node with pods keeps ready in its own blocks, so that a new pod waits for no write; 0: none',
  },
  {
    group: CALICO,
    flags: '--ipam-handles <which>',
    default: 'needed',
    description:
      "which pods' addresses have an object IPAMHandle: needed (those that others look for by it) or all, at two writes an address and without spare ones; for a node that goes back to Calico's plugin",
  },
  {
    group: CALICO,
    flags: '--calico-datastore <kind>',
    calico: 'DATASTORE_TYPE',
    description: 'where address pools and blocks are: kubernetes, etcd (Calico says etcdv3), or none',
    defaultText: "kubernetes; none with flannel's subnets in etcd",
  },
  {
    group: CALICO,
    flags: '--calico-etcd-endpoints <urls>',
    calico: 'ETCD_ENDPOINTS',
    default: 'http://127.0.0.1:2379',
    description: 'comma separated',
  },
  {
    group: CALICO,
    flags: '--calico-etcd-keyfile <file>',
    calico: 'ETCD_KEY_FILE',
    description: "client certificate's key",
  },
  {
    group: CALICO,
    flags: '--calico-etcd-certfile <file>',
    calico: 'ETCD_CERT_FILE',
    description: 'client certificate',
  },
  {
    group: CALICO,
    flags: '--calico-etcd-cafile <file>',
    calico: 'ETCD_CA_CERT_FILE',
    description: "authority of the server's certificate",
  },
  {
    group: CALICO,
    flags: '--calico-etcd-username <name>',
    calico: 'ETCD_USERNAME',
    description: 'user, when authentication is on',
  },
  {
    group: CALICO,
    flags: '--calico-etcd-password <text>',
    calico: 'ETCD_PASSWORD',
    description: 'password; better given by environment',
  },
  {
    group: ETCD,
    flags: '--etcd-endpoints <urls>',
    flannel: true,
    description: 'comma separated',
    defaultText: 'http://127.0.0.1:4001,http://127.0.0.1:2379',
  },
  {
    group: ETCD,
    flags: '--etcd-prefix <key>',
    flannel: true,
    default: '/coreos.com/network',
    description: 'all keys are below it',
  },
  { group: ETCD, flags: '--etcd-keyfile <file>', flannel: true, description: "client certificate's key" },
  { group: ETCD, flags: '--etcd-certfile <file>', flannel: true, description: 'client certificate' },
  { group: ETCD, flags: '--etcd-cafile <file>', flannel: true, description: "authority of the server's certificate" },
  { group: ETCD, flags: '--etcd-username <name>', flannel: true, description: 'user, when authentication is on' },
  { group: ETCD, flags: '--etcd-password <text>', flannel: true, description: 'password; better given by environment' },
  {
    group: ETCD,
    flags: '--subnet-lease-renew-margin <minutes>',
    flannel: true,
    default: '60',
    description: 'renew the lease when this much is left of it, below 1440',
  },
])
