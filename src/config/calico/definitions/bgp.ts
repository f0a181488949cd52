/**
 * The definitions of BGPConfiguration and BGPPeer. What the API refuses here is what their parsers refuse, as far as rules can
 * say it: the text of selectors and names of communities are the agent's to judge.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/bgpconfig.go and bgppeer.go (rules, defaults, columns);
 * libcalico-go/config/crd (shapes).
 */
import { bgpKeysNotApplying } from '../bgp-keys.ts'
import type { KeysNotApplying } from '../felix-keys.ts'
import {
  define,
  flag,
  integer,
  listOf,
  object,
  oneOf,
  type PropertySchema,
  type Rule,
  rulesOf,
  text,
} from './definition.ts'

const ASN = { minimum: 0, maximum: 4294967294 }
const PRIORITY = { minimum: 1, maximum: 2147483646 }
const SELECTOR = { maxLength: 1024 }
const DURATION = { maxLength: 64 }
/** A set: a list without an order of its own, each item once. */
const SET = { 'x-kubernetes-list-type': 'set' }

/** Flags within a pattern are not everybody's. */
const anyCase = (word: string): string => word.replaceAll(/./g, (letter) => `[${letter.toUpperCase()}${letter}]`)

const has = (key: string): string => `(has(self.${key}) && self.${key} != '')`
const isNumber = (key: string): string => `(has(self.${key}) && self.${key} != 0)`
const notBoth = (first: string, second: string, message: string): Rule => ({
  rule: `!${has(first)} || !${has(second)}`,
  message,
  reason: 'FieldValueForbidden',
  fieldPath: `.${first}`,
})
/** Go's text of a duration. */
const isDuration = (key: string, least = 0): Rule => ({
  rule: `!${has(key)} || self.${key}.matches('^([0-9]+(\\\\.[0-9]+)?(ns|us|ms|s|m|h))+$')`,
  message: `must be a duration such as 120s or 2m${least > 0 ? `, of ${least}s at least` : ''}`,
  fieldPath: `.${key}`,
})

const password = object('Where the password is.', {
  secretKeyRef: object(
    "A key of a Secret in the agents' namespace.",
    {
      name: text('Name of the Secret.', { maxLength: 253 }),
      key: text('Key in it.', { maxLength: 253, minLength: 1 }),
      optional: flag('No problem when it is missing.'),
    },
    { required: ['key'], 'x-kubernetes-map-type': 'atomic' },
  ),
})

const keep = (groups: readonly KeysNotApplying[]): Readonly<Record<string, PropertySchema>> =>
  Object.fromEntries(
    groups.flatMap(({ reason, keys }) =>
      keys.map((key) => [
        key,
        { description: `Does not apply: ${reason}.`, 'x-kubernetes-preserve-unknown-fields': true },
      ]),
    ),
  )

const sorted = (properties: Readonly<Record<string, PropertySchema>>) =>
  Object.fromEntries(Object.entries(properties).sort(([a], [b]) => (a < b ? -1 : 1)))

const blocks = (description: string) =>
  listOf(object('One block.', { cidr: text('Its addresses.', { format: 'cidr', maxLength: 48 }) }), description, {
    maxItems: 1000,
    'x-kubernetes-list-type': 'atomic',
  })

export const bgpConfigurationDefinition = define(
  { kind: 'BGPConfiguration', plural: 'bgpconfigurations', shortNames: ['bgpconfig', 'bgpconfigs'] },
  {
    description: 'Settings of BGP: the object named default for all nodes, node.NAME for one.',
    spec: object(
      'The settings. Without a key, its default holds.',
      sorted({
        ...keep(bgpKeysNotApplying.BGPConfiguration),
        asNumber: integer('AS number of nodes that have none of their own. Default: 64512.', ASN),
        bindMode: oneOf(['None', 'NodeIP'], "NodeIP: peers may call the node's own addresses alone. Default: None."),
        communities: listOf(
          object('A name for a community.', {
            name: text('The name.', { maxLength: 253 }),
            value: text('aa:nn or aa:nn:mm.', { maxLength: 40, pattern: '^(\\d+):(\\d+)$|^(\\d+):(\\d+):(\\d+)$' }),
          }),
          'Communities by name, for prefixAdvertisements.',
          { maxItems: 500, 'x-kubernetes-list-type': 'atomic' },
        ),
        ignoredInterfaces: listOf(
          { type: 'string', maxLength: 15 },
          "Devices whose addresses are not the node's to tell of; * ends a name.",
          { maxItems: 500, ...SET },
        ),
        ipv4NormalRoutePriority: integer('Metric that stands for an ordinary IPv4 route. Default: 1024.', PRIORITY),
        ipv6NormalRoutePriority: integer('The same for IPv6. Default: 1024.', PRIORITY),
        listenPort: integer('TCP port of BGP. Default: 179.', { minimum: 1, maximum: 65535 }),
        logSeverityScreen: text('How much is logged of BGP. Default: Info.', {
          default: 'Info',
          pattern: `^(${['trace', 'debug', 'info', 'warning', 'error', 'fatal'].map(anyCase).join('|')})?$`,
        }),
        nodeMeshMaxRestartTime: text('How long a restarted node of the mesh is waited for. Default: 120s.', DURATION),
        nodeMeshPassword: password,
        nodeToNodeMeshEnabled: flag('Every node is a peer of every other. Default: true.'),
        prefixAdvertisements: listOf(
          object('What is told with communities.', {
            cidr: text('Prefixes in here.', { format: 'cidr', maxLength: 48 }),
            communities: listOf({ type: 'string', maxLength: 253 }, 'Communities, or their names.', {
              maxItems: 50,
              'x-kubernetes-list-type': 'atomic',
            }),
          }),
          'Communities of routes that this cluster tells, by prefix.',
          { maxItems: 500, 'x-kubernetes-list-type': 'atomic' },
        ),
        serviceClusterIPs: blocks('Blocks of cluster addresses that are told to peers.'),
        serviceExternalIPs: blocks('Blocks of external addresses that are told to peers.'),
        serviceLoadBalancerAggregation: oneOf(
          ['Enabled', 'Disabled'],
          'Disabled: one route for each Service, instead of whole blocks.',
          { default: 'Enabled' },
        ),
        serviceLoadBalancerIPs: blocks('Blocks of load balancer addresses that are told to peers.'),
      }),
      rulesOf([
        {
          rule: '!has(self.nodeMeshPassword) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled',
          message: 'cannot be set where nodeToNodeMeshEnabled is false',
          reason: 'FieldValueForbidden',
          fieldPath: '.nodeMeshPassword',
        },
        {
          rule: '!has(self.nodeMeshMaxRestartTime) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled',
          message: 'cannot be set where nodeToNodeMeshEnabled is false',
          reason: 'FieldValueForbidden',
          fieldPath: '.nodeMeshMaxRestartTime',
        },
        isDuration('nodeMeshMaxRestartTime'),
        {
          rule: '!has(self.communities) || size(self.communities) == 0 || (has(self.prefixAdvertisements) && size(self.prefixAdvertisements) > 0)',
          message: 'are defined, but prefixAdvertisements uses none of them',
          fieldPath: '.communities',
        },
      ]),
    ),
    columns: [
      { name: 'Mesh', type: 'boolean', jsonPath: '.spec.nodeToNodeMeshEnabled' },
      { name: 'ASN', type: 'integer', jsonPath: '.spec.asNumber' },
    ],
    rules: [
      {
        rule: "self.metadata.name == 'default' || self.metadata.name.startsWith('node.')",
        message: 'only the objects named default and node.NAME are read',
      },
    ],
  },
)

const peerRules: readonly Rule[] = [
  notBoth('nodeSelector', 'node', 'cannot be set beside node: one of the two says whose peer it is'),
  notBoth('peerSelector', 'peerIP', 'cannot be set beside peerIP: one of the two says with whom'),
  notBoth('peerIP', 'localWorkloadSelector', 'must be empty beside localWorkloadSelector'),
  notBoth('peerSelector', 'localWorkloadSelector', 'must be empty beside localWorkloadSelector'),
  {
    rule: `!${has('peerSelector')} || !${isNumber('asNumber')}`,
    message: 'must be empty beside peerSelector: nodes have their own',
    reason: 'FieldValueForbidden',
    fieldPath: '.asNumber',
  },
  {
    rule: `!${has('localWorkloadSelector')} || ${isNumber('asNumber')}`,
    message: 'is missing: localWorkloadSelector needs one',
    fieldPath: '.asNumber',
  },
  {
    rule: `!${has('reachableBy')} || ${has('peerIP')}`,
    message: 'must be empty where peerIP is: it is the way to that address',
    reason: 'FieldValueForbidden',
    fieldPath: '.reachableBy',
  },
  {
    rule: `${has('peerIP')} || ${has('peerSelector')} || ${has('localWorkloadSelector')}`,
    message: 'is missing, and so is peerSelector: one of the two says with whom',
    fieldPath: '.peerIP',
  },
  {
    rule: `!${has('peerIP')} || isIP(self.peerIP) || self.peerIP.matches('^([0-9.]+|\\\\[[0-9a-fA-F:.]+\\\\]):[0-9]{1,5}$')`,
    message: 'must be an address, or address:port ([IPv6]:port)',
    fieldPath: '.peerIP',
  },
  {
    rule: `!${has('reachableBy')} || isIP(self.reachableBy)`,
    message: 'must be an address',
    fieldPath: '.reachableBy',
  },
  {
    rule: `!${has('reachableBy')} || !${has('peerIP')} || !isIP(self.reachableBy) || !isIP(self.peerIP) || ip(self.reachableBy).family() == ip(self.peerIP).family()`,
    message: 'is of another family than the peer',
    fieldPath: '.reachableBy',
  },
  {
    rule: '!has(self.keepOriginalNextHop) || !self.keepOriginalNextHop || !has(self.nextHopMode)',
    message: 'cannot be set beside nextHopMode, which says more',
    reason: 'FieldValueForbidden',
    fieldPath: '.keepOriginalNextHop',
  },
  isDuration('maxRestartTime'),
  isDuration('keepaliveTime'),
]

export const bgpPeerDefinition = define(
  { kind: 'BGPPeer', plural: 'bgppeers' },
  {
    description: 'Which nodes speak BGP with whom, and how.',
    spec: object(
      'Whose peer (node, nodeSelector, or every node) and with whom (peerIP or peerSelector).',
      sorted({
        ...keep(bgpKeysNotApplying.BGPPeer),
        asNumber: integer("The peer's AS number. Default: the cluster's.", ASN),
        failureDetectionMode: oneOf(
          ['None', 'BFDIfDirectlyConnected'],
          'BFDIfDirectlyConnected: BFD tells of a peer that is gone. Default: None.',
        ),
        filters: listOf({ type: 'string', maxLength: 253 }, 'BGPFilters in their order.', {
          maxItems: 100,
          'x-kubernetes-list-type': 'atomic',
        }),
        keepOriginalNextHop: flag('An older word for nextHopMode Keep, toward external peers alone.'),
        keepaliveTime: text('Between two keepalives. Default: a third of the hold time.', DURATION),
        localASNumber: integer("This side's AS number toward the peer. Default: the node's.", ASN),
        localWorkloadSelector: text('Does not apply: pods are no peers of weft.', SELECTOR),
        maxRestartTime: text('How long a restarted peer is waited for. Default: 120s.', DURATION),
        nextHopMode: oneOf(
          ['Auto', 'Self', 'Keep'],
          "Next hop of what is told: by BGP's rules, this node, as it came.",
        ),
        node: text('Whose peer it is: this node alone.', { maxLength: 253 }),
        nodeSelector: text('Whose peer it is: nodes that it selects.', SELECTOR),
        numAllowedLocalASNumbers: integer('How often our own AS may stand in what the peer tells. Default: 0.', {
          minimum: 0,
          maximum: 255,
        }),
        password,
        peerIP: text("The peer's address, with a port behind it where that is not 179.", { maxLength: 64 }),
        peerSelector: text('The peers are nodes that it selects.', SELECTOR),
        reachableBy: text('Gateway of a route to the peer alone.', { maxLength: 64 }),
        restartMode: oneOf(
          ['GracefulRestart', 'LongLivedGracefulRestart'],
          'LongLivedGracefulRestart: routes of a peer that is gone are kept on, least preferred.',
        ),
        reversePeering: oneOf(
          ['Auto', 'Manual'],
          'Auto: nodes that are selected as peers speak with the others too. Default: Auto.',
        ),
        sourceAddress: oneOf(
          ['UseNodeIP', 'None'],
          "Address that the node calls from: its own, or the kernel's choice. Default: UseNodeIP.",
        ),
        ttlSecurity: integer('The peer is at most so many hops away; what comes from farther is dropped.', {
          minimum: 0,
          maximum: 254,
        }),
      }),
      rulesOf(peerRules),
    ),
    columns: [
      { name: 'Node Selector', type: 'string', jsonPath: '.spec.nodeSelector' },
      { name: 'Node', type: 'string', jsonPath: '.spec.node' },
      { name: 'Local ASN', type: 'string', jsonPath: '.spec.localASNumber' },
      { name: 'Peer Selector', type: 'string', jsonPath: '.spec.peerSelector' },
      { name: 'Peer IP', type: 'string', jsonPath: '.spec.peerIP' },
      { name: 'Peer ASN', type: 'string', jsonPath: '.spec.asNumber' },
    ],
  },
)
