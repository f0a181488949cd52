/** `weft cleanup`: a node after it is the node before the first agent, to the byte, and what is another's stays. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { AgentCluster, type TestNode } from './agent-cluster.ts'

const checkout = fileURLToPath(new URL('../..', import.meta.url))
let cluster: AgentCluster
let n1: TestNode
let n2: TestNode

before(async () => {
  cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } })
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
})
after(() => cluster.close())

/** Everything of a node that weft might touch, as an operator sees it. */
function snapshot({ namespace, folder }: TestNode): Record<string, string> {
  const commands = {
    // A bridge's timers run on by themselves.
    links: "ip -d link | sed -E 's/[a-z]+_timer +[0-9.]+//g'",
    addresses: 'ip address',
    rules: 'ip rule; ip -6 rule',
    routes: 'ip route show table all; ip -6 route show table all',
    neighbours: 'ip neighbour show nud permanent; bridge fdb show',
    nftables: 'nft list ruleset',
    sysctls: 'sysctl -a 2>/dev/null | grep -E "^net\\.ipv[46]\\.(conf\\.|ip_forward)"',
  }
  const seen = Object.entries(commands).map(([name, command]) => [name, namespace.run(command)])
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => path !== 'agent.log')
    .sort()
    .join('\n')
  return { ...Object.fromEntries(seen), files }
}

function cleanUp(node: TestNode): { status: number | null; stdout: string; stderr: string } {
  const flags = ['run-dir', 'cni-bin-dir', 'cni-conf-dir'].flatMap((flag) => [
    `--${flag}`,
    `${node.folder}/${{ 'run-dir': 'run' }[flag] ?? flag.replace('-dir', '')}`,
  ])
  return inNetns(node.namespace.path, () =>
    spawnSync(process.execPath, ['--import', 'tsx', 'bin/weft.ts', 'cleanup', ...flags], {
      cwd: checkout,
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '' },
    }),
  )
}

/** What others have on the node, some of it looking much like weft's. */
function addForeign({ namespace, folder }: TestNode): void {
  for (const command of [
    'ip link add br-other type bridge',
    'ip link set br-other alias weft-is-not-me up',
    'ip route add 198.51.100.0/24 via 172.30.0.1 dev eth0 proto 118',
    'ip route add blackhole 203.0.113.0/24',
    'ip rule add from 192.0.2.0/24 lookup 77 pref 1000',
    'ip neighbour add 172.30.0.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent',
    'nft add table inet other',
    'nft add chain inet other forward "{ type filter hook forward priority 0; }"',
    'nft add table ip weft',
    'nft add table bridge other',
    'iptables-nft -P FORWARD DROP && iptables-nft -A FORWARD -s 192.0.2.1 -j ACCEPT',
    'sysctl -qw net.ipv4.conf.br-other.rp_filter=1',
  ])
    namespace.run(command)
  for (const name of ['cni-bin', 'cni-conf', 'run']) mkdirSync(`${folder}/${name}`, { recursive: true })
  writeFileSync(`${folder}/cni-bin/weft-other`, '')
  writeFileSync(`${folder}/cni-conf/20-other.conflist`, '{}')
  writeFileSync(`${folder}/run/labs`, '')
}

for (const type of ['vxlan', 'host-gw', 'udp'])
  test(`${type}: with pods, killed agents and foreign objects around, nothing of weft is left and nothing else is gone`, async () => {
    await cluster.putNetConfig({ Network: '10.244.0.0/16', Backend: { Type: type } })
    if (type === 'vxlan') {
      addForeign(n1)
      writeFileSync(`${n2.folder}/run/other`, '')
    }
    await cluster.until('link-local addresses stand', () =>
      [n1, n2].some(({ namespace }) => namespace.run('ip address').includes('tentative')) ? 'tentative' : undefined,
    )
    const fresh = [n1, n2].map(snapshot)
    cluster.startAgent(n1)
    cluster.startAgent(n2)
    await Promise.all([cluster.ready(n1), cluster.ready(n2)])
    const pods = [cluster.addPod(n1), cluster.addPod(n2)]
    await cluster.until('the pods talk', () =>
      pods[0]!.namespace.succeeds(`ping -c 1 -W 1 ${pods[1]!.address}`) ? undefined : 'no answer',
    )
    const running = cleanUp(n1)
    assert.equal(running.status, 2)
    assert.match(running.stderr, /another weft agent/)
    await cluster.stopAgent(n1, 'SIGKILL')
    await cluster.stopAgent(n2)
    // As pods with macspoofchk leave it behind.
    const guard = "nft add table bridge weft && nft add set bridge weft guarded-ports '{ type ifname; }'"
    n1.namespace.run(
      `${guard} && nft add chain bridge weft source-check '{ type filter hook prerouting priority -300; }' && nft add rule bridge weft source-check iifname @guarded-ports drop`,
    )
    assert.notDeepEqual(snapshot(n1), fresh[0])
    for (const [index, node] of [n1, n2].entries()) {
      const { status, stdout, stderr } = cleanUp(node)
      assert.equal(status, 0, stdout + stderr)
      assert.match(stdout, /nft delete table inet weft/)
      // In later rounds nothing is foreign, but n1's FORWARD drops in all of them.
      assert.equal(/^iptables -D FORWARD -s 10\.244\.0\.0\/16 /m.test(stdout), node === n1)
      assert.deepEqual(snapshot(node), fresh[index])
    }
    const again = cleanUp(n1)
    assert.deepEqual([again.status, again.stdout], [0, ''])
  })

test('without an agent ever there is nothing to do', () => {
  const fresh = snapshot(n2)
  assert.equal(cleanUp(n2).status, 0)
  assert.deepEqual(snapshot(n2), fresh)
})

test('forwarding that somebody else has set since stays as it is', () => {
  const { folder, namespace } = n2
  mkdirSync(`${folder}/run`, { recursive: true })
  namespace.run('sysctl -qw net.ipv4.conf.lo.arp_announce=2 net.ipv4.conf.lo.arp_ignore=8')
  writeFileSync(
    `${folder}/run/sysctls-before`,
    'net/ipv4/conf/lo/arp_announce = 0\nnet/ipv4/conf/lo/arp_ignore = 0\nnet/ipv4/conf/gone0/rp_filter = 0\nkernel/../x = 1\n',
  )
  const { status, stdout } = cleanUp(n2)
  assert.equal(status, 0)
  assert.match(stdout, /sysctl -w net\.ipv4\.conf\.lo\.arp_announce=0/)
  assert.doesNotMatch(stdout, /arp_ignore/)
  const read = (name: string) =>
    execFileSync('ip', ['netns', 'exec', namespace.name, 'sysctl', '-n', name], { encoding: 'utf8' }).trim()
  assert.equal(read('net.ipv4.conf.lo.arp_announce'), '0')
  assert.equal(read('net.ipv4.conf.lo.arp_ignore'), '8')
})
