/**
 * The options of an agent: what the command line and the environment gave, filled up with the defaults of the table of flags
 * (flags.ts), and checked.
 */
import { hostname } from 'node:os'
import { type WiringChoice, wiringChoices } from '../cluster/cluster.ts'
import type { RequestLimit } from '../cluster/http-client.ts'
import { parseFeatureOverride } from '../config/calico/feature-override.ts'
import type { FlagValues } from '../config/flag-table.ts'
import { parseOverlayFlags } from '../config/kube-router/overlay.ts'
import type { BackendConfig } from '../model/backend.ts'
import { ConfigError } from '../model/errors.ts'
import { type Family, Ip } from '../net/ip.ts'
import { type LogFormat, type LogLevel, logFormats, logLevels } from '../status/log-level.ts'
import { type AddressChoice, parseAddressChoice, parseAddressMethod } from './address-methods.ts'
import type { AddressOptions } from './calico-addresses.ts'
import { agentFlags } from './flags.ts'

export interface AgentOptions {
  readonly nodeName: string
  readonly store: 'kubernetes' | 'etcd'
  readonly kubeconfig?: string
  readonly kubeApiUrl?: string
  /** Of requests to the API server; undefined for none. */
  readonly apiLimit: RequestLimit | undefined
  readonly annotationPrefix: string
  readonly setNodeNetworkUnavailable: boolean
  readonly netConfig: { readonly file: string } | { readonly namespace: string; readonly name: string }
  readonly runDir: string
  readonly stateDir: string
  readonly cniBinDir: string
  readonly cniConfDir: string
  readonly cniPlugin?: string
  readonly hostLocalDir?: string
  readonly tunnelLeavesContainer: boolean
  readonly dryRun: boolean
  readonly logLevel: LogLevel
  readonly logFormat: LogFormat
  readonly healthz: { readonly ip: string; readonly port: number }
  readonly interface: InterfaceOptions
  readonly masquerade: { readonly enabled: boolean; readonly fullyRandom: boolean }
  /** Accepting rules in iptables' FORWARD, where that drops. */
  readonly forwardRules: boolean
  readonly blackholeRoute: boolean
  /** What kube-router's flags name in place of the configuration's backend. */
  readonly overlay?: BackendConfig
  /** Whether VXLAN devices may leave checksums to the network card; found out when left out. */
  readonly checksumOffloadBroken?: boolean
  readonly subnetFile: string
  readonly etcd: EtcdOptions
  /** How new pods are wired; `auto` goes by the address pools. */
  readonly wiring: WiringChoice
  /** How this node's addresses are found, in Calico's words. */
  readonly addresses: AddressOptions
  readonly calico: CalicoOptions
}

export interface CalicoOptions {
  /** Where address pools and blocks are kept. */
  readonly store: 'kubernetes' | 'etcd' | 'none'
  readonly etcd: Omit<EtcdOptions, 'prefix' | 'renewMarginMinutes'>
  /** How many addresses of each pool are kept ready for pods. */
  readonly spareAddresses: number
  /** Which addresses of pods have an IPAMHandle. */
  readonly handles: 'needed' | 'all'
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

/** Fills in environment and defaults, and checks everything. Throws ConfigError naming the flag. */
export function parseOptions(given: FlagValues, env: Readonly<Record<string, string | undefined>>): AgentOptions {
  const value = agentFlags.reader(given, env)
  const text = (name: string): string | undefined => (value(name) === undefined ? undefined : String(value(name)))
  const list = (name: string): string[] => [value(name) ?? []].flat().map(String)
  const flag = (name: string, otherwise = false): boolean => parseBoolean(name, value(name) ?? otherwise)
  const checked = <T>(name: string, parse: (text: string) => T): T | undefined => {
    const found = text(name)
    if (found === undefined || found === '') return undefined
    return attempt(`--${name}`, found, () => parse(found))
  }
  const addressOf = (name: string, family: Family): AddressChoice => {
    const method = attemptFlag(`${name}-autodetection-method`, text(`${name}-autodetection-method`) ?? '', (words) =>
      parseAddressMethod(words, family),
    )
    return attemptFlag(name, text(name)!, (words) => parseAddressChoice(words, method, family))
  }
  const integer = (name: string, from: number, to: number): number => {
    const number = Number(text(name))
    if (!Number.isInteger(number) || number < from || number > to)
      throw new ConfigError(`--${name}`, 'value', `${JSON.stringify(text(name))} is not a number in ${from}..${to}`)
    return number
  }
  const oneOf = <T extends string>(name: string, values: readonly T[]): T => {
    const found = values.find((each) => each === text(name))
    if (found) return found
    throw new ConfigError(`--${name}`, 'value', `${JSON.stringify(text(name))} is none of ${values.join(', ')}`)
  }
  const runDir = text('run-dir')!
  if (runDir === '') throw new ConfigError('--run-dir', 'value', 'is empty')
  const standard = runDir === '/run/weft'
  const etcdGiven = text('etcd-endpoints') !== undefined
  const store = flag('kube-subnet-mgr', !etcdGiven) ? 'kubernetes' : 'etcd'
  const netConfigFile = text('net-config') || text('net-config-path')
  return {
    nodeName: checkNodeName(text('node-name') || env.NODE_NAME || hostname().toLowerCase()),
    store,
    ...present('kubeconfig', text('kubeconfig') || text('kubeconfig-file')),
    ...present('kubeApiUrl', text('kube-api-url') && checkUrl('kube-api-url', text('kube-api-url')!)),
    apiLimit: parseLimit(integer('kube-api-qps', 0, 10_000), integer('kube-api-burst', 1, 10_000)),
    annotationPrefix: checkPrefix(text('kube-annotation-prefix')!),
    setNodeNetworkUnavailable: flag('set-node-network-unavailable'),
    netConfig: netConfigFile ? { file: netConfigFile } : parseConfigMapName(text('net-config-map')!),
    runDir,
    stateDir: text('state-dir') || (standard ? '/var/lib/weft' : runDir),
    cniBinDir: text('cni-bin-dir')!,
    cniConfDir: text('cni-conf-dir')!,
    ...present('cniPlugin', text('cni-plugin')),
    ...present('hostLocalDir', text('host-local-dir')),
    tunnelLeavesContainer: flag('tunnel-leaves-container'),
    dryRun: flag('dry-run'),
    logLevel: oneOf('log-level', logLevels),
    logFormat: oneOf('log-format', logFormats),
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
    ...present('overlay', parseOverlayFlags(value)),
    ...present('checksumOffloadBroken', checked('feature-detect-override', parseFeatureOverride)),
    subnetFile: text('subnet-file') || (standard ? '/run/flannel/subnet.env' : `${runDir}/subnet.env`),
    etcd: {
      endpoints: urlsOf('etcd-endpoints', text('etcd-endpoints') ?? 'http://127.0.0.1:4001,http://127.0.0.1:2379'),
      prefix: `/${text('etcd-prefix')!.replace(/^\/+|\/+$/g, '')}`,
      ...present('keyFile', text('etcd-keyfile')),
      ...present('certFile', text('etcd-certfile')),
      ...present('caFile', text('etcd-cafile')),
      ...present('username', text('etcd-username')),
      ...present('password', text('etcd-password')),
      renewMarginMinutes: integer('subnet-lease-renew-margin', 1, 1439),
    },
    wiring: oneOf('wiring', wiringChoices),
    addresses: { v4: addressOf('ip', 4), v6: addressOf('ip6', 6) },
    calico: {
      store: parseCalicoStore(text('calico-datastore'), store),
      spareAddresses: integer('spare-addresses', 0, 64),
      handles: oneOf('ipam-handles', ['needed', 'all']),
      etcd: {
        endpoints: urlsOf('calico-etcd-endpoints', text('calico-etcd-endpoints')!),
        ...present('keyFile', text('calico-etcd-keyfile')),
        ...present('certFile', text('calico-etcd-certfile')),
        ...present('caFile', text('calico-etcd-cafile')),
        ...present('username', text('calico-etcd-username')),
        ...present('password', text('calico-etcd-password')),
      },
    },
  }
}

/** Calico's own name for etcd is `etcdv3`. */
function parseCalicoStore(text: string | undefined, store: AgentOptions['store']): CalicoOptions['store'] {
  if (text === undefined || text === '') return store === 'kubernetes' ? 'kubernetes' : 'none'
  if (text === 'etcdv3') return 'etcd'
  if (text === 'kubernetes' || text === 'etcd' || text === 'none') return text
  throw new ConfigError('--calico-datastore', 'value', `${JSON.stringify(text)} is none of kubernetes, etcd, none`)
}

const urlsOf = (flag: string, text: string): string[] => text.split(',').map((url) => checkUrl(flag, url.trim()))

const attemptFlag = <T>(name: string, text: string, parse: (text: string) => T): T =>
  attempt(`--${name}`, text, () => parse(text))

const parseLimit = (perSecond: number, burst: number): RequestLimit | undefined =>
  perSecond === 0 ? undefined : { perSecond, burst }

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

/** Where a server is asked: http or https, and no password, which would be seen in logs. */
function checkUrl(flag: string, text: string): string {
  const refuse = (problem: string) => new ConfigError(`--${flag}`, JSON.stringify(text.slice(0, 100)), problem)
  if (!URL.canParse(text)) throw refuse('is not a URL such as https://10.0.0.1:2379')
  const { protocol, username, password, hostname: host } = new URL(text)
  if (username || password) throw new ConfigError(`--${flag}`, host, 'must not hold a user or a password')
  if (protocol !== 'http:' && protocol !== 'https:') throw refuse('is neither http:// nor https://')
  return text
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
