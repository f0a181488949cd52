import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LiteralType } from './nft-literal.ts'
import { formatKey, formatVerdict, NftLiteralError, parseKey, parseVerdict } from './nft-literal.ts'

const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString('hex')

test('literals read to the bytes that nft sends and print back canonically', () => {
  const rows: readonly (readonly [
    types: LiteralType[],
    text: string,
    from: string,
    to?: string | undefined,
    canonical?: string,
  ])[] = [
    [['ipv4_addr'], '10.244.1.7', '0af40107'],
    [['ipv4_addr'], '10.244.1.0/24', '0af40100', '0af401ff'],
    [['ipv4_addr'], '10.244.1.7/32', '0af40107', undefined, '10.244.1.7'],
    [['ipv4_addr'], '0.0.0.0/0', '00000000', 'ffffffff'],
    [['ipv4_addr'], '5.5.5.5-5.5.5.9', '05050505', '05050509'],
    [['ipv4_addr'], '5.5.5.4-5.5.5.7', '05050504', '05050507', '5.5.5.4/30'],
    [['ipv6_addr'], 'fd00::/60', `fd${'0'.repeat(30)}`, 'fd0000000000000fffffffffffffffff'],
    [['ether_addr'], '0a:58:0a:f4:01:07', '0a580af40107'],
    [['inet_proto'], 'sctp', '84'],
    [['inet_proto'], '17', '11', undefined, 'udp'],
    [['inet_proto'], '253', 'fd'],
    [['inet_service'], '8080', '1f90'],
    [['inet_service'], '30000-32767', '7530', '7fff'],
    [['mark'], '0x00004000', '00400000'],
    [['ifname'], '"cni0"', '636e6930000000000000000000000000'],
    [['ct_state'], 'established,related', '06000000'],
    [['ct_status'], 'snat,dnat', '30000000'],
    [['fib_addrtype'], 'local', '02000000'],
    [['icmpv6_type'], 'nd-neighbor-solicit', '87'],
    [['inet_proto', 'inet_service'], 'tcp . 80', '0600000000500000'],
    [['raw_u24'], '0xaf402', '0af402'],
    [['raw_u128'], '0x0', '00'.repeat(16)],
    [['ipv4_addr', 'raw_u24'], '172.30.0.2 . 0xaf402', 'ac1e00020af40200'],
    [['raw_u32'], '0xaf40200-0xaf403ff', '0af40200', '0af403ff'],
    [['raw_u32'], '0x7-0x7', '00000007', undefined, '0x7'],
    [
      ['ether_addr', 'ipv4_addr'],
      '00:11:22:33:44:55 . 10.0.0.0/24',
      '0011223344550000' + '0a000000',
      '0011223344550000' + '0a0000ff',
    ],
  ]
  for (const [types, text, from, to, canonical] of rows) {
    const key = parseKey(types, text)
    assert.equal(hex(key.from), from, text)
    assert.equal(hex(key.to), to, text)
    assert.equal(formatKey(types, key.from, key.to), canonical ?? text)
  }
})

test('text that is no literal is refused by name', () => {
  for (const [types, text] of [
    [['ipv4_addr'], 'fd00::1'],
    [['ipv4_addr'], '10.0.0.1/24'],
    [['ipv4_addr'], '10.0.0.9-10.0.0.1'],
    [['ipv6_addr'], '10.0.0.0/8'],
    [['inet_service'], '65536'],
    [['inet_service'], '-1'],
    [['inet_service'], '90-80'],
    [['inet_proto'], 'toString'],
    [['mark'], '0x100000000'],
    [['ifname'], 'cni0'],
    [['ifname'], '"a b"'],
    [['ifname'], '"sixteen-long-nam"'],
    [['ct_state'], 'established,bogus'],
    [['inet_proto', 'inet_service'], 'tcp'],
    [['raw_u24'], '0x1000000'],
    [['raw_u32'], '0x9-0x1'],
    [['raw_u32'], '12'],
  ] as const)
    assert.throws(() => parseKey(types, text), NftLiteralError, text)
})

test('verdicts read and print', () => {
  for (const text of ['accept', 'drop', 'return', 'continue', 'jump pod-x', 'goto a/b'])
    assert.equal(formatVerdict(parseVerdict(text)), text)
  for (const text of ['jump', 'goto ', 'accept x', 'jump a b', 'jump -x'])
    assert.throws(() => parseVerdict(text), NftLiteralError)
})

test('printing is the inverse of reading for random ranges', () => {
  let seed = 11
  const next = (n: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed % n
  }
  for (let i = 0; i < 2000; i++) {
    const from = Uint8Array.from({ length: 4 }, () => next(256))
    const to = Uint8Array.from(from)
    to[3] = from[3]! + next(256 - from[3]!)
    const text = formatKey(['ipv4_addr'], from, to)
    const read = parseKey(['ipv4_addr'], text)
    assert.equal(hex(read.from), hex(from), text)
    assert.equal(hex(read.to ?? read.from), hex(to), text)
  }
})
