/**
 * A lab of two nodes on this kernel: up, through all four modes, with a real delay on a node's wire, down.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { nothingLeft, TestLab } from '../netns/test-lab.ts'

const lab = new TestLab()
const pods: Record<string, { readonly ip: string; readonly ip6: string | undefined }> = {}

before(async () => {
  // An emulated processor may need longer than `lab up` waits; asked again, it goes on where it is.
  for (let attempts = 5; ; attempts--)
    try {
      await lab.up('--nodes', '2', '--backend', 'vxlan')
      break
    } catch (error) {
      if (attempts === 0) throw error
    }
  for (const [pod, node] of [
    ['a', 'n1'],
    ['b', 'n2'],
  ] as const)
    pods[pod] = await lab.server(pod, node)
})
after(async () => {
  await lab.down()
  assert.deepEqual(lab.leftovers(), nothingLeft)
})

for (const backend of ['vxlan', 'host-gw', 'udp', 'vxlan-direct'])
  test(`${backend}: pods of two nodes reach each other, both families`, async () => {
    if (backend !== 'vxlan') await lab.weft('switch', backend)
    assert.ok(await lab.pings('a', pods.b!.ip), 'IPv4')
    assert.ok(await lab.pings('a', pods.b!.ip6!), 'IPv6')
  })

/** The shortest of some round trips, in milliseconds. */
async function shortestTrip(): Promise<number> {
  const text = await lab.weft('exec', 'a', '--', 'ping', '-n', '-c', '5', '-i', '0.2', '-W', '10', pods.b!.ip)
  return Number(/= ([\d.]+)\//.exec(text)![1])
}

test('fault delay: netem holds every packet of a node back, and heal lets them go', async () => {
  await lab.weft('fault', 'delay', 'n2', '300')
  assert.ok((await shortestTrip()) >= 300)
  await lab.weft('fault', 'heal')
  assert.ok((await shortestTrip()) < 300)
})
