/**
 * Peers and dynamic peers of a speaker's file, with the values that are usual between routers.
 */
import { encodeUtf8 } from '../../bytes/text.ts'
import {
  type BfdConfig,
  DEFAULT_BGP_PORT,
  type DynamicPeerConfig,
  type GracefulRestartConfig,
  type MaxPrefixesConfig,
  type PeerConfig,
  type PeerFamilyConfig,
  type PeerTemplate,
  type PeerTimers,
} from '../../model/bgp.ts'
import { type Fields, shown } from '../calico/fields.ts'
import { addressText, bgpFamilies, defined, known, readAsn, refuseUnknown, required } from './file-fields.ts'

const commonKeys = [
  'name',
  'description',
  'asn',
  'localAsn',
  'localAddress',
  'passive',
  'password',
  'multihopTtl',
  'ttlSecurityHops',
  'timers',
  'families',
  'capabilities',
  'gracefulRestart',
  'reflectorClient',
  'allowedLocalAsns',
  'role',
  'roleStrict',
  'shutdown',
  'bfd',
]

/** A peer that is listed, with its place; or the template of those that call from a prefix. */
export function readPeer(fields: Fields, kind: 'listed' | 'dynamic'): PeerConfig | DynamicPeerConfig {
  refuseUnknown(fields, [
    ...commonKeys,
    ...(kind === 'listed' ? ['address', 'device', 'port'] : ['prefix', 'maxPeers']),
  ])
  const template = readTemplate(fields)
  if (kind === 'dynamic') {
    const prefix = required(fields, 'prefix', fields.cidr('prefix')).toString()
    return {
      ...template,
      name: fields.text('name', 128) ?? prefix,
      prefix,
      maxPeers: fields.integer('maxPeers', 1, 100_000) ?? 100,
    }
  }
  const address = addressText(fields, 'address')
  const device = fields.text('device', 15)
  if (address === undefined && device === undefined) throw fields.error('address', 'is missing, and there is no device')
  if (address?.startsWith('fe80:') && device === undefined)
    throw fields.error('device', 'is missing: a link-local address is meant on a device')
  return {
    ...template,
    name: fields.text('name', 128) ?? address ?? device!,
    ...(address === undefined ? {} : { address }),
    ...(device === undefined ? {} : { device }),
    port: fields.integer('port', 1, 65535) ?? DEFAULT_BGP_PORT,
  }
}

function readTemplate(fields: Fields): PeerTemplate {
  const password = fields.text('password', 80)
  if (password !== undefined && encodeUtf8(password).length > 80)
    throw fields.error('password', 'is longer than 80 bytes')
  const multihopTtl = fields.integer('multihopTtl', 1, 255)
  const ttlSecurityHops = fields.integer('ttlSecurityHops', 1, 254)
  if (multihopTtl !== undefined && ttlSecurityHops !== undefined)
    throw fields.error('multihopTtl', 'has no meaning with ttlSecurityHops: everything is sent with 255')
  const capabilities = known(fields.inner('capabilities'), [
    'routeRefresh',
    'extendedMessages',
    'extendedNextHop',
    'hostName',
  ])
  return {
    ...defined({
      description: fields.text('description', 256),
      localAsn: readAsn(fields, 'localAsn'),
      localAddress: addressText(fields, 'localAddress'),
      password,
      multihopTtl,
      ttlSecurityHops,
      role: fields.oneOf('role', ['provider', 'route-server', 'route-server-client', 'customer', 'peer']),
      roleStrict: fields.flag('roleStrict'),
      bfd: readBfd(fields, multihopTtl !== undefined),
      shutdown: fields.get('shutdown') === undefined ? undefined : { message: fields.text('shutdown', 255) ?? '' },
    }),
    remoteAsn: readRemoteAsn(fields),
    passive: fields.flag('passive') ?? false,
    timers: readTimers(fields),
    families: readFamilies(fields),
    capabilities: {
      routeRefresh: capabilities.flag('routeRefresh') ?? true,
      extendedMessages: capabilities.flag('extendedMessages') ?? true,
      extendedNextHop: capabilities.flag('extendedNextHop') ?? fields.get('address') === undefined,
      ...defined({ hostName: capabilities.text('hostName', 64) }),
    },
    gracefulRestart: readGracefulRestart(fields),
    reflectorClient: fields.flag('reflectorClient') ?? false,
    allowedLocalAsns: fields.integer('allowedLocalAsns', 0, 255) ?? 0,
  }
}

function readRemoteAsn(fields: Fields): PeerTemplate['remoteAsn'] {
  const value = required(fields, 'asn', fields.get('asn'))
  if (value === 'internal' || value === 'external') return value
  if (typeof value !== 'number')
    throw fields.error('asn', `must be an AS number, internal or external, not ${shown(value)}`)
  return readAsn(fields, 'asn')!
}

/** `{}` has what is usual (FRR's intervals). */
function readBfd(fields: Fields, far: boolean): BfdConfig | undefined {
  if (fields.get('bfd') === undefined) return undefined
  const bfd = known(fields.inner('bfd'), [
    'minTransmitMilliseconds',
    'minReceiveMilliseconds',
    'detectMultiplier',
    'multihop',
    'port',
  ])
  return {
    multihop: bfd.flag('multihop') ?? far,
    minTransmitMicroseconds: (bfd.integer('minTransmitMilliseconds', 10, 60_000) ?? 300) * 1000,
    minReceiveMicroseconds: (bfd.integer('minReceiveMilliseconds', 10, 60_000) ?? 300) * 1000,
    detectMultiplier: bfd.integer('detectMultiplier', 1, 255) ?? 3,
    ...defined({ port: bfd.integer('port', 1, 65535) }),
  }
}

function readTimers(fields: Fields): PeerTimers {
  const timers = known(fields.inner('timers'), [
    'holdSeconds',
    'keepaliveSeconds',
    'connectRetrySeconds',
    'connectDelaySeconds',
    'errorWaitMinSeconds',
    'errorWaitMaxSeconds',
  ])
  const holdSeconds = timers.integer('holdSeconds', 0, 65535) ?? 90
  if (holdSeconds === 1 || holdSeconds === 2) throw timers.error('holdSeconds', 'must be 0, or 3 and more')
  const errorWaitMinSeconds = timers.integer('errorWaitMinSeconds', 1, 3600) ?? 1
  return {
    holdSeconds,
    ...defined({ keepaliveSeconds: timers.integer('keepaliveSeconds', 1, 21845) }),
    connectRetrySeconds: timers.integer('connectRetrySeconds', 1, 65535) ?? 5,
    connectDelaySeconds: timers.integer('connectDelaySeconds', 0, 3600) ?? 0,
    errorWaitMinSeconds,
    errorWaitMaxSeconds:
      timers.integer('errorWaitMaxSeconds', errorWaitMinSeconds, 86400) ?? Math.max(30, errorWaitMinSeconds),
  }
}

/** A list of names, or an object with what is to be said of each. Left out: both with nothing to say. */
function readFamilies(fields: Fields): readonly PeerFamilyConfig[] {
  const value = fields.get('families')
  if (Array.isArray(value) || value === undefined) {
    const names = fields.texts('families', 2) ?? bgpFamilies
    for (const [index, name] of names.entries())
      if (!bgpFamilies.some((family) => family === name))
        throw fields.error(`families[${index}]`, `must be one of ${bgpFamilies.join(', ')}, not ${shown(name)}`)
    return bgpFamilies.filter((family) => names.includes(family)).map((family) => readFamily(undefined, family))
  }
  const families = known(fields.inner('families'), bgpFamilies)
  return bgpFamilies
    .filter((family) => families.keys().includes(family))
    .map((family) => readFamily(families.inner(family), family))
}

function readFamily(fields: Fields | undefined, family: PeerFamilyConfig['family']): PeerFamilyConfig {
  const usual = {
    family,
    importPolicies: [],
    exportPolicies: [],
    nextHop: 'auto',
    addPathReceive: false,
    addPathSend: 0,
  } as const
  if (!fields) return usual
  refuseUnknown(fields, [
    'importPolicies',
    'exportPolicies',
    'importDefault',
    'exportDefault',
    'nextHop',
    'addPathReceive',
    'addPathSend',
    'maxPrefixes',
  ])
  return {
    family,
    importPolicies: fields.texts('importPolicies', 100) ?? [],
    exportPolicies: fields.texts('exportPolicies', 100) ?? [],
    ...defined({
      importDefault: fields.oneOf('importDefault', ['accept', 'reject']),
      exportDefault: fields.oneOf('exportDefault', ['accept', 'reject']),
      maxPrefixes: fields.get('maxPrefixes') === undefined ? undefined : readMaxPrefixes(fields.inner('maxPrefixes')),
    }),
    nextHop: fields.oneOf('nextHop', ['auto', 'self', 'keep']) ?? 'auto',
    addPathReceive: fields.flag('addPathReceive') ?? false,
    addPathSend: fields.integer('addPathSend', 0, 64) ?? 0,
  }
}

function readMaxPrefixes(fields: Fields): MaxPrefixesConfig {
  refuseUnknown(fields, ['limit', 'warnPercent', 'action', 'restartSeconds'])
  return {
    limit: required(fields, 'limit', fields.integer('limit', 1, 0xffffffff)),
    warnPercent: fields.integer('warnPercent', 1, 100) ?? 80,
    action: fields.oneOf('action', ['restart', 'down', 'warn']) ?? 'restart',
    ...defined({ restartSeconds: fields.integer('restartSeconds', 1, 86400) }),
  }
}

function readGracefulRestart(fields: Fields): GracefulRestartConfig {
  const restart = known(fields.inner('gracefulRestart'), [
    'mode',
    'restartSeconds',
    'notification',
    'longLivedStaleSeconds',
  ])
  return {
    mode: restart.oneOf('mode', ['off', 'helper', 'full']) ?? 'helper',
    restartSeconds: restart.integer('restartSeconds', 0, 4095) ?? 120,
    notification: restart.flag('notification') ?? true,
    longLivedStaleSeconds: restart.integer('longLivedStaleSeconds', 0, 16777215) ?? 0,
  }
}
