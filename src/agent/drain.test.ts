import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PathId } from '../datapath/path.ts'
import { Drain } from './drain.ts'
import { parseTraffic } from './traffic.ts'

const vxlan: PathId = 'vxlan/1/8472'

test('a path is dry when looks in a row find its counter unchanged, whatever the other counter does', async () => {
  let looks = 0
  const drain = new Drain('received', async (devices) => {
    assert.deepEqual(devices, ['flannel.1'])
    looks++
    return { sent: looks, received: Math.min(looks, 4) }
  })
  const dry = await new Promise((resolve) => drain.wait([vxlan], ['flannel.1'], resolve))
  assert.deepEqual(dry, [vxlan])
  assert.equal(looks, 9, 'the fourth look, and five like it')
})

test('waiting for others takes the place of what was waited for, and for none ends it', async () => {
  const drain = new Drain('sent', async () => ({ sent: 0, received: 0 }))
  const called: (readonly PathId[])[] = []
  drain.wait([vxlan], ['flannel.1'], (paths) => called.push(paths))
  await new Promise<void>((resolve) => {
    drain.wait(['host-gw'], [], (paths) => {
      called.push(paths)
      resolve()
    })
  })
  drain.wait([vxlan], ['flannel.1'], (paths) => called.push(paths))
  drain.wait([], [], () => assert.fail('none'))
  await new Promise((resolve) => new Drain('sent', async () => ({ sent: 0, received: 0 })).wait([vxlan], [], resolve))
  assert.deepEqual(called, [['host-gw']])
})

test('counters of devices are read from the table of /proc/net/dev', () => {
  const text = [
    'Inter-|   Receive                                                |  Transmit',
    ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed',
    '    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0',
    'flannel.1:    2000      20    0    0    0     0          0         0     3000      30    0    0    0     0       0          0',
    'flannel0:5      5    0    0    0     0          0         0     7       7    0    0    0     0       0          0',
  ].join('\n')
  assert.deepEqual(parseTraffic(text, ['flannel.1', 'flannel0', 'flannel9']), { sent: 37, received: 25 })
  assert.deepEqual(parseTraffic(text, ['flannel']), { sent: 0, received: 0 })
})
