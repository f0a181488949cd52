import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatOp } from '../model/format.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { withLateUps } from './late-up.ts'

const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })
const local = Ip.parse('172.30.1.1')
const tunnel = (name: string, remote?: Ip): KernelObject => ({
  kind: 'link',
  name,
  type: 'ipip',
  settings: { local, ...(remote && { remote }) },
  up: true,
})
const variable = add({ kind: 'sysctl', path: 'net/ipv4/conf/tun-in/rp_filter', value: '2' })
const address = (device: string) => add({ kind: 'address', device, ip: Ip.parse('10.244.1.0'), prefixLength: 32 })
const route = add({ kind: 'route', destination: Cidr.parse('10.244.2.0/24'), hops: [{ device: 'tun-1' }] })

test('a tunnel that takes in anything comes up when it has its variables and its address', () => {
  const toPeer = add(tunnel('tun-1', Ip.parse('172.30.1.2')))
  const ops = [toPeer, add(tunnel('tun-in')), variable, address('tun-in'), address('eth0'), route]
  const { head, ups, tail } = withLateUps(ops)!
  assert.deepEqual(tail, [address('eth0'), route])
  assert.deepEqual(head.slice(2), [variable, address('tun-in')])
  assert.equal(head[0], toPeer)
  assert.doesNotMatch(formatOp(head[1]!), / up /)
  assert.deepEqual(
    ups.map(({ madeBy }) => madeBy),
    [1],
  )
  assert.match(formatOp(ups[0]!.op), /^ip link set tun-in up /)
})

test('it comes up at once where it needs nothing; other lists stay as they are', () => {
  assert.deepEqual(withLateUps([add(tunnel('tun-in')), route])?.tail, [route])
  assert.equal(withLateUps([add(tunnel('tun-1', Ip.parse('172.30.1.2'))), address('tun-1'), route]), undefined)
  const standing = tunnel('tun-in')
  assert.equal(withLateUps([{ verb: 'set', object: standing, was: standing }, address('tun-in')]), undefined)
})
