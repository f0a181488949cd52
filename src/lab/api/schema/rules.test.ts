import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ruleFaults, ruleProblems } from './rules.ts'
import type { Schema, ValidationRule } from './schema.ts'

const text = (rules: ValidationRule[]): Schema => ({ type: 'string', 'x-kubernetes-validations': rules })
const told = (schema: Schema, value: unknown, old?: unknown) =>
  ruleProblems(schema, value, old).map(({ field, message }) => `${field}: ${message}`)

test('a rule of changes holds where there is a value before and after', () => {
  const schema: Schema = { type: 'object', properties: { a: text([{ rule: 'self == oldSelf', message: 'stays' }]) } }
  assert.deepEqual(told(schema, { a: 'x' }), [])
  assert.deepEqual(told(schema, { a: 'x' }, {}), [])
  assert.deepEqual(told(schema, {}, { a: 'x' }), [])
  assert.deepEqual(told(schema, { a: 'y' }, { a: 'x' }), ['a: Invalid value: "y": stays'])
})

test('items of lists are what they were by their keys, and by nothing else', () => {
  const item: Schema = {
    type: 'object',
    properties: { k: { type: 'string' }, v: { type: 'integer' } },
    'x-kubernetes-validations': [{ rule: 'self.v >= oldSelf.v', message: 'falls', fieldPath: '.v' }],
  }
  const list = (more: Schema): Schema => ({ type: 'array', items: item, ...more })
  const keyed = list({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['k'] })
  const old = [
    { k: 'a', v: 1 },
    { k: 'b', v: 5 },
  ]
  const next = [
    { k: 'b', v: 4 },
    { k: 'c', v: 0 },
    { k: 'a', v: 2 },
  ]
  assert.deepEqual(told(keyed, next, old), ['[0].v: Invalid value: falls'])
  assert.deepEqual(told(list({}), next, old), [])
})

test('what did not change is not judged again', () => {
  const schema: Schema = {
    type: 'object',
    properties: { a: text([{ rule: "self.startsWith('a')" }]), b: { type: 'string' } },
  }
  assert.deepEqual(told(schema, { a: 'x', b: '2' }, { a: 'x', b: '1' }), [])
  assert.deepEqual(told(schema, { a: 'y' }, { a: 'x' }), [`a: Invalid value: "y": failed rule: self.startsWith('a')`])
})

test('values have the types of their schema', () => {
  const schema = (rule: string): Schema => ({
    type: 'object',
    properties: {
      count: { type: 'integer' },
      share: { type: 'number' },
      port: { 'x-kubernetes-int-or-string': true },
      at: { type: 'string', format: 'date-time' },
      namespace: { type: 'string' },
      'app.kubernetes.io/x-y': { type: 'string' },
      labels: { type: 'object', additionalProperties: { type: 'integer' } },
    },
    'x-kubernetes-validations': [{ rule }],
  })
  const value = {
    count: 2 ** 53 - 1,
    share: 2,
    port: 80,
    at: '2026-11-21T00:00:00Z',
    namespace: 'n',
    'app.kubernetes.io/x-y': 'z',
    labels: { 'a/b': 3 },
    unknown: 1,
  }
  for (const rule of [
    'type(self.count) == int && self.count + 1 == 9007199254740992',
    'type(self.share) == double && self.share / 4.0 == 0.5',
    'type(self.port) == int',
    "self.at > timestamp('2026-01-01T00:00:00Z')",
    "self.__namespace__ == 'n'",
    "self.app__dot__kubernetes__dot__io__slash__x__dash__y == 'z'",
    "self.labels['a/b'] == 3",
    '!has(self.unknown)',
  ])
    assert.deepEqual(told(schema(rule), value), [], rule)
  const big = { ...value, count: 2n ** 62n }
  assert.deepEqual(told(schema('self.count == 4611686018427387904'), big), [])
})

test('a rule that fails while it runs refuses, and says why', () => {
  const schema: Schema = { type: 'object', properties: {}, 'x-kubernetes-validations': [{ rule: 'self.gone == 1' }] }
  assert.deepEqual(told(schema, {}), ['<root>: Invalid value: No such key: gone evaluating rule: self.gone == 1'])
})

test('messages may be made of the value; a message that fails gives way', () => {
  const rule = { rule: 'false', message: 'plain' }
  assert.deepEqual(told(text([{ ...rule, messageExpression: "'not ' + self" }]), 'x'), [
    '<root>: Invalid value: "x": not x',
  ])
  assert.deepEqual(told(text([{ ...rule, messageExpression: 'self[7]' }]), 'x'), ['<root>: Invalid value: "x": plain'])
})

test('addresses and prefixes', () => {
  const holds = (rule: string) => told(text([{ rule }]), '10.1.2.3/16').length === 0
  for (const rule of [
    "cidr(self).masked() == cidr('10.1.0.0/16') && cidr(self) != cidr(self).masked()",
    "cidr(self).containsIP('10.1.255.255') && !cidr(self).containsIP(ip('10.2.0.0')) && !cidr(self).containsIP('::1')",
    "cidr(self).containsCIDR('10.1.128.0/17') && !cidr('10.1.0.0/17').containsCIDR(cidr(self))",
    "cidr(self).ip() == ip('10.1.2.3') && cidr(self).prefixLength() == 16 && string(cidr(self)) == self",
    "isIP('::1') && !isIP('::1/128') && !isIP('01.2.3.4') && !isCIDR('10.0.0.0/33') && !isIP('::ffff:1.2.3.4')",
    "ip('fe80::1').isLinkLocalUnicast() && ip('ff02::1').isLinkLocalMulticast() && !ip('ff05::1').isLinkLocalMulticast()",
    "ip('224.0.0.9').isLinkLocalMulticast() && !ip('224.0.1.9').isLinkLocalMulticast() && ip('8.8.8.8').isGlobalUnicast()",
    "ip('0.0.0.0').isUnspecified() && ip('127.0.0.1').isLoopback() && ip('::1').family() == 6",
  ])
    assert.ok(holds(rule), rule)
})

test('rules that are no CEL are told apart from those that need what is not there', () => {
  const schema = {
    type: 'object',
    properties: { q: text([{ rule: "quantity(self).isGreaterThan(quantity('1'))" }]) },
    'x-kubernetes-validations': [{ rule: 'true' }, { rule: 'self.((' }],
  }
  const faults = ruleFaults(schema).map(({ path, isSyntax }) => [path, isSyntax])
  assert.deepEqual(faults, [
    ['x-kubernetes-validations[1].rule', true],
    ['properties[q].x-kubernetes-validations[0].rule', false],
  ])
  assert.deepEqual(told(schema as Schema, { q: '0' }), [])
})
