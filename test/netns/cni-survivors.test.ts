/**
 * A lost journal: what lives goes on with its addresses, rules, limits and network, through any number of restarts, and DEL
 * and GC take all of it away.
 */
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { CniNode, cannotRun, ok, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
let node: CniNode
before(() => {
  if (!skip) node = new CniNode()
})
after(async () => {
  if (!skip) await node.delete()
})

const rules = (): string => node.namespace.run('nft list table inet weft')
const guards = (): string => node.namespace.run('nft list table bridge weft 2>&1 || true')

const blue = weftConfig('1.1.0', {
  name: 'blue',
  bridge: 'blue0',
  isDefaultGateway: true,
  ipMasq: true,
  macspoofchk: true,
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.91.0.0/29' }], [{ subnet: 'fd00:91::/64' }]] },
})
const more = weftConfig('1.1.0', {
  name: 'weft-more',
  runtimeConfig: { bandwidth: { ingressRate: 2_000_000, ingressBurst: 800_000 } },
})
const chained = (address: string) =>
  weftConfig('1.1.0', {
    name: 'theirs',
    runtimeConfig: {
      portMappings: [{ hostPort: 8090, containerPort: 90, protocol: 'udp' }],
      bandwidth: { egressRate: 8_000_000, egressBurst: 800_000, ingressRate: 4_000_000, ingressBurst: 800_000 },
    },
    prevResult: { cniVersion: '1.1.0', ips: [{ address }] },
  })

for (const loss of ['removed', 'overwritten'] as const)
  test(`a journal ${loss}: restarts, CHECK, ADD, GC and DEL go on`, { skip }, async () => {
    const pods = Array.from({ length: 5 }, () => new TestNamespace())
    const [plain, first, second, third, other] = pods as [TestNamespace, ...TestNamespace[]] & TestNamespace[]
    const { namespace } = node
    const add = async (containerId: string, pod: TestNamespace, config?: object) =>
      ok(await node.call('ADD', { containerId, netns: pod.path, ...(config ? { config } : {}) })).json
    try {
      await node.start()
      await add('plain', plain)
      const result = await add('first', first!, blue)
      const moreResult = await add('more', second!, more)
      namespace.run(`ip link add theirs-9 type veth peer name eth0 netns ${third!.name} && ip link set theirs-9 up`)
      third!.run('ip addr add 10.95.0.2/24 dev eth0 && ip link set eth0 up')
      await add('theirs', third!, chained('10.95.0.2/24'))
      await node.stop('SIGKILL')

      const journal = join(node.folder, 'cni/journal')
      if (loss === 'removed') rmSync(journal)
      else writeFileSync(journal, Buffer.alloc(4096, 0xa5))
      assert.equal((await node.start()).adopted, 4)
      await node.stop('SIGKILL')
      assert.equal((await node.start()).kept, 4)

      assert.match(
        rules(),
        /chain ipmasq-10\.91\.0\.0-29[\s\S]*chain ipmasq-fd00_91__-64|chain ipmasq-fd00_91__-64[\s\S]*chain ipmasq-10\.91\.0\.0-29/,
      )
      assert.match(rules(), /udp \. 8090 .*: 10\.95\.0\.2 \. 90/)
      assert.match(guards(), new RegExp(`"${result.interfaces[1].name}"`))
      assert.match(namespace.run('tc qdisc show dev ifbtheirs-9'), /tbf .*rate 8Mbit/)
      assert.match(namespace.run('tc qdisc show dev theirs-9'), /tbf .*rate 4Mbit/)
      assert.match(node.journal, /"ingressRate":2000000/, 'a limit towards the container alone')
      first!.run('ping -c 1 -W 5 10.91.0.1 && ping -c 1 -W 5 fd00:91::1')
      ok(
        await node.call('CHECK', { containerId: 'first', netns: first!.path, config: { ...blue, prevResult: result } }),
      )

      const given = await add('other', other!, blue)
      assert.notEqual(given.ips[0].address, result.ips[0].address, 'the address of a living pod was given again')
      ok(await node.call('DEL', { containerId: 'other' }))

      const gc = async (name: string, ...containers: string[]) =>
        ok(
          await node.call('GC', {
            config: weftConfig('1.1.0', {
              name,
              'cni.dev/valid-attachments': containers.map((containerID) => ({ containerID, ifname: 'eth0' })),
            }),
          }),
        )
      await gc('weft', 'plain')
      second!.run('ping -c 1 -W 5 10.77.0.1')
      assert.ok(node.devices().includes(moreResult.interfaces[1].name), "another network's list is not about it")
      await gc('weft-more')
      await gc('blue', 'first')
      first!.run('ping -c 1 -W 5 10.91.0.1')
      ok(await node.call('DEL', { containerId: 'first' }))
      assert.doesNotMatch(rules(), /ipmasq|blue0/)
      assert.match(guards(), /No such file/)
      if (loss === 'removed') ok(await node.call('DEL', { containerId: 'theirs' }))
      else await gc('theirs')
      assert.doesNotMatch(rules(), /8090/)
      assert.doesNotMatch(namespace.run('tc qdisc show dev theirs-9'), /tbf|ingress/)
      assert.doesNotMatch(namespace.run('ip -o link'), /ifbtheirs-9/)
      ok(await node.call('DEL', { containerId: 'plain' }))
      await node.drained()
    } finally {
      await node.stop()
      for (const pod of pods) pod.delete()
      rmSync(join(node.folder, 'cni'), { recursive: true, force: true })
    }
  })
