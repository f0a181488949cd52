/**
 * Forward chains of others that drop: what weft does so that packets of pods get through, and what it says where it may not.
 *
 *   a 10.244.1.2 ── node ── b 10.244.2.2
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { afterEach, beforeEach, test } from 'node:test'
import { ForwardRules, removeForwardRules } from '../../src/agent/forward-rules.ts'
import type { LegacyAccess } from '../../src/kernel/linux/iptables-legacy.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { AgentCluster } from './agent-cluster.ts'
import { TestNamespace } from './namespace.ts'

const blocks = ['10.244.0.0/16', 'fd00:244::/56'].map(Cidr.parse)
let node: TestNamespace
let a: TestNamespace
let b: TestNamespace
let rules: ForwardRules | undefined
let said: string[]

beforeEach(() => {
  said = []
  ;[node, a, b] = [new TestNamespace(), new TestNamespace(), new TestNamespace()]
  for (const space of [node, a, b])
    space.run('sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0')
  node.run('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
  for (const [i, pod] of [a, b].entries()) {
    node.run(`ip link add pod${i} type veth peer name eth0 netns ${pod.name} && ip link set pod${i} up`)
    node.run(`ip addr add 10.244.${i + 1}.1/24 dev pod${i} && ip addr add fd00:244:0:${i + 1}::1/64 dev pod${i} nodad`)
    pod.run(
      `ip link set eth0 up && ip addr add 10.244.${i + 1}.2/24 dev eth0 && ip addr add fd00:244:0:${i + 1}::2/64 dev eth0 nodad &&
       ip route add default via 10.244.${i + 1}.1 && ip -6 route add default via fd00:244:0:${i + 1}::1`,
    )
  }
})
afterEach(() => {
  rules?.close()
  rules = undefined
  for (const space of [a, b, node]) space.delete()
})

/** The tool inside the node's namespace. */
const legacy: LegacyAccess = {
  run: async (program, args) => {
    const { status, stdout, stderr } = spawnSync('ip', ['netns', 'exec', node.name, program, ...args], {
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(stderr)
    return stdout
  },
  tableNames: async (family) => node.run(`cat /proc/net/${family}_tables_names 2>/dev/null || true`),
}

function start(enabled = true): ForwardRules {
  rules = new ForwardRules({
    kernel: node.kernel,
    enabled,
    legacy,
    log: { info: () => {}, warn: () => {} },
    onProblem: (problem) => said.push(problem),
  })
  rules.setBlocks(blocks)
  return rules
}

const flows = (): boolean => a.succeeds('ping -c 1 -W 1 10.244.2.2') && a.succeeds('ping -c 1 -W 1 fd00:244:0:2::2')
const isLost = (): boolean =>
  !a.succeeds('ping -c 1 -W 0.2 10.244.2.2') && !a.succeeds('ping -c 1 -W 0.2 fd00:244:0:2::2')

async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + 20_000
  while (!holds()) {
    assert.ok(performance.now() < end, `${what}: waited in vain\n${node.run('nft list ruleset')}\n${said}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const ours = (block: string): string[] =>
  ['-s', '-d'].map((end) => `-A FORWARD ${end} ${block} -m comment --comment "weft forward" -j ACCEPT`)

for (const { backend, four, six } of [
  { backend: 'nf_tables', four: 'iptables-nft', six: 'ip6tables-nft' },
  { backend: 'x_tables', four: 'iptables-legacy', six: 'ip6tables-legacy' },
]) {
  const both = (args: string) => node.run(`${four} ${args} && ${six} ${args}`)
  const chain = (program: string) => node.run(`${program} -S FORWARD`).trim().split('\n').slice(1)
  const isDone = () => `${chain(four)}${chain(six)}` === `${ours('10.244.0.0/16')}${ours('fd00:244::/56')}`

  test(`${backend}: a policy of drop in FORWARD lets pods' packets through, and heals`, async () => {
    both('-P FORWARD DROP')
    assert.ok(isLost())
    const watching = start()
    await until('the rules are there', isDone)
    await until('pods reach each other', flows)
    await watching.check()
    assert.ok(isDone(), 'once')
    // By hand, and by whoever saves and loads all rules.
    both('-F FORWARD')
    await watching.check()
    assert.ok(isDone())
    node.run(`${four}-save > /tmp/${node.name}; ${four}-restore < /tmp/${node.name}; rm /tmp/${node.name}`)
    await watching.check()
    assert.ok(isDone())
    assert.deepEqual(said, [])
    // Nothing is done where nothing drops.
    both('-P FORWARD ACCEPT')
    await watching.check()
    assert.deepEqual([...chain(four), ...chain(six)], [])
  })

  test(`${backend}: what others accept and refuse stays before weft's rules, and their last word behind`, async () => {
    node.run(`${four} -A FORWARD -s 10.244.1.2/32 -d 10.244.2.9/32 -j DROP; ${four} -A FORWARD -j REJECT`)
    const [refusal, last] = chain(four) as [string, string]
    const watching = start()
    await until('the rules are there', () => chain(four).length === 4)
    const set = new Set(chain(four).slice(1, 3))
    assert.deepEqual([...set].sort(), [...ours('10.244.0.0/16')].sort())
    assert.deepEqual([chain(four)[0], chain(four)[3]], [refusal, last])
    assert.ok(a.succeeds('ping -c 1 -W 1 10.244.2.2'))
    watching.close()
    const commands = await removeForwardRules(node.kernel, legacy)
    assert.equal(commands.length, 2)
    assert.match(commands[0]!, /^iptables(-legacy)? -D FORWARD -[sd] 10\.244\.0\.0\/16 -m comment/)
    assert.deepEqual(chain(four), [refusal, last])
    assert.deepEqual(await removeForwardRules(node.kernel, legacy), [])
  })

  test(`${backend}: without --iptables-forward-rules it is said which chain drops, and nothing is written`, async () => {
    both('-P FORWARD DROP')
    const watching = start(false)
    await watching.check()
    assert.deepEqual([...chain(four), ...chain(six)], [])
    assert.equal(said.length, 2)
    assert.match(said[0]!, /^chain FORWARD of iptables(-legacy)? \(policy drop\) loses/)
    const [command] = /iptables(-legacy)? -A FORWARD -s 10\.244\.0\.0\/16 -j ACCEPT; .*$/.exec(said[0]!) ?? []
    node.run(command!)
    node.run(/ip6tables(-legacy)? -A FORWARD .*$/.exec(said[1]!)![0])
    await until('pods reach each other', flows)
    await watching.check()
    assert.equal(watching.problem, undefined)
  })
}

test('a table of somebody else that drops is left alone, and what to do is said', async () => {
  node.run(`nft -f - <<'END'
table inet hardened {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
	chain late {
		type filter hook forward priority 10; policy accept;
		iifname "wg0" accept
		counter reject with icmpx admin-prohibited
	}
	chain unconcerned {
		type filter hook forward priority 20; policy accept;
		ip saddr 192.0.2.1 drop
	}
}
END`)
  const before = node.run('nft --stateless list ruleset')
  assert.ok(isLost())
  const watching = start()
  await until('it is said', () => said.length === 2)
  assert.equal(node.run('nft --stateless list ruleset'), before)
  assert.match(said[0]!, /^chain forward of table inet hardened \(hook forward, policy drop\)/)
  assert.match(said[1]!, /^chain late of table inet hardened \(hook forward, its last rule drops\)/)
  assert.equal(watching.problem, said.join('\n'))
  // Doing what is said helps, and is seen.
  for (const problem of said) node.run(`nft '${problem.slice(problem.indexOf('nft insert')).replaceAll('nft ', '')}'`)
  await until('pods reach each other', flows)
  await until('the problem is gone', () => watching.problem === undefined)
  // What comes later is seen too, and said.
  node.run('iptables-nft -P FORWARD DROP')
  await until('the rules are there', () => a.succeeds('ping -c 1 -W 0.2 10.244.2.2'))
  node.run('nft flush chain inet hardened forward')
  await until('it is said again', () => said.length === 3)
})

test('where nothing drops, nothing is made', async () => {
  const watching = start()
  await watching.check()
  assert.equal(node.run('nft list ruleset'), '')
  assert.equal(node.run('cat /proc/net/ip_tables_names 2>/dev/null || true'), '')
  node.run('iptables-nft -A FORWARD -s 192.0.2.0/24 -j DROP')
  const before = node.run('nft --stateless list ruleset')
  await watching.check()
  assert.equal(node.run('nft --stateless list ruleset'), before)
  assert.equal(watching.problem, undefined)
})

test('an agent tells its Node and its readiness which chain loses packets', async () => {
  const cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } })
  try {
    const n1 = await cluster.addNode('n1')
    n1.namespace.run(
      `nft 'add table ip hardened; add chain ip hardened guarded { type filter hook forward priority 0; policy drop; }'`,
    )
    cluster.startAgent(n1)
    await cluster.ready(n1)
    const expected =
      /chain guarded of table ip hardened \(hook forward, policy drop\).*nft insert rule ip hardened guarded ip saddr/
    await cluster.until('the Event', async () => {
      const { items } = await cluster.client.list('events', { namespace: 'default' })
      const messages = items.filter(({ reason }) => reason === 'ForwardedPacketsDropped').map(({ message }) => message)
      return messages.some((message) => expected.test(message)) ? undefined : JSON.stringify(items)
    })
    const { status, body } = await cluster.ask(n1, '/readyz')
    assert.equal(status, 200)
    assert.match(body, expected)
    assert.match(body, /^warning: /)
    assert.match((await cluster.ask(n1, '/readyz?verbose')).body, expected)
  } finally {
    await cluster.close()
  }
})
