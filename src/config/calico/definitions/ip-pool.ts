/**
 * The definition of IPPool. What the API refuses here is what `parsePool` refuses, as far as rules can say it: the text of
 * selectors and weft's annotation are the agent's to judge.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/ippool.go (rules, defaults, condition); Kubernetes documentation, "Common
 * Expression Language in Kubernetes" (IP address and CIDR library, since 1.31).
 */
import { ageColumn, define, flag, integer, listOf, object, oneOf, type Rule, rulesOf, text } from './definition.ts'

const MODES = ['Never', 'Always', 'CrossSubnet']

const modeIsOff = (mode: string): string => `(!has(self.${mode}) || self.${mode} == '' || self.${mode} == 'Never')`
const uses = (use: string, of = 'self'): string => `(has(${of}.allowedUses) && '${use}' in ${of}.allowedUses)`
const unlessLoadBalancer = (condition: string): string => `!${uses('LoadBalancer')} || ${condition}`
/** What a CIDR must be, once it is one: text that is none is told by its format alone. */
const ofCidr = (condition: string): string => `!isCIDR(self.cidr) || (${condition})`
const family = (of = 'self'): string => `cidr(${of}.cidr).ip().family()`
const blockSize = (of = 'self'): string =>
  `(has(${of}.blockSize) && ${of}.blockSize != 0 ? ${of}.blockSize : (${family(of)} == 4 ? 26 : 122))`

const rules: readonly Rule[] = [
  {
    rule: 'isCIDR(self.cidr)',
    message: 'must be an IPv4 or an IPv6 block, and not one within the other',
    fieldPath: '.cidr',
  },
  {
    rule: ofCidr('cidr(self.cidr) == cidr(self.cidr).masked()'),
    message: 'has host bits set: write the first address of the block',
    fieldPath: '.cidr',
  },
  {
    rule: ofCidr(
      "!cidr('169.254.0.0/16').containsIP(cidr(self.cidr).ip()) && !cidr(self.cidr).containsIP('169.254.0.0') && " +
        "!cidr('fe80::/10').containsIP(cidr(self.cidr).ip()) && !cidr(self.cidr).containsIP('fe80::')",
    ),
    message: 'overlaps the link-local addresses 169.254.0.0/16 or fe80::/10',
    fieldPath: '.cidr',
  },
  {
    rule: ofCidr(
      `${family()} == 4 ? ${blockSize()} >= 20 && ${blockSize()} <= 32 : ${blockSize()} >= 116 && ${blockSize()} <= 128`,
    ),
    message: 'must be from 20 to 32 in an IPv4 pool and from 116 to 128 in an IPv6 pool',
    fieldPath: '.blockSize',
  },
  {
    rule: ofCidr(`(has(self.disabled) && self.disabled) || cidr(self.cidr).prefixLength() <= ${blockSize()}`),
    message: 'is smaller than one block: blockSize, or 26 (IPv4) and 122 (IPv6) without it',
    fieldPath: '.cidr',
  },
  {
    rule: `!isCIDR(self.cidr) || !isCIDR(oldSelf.cidr) || ${blockSize()} == ${blockSize('oldSelf')}`,
    message: 'cannot be changed: make another pool, disable this one, and let the pods move',
    fieldPath: '.blockSize',
  },
  {
    rule: `${modeIsOff('ipipMode')} || ${modeIsOff('vxlanMode')}`,
    message: 'one of ipipMode and vxlanMode must be Never',
    reason: 'FieldValueForbidden',
  },
  {
    rule: ofCidr(`${family()} == 4 || ${modeIsOff('ipipMode')}`),
    message: 'IP in IP carries IPv4 only: an IPv6 pool can use vxlanMode',
    reason: 'FieldValueForbidden',
    fieldPath: '.ipipMode',
  },
  {
    rule: unlessLoadBalancer(`(!${uses('Workload')} && !${uses('Tunnel')})`),
    message: 'LoadBalancer cannot be combined with Workload or Tunnel',
    reason: 'FieldValueForbidden',
    fieldPath: '.allowedUses',
  },
  {
    rule: unlessLoadBalancer(`(${modeIsOff('ipipMode')} && ${modeIsOff('vxlanMode')})`),
    message: 'ipipMode and vxlanMode must be Never in a pool for LoadBalancer',
    reason: 'FieldValueForbidden',
  },
  {
    rule: unlessLoadBalancer('!has(self.disableBGPExport) || !self.disableBGPExport'),
    message: 'must not be true in a pool for LoadBalancer',
    reason: 'FieldValueForbidden',
    fieldPath: '.disableBGPExport',
  },
  {
    rule: unlessLoadBalancer("!has(self.nodeSelector) || self.nodeSelector == '' || self.nodeSelector == 'all()'"),
    message: 'must be all() in a pool for LoadBalancer',
    fieldPath: '.nodeSelector',
  },
  {
    rule: `!${uses('LoadBalancer', 'oldSelf')} || ${uses('LoadBalancer')}`,
    message: 'a pool for LoadBalancer stays one: its addresses are in use outside the cluster',
    fieldPath: '.allowedUses',
  },
  {
    rule: `!${uses('Tunnel')} || !has(self.namespaceSelector) || self.namespaceSelector == ''`,
    message: 'cannot be used where allowedUses has Tunnel: tunnels are in no namespace',
    reason: 'FieldValueForbidden',
    fieldPath: '.namespaceSelector',
  },
  {
    rule: "!has(self.nodeSelector) || !self.nodeSelector.contains('global(')",
    message: 'global() does not select nodes',
    fieldPath: '.nodeSelector',
  },
  {
    rule: "!has(self.namespaceSelector) || !self.namespaceSelector.contains('global(')",
    message: 'global() does not select namespaces',
    fieldPath: '.namespaceSelector',
  },
]

const spec = object(
  'What the pool gives out, to whom, and how packets to its addresses travel.',
  {
    cidr: text('The block of addresses, such as 172.26.0.0/16. Cannot be changed.', {
      format: 'cidr',
      maxLength: 48,
      ...rulesOf([
        {
          rule: 'self == oldSelf || (isCIDR(self) && isCIDR(oldSelf) && cidr(self) == cidr(oldSelf))',
          message: 'cannot be changed: make another pool, disable this one, and let the pods move',
        },
      ]),
    }),
    blockSize: integer(
      'Prefix length of the blocks that nodes take: 20 to 32, 26 without it; IPv6 116 to 128, 122 without it. Cannot be changed.',
      { minimum: 0, maximum: 128 },
    ),
    ipipMode: oneOf(MODES, 'When packets between nodes go by IP in IP: Never, Always, or to other subnets only.'),
    vxlanMode: oneOf(MODES, 'When packets between nodes go by VXLAN: Never, Always, or to other subnets only.'),
    natOutgoing: flag("Packets that leave the pools get an address of the node's."),
    disabled: flag('No new addresses are given out. Those in use stay, and are routed.'),
    disableBGPExport: flag('Routes of the pool are not told to BGP peers.'),
    nodeSelector: text('Nodes that take blocks of the pool.', { default: 'all()', maxLength: 1024 }),
    namespaceSelector: text('Namespaces whose pods get its addresses; all without it.', { maxLength: 1024 }),
    allowedUses: listOf(
      { type: 'string', enum: ['Workload', 'Tunnel', 'LoadBalancer'] },
      'What its addresses are for: pods, devices of tunnels (both without it), or Services.',
      { maxItems: 10, 'x-kubernetes-list-type': 'set' },
    ),
    assignmentMode: oneOf(['Automatic', 'Manual'], 'Manual: only for pods that name the pool.', {
      default: 'Automatic',
    }),
  },
  { required: ['cidr'], ...rulesOf(rules) },
)

const condition = object(
  'One thing about the state of the pool.',
  {
    type: text('Allocatable.', { maxLength: 316 }),
    status: oneOf(['True', 'False', 'Unknown'], 'Whether it is so.'),
    reason: text('Why, for programs.', { minLength: 1, maxLength: 1024 }),
    message: text('Why, for people.', { maxLength: 32768 }),
    lastTransitionTime: text('Since when.', { format: 'date-time' }),
    observedGeneration: integer('Of which generation of the object this is said.', { format: 'int64', minimum: 0 }),
  },
  { required: ['type', 'status', 'reason', 'message', 'lastTransitionTime'] },
)

export const ipPoolDefinition = define(
  { kind: 'IPPool', plural: 'ippools' },
  {
    description: 'A block of addresses that pods, tunnels or Services get theirs from.',
    spec,
    status: object('What became of it.', {
      conditions: listOf(condition, 'Allocatable says whether addresses are given out.', {
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['type'],
      }),
    }),
    columns: [
      { name: 'CIDR', type: 'string', jsonPath: '.spec.cidr' },
      { name: 'VXLAN', type: 'string', jsonPath: '.spec.vxlanMode' },
      { name: 'IPIP', type: 'string', jsonPath: '.spec.ipipMode' },
      { name: 'NAT', type: 'boolean', jsonPath: '.spec.natOutgoing' },
      { name: 'Allocatable', type: 'string', jsonPath: ".status.conditions[?(@.type=='Allocatable')].status" },
      ageColumn,
    ],
  },
)
