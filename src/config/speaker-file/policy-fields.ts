/**
 * Policies and prefix sets of a speaker's file: `PolicyConfig` as it is, checked key by key.
 */
import type {
  PolicyConfig,
  PolicyRule,
  PrefixMatch,
  PrefixRange,
  PrefixSetConfig,
  RouteChange,
  RouteMatch,
} from '../../model/bgp.ts'
import { bitsOf } from '../../net/ip.ts'
import { type Fields, shown } from '../calico/fields.ts'
import {
  ASN_MAX,
  addressText,
  bgpFamilies,
  communityTexts,
  defined,
  each,
  known,
  refuseUnknown,
  required,
} from './file-fields.ts'

const RULES_MAX = 1000
const RANGES_MAX = 100_000
const UNSIGNED_MAX = 0xffffffff

export function readPolicy(fields: Fields): PolicyConfig {
  refuseUnknown(fields, ['name', 'rules'])
  return {
    name: required(fields, 'name', fields.text('name', 128)),
    rules: each(fields, 'rules', RULES_MAX).map(readRule),
  }
}

export function readPrefixSet(fields: Fields): PrefixSetConfig {
  refuseUnknown(fields, ['name', 'ranges'])
  return { name: required(fields, 'name', fields.text('name', 128)), ranges: readRanges(fields, 'ranges') }
}

function readRule(fields: Fields): PolicyRule {
  refuseUnknown(fields, ['name', 'match', 'changes', 'verdict'])
  return {
    ...defined({ name: fields.text('name', 128) }),
    match: readMatch(fields.inner('match')),
    changes: each(fields, 'changes', 100).map(readChange),
    verdict: required(fields, 'verdict', fields.oneOf('verdict', ['accept', 'reject', 'next'])),
  }
}

function readMatch(fields: Fields): RouteMatch {
  refuseUnknown(fields, [
    'family',
    'prefixes',
    'source',
    'device',
    'peerType',
    'communities',
    'asPathPrefix',
    'priority',
  ])
  return defined({
    family: fields.oneOf('family', bgpFamilies),
    prefixes: fields.get('prefixes') === undefined ? undefined : readPrefixes(fields.inner('prefixes')),
    source: fields.oneOf('source', ['peers', 'local']),
    device: fields.text('device', 64),
    peerType: fields.oneOf('peerType', ['ebgp', 'ibgp']),
    communities: communityTexts(fields, 'communities'),
    asPathPrefix: fields.get('asPathPrefix') === undefined ? undefined : readAsns(fields, 'asPathPrefix'),
    priority: fields.integer('priority', 0, UNSIGNED_MAX),
  })
}

/** `{ set: name }` or `{ set: [ranges] }`, and `negated`. */
function readPrefixes(fields: Fields): PrefixMatch {
  refuseUnknown(fields, ['set', 'negated'])
  const value = fields.get('set')
  const set = Array.isArray(value) ? readRanges(fields, 'set') : required(fields, 'set', fields.text('set', 128))
  return { set, ...(fields.flag('negated') ? { negated: true as const } : {}) }
}

const readRanges = (fields: Fields, key: string): PrefixRange[] =>
  each(fields, key, RANGES_MAX).map((range) => {
    known(range, ['prefix', 'minLength', 'maxLength'])
    const prefix = required(range, 'prefix', range.cidr('prefix'))
    const bits = bitsOf(prefix.family)
    return {
      prefix: prefix.toString(),
      ...defined({
        minLength: range.integer('minLength', prefix.length, bits),
        maxLength: range.integer('maxLength', prefix.length, bits),
      }),
    }
  })

function readAsns(fields: Fields, key: string): number[] {
  return (required(fields, key, fields.list(key, 64)) as unknown[]).map((asn, index) => {
    if (typeof asn !== 'number' || !Number.isInteger(asn) || asn < 1 || asn > ASN_MAX)
      throw fields.error(`${key}[${index}]`, `must be an AS number, not ${shown(asn)}`)
    return asn
  })
}

const kinds = [
  'add-communities',
  'remove-communities',
  'set-communities',
  'prepend-as-path',
  'set-med',
  'set-local-preference',
  'set-priority',
  'set-next-hop',
] as const

function readChange(fields: Fields): RouteChange {
  const kind = required(fields, 'kind', fields.oneOf('kind', kinds))
  const number = (key: string): number => required(fields, key, fields.integer(key, 0, UNSIGNED_MAX))
  switch (kind) {
    case 'add-communities':
    case 'remove-communities':
    case 'set-communities':
      refuseUnknown(fields, ['kind', 'communities'])
      return { kind, communities: required(fields, 'communities', communityTexts(fields, 'communities')) }
    case 'prepend-as-path':
      refuseUnknown(fields, ['kind', 'asns'])
      return { kind, asns: readAsns(fields, 'asns') }
    case 'set-med':
      refuseUnknown(fields, ['kind', 'med'])
      return { kind, med: fields.integer('med', 0, UNSIGNED_MAX) }
    case 'set-local-preference':
      refuseUnknown(fields, ['kind', 'localPreference'])
      return { kind, localPreference: number('localPreference') }
    case 'set-priority':
      refuseUnknown(fields, ['kind', 'priority'])
      return { kind, priority: number('priority') }
    case 'set-next-hop': {
      refuseUnknown(fields, ['kind', 'nextHop'])
      const text = required(fields, 'nextHop', fields.text('nextHop', 64))
      return { kind, nextHop: text === 'self' || text === 'keep' ? text : addressText(fields, 'nextHop')! }
    }
  }
}
