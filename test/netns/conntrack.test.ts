/**
 * Connection tracking and offload features against conntrack(8) and ethtool(8).
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { afterEach, beforeEach, test } from 'node:test'
import { Conntrack, deleteFlows, type FlowEvent, forgetMappedFlows } from '../../src/kernel/linux/drivers/conntrack.ts'
import type { LinuxKernel } from '../../src/kernel/linux/linux-kernel.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

const UDP = 17

let space: TestNamespace
beforeEach(() => {
  space = new TestNamespace()
  // Tracking starts in a namespace when a rule asks for it.
  space.run(
    `nft 'add table inet t; add chain inet t nat { type nat hook output priority -100; };
     add rule inet t nat ip daddr 10.9.9.9 udp dport 53 dnat to 127.0.0.1:5353;
     add rule inet t nat ct state new counter'
     ip addr add 10.9.9.1/24 dev lo; ip -6 addr add fd00:9::1/64 dev lo nodad`,
  )
})
afterEach(() => space.delete())

test('flows are listed with both directions, filtered and forgotten', async () => {
  const conntrack = new Conntrack(space.kernel as LinuxKernel)
  try {
    space.run('echo x | socat -u - UDP4:10.9.9.9:53; echo x | socat -u - UDP4:10.9.9.1:99')
    space.run('echo x | socat -u - UDP6:[fd00:9::1]:99')
    const [translated, ...others] = await conntrack.list({ protocol: UDP, originalDestinationPort: 53 })
    assert.equal(others.length, 0)
    assert.equal(`${translated!.original.destination}:${translated!.original.destinationPort}`, '10.9.9.9:53')
    assert.equal(`${translated!.reply.source}:${translated!.reply.sourcePort}`, '127.0.0.1:5353')
    assert.equal((await conntrack.list({ family: 6, protocol: UDP })).length, 1)
    assert.equal(
      (await conntrack.list({ protocol: UDP })).length,
      space.run('conntrack -L -p udp -f ipv4; conntrack -L -p udp -f ipv6').trim().split('\n').length,
    )

    assert.equal(
      await deleteFlows(space.kernel, {
        protocol: UDP,
        replySource: Ip.parse('127.0.0.1'),
        originalDestinationPort: 53,
      }),
      1,
    )
    assert.equal((await conntrack.list({ protocol: UDP, originalDestinationPort: 53 })).length, 0)
    assert.equal((await conntrack.list({ protocol: UDP })).length, 2)
    assert.equal(await conntrack.delete({ protocol: UDP }), 2)
    assert.equal(await conntrack.delete({ protocol: UDP }), 0)
  } finally {
    conntrack.close()
  }
})

test('UDP flows to a mapped port that lead elsewhere are forgotten, others stay', async () => {
  const conntrack = new Conntrack(space.kernel as LinuxKernel)
  try {
    space.run('ip addr add 10.9.9.9/32 dev lo')
    space.run('for to in 10.9.9.9:53 10.9.9.1:53 10.9.9.1:99 10.9.9.200:53; do echo x | socat -u - UDP4:$to; done')
    const mapped = [{ protocol: 'udp', hostPort: 53 }] as const
    // 10.9.9.9:53 is translated to 127.0.0.1, 10.9.9.1:53 is not, 10.9.9.200 is not this node.
    assert.equal(await forgetMappedFlows(space.kernel, mapped, [Ip.parse('127.0.0.1')]), 1)
    assert.equal(await forgetMappedFlows(space.kernel, mapped, []), 1)
    const left = (await conntrack.list({ protocol: UDP })).map(
      ({ original }) => `${original.destination}:${original.destinationPort}`,
    )
    assert.deepEqual(left.sort(), ['10.9.9.1:99', '10.9.9.200:53'])
  } finally {
    conntrack.close()
  }
})

test('beginnings and ends of flows are announced', async () => {
  const conntrack = new Conntrack(space.kernel as LinuxKernel)
  const heard: FlowEvent[] = []
  let wake = () => {}
  const watch = conntrack.watch((event) => {
    heard.push(event)
    wake()
  })
  const until = async (type: FlowEvent['type']) => {
    const limit = AbortSignal.timeout(20_000)
    while (!heard.some((event) => event.type === type && event.flow.original.destinationPort === 7777))
      await new Promise<void>((resolve, reject) => {
        wake = resolve
        limit.addEventListener('abort', () => reject(new Error(`no ${type}`)), { once: true })
      })
  }
  try {
    const sender = spawn('ip', ['netns', 'exec', space.name, 'sh', '-c', 'echo x | socat -u - UDP4:10.9.9.1:7777'])
    await until('new')
    sender.kill()
    await conntrack.delete({ protocol: UDP, originalDestinationPort: 7777 })
    await until('delete')
  } finally {
    watch.close()
    conntrack.close()
  }
})

test('offload features are set, read back, and refused when they are fixed', async () => {
  space.run('ip link add v0 type veth peer name v1')
  const shown = (name: string) => new RegExp(`^\\s*${name}: (\\w+)`, 'm').exec(space.run('ethtool -k v0'))?.[1]
  assert.equal(shown('tx-checksum-ip-generic'), 'on')
  const off = { kind: 'offload', device: 'v0', features: { 'tx-checksum-ip-generic': false, 'rx-gro': true } } as const
  assert.deepEqual(await space.kernel.execute([{ verb: 'set', object: off }]), [undefined])
  assert.equal(shown('tx-checksum-ip-generic'), 'off')
  assert.deepEqual(await space.kernel.read('offload'), [off])
  space.run('ethtool -K v0 tx-checksum-ip-generic on')
  assert.deepEqual(await space.kernel.read('offload'), [
    { ...off, features: { 'tx-checksum-ip-generic': true, 'rx-gro': true } },
  ])

  const results = await space.kernel.execute([
    { verb: 'set', object: { ...off, features: { 'hw-tc-offload': true } } },
    { verb: 'set', object: { ...off, features: { 'vlan-challenged': true } } },
    { verb: 'set', object: { ...off, features: { 'no-such-feature': true } } },
    { verb: 'set', object: { ...off, device: 'v7' } },
  ])
  assert.deepEqual(
    results.map((result) => result?.code),
    ['EOPNOTSUPP', 'EINVAL', 'EOPNOTSUPP', 'ENODEV'],
  )
  assert.match(results[0]!.message, /Cannot ethtool -K v0 hw-tc-offload on: hw-tc-offload stays off/)
})
