/**
 * The file of `weft bgp serve`: one speaker outside Kubernetes. Its keys are those of `SpeakerConfig` with every usual value
 * left out; a key that is not known is an error, because nobody else may know it.
 *
 *   asn: 64513
 *   routerId: 10.0.0.1
 *   peers:
 *     - name: node1
 *       address: 10.0.0.2
 *       asn: 64512
 *       families: { ipv4: {}, ipv6: { maxPrefixes: { limit: 1000 } } }
 *   routes:
 *     - prefix: 192.0.2.0/24
 *
 * Sources: docs/bgp.md describes every key; src/model/bgp.ts says what it means.
 */
import {
  DEFAULT_BGP_PORT,
  type DynamicPeerConfig,
  type LocalRoute,
  type PeerConfig,
  type PolicyConfig,
  type PrefixSetConfig,
  type SpeakerConfig,
} from '../../model/bgp.ts'
import { Ip } from '../../net/ip.ts'
import { Fields, shown } from '../calico/fields.ts'
import {
  ASN_MAX,
  addressText,
  communityTexts,
  defined,
  each,
  known,
  readAsn,
  refuseUnknown,
  required,
} from './file-fields.ts'
import { readPeer } from './peer-fields.ts'
import { readPolicy, readPrefixSet } from './policy-fields.ts'

export interface SpeakerFile {
  readonly config: SpeakerConfig
  readonly routes: readonly LocalRoute[]
}

const PEERS_MAX = 20_000
const ROUTES_MAX = 100_000

/** `value` is the parsed YAML or JSON. Throws ConfigError naming `file` and the key. */
export function parseSpeakerFile(value: unknown, file: string): SpeakerFile {
  const fields = new Fields(value, file)
  refuseUnknown(fields, [
    'asn',
    'routerId',
    'clusterId',
    'listen',
    'peers',
    'dynamicPeers',
    'confederation',
    'multipath',
    'policies',
    'prefixSets',
    'externalNeedsPolicy',
    'deferralSeconds',
    'routes',
  ])
  const peers = each(fields, 'peers', PEERS_MAX).map((peer) => readPeer(peer, 'listed') as PeerConfig)
  const dynamicPeers = each(fields, 'dynamicPeers', 1000).map((peer) => readPeer(peer, 'dynamic') as DynamicPeerConfig)
  const names = new Set<string>()
  for (const [index, { name }] of peers.entries()) {
    if (names.has(name)) throw fields.error(`peers[${index}].name`, `${shown(name)} is the name of two peers`)
    names.add(name)
  }
  const multipath = known(fields.inner('multipath'), ['maxPaths', 'asPathRelax'])
  const clusterId = addressText(fields, 'clusterId', 4)
  const confederation = readConfederation(fields)
  return {
    config: {
      asn: required(fields, 'asn', readAsn(fields, 'asn')),
      routerId: required(fields, 'routerId', addressText(fields, 'routerId', 4)),
      ...(clusterId === undefined ? {} : { clusterId }),
      listen: readListen(fields),
      peers,
      dynamicPeers,
      ...(confederation === undefined ? {} : { confederation }),
      multipath: {
        maxPaths: multipath.integer('maxPaths', 1, 64) ?? 1,
        asPathRelax: multipath.flag('asPathRelax') ?? false,
      },
      policies: each(fields, 'policies', 1000).map((policy): PolicyConfig => readPolicy(policy)),
      prefixSets: each(fields, 'prefixSets', 1000).map((set): PrefixSetConfig => readPrefixSet(set)),
      ownership: [],
      externalNeedsPolicy: fields.flag('externalNeedsPolicy') ?? false,
      deferralSeconds: fields.integer('deferralSeconds', 0, 3600) ?? 120,
    },
    routes: each(fields, 'routes', ROUTES_MAX).map(readRoute),
  }
}

function readListen(fields: Fields): SpeakerConfig['listen'] {
  const listen = known(fields.inner('listen'), ['port', 'addresses'])
  const addresses = listen.texts('addresses', 64) ?? []
  for (const [index, text] of addresses.entries())
    if (!Ip.tryParse(text)) throw listen.error(`addresses[${index}]`, `must be an address, not ${shown(text)}`)
  return {
    port: listen.integer('port', 0, 65535) ?? DEFAULT_BGP_PORT,
    addresses: addresses.map((text) => Ip.parse(text).toString()),
  }
}

function readConfederation(fields: Fields): SpeakerConfig['confederation'] {
  if (fields.get('confederation') === undefined) return undefined
  const confederation = known(fields.inner('confederation'), ['identifier', 'members'])
  const members = (confederation.list('members', 1000) ?? []).map((asn, index) => {
    if (typeof asn !== 'number' || !Number.isInteger(asn) || asn < 1 || asn > ASN_MAX)
      throw confederation.error(`members[${index}]`, `must be an AS number, not ${shown(asn)}`)
    return asn
  })
  return { identifier: required(confederation, 'identifier', readAsn(confederation, 'identifier')), members }
}

function readRoute(fields: Fields): LocalRoute {
  refuseUnknown(fields, ['prefix', 'nextHop', 'communities', 'med', 'localPreference'])
  return {
    prefix: required(fields, 'prefix', fields.cidr('prefix')).toString(),
    kind: 'static',
    ...defined({
      nextHop: addressText(fields, 'nextHop'),
      communities: communityTexts(fields, 'communities'),
      med: fields.integer('med', 0, 0xffffffff),
      localPreference: fields.integer('localPreference', 0, 0xffffffff),
    }),
  }
}
