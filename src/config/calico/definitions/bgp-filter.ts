/**
 * The definition of BGPFilter. Families, bounds and what goes with what are judged here; that a cidr has no host bits, too.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/bgpfilter.go (rules, bounds, pattern of communities).
 */
import { define, integer, listOf, object, oneOf, type PropertySchema, rulesOf, text } from './definition.ts'

const half = '([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])'
const COMMUNITY = { maxLength: 32, pattern: `^(${half}:${half}|(0|[1-9][0-9]{0,9})(:(0|[1-9][0-9]{0,9})){2})$` }
const ASN = { type: 'integer', minimum: 1, maximum: 4294967294 }
const PRIORITY = { minimum: 1, maximum: 2147483646 }
const ATOMIC = { 'x-kubernetes-list-type': 'atomic' }
const MAP = { 'x-kubernetes-map-type': 'atomic' }

const operation = object(
  'One change, and one alone.',
  {
    addCommunity: object(
      'A community is added.',
      { value: text('aa:nn or aa:nn:mm.', COMMUNITY) },
      {
        required: ['value'],
        ...MAP,
      },
    ),
    prependASPath: object(
      'AS numbers come in front of the path, in this order.',
      { prefix: listOf(ASN, 'The numbers.', { minItems: 1, maxItems: 10, ...ATOMIC }) },
      { required: ['prefix'], ...MAP },
    ),
    setPriority: object(
      'The metric becomes this.',
      { value: integer('In the units of ipv4NormalRoutePriority.', PRIORITY) },
      { required: ['value'], ...MAP },
    ),
  },
  { minProperties: 1, maxProperties: 1, ...MAP },
)

const rule = (family: 4 | 6): PropertySchema => {
  const bits = family === 4 ? 32 : 128
  const isSet = '(has(self.cidr) && size(self.cidr) > 0)'
  const length = (description: string) => integer(description, { minimum: 0, maximum: bits })
  return object(
    'Everything that is said of a route must hold.',
    {
      action: oneOf(['Accept', 'Reject'], 'What becomes of routes that match.'),
      asPathPrefix: listOf(ASN, 'The AS path begins so.', { maxItems: 100, ...ATOMIC }),
      cidr: text('What the prefix is compared with.', { format: 'cidr', maxLength: family === 4 ? 18 : 43 }),
      communities: object(
        'The route carries it.',
        { values: listOf({ type: 'string', ...COMMUNITY }, 'One community.', { minItems: 1, maxItems: 1, ...ATOMIC }) },
        { required: ['values'], ...MAP },
      ),
      interface: text('Device that the route leaves by; * stands for anything.', { maxLength: 15 }),
      matchOperator: oneOf(['Equal', 'NotEqual', 'In', 'NotIn'], 'How it is compared.'),
      operations: listOf(operation, 'Changes, in their order; with Accept alone.', {
        minItems: 1,
        maxItems: 10,
        ...ATOMIC,
      }),
      peerType: oneOf(['eBGP', 'iBGP'], 'The peer is of another AS, or of ours.'),
      prefixLength: object(
        'Bounds of the length of the prefix.',
        { min: length("At least. Default: the cidr's own."), max: length(`At most. Default: ${bits}.`) },
        MAP,
      ),
      priority: integer('The metric is this.', PRIORITY),
      source: oneOf(['RemotePeers'], 'The route came from a peer.'),
    },
    {
      required: ['action'],
      ...MAP,
      ...rulesOf([
        {
          rule: `${isSet} == (has(self.matchOperator) && size(self.matchOperator) > 0)`,
          message: 'cidr and matchOperator must both be set, or neither',
        },
        { rule: `!has(self.prefixLength) || ${isSet}`, message: 'prefixLength needs a cidr' },
        {
          rule: `!${isSet} || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() == ${family}`,
          message: `must be of IPv${family} in this list`,
          fieldPath: '.cidr',
        },
        {
          rule: `!${isSet} || !isCIDR(self.cidr) || cidr(self.cidr) == cidr(self.cidr).masked()`,
          message: 'has host bits set: write the first address of the block',
          fieldPath: '.cidr',
        },
        {
          rule: '!has(self.prefixLength) || !has(self.prefixLength.min) || !has(self.prefixLength.max) || self.prefixLength.min <= self.prefixLength.max',
          message: 'min is more than max: no prefix is both',
          fieldPath: '.prefixLength',
        },
        {
          rule: "!has(self.operations) || size(self.operations) == 0 || self.action == 'Accept'",
          message: 'operations go with the action Accept',
        },
      ]),
    },
  )
}

const rules = (family: 4 | 6, description: string) => listOf(rule(family), description, { maxItems: 1000, ...ATOMIC })

export const bgpFilterDefinition = define(
  { kind: 'BGPFilter', plural: 'bgpfilters' },
  {
    description:
      'Rules that decide which routes are told to a peer and which are taken from it. The first that matches decides.',
    spec: object('Rules in their order. Routes that match none are treated as without a filter.', {
      exportV4: rules(4, 'IPv4 routes that are told.'),
      exportV6: rules(6, 'IPv6 routes that are told.'),
      importV4: rules(4, 'IPv4 routes that are taken.'),
      importV6: rules(6, 'IPv6 routes that are taken.'),
    }),
  },
)
