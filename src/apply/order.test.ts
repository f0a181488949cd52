import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type KernelObject, keyOf } from '../model/kernel-object.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { type Change, inOrder } from './order.ts'

const add = (object: KernelObject): Change => [{ verb: 'add', object }]
const via = (destination: string, gateway: string): Change =>
  add({ kind: 'route', destination: Cidr.parse(destination), hops: [{ via: Ip.parse(gateway), device: 'v0' }] })
const connected = (destination: string): Change =>
  add({ kind: 'route', destination: Cidr.parse(destination), hops: [{ device: 'v0' }] })
const destinations = (changes: readonly Change[]): string[] =>
  inOrder(changes).map(({ object }) => String((object as { destination: Cidr }).destination))

test('few routes keep their order', () => {
  const changes = [via('10.1.0.0/24', '10.0.0.1'), connected('10.0.0.0/24'), via('10.0.1.0/24', '10.0.0.1')]
  assert.deepEqual(destinations(changes), ['10.1.0.0/24', '10.0.0.0/24', '10.0.1.0/24'])
})

test('many routes: what gateways need comes first, then IPv4 spread over the address space, IPv6 as it came', () => {
  const gateways = Array.from({ length: 1024 }, (_, i) => via(`10.${i >> 8}.${i & 255}.0/24`, '172.16.0.1'))
  const six = [via('fd00:2::/64', 'fe80::1'), via('fd00:1::/64', 'fe80::1')]
  const near = [connected('172.16.0.0/24'), connected('fd00::/64')]
  const out = destinations([...gateways, ...six, ...near])
  assert.deepEqual(out.slice(0, 2), ['172.16.0.0/24', 'fd00::/64'])
  assert.deepEqual(out.slice(-2), ['fd00:2::/64', 'fd00:1::/64'])
  // Every prefix of the sequence fills both halves of the space alike.
  const upper = (text: string): boolean => Number(text.split('.')[1]) >= 2
  const four = out.slice(2, -2)
  for (let count = 2; count <= four.length; count++) {
    const above = four.slice(0, count).filter(upper).length
    assert.ok(Math.abs(above - count / 2) <= 1, `${above} of the first ${count} are in the upper half`)
  }
})

test('many routes: none is lost, and a route made anew is cleared away before any comes', () => {
  const changes: Change[] = Array.from({ length: 700 }, (_, i) => {
    const route = via(`10.9.${i % 256}.0/24`, '172.16.0.1')[0]!.object as KernelObject & { kind: 'route' }
    const object = { ...route, table: 1000 + (i >> 8) }
    return i % 7 === 0 ? [{ verb: 'delete', object }, ...add(object)] : add(object)
  })
  const ops = inOrder(changes)
  assert.equal(ops.length, 800)
  assert.ok(ops.slice(0, 100).every(({ verb }) => verb === 'delete'))
  assert.equal(new Set(ops.slice(100).map(({ object }) => keyOf(object))).size, 700)
})
