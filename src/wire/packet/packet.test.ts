import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeCapture } from '../pcap/pcap.ts'
import { decodePacket } from './packet.ts'
import { formatEncapsulation, formatPacket, innermostIp } from './packet-format.ts'

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'))

// ICMP echo request 10.244.0.2 → 10.244.1.2 inside VXLAN VNI 1 between 172.30.1.11 and 172.30.1.12, as on a node's eth0.
const inner = `0a0000000001 0a0000000002 0800
  4500 0054 1234 4000 3e01 0000 0af40002 0af40102 0800 0000 0007 0001 ${'00'.repeat(56)}`
const outer = `020000000001 020000000002 0800
  4500 0086 0000 0000 4011 0000 ac1e010b ac1e010c a123 2118 0072 0000 0800000000000100`
const vxlanFrame = hex(outer + inner)

test('a VXLAN frame prints its inner packet and its wrapping', () => {
  assert.equal(
    formatPacket(decodePacket(vxlanFrame)),
    '10.244.0.2 → 10.244.1.2 ICMP echo request id 7 seq 1, TTL 62, 84 bytes | VXLAN VNI 1, UDP 41251 → 8472, 172.30.1.11 → 172.30.1.12',
  )
})

test('flannel udp wraps a bare IP packet', () => {
  const bare = `4500 0054 1234 4000 3e01 0000 0af40002 0af40102 0800 0000 0007 0001 ${'00'.repeat(56)}`
  const frame = hex(
    `020000000001 020000000002 0800 4500 0070 0000 0000 4011 0000 ac1e010b ac1e010c 205d 205d 005c 0000 ${bare}`,
  )
  const layers = decodePacket(frame)
  assert.equal(innermostIp(layers)?.ttl, 62)
  assert.equal(formatEncapsulation(layers), 'UDP 8285 → 8285, 172.30.1.11 → 172.30.1.12')
})

test('IP in IP, bare and in UDP, and GENEVE with options', () => {
  const bare = `4500 0054 1234 4000 3f01 0000 ac1a0002 ac1a0042 0800 0000 0007 0001 ${'00'.repeat(56)}`
  const ethernet = '020000000001 020000000002 0800'
  const addresses = 'ac1e000b ac1e000c'
  const frames = {
    ipip: `${ethernet} 4500 0068 0000 4000 4004 0000 ${addresses} ${bare}`,
    fou: `${ethernet} 4500 0070 0000 4000 4011 0000 ${addresses} d431 15b3 005c 0000 ${bare}`,
    geneve: `${ethernet} 4500 008a 0000 0000 4011 0000 ${addresses} d431 17c1 0076 0000 0100 6558 00100000 00000000 ${ethernet} ${bare}`,
  }
  const inner = '172.26.0.2 → 172.26.0.66 ICMP echo request id 7 seq 1, TTL 63, 84 bytes'
  const nodes = '172.30.0.11 → 172.30.0.12'
  assert.equal(formatPacket(decodePacket(hex(frames.ipip))), `${inner} | IPIP, ${nodes}`)
  assert.equal(formatPacket(decodePacket(hex(frames.fou))), `${inner} | UDP 54321 → 5555, ${nodes}`)
  assert.equal(formatPacket(decodePacket(hex(frames.geneve))), `${inner} | GENEVE VNI 4096, UDP 54321 → 6081, ${nodes}`)
  const tunl0 = decodePacket(hex(bare), 'ip')
  assert.equal(formatEncapsulation(tunl0), undefined)
  assert.equal(innermostIp(tunl0)?.ttl, 63)
})

test('IPv6, TCP flags, ARP and Ethernet padding', () => {
  const tcp = hex(
    `020000000001 020000000002 86dd 60000000 0014 06 40 ${'fd00'.padEnd(31, '0')}1 ${'fd00'.padEnd(31, '0')}2 1f90 0050 00000001 00000000 5012 ffff 0000 0000`,
  )
  assert.equal(formatPacket(decodePacket(tcp)), 'fd00::1 → fd00::2 TCP 8080 → 80 SYN,ACK, TTL 64, 60 bytes')
  const arp = hex(`ffffffffffff 020000000002 0806 0001 0800 0604 0001 020000000002 0af40002 000000000000 0af40001`)
  assert.equal(formatPacket(decodePacket(arp)), 'ARP who has 10.244.0.1, tell 10.244.0.2')
  const padded = hex(
    `020000000001 020000000002 0800 4500 001c 0000 0000 4011 0000 0a000001 0a000002 0035 0035 0008 0000 ${'ff'.repeat(18)}`,
  )
  assert.deepEqual(
    decodePacket(padded).map((layer) => layer.layer),
    ['ethernet', 'ip', 'udp'],
  )
})

test('every cut and every flipped byte decodes without an exception', () => {
  for (let length = 0; length <= vxlanFrame.length; length++) decodePacket(vxlanFrame.subarray(0, length))
  for (let at = 0; at < vxlanFrame.length; at++)
    for (const value of [0, 0x0f, 0x7f, 0xff]) {
      const broken = vxlanFrame.slice()
      broken[at] = value
      formatPacket(decodePacket(broken))
      decodePacket(broken, 'ip')
    }
})

test('capture files of both byte orders and resolutions', () => {
  const frame = 'aabbccdd'
  const little = hex(
    `d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000 05000000 07000000 04000000 40000000 ${frame}`,
  )
  const big = hex(`a1b23c4d 0002 0004 00000000 00000000 00040000 00000001 00000005 00000007 00000004 00000040 ${frame}`)
  assert.deepEqual(
    [little, big].map((file) => decodeCapture(file).frames[0]?.timeNanoseconds),
    [5_000_007_000n, 5_000_000_007n],
  )
  assert.equal(decodeCapture(little).frames[0]!.originalLength, 64)
  assert.equal(decodeCapture(little.subarray(0, little.length - 1)).frames.length, 0)
  assert.throws(() => decodeCapture(hex('00112233')), /not a capture file/)
})
