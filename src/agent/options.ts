/**
 * Every flag of `weft agent` as one table: its text for --help, its default, its environment variables and how it is
 * checked. weft's own flags read `WEFT_<FLAG>`; those that flannel has read `FLANNELD_<FLAG>` as well.
 *
 * Sources: flannel Documentation/configuration.md and main.go (names, meanings and defaults of its flags).
 */
import { hostname } from 'node:os'
import { ConfigError } from '../model/errors.ts'
import { Ip } from '../net/ip.ts'

export interface FlagRow {
  /** As commander reads it: `--iface <name...>`, `--ip-masq [boolean]`. */
  readonly flags: string
  readonly description: string
  /** Shown in --help; undefined when there is none. */
  readonly default?: string | boolean | number | readonly string[]
  /** What the help says instead of a plain default. */
  readonly defaultText?: string
  /** flannel has the flag and its environment variable. */
  readonly flannel?: true
  readonly group: string
}

const WEFT = 'Agent'
const FLANNEL = "Network (flannel's flags)"
const ETCD = "etcd (flannel's flags)"

const KUBERNETES = 'Kubernetes'

export const flagRows: readonly FlagRow[] = [
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
    flags: '--node-name <name>',
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
    flags: '--dry-run [boolean]',
    default: false,
    description: 'print what would be done to the kernel, one command a line, and exit',
  },
  {
    group: WEFT,
    flags: '--log-level <level>',
    default: 'info',
    description: 'trace, debug, info, warn or error; SIGHUP turns debug on and off',
  },
  {
    group: WEFT,
    flags: '--healthz-ip <address>',
    flannel: true,
    default: '0.0.0.0',
    description: 'address of /healthz, /readyz and /metrics',
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
    description: 'accept forwarded packets from and to the pod network (in the table inet weft)',
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
]

/** The long name without dashes: `ip-masq`. */
export const flagName = (row: FlagRow): string => /^--([a-z0-9-]+)/.exec(row.flags)![1]!

const envName = (prefix: string, name: string): string => `${prefix}_${name.toUpperCase().replaceAll('-', '_')}`

/** Environment variables of a flag, the first that is set counts. */
export const envNames = (row: FlagRow): readonly string[] => [
  envName('WEFT', flagName(row)),
  ...(row.flannel ? [envName('FLANNELD', flagName(row))] : []),
]

export interface AgentOptions {
  readonly nodeName: string
  readonly store: 'kubernetes' | 'etcd'
  readonly kubeconfig?: string
  readonly kubeApiUrl?: string
  readonly annotationPrefix: string
  readonly setNodeNetworkUnavailable: boolean
  readonly netConfig: { readonly file: string } | { readonly namespace: string; readonly name: string }
  readonly runDir: string
  readonly stateDir: string
  readonly cniBinDir: string
  readonly cniConfDir: string
  readonly cniPlugin?: string
  readonly hostLocalDir?: string
  readonly dryRun: boolean
  readonly logLevel: string
  readonly healthz: { readonly ip: string; readonly port: number }
  readonly interface: InterfaceOptions
  readonly masquerade: { readonly enabled: boolean; readonly fullyRandom: boolean }
  readonly forwardRules: boolean
  readonly blackholeRoute: boolean
  readonly subnetFile: string
  readonly etcd: EtcdOptions
}

export interface InterfaceOptions {
  readonly names: readonly string[]
  readonly patterns: readonly RegExp[]
  readonly canReach?: Ip
  readonly publicIp?: Ip
  readonly publicIpv6?: Ip
}

export interface EtcdOptions {
  readonly endpoints: readonly string[]
  readonly prefix: string
  readonly keyFile?: string
  readonly certFile?: string
  readonly caFile?: string
  readonly username?: string
  readonly password?: string
  readonly renewMarginMinutes: number
}

/** What the command line gave: by long name, as text, list or boolean. Flags that were not given are absent. */
export type FlagValues = Readonly<Record<string, unknown>>

/** Fills in environment and defaults, and checks everything. Throws ConfigError naming the flag. */
export function parseOptions(given: FlagValues, env: Readonly<Record<string, string | undefined>>): AgentOptions {
  const rows = new Map(flagRows.map((row) => [flagName(row), row]))
  const value = (name: string): unknown => {
    if (given[name] !== undefined) return given[name]
    for (const key of envNames(rows.get(name)!)) {
      const set = env[key]
      if (set !== undefined && set !== '') return rows.get(name)!.flags.includes('...>') ? set.split(',') : set
    }
    return rows.get(name)!.default
  }
  const text = (name: string): string | undefined => (value(name) === undefined ? undefined : String(value(name)))
  const list = (name: string): string[] => [value(name) ?? []].flat().map(String)
  const flag = (name: string, otherwise = false): boolean => parseBoolean(name, value(name) ?? otherwise)
  const checked = <T>(name: string, parse: (text: string) => T): T | undefined => {
    const found = text(name)
    if (found === undefined || found === '') return undefined
    return attempt(`--${name}`, found, () => parse(found))
  }
  const integer = (name: string, from: number, to: number): number => {
    const number = Number(text(name))
    if (!Number.isInteger(number) || number < from || number > to)
      throw new ConfigError(`--${name}`, 'value', `${JSON.stringify(text(name))} is not a number in ${from}..${to}`)
    return number
  }
  const runDir = text('run-dir')!
  const standard = runDir === '/run/weft'
  const etcdGiven = text('etcd-endpoints') !== undefined
  const netConfigFile = text('net-config') || text('net-config-path')
  const logLevel = text('log-level')!
  if (!['trace', 'debug', 'info', 'warn', 'error'].includes(logLevel))
    throw new ConfigError(
      '--log-level',
      'value',
      `${JSON.stringify(logLevel)} is none of trace, debug, info, warn, error`,
    )
  return {
    nodeName: checkNodeName(text('node-name') || env.NODE_NAME || hostname().toLowerCase()),
    store: flag('kube-subnet-mgr', !etcdGiven) ? 'kubernetes' : 'etcd',
    ...present('kubeconfig', text('kubeconfig') || text('kubeconfig-file')),
    ...present('kubeApiUrl', text('kube-api-url')),
    annotationPrefix: checkPrefix(text('kube-annotation-prefix')!),
    setNodeNetworkUnavailable: flag('set-node-network-unavailable'),
    netConfig: netConfigFile ? { file: netConfigFile } : parseConfigMapName(text('net-config-map')!),
    runDir,
    stateDir: text('state-dir') || (standard ? '/var/lib/weft' : runDir),
    cniBinDir: text('cni-bin-dir')!,
    cniConfDir: text('cni-conf-dir')!,
    ...present('cniPlugin', text('cni-plugin')),
    ...present('hostLocalDir', text('host-local-dir')),
    dryRun: flag('dry-run'),
    logLevel,
    healthz: { ip: text('healthz-ip')!, port: integer('healthz-port', 0, 65535) },
    interface: {
      names: list('iface'),
      patterns: list('iface-regex').map((pattern) => attempt('--iface-regex', pattern, () => new RegExp(pattern))),
      ...present('canReach', checked('iface-can-reach', Ip.parse)),
      ...present(
        'publicIp',
        checked('public-ip', (text) => parseFamily(text, 4)),
      ),
      ...present(
        'publicIpv6',
        checked('public-ipv6', (text) => parseFamily(text, 6)),
      ),
    },
    masquerade: { enabled: flag('ip-masq'), fullyRandom: !flag('ip-masq-fully-random-disable') },
    forwardRules: flag('iptables-forward-rules'),
    blackholeRoute: flag('ip-blackhole-route'),
    subnetFile: text('subnet-file') || (standard ? '/run/flannel/subnet.env' : `${runDir}/subnet.env`),
    etcd: {
      endpoints: (text('etcd-endpoints') ?? 'http://127.0.0.1:4001,http://127.0.0.1:2379')
        .split(',')
        .map((url) => url.trim()),
      prefix: `/${text('etcd-prefix')!.replace(/^\/+|\/+$/g, '')}`,
      ...present('keyFile', text('etcd-keyfile')),
      ...present('certFile', text('etcd-certfile')),
      ...present('caFile', text('etcd-cafile')),
      ...present('username', text('etcd-username')),
      ...present('password', text('etcd-password')),
      renewMarginMinutes: integer('subnet-lease-renew-margin', 1, 1439),
    },
  }
}

function present<K extends string, T>(key: K, value: T | undefined): { readonly [P in K]?: NonNullable<T> } {
  return (value === undefined || value === '' ? {} : { [key]: value }) as { readonly [P in K]?: NonNullable<T> }
}

function attempt<T>(flag: string, text: string, parse: () => T): T {
  try {
    return parse()
  } catch (cause) {
    throw new ConfigError(flag, JSON.stringify(text.slice(0, 100)), (cause as Error).message, { cause })
  }
}

function parseBoolean(name: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value
  if (['true', '1', 't', 'TRUE', 'True', 'T'].includes(String(value))) return true
  if (['false', '0', 'f', 'FALSE', 'False', 'F'].includes(String(value))) return false
  throw new ConfigError(`--${name}`, 'value', `${JSON.stringify(value)} is neither true nor false`)
}

function parseFamily(text: string, family: 4 | 6): Ip {
  const ip = Ip.parse(text)
  if (ip.family !== family) throw new Error(`is not an IPv${family} address`)
  return ip
}

function checkNodeName(name: string): string {
  if (!/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(name))
    throw new ConfigError('--node-name', 'value', `${JSON.stringify(name.slice(0, 100))} is not the name of a node`)
  return name
}

/** A domain name, and perhaps a slash and a beginning of the names after it. */
function checkPrefix(prefix: string): string {
  if (!/^([a-z0-9_-]+\.)+[a-z0-9_-]+\/?([a-z0-9_-]+)?$/.test(prefix) || prefix.length > 253)
    throw new ConfigError(
      '--kube-annotation-prefix',
      'value',
      `${JSON.stringify(prefix.slice(0, 100))} is not domain[/prefix]`,
    )
  return prefix
}

function parseConfigMapName(text: string): { namespace: string; name: string } {
  const [namespace, name, more] = text.split('/')
  if (!namespace || !name || more !== undefined)
    throw new ConfigError('--net-config-map', 'value', `${JSON.stringify(text)} is not namespace/name`)
  return { namespace, name }
}
