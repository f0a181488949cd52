/**
 * The options of the controller, checked. Names, defaults and meanings of what Kubernetes' own components have are theirs.
 *
 * Sources: Kubernetes documentation, kube-controller-manager (--cluster-cidr, --node-cidr-mask-size…, --leader-elect…); Go's
 * time.ParseDuration (`1m30s`).
 */
import type { FlagValues } from '../config/flag-table.ts'
import { ConfigError } from '../model/errors.ts'
import { Cidr } from '../net/cidr.ts'
import { bitsOf } from '../net/ip.ts'
import { isLogLevel, type LogFormat, logFormats, logLevels } from '../status/log-level.ts'
import { type ElectionTiming, JITTER_FACTOR } from './election.ts'
import { controllerFlags } from './flags.ts'
import type { NetworkPlace, PoolSettings } from './network.ts'
import type { NodeStateSettings } from './node-state.ts'

export interface ControllerOptions {
  readonly kubeconfig?: string
  readonly kubeApiUrl?: string
  readonly annotationPrefix: string
  readonly allocate: boolean
  readonly network: NetworkPlace
  readonly serviceCidrs: readonly Cidr[]
  /** How long blocks of a node that is gone are kept back. Milliseconds. */
  readonly reuseDelay: number
  readonly ledger: { readonly namespace: string; readonly name: string }
  readonly nodeState: NodeStateSettings
  /** How often leaked addresses are looked for, in milliseconds; undefined: never. */
  readonly leakInterval: number | undefined
  /** Undefined: this replica always leads. */
  readonly election?: {
    readonly namespace: string
    readonly name: string
    readonly timing: Omit<ElectionTiming, 'identity'>
  }
  readonly healthz: { readonly ip: string; readonly port: number }
  readonly statusSocket?: string
  readonly logLevel: string
  readonly logFormat: LogFormat
}

/** Fills in environment and defaults, and checks everything. Throws ConfigError naming the flag. */
export function parseControllerOptions(
  commandLine: FlagValues,
  env: Readonly<Record<string, string | undefined>> = {},
): ControllerOptions {
  const given = controllerFlags.reader(commandLine, env)
  const text = (name: string): string | undefined => {
    const value = given(name)
    return value === undefined || value === '' ? undefined : String(value)
  }
  const duration = (name: string) => parseDuration(`--${name}`, text(name) ?? '0s')
  const namespace = checkName('--leader-elect-resource-namespace', text('leader-elect-resource-namespace') ?? '')
  const forgetAfter = duration('agent-forget-after')
  const agents = text('agent-pods')
  const leakInterval = duration('leak-check-interval')
  const logLevel = text('log-level') ?? ''
  const logFormat = logFormats.find((format) => format === text('log-format'))
  if (!isLogLevel(logLevel)) fail('--log-level', `${quote(logLevel)} is none of ${logLevels.join(', ')}`)
  if (!logFormat) fail('--log-format', `${quote(text('log-format') ?? '')} is none of ${logFormats.join(', ')}`)
  return {
    ...present('kubeconfig', text('kubeconfig')),
    ...present('kubeApiUrl', text('kube-api-url')),
    annotationPrefix: text('kube-annotation-prefix')!,
    allocate: parseBoolean('--allocate-node-cidrs', given('allocate-node-cidrs')),
    network: parseNetwork(text),
    serviceCidrs: parseCidrs('--service-cluster-ip-range', text('service-cluster-ip-range')),
    reuseDelay: duration('cidr-reuse-delay'),
    ledger: { namespace, name: checkName('--ledger-name', text('ledger-name') ?? '') },
    nodeState: {
      markNew: parseBoolean('--set-network-unavailable', given('set-network-unavailable')),
      agents: agents === undefined ? undefined : parseAgents(agents),
      missedAfter: duration('agent-missed-after'),
      forgetAfter: forgetAfter === 0 ? undefined : forgetAfter,
    },
    leakInterval: agents === undefined || leakInterval === 0 ? undefined : leakInterval,
    ...(parseBoolean('--leader-elect', given('leader-elect'))
      ? {
          election: {
            namespace,
            name: checkName('--leader-elect-resource-name', text('leader-elect-resource-name') ?? ''),
            timing: checkTiming({
              leaseDuration: duration('leader-elect-lease-duration'),
              renewDeadline: duration('leader-elect-renew-deadline'),
              retryPeriod: duration('leader-elect-retry-period'),
            }),
          },
        }
      : {}),
    healthz: {
      ip: text('healthz-ip') ?? '0.0.0.0',
      port: parseInteger('--healthz-port', text('healthz-port'), 0, 65535),
    },
    ...present('statusSocket', text('status-socket')),
    logLevel,
    logFormat,
  }
}

function parseNetwork(text: (name: string) => string | undefined): NetworkPlace {
  const networks = parseCidrs('--cluster-cidr', text('cluster-cidr'))
  const file = text('net-config')
  if (networks.length > 0) {
    if (file) fail('--net-config', 'not together with --cluster-cidr: both say what the pod network is')
    if (networks.length > 2 || (networks.length === 2 && networks[0]!.family === networks[1]!.family))
      fail('--cluster-cidr', 'may have one network of each family')
    return { pools: networks.map((network) => parsePool(network, networks.length === 2, text)) }
  }
  for (const name of ['node-cidr-mask-size', 'node-cidr-mask-size-ipv4', 'node-cidr-mask-size-ipv6'])
    if (text(name)) fail(`--${name}`, 'needs --cluster-cidr; net-conf.json has its own SubnetLen')
  if (file) return { file }
  const [namespace, name, more] = (text('net-config-map') ?? '').split('/')
  if (!namespace || !name || more !== undefined)
    fail('--net-config-map', `${quote(text('net-config-map') ?? '')} is not namespace/name`)
  return { namespace, name }
}

function parsePool(network: Cidr, dual: boolean, text: (name: string) => string | undefined): PoolSettings {
  const { family } = network
  const flag = `node-cidr-mask-size-ipv${family}`
  const either = text('node-cidr-mask-size')
  if (either && (dual || text(flag))) fail('--node-cidr-mask-size', `is for one family alone; use --${flag}`)
  const given = either ? 'node-cidr-mask-size' : flag
  const longest = bitsOf(family) - 2
  const length = parseInteger(`--${given}`, text(given) ?? (family === 4 ? '24' : '64'), 1, longest)
  if (length < network.length) fail(`--${given}`, `/${length} is larger than the whole network ${network}`)
  return { network, length }
}

/** client-go's conditions on the three times. */
function checkTiming(timing: Omit<ElectionTiming, 'identity'>): Omit<ElectionTiming, 'identity'> {
  const { leaseDuration, renewDeadline, retryPeriod } = timing
  if (leaseDuration <= renewDeadline)
    fail('--leader-elect-lease-duration', 'must be longer than --leader-elect-renew-deadline')
  if (renewDeadline <= JITTER_FACTOR * retryPeriod)
    fail('--leader-elect-renew-deadline', `must be longer than ${JITTER_FACTOR} times --leader-elect-retry-period`)
  if (retryPeriod < 100) fail('--leader-elect-retry-period', 'must be at least 100ms')
  return timing
}

function parseAgents(text: string): { readonly namespace: string; readonly selector: string } {
  const slash = text.indexOf('/')
  const selector = text.slice(slash + 1)
  if (slash < 1 || !/^[A-Za-z0-9][A-Za-z0-9./_=!, ()-]{0,500}$/.test(selector))
    fail('--agent-pods', `${quote(text)} is not namespace/label=value`)
  return { namespace: checkName('--agent-pods', text.slice(0, slash)), selector }
}

const units: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}

/** Go's way to write a duration, in milliseconds. */
export function parseDuration(flag: string, text: string): number {
  if (text === '0') return 0
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/gy)]
  const milliseconds = parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit!]!, 0)
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text || milliseconds > 2 ** 31 - 1)
    fail(flag, `${quote(text)} is not a duration, such as 15s or 1m30s`)
  return milliseconds
}

function parseCidrs(flag: string, text: string | undefined): Cidr[] {
  return (text ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      try {
        return Cidr.parse(part)
      } catch (cause) {
        throw new ConfigError(flag, quote(part), (cause as Error).message, { cause })
      }
    })
}

function parseInteger(flag: string, text: string | undefined, from: number, to: number): number {
  const number = Number(text)
  if (!/^\d{1,6}$/.test(text ?? '') || number < from || number > to)
    fail(flag, `${quote(text ?? '')} is not a number in ${from}..${to}`)
  return number
}

function parseBoolean(flag: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value
  if (['true', '1', 't', 'TRUE', 'True', 'T'].includes(String(value))) return true
  if (['false', '0', 'f', 'FALSE', 'False', 'F'].includes(String(value))) return false
  return fail(flag, `${quote(String(value))} is neither true nor false`)
}

function checkName(flag: string, name: string): string {
  if (!/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(name)) fail(flag, `${quote(name)} is not a name`)
  return name
}

function present<K extends string>(key: K, value: string | undefined): { readonly [P in K]?: string } {
  return (value === undefined ? {} : { [key]: value }) as { readonly [P in K]?: string }
}

const quote = (text: string): string => JSON.stringify(text.slice(0, 100))

function fail(flag: string, problem: string): never {
  throw new ConfigError(flag, 'value', problem)
}
