import assert from 'node:assert/strict'
import { isIPv4, isIPv6 } from 'node:net'
import { test } from 'node:test'
import { Cidr, parsePrefixed } from './cidr.ts'
import { Ip } from './ip.ts'
import { Mac } from './mac.ts'

test('canonical IPv6 text follows RFC 5952', () => {
  for (const [text, want] of [
    ['2001:DB8::0:1', '2001:db8::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::', '::'],
    ['1::', '1::'],
    ['::1', '::1'],
    ['::ffff:10.0.0.1', '::ffff:10.0.0.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['0:0:1:0:0:0:0:0', '0:0:1::'],
  ] as const)
    assert.equal(Ip.parse(text).toString(), want)
})

test('the parser accepts exactly what the platform accepts', () => {
  const alphabet = ['0', '1', '25', '256', 'f', 'ffff', '01', ':', '::', '.', '10.0.0.1', 'g', '%1', ' ']
  let seed = 7
  const next = (n: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed % n
  }
  for (let i = 0; i < 20000; i++) {
    const text = Array.from({ length: 1 + next(12) }, () => alphabet[next(alphabet.length)]).join('')
    const valid = !text.includes('%') && (isIPv4(text) || isIPv6(text))
    assert.equal(Ip.tryParse(text) !== undefined, valid, text)
  }
})

test('bytes round trip and arithmetic carries across words', () => {
  for (const text of ['10.244.3.255', 'fd00:10:244::ffff:ffff', '255.255.255.254'])
    assert.ok(Ip.fromBytes(Ip.parse(text).toBytes()).equals(Ip.parse(text)))
  assert.equal(Ip.parse('10.0.0.255').plus(1).toString(), '10.0.1.0')
  assert.equal(Ip.parse('fd00::ffff:ffff').plus(1).toString(), 'fd00::1:0:0')
  assert.equal(Ip.parse('10.0.1.0').plus(-1).toString(), '10.0.0.255')
  assert.throws(() => Ip.parse('255.255.255.255').plus(1), /does not fit/)
})

test('prefixes contain, cover, overlap and refuse host bits', () => {
  const block = Cidr.parse('10.244.0.0/16')
  assert.ok(block.contains(Ip.parse('10.244.9.9')))
  assert.ok(!block.contains(Ip.parse('fd00::1')))
  assert.ok(block.covers(Cidr.parse('10.244.1.0/24')))
  assert.ok(Cidr.parse('10.244.1.0/24').overlaps(block))
  assert.equal(block.last.toString(), '10.244.255.255')
  assert.equal(Cidr.parse('::/0').size, 1n << 128n)
  assert.throws(() => Cidr.parse('10.244.1.1/16'), /host bits set; the block is 10.244.0.0\/16/)
  for (const bad of ['10.0.0.0', '10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/', '/8', '10.0.0.0/08', '::/129'])
    assert.throws(() => Cidr.parse(bad), /Not an address with a prefix length/, bad)
  assert.deepEqual(parsePrefixed('10.244.1.1/24').length, 24)
})

test('link-local, loopback and multicast follow the registries', () => {
  assert.ok(Ip.parse('169.254.1.1').isLinkLocal && Ip.parse('febf::1').isLinkLocal && !Ip.parse('fec0::1').isLinkLocal)
  assert.ok(Ip.parse('127.8.8.8').isLoopback && Ip.parse('::1').isLoopback)
  assert.ok(Ip.parse('239.0.0.1').isMulticast && Ip.parse('ff02::1').isMulticast && !Ip.parse('240.0.0.1').isMulticast)
})

test('Ethernet addresses parse, print and derive locally administered ones', () => {
  assert.equal(Mac.parse('0A-58-0a-F4-00-02').toString(), '0a:58:0a:f4:00:02')
  assert.throws(() => Mac.parse('0a:58:0a:f4:00'), /Not an Ethernet address/)
  const local = Mac.local(Uint8Array.of(0xff, 1, 2, 3, 4, 5))
  assert.equal(local.toString(), 'fe:01:02:03:04:05')
  assert.ok(!local.isMulticast)
})
