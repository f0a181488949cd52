/**
 * Compiling and reading back are inverse, for random rules; and hostile expressions never do more than become foreign.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Reader } from '../../../bytes/reader.ts'
import { Writer } from '../../../bytes/writer.ts'
import type { NftRule, NftSelector, NftStatement } from '../../../model/nft.ts'
import { formatNftRule } from '../../../model/nft-format.ts'
import { NftLiteralError } from '../../../model/nft-literal.ts'
import { expression, type NftExpression } from '../../../wire/nftables/expression.ts'
import { compileRule } from './nft-compile.ts'
import { decompileRule } from './nft-decompile.ts'

let state = Number(process.env.SEED ?? 20261121)
console.log(`SEED=${state}`)
const next = (n: number): number => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0
  return (state >>> 8) % n
}
const pick = <T>(from: readonly T[]): T => from[next(from.length)]!

const literals: readonly (readonly [selector: NftSelector, values: readonly string[]])[] = [
  ['ip saddr', ['10.0.0.1', '10.0.0.0/8', '10.0.0.3-10.0.0.9', '@s']],
  ['ip daddr', ['192.0.2.0/31', '0.0.0.0-10.0.0.9']],
  ['ip6 saddr', ['fc00::/7', '::1', '@s6', 'fd00::1-fd00::7']],
  ['ip6 daddr', ['2001:db8::/33']],
  ['ether saddr', ['02:00:00:00:00:01']],
  ['meta iifname', ['"cni0"', '"veth*"', '"sixteen-letters"']],
  ['meta oifname', ['"eth0"', '@d']],
  ['meta mark', ['0x00000001', '@m']],
  ['meta pkttype', ['multicast', 'other']],
  ['udp dport', ['53', '1000-2000', '@p']],
  ['tcp sport', ['1-65535']],
  ['ct state', ['new', 'established,related']],
  ['ct mark', ['0xffffffff']],
  ['fib daddr type', ['local', 'unicast']],
  ['@th,224,16', ['0x800', '0x86dd']],
  ['@th,336,32', ['0xa000001', '0xaf40200-0xaf403ff', '@s']],
  ['@nh,160,32', ['0x1', '0x10-0x1f']],
  ['@th,336,24', ['0xaf401', '0x0']],
  ['@th,304,64', ['0xfd00001002440001']],
  ['@th,64,16', ['0x4', '0x29']],
  ['@th,192,24', ['0xaf401']],
  ['@th,64,64', ['0xfd00001002440001']],
]
const concatenations: readonly (readonly NftSelector[])[] = [
  ['ip saddr', 'th dport'],
  ['ether saddr', 'ip saddr'],
  ['ip saddr', '@th,336,32'],
  ['ip6 saddr', '@th,304,128'],
  ['ip saddr', '@nh,96,24'],
  ['ip6 daddr', 'meta l4proto', 'th dport'],
]
const endings: readonly NftStatement[] = [
  { verdict: 'accept' },
  { verdict: 'drop' },
  { notrack: true },
  { jump: 'other' },
  { goto: 'other' },
  { masquerade: { fullyRandom: true } },
  { masquerade: { ports: '1024-65535' } },
  { masquerade: { fullyRandom: true, ports: '9-10' } },
  { snat: { to: '10.0.0.1' } },
  { snat: { to: '10.0.0.1', ports: '1024-2047' } },
  { snat: { to: 'fd00::1', ports: '1024-2047' } },
  { dnat: { to: 'fd00::1' } },
  { dnat: { to: '[fd00::1]:80' } },
  { dnat: { family: 4, map: 'targets', by: ['meta l4proto', 'th dport'], port: true } },
  { reject: 'icmp-admin-prohibited' },
  { setMark: 0x4000, keepMask: 0xffffffff },
  { setMark: 7 },
]

function randomMatch(): NftStatement {
  const op = next(3) === 0 ? ({ op: '!=' } as const) : {}
  switch (next(6)) {
    case 0:
      return { match: pick(concatenations), ...op, right: '@pairs' }
    case 1:
      return { masked: pick(['meta mark', 'ct mark'] as const), mask: next(65536), ...op, value: next(65536) }
    case 2:
      return { masked: '@th,304,64', mask: 0xffffffffffffff00n, ...op, value: BigInt(next(65536)) << 16n }
    default: {
      const [selector, values] = pick(literals)
      const right = pick(values)
      return { match: [selector], ...(right.includes(',') ? {} : op), right }
    }
  }
}

/**
 * A packet has one family and one protocol; and once the protocol is known, nft says `tcp dport` for `th dport`, as the
 * expressions are the same.
 */
const isPossible = (text: string): boolean =>
  [/\bip [sd]addr/, /\bip6 [sd]addr/].filter((one) => one.test(text)).length < 2 &&
  [/\btcp /, /\budp /, /\bth /].filter((one) => one.test(text)).length < 2

const throughBytes = (one: NftExpression): NftExpression => {
  const writer = new Writer()
  expression.encode(writer, one)
  return expression.decode(new Reader(writer.finish().slice()))
}

test('random rules read back as they were written', () => {
  let tried = 0
  while (tried < 3000) {
    const statements = [
      ...Array.from({ length: next(4) }, randomMatch),
      ...(next(2) ? [{ counter: true } as const] : []),
      pick(endings),
    ]
    const rule: NftRule = { statements }
    const text = formatNftRule(rule)
    if (!isPossible(text)) continue
    tried++
    const { expressions } = compileRule('inet', rule, () => 1)
    const read = decompileRule('inet', expressions.map(throughBytes), () => undefined)
    assert.equal(formatNftRule({ statements: read }), text)
  }
})

test('members of anonymous sets travel as a set of their own', () => {
  const rule: NftRule = { statements: [{ match: ['tcp dport'], right: ['90-100', '80'] }, { verdict: 'accept' }] }
  const { expressions, sets } = compileRule('inet', rule, () => 5)
  assert.equal(sets.length, 1)
  assert.equal(sets[0]!.id, 5)
  const read = decompileRule('inet', expressions, (name) => (name === '__set%d' ? sets[0]!.elements : undefined))
  assert.equal(formatNftRule({ statements: read }), 'tcp dport { 80, 90-100 } accept')
})

test('what cannot be said in nft is refused', () => {
  const bad: NftStatement[] = [
    { match: ['ip saddr'], right: 'nonsense' },
    { match: ['ip saddr', 'th dport'], right: '10.0.0.1 . 80' },
    { match: ['ct state'], op: '!=', right: 'new,related' },
    { dnat: { to: 'nowhere' } },
    { dnat: { to: '10.0.0.1:99999' } },
    { match: ['ip6 saddr', 'ip6 daddr', 'ip6 saddr', 'ip6 daddr', 'th dport'], right: '@s' },
    { foreign: 'x' },
  ]
  for (const statement of bad)
    assert.throws(
      () => compileRule('inet', { statements: [statement] }, () => 1),
      NftLiteralError,
      JSON.stringify(statement),
    )
})

test('expressions in any order are read without an accident', () => {
  const pool: NftExpression[] = endings
    .concat(Array.from({ length: 40 }, randomMatch))
    .flatMap((statement) => [...compileRule('inet', { statements: [statement] }, () => 1).expressions])
  for (let i = 0; i < 3000; i++) {
    const mixed = Array.from({ length: 1 + next(8) }, () => pick(pool))
    for (const statement of decompileRule('inet', mixed, () => undefined)) assert.equal(typeof statement, 'object')
  }
})
