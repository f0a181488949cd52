/**
 * libcni itself, through the specification's own `cnitool`: what every runtime written in Go calls plugins with. weft
 * alone, as the first of a chain of reference plugins, and behind one.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { CniNode, cannotRun } from '../../netns/cni-node.ts'
import { TestNamespace } from '../../netns/namespace.ts'
import type { BuiltPeer } from '../go-program.ts'
import { buildTool, type Ended, PLUGINS, Stage } from './stage.ts'

const built = cannotRun ? { missing: cannotRun } : buildTool('cnitool')
const skip = 'missing' in built ? built.missing : false
const currentPlugins = ['portmap', 'bandwidth', 'tuning', 'firewall'] as const

interface CallOptions {
  readonly ifname?: string
  readonly args?: string
  readonly capabilities?: object
  readonly path?: string
}

describe('cnitool', { skip }, () => {
  let node: CniNode
  let stage: Stage

  before(async () => {
    node = new CniNode()
    await node.start()
    stage = await Stage.open(node.namespace, node.folder)
    mkdirSync(join(node.folder, 'current'))
    for (const name of currentPlugins)
      symlinkSync((buildTool(name) as BuiltPeer).program, join(node.folder, 'current', name))
  })
  after(async () => {
    stage?.close()
    await node?.delete()
  })

  function network(name: string, cniVersion: string, plugins: readonly object[]): void {
    const folder = join(node.folder, 'net.d')
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, `${name}.conflist`), JSON.stringify({ cniVersion, name, plugins }))
  }

  function call(command: string, name: string, pod: TestNamespace, options: CallOptions = {}): Promise<Ended> {
    const { ifname, args, capabilities, path = `${node.folder}/bin:${PLUGINS}` } = options
    return stage.run([(built as BuiltPeer).program, command, name, pod.path], {
      env: {
        NETCONFPATH: join(node.folder, 'net.d'),
        CNI_PATH: path,
        ...(ifname ? { CNI_IFNAME: ifname } : {}),
        ...(args ? { CNI_ARGS: args } : {}),
        ...(capabilities ? { CAP_ARGS: JSON.stringify(capabilities) } : {}),
      },
    })
  }

  // biome-ignore lint/suspicious/noExplicitAny: results of several versions
  async function good(...what: Parameters<typeof call>): Promise<any> {
    const ended = await call(...what)
    assert.equal(ended.exitCode, 0, `${what[0]}: ${ended.stdout}${ended.stderr}`)
    return ended.stdout.trim() === '' ? {} : JSON.parse(ended.stdout)
  }

  async function bad(pattern: RegExp, ...what: Parameters<typeof call>): Promise<void> {
    const ended = await call(...what)
    assert.notEqual(ended.exitCode, 0, `${what[0]}: ${ended.stdout}`)
    assert.match(ended.stderr, pattern)
  }

  const cached = () => {
    try {
      return readdirSync(join(stage.varLib, 'cni/results'))
    } catch {
      return []
    }
  }

  const weft = { type: 'weft', capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true } }
  const limits = { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 8_000_000, egressBurst: 800_000 }
  const addressOf = (result: { ips: { address: string }[] }) => result.ips[0]!.address.split('/')[0]!

  for (const version of ['0.3.1', '0.4.0', '1.0.0', '1.1.0'])
    test(`a conflist of ${version}: ADD, CHECK, DEL, and DEL again`, async () => {
      const name = `v${version}`
      network(name, version, [weft])
      using a = new TestNamespace()
      using b = new TestNamespace()
      const [first, second] = [await good('add', name, a), await good('add', name, b)]
      assert.equal(first.cniVersion, version)
      assert.ok(a.succeeds(`ping -c 1 -W 2 ${addressOf(second)}`))
      assert.ok(a.succeeds(`ping -6 -c 1 -W 2 ${second.ips[1].address.split('/')[0]}`))
      assert.equal(cached().length, 2)
      if (version === '0.3.1') await bad(/CHECK/, 'check', name, a)
      else await good('check', name, a)
      await bad(/is attached already/, 'add', name, a)
      if (version !== '0.3.1') {
        a.run('ip route delete default')
        await bad(/has no route 0.0.0.0\/0/, 'check', name, a)
      }
      for (const pod of [a, a, b]) await good('del', name, pod)
      await node.drained()
      assert.deepEqual(cached(), [])
    })

  test('STATUS: ready, not ready, nobody there', async () => {
    network('status', '1.1.0', [weft])
    using pod = new TestNamespace()
    await good('status', 'status', pod)
    await node.stop('SIGKILL')
    await bad(/agent/, 'status', 'status', pod)
    await bad(/agent/, 'add', 'status', pod)
    await node.start({ unready: true })
    await bad(/is not known yet/, 'status', 'status', pod)
    await bad(/is not known yet/, 'add', 'status', pod)
    await node.stop()
    await node.start()
    await good('status', 'status', pod)
    assert.deepEqual([node.devices(), cached()], [[], []])
  })

  test('GC frees what the cache knows of the network, and leaves the others', async () => {
    network('gc', '1.1.0', [weft])
    network('kept', '1.1.0', [weft])
    using a = new TestNamespace()
    using b = new TestNamespace()
    using c = new TestNamespace()
    await good('add', 'gc', a)
    await good('add', 'gc', b, { ifname: 'net1' })
    await good('add', 'kept', c)
    await good('gc', 'gc', a)
    assert.equal(cached().length, 1)
    await good('check', 'kept', c)
    await good('del', 'kept', c)
    await node.drained()
  })

  test('capabilities and arguments: ips, mac, portMappings, bandwidth', async () => {
    network('caps', '1.0.0', [weft])
    using a = new TestNamespace()
    using b = new TestNamespace()
    const result = await good('add', 'caps', a, {
      capabilities: {
        ips: ['10.77.0.200/24', 'fd00:77::c8/64'],
        mac: '02:00:00:00:00:aa',
        portMappings: [{ hostPort: 18080, containerPort: 80, protocol: 'tcp' }],
        bandwidth: limits,
      },
    })
    assert.deepEqual(
      result.ips.map(({ address }: { address: string }) => address),
      ['10.77.0.200/24', 'fd00:77::c8/64'],
    )
    assert.match(a.run('cat /sys/class/net/eth0/address 2>/dev/null; ip link show eth0'), /02:00:00:00:00:aa/)
    assert.match(node.namespace.run('nft list table inet weft'), /18080/)
    assert.match(node.namespace.run('tc qdisc show'), /tbf/)
    await good('check', 'caps', a)
    const args = await good('add', 'caps', b, {
      args: 'IP=10.77.0.201;MAC=02:00:00:00:00:bb;IgnoreUnknown=1;Other=x',
      capabilities: { ips: ['10.77.0.201/24'] },
    })
    assert.equal(args.ips[0].address, '10.77.0.201/24')
    assert.match(b.run('ip link show eth0'), /02:00:00:00:00:bb/)
    await good('del', 'caps', b)
    await bad(/IgnoreUnknown/, 'add', 'caps', b, { args: 'Other=x' })
    await bad(/10.77.0.200/, 'add', 'caps', b, { args: 'IP=10.77.0.200' })
    await good('del', 'caps', a)
    await node.drained()
    assert.doesNotMatch(node.namespace.run('nft list table inet weft'), /18080/)
  })

  const chain = [
    { type: 'weft', capabilities: { ips: true, mac: true } },
    { type: 'portmap', capabilities: { portMappings: true }, snat: true },
    { type: 'bandwidth', capabilities: { bandwidth: true } },
    { type: 'tuning', sysctl: { 'net.ipv4.conf.eth0.arp_notify': '1' }, mtu: 1300 },
  ]

  // Debian's portmap 1.1.1 looks for IPv4 rules in ip6tables when it is asked to CHECK.
  for (const [version, plugins] of [
    ['0.4.0', 'Debian'],
    ['1.0.0', 'Debian'],
    ['1.0.0', 'current'],
    ['1.1.0', 'current'],
  ] as const)
    test(`first of a chain: portmap, bandwidth and tuning of ${plugins}, ${version}`, async () => {
      const name = `chain-${plugins}`
      const path = [join(node.folder, 'bin'), plugins === 'current' ? join(node.folder, 'current') : PLUGINS].join(':')
      network(name, version, chain)
      using a = new TestNamespace()
      using b = new TestNamespace()
      const capabilities = {
        portMappings: [{ hostPort: 18081, containerPort: 80, protocol: 'tcp' }],
        bandwidth: limits,
      }
      const result = await good('add', name, a, { capabilities, path })
      assert.equal(result.cniVersion, version)
      await good('add', name, b, { path })
      assert.match(a.run('ip link show eth0'), /mtu 1300/)
      assert.equal(a.run('sysctl -n net.ipv4.conf.eth0.arp_notify').trim(), '1')
      const rules = () => node.namespace.run('iptables-save -t nat; nft list ruleset')
      assert.match(rules(), /18081/)
      assert.match(node.namespace.run('tc qdisc show'), /tbf/)
      assert.ok(b.succeeds(`ping -c 1 -W 2 ${addressOf(result)}`))
      if (plugins === 'current') await good('check', name, a, { capabilities, path })
      if (version === '1.1.0') {
        await good('status', name, a, { path })
        await good('gc', name, a, { path })
      }
      await good('del', name, a, { capabilities, path })
      await good('del', name, b, { path })
      await node.drained()
      assert.doesNotMatch(rules(), /18081/)
      assert.deepEqual(cached(), [])
    })

  test('firewall of the reference after weft: its FORWARD rules take the pods', async () => {
    const path = `${node.folder}/bin:${node.folder}/current`
    network('firewall', '1.0.0', [weft, { type: 'firewall', backend: 'iptables' }])
    using a = new TestNamespace()
    using b = new TestNamespace()
    const [first, second] = [await good('add', 'firewall', a, { path }), await good('add', 'firewall', b, { path })]
    assert.ok(node.namespace.run('iptables-save -t filter').includes(`-s ${addressOf(first)}/32 -j ACCEPT`))
    assert.ok(a.succeeds(`ping -c 1 -W 2 ${addressOf(second)}`))
    await good('check', 'firewall', a, { path })
    for (const pod of [a, b]) await good('del', 'firewall', pod, { path })
    await node.drained()
    assert.ok(!node.namespace.run('iptables-save -t filter').includes(addressOf(first)))
  })

  test('last of a chain: host ports and bandwidth for the reference bridge', async () => {
    const ipam = { type: 'host-local', ranges: [[{ subnet: '10.78.0.0/24' }]] }
    network('behind', '1.0.0', [{ type: 'bridge', bridge: 'ref0', isDefaultGateway: true, ipam }, weft])
    using pod = new TestNamespace()
    const capabilities = {
      portMappings: [{ hostPort: 18082, containerPort: 80, protocol: 'tcp' }],
      bandwidth: { ingressRate: 8_000_000, ingressBurst: 800_000 },
    }
    const result = await good('add', 'behind', pod, { capabilities })
    assert.match(result.ips[0].address, /^10\.78\.0\./)
    assert.match(node.namespace.run('nft list table inet weft'), /18082/)
    await good('check', 'behind', pod, { capabilities })
    await good('del', 'behind', pod, { capabilities })
    assert.doesNotMatch(node.namespace.run('nft list table inet weft'), /18082/)
    assert.doesNotMatch(node.namespace.run('ip link'), /veth/)
  })

  test('wrong order, a plugin missing: named, and DEL cleans when the configuration is right again', async () => {
    using pod = new TestNamespace()
    network('order', '1.0.0', [{ type: 'portmap', capabilities: { portMappings: true } }, weft])
    await bad(/must be called as chained plugin/, 'add', 'order', pod)
    assert.deepEqual(node.devices(), [])

    network('missing', '1.0.0', [weft, { type: 'no-such-plugin' }])
    await bad(/failed to find plugin "no-such-plugin"/, 'add', 'missing', pod)
    assert.equal(node.devices().length, 1, 'libcni leaves the rest to the DEL of its caller')
    network('missing', '1.0.0', [weft])
    await good('del', 'missing', pod)
    await node.drained()

    const [there, away] = [join(node.folder, 'bin/weft'), join(node.folder, 'bin/away')]
    network('gone', '1.0.0', [weft])
    await good('add', 'gone', pod)
    renameSync(there, away)
    await bad(/failed to find plugin "weft"/, 'del', 'gone', pod)
    renameSync(away, there)
    await good('del', 'gone', pod)
    await node.drained()

    network('twice', '1.0.0', [weft, weft])
    await good('add', 'twice', pod)
    await good('del', 'twice', pod)
    await node.drained()
    assert.deepEqual(cached(), [])
  })
})
