import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode } from './agent-cluster.ts'

let cluster: AgentCluster
let n1: TestNode

before(async () => {
  cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } })
  n1 = await cluster.addNode('n1')
  const n2 = await cluster.addNode('n2')
  for (const node of [n1, n2]) cluster.startAgent(node)
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
  cluster.addPod(n1, { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] })
})
after(() => cluster.close())

/** What a dry run on a node says, and its exit code. */
async function dryRun(node: TestNode, flags: readonly string[] = []): Promise<{ code: number | null; text: string }> {
  let text = ''
  const child = cluster.startAgent(node, ['--dry-run', ...flags])
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (chunk) => {
      text += chunk
    })
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, text }
}

test('a dry run prints commands and does nothing', async () => {
  const n3 = await cluster.addNode('n3')
  n3.namespace.run(
    "iptables-nft -P FORWARD DROP; nft 'add table ip other; add chain ip other f { type filter hook forward priority 0; policy drop; }'",
  )
  const before = n3.namespace.run('ip -4 address; ip route; nft list ruleset')
  const { code, text } = await dryRun(n3)
  assert.equal(code, 0, text)
  assert.match(text, /^ip link add .*flannel\.1 .*type vxlan .*id 1 /m)
  assert.match(text, /^ip route add 10\.244\.1\.0\/24 via 10\.244\.1\.0 dev flannel\.1 .*onlink/m)
  assert.match(text, /^nft add chain inet weft /m)
  assert.match(text, /^iptables -A FORWARD -s 10\.244\.0\.0\/16 -m comment --comment "weft forward" -j ACCEPT$/m)
  assert.match(text, /^# chain f of table ip other \(hook forward, policy drop\)/m)
  assert.equal(n3.namespace.run('ip -4 address; ip route; nft list ruleset'), before)
  assert.equal((await cluster.getNode('n3')).metadata.annotations, undefined)
})

test('beside a live agent: its pods’ host ports stay; with the state of another they would go, and why is said', async () => {
  const elements = n1.namespace.run('nft list map inet weft hostports4')
  assert.match(elements, /tcp \. 8080/)
  const same = await dryRun(n1)
  assert.equal(same.code, 0, same.text)
  assert.equal(same.text, '# pods: 10.244.1.0/24 on cni0, MTU 1450\n')
  const other = await dryRun(n1, ['--run-dir', `${n1.folder}/other`])
  assert.equal(other.code, 0, other.text)
  assert.match(
    other.text,
    /^# there is no .*\/other\/cni\/journal: what pods were given is not known \(--state-dir\)\nnft delete element inet weft hostport/m,
  )
  assert.equal(n1.namespace.run('nft list map inet weft hostports4'), elements)
})

test('a node that the cluster does not have: one line, and no waiting for it', async () => {
  const { code, text } = await dryRun(n1, ['--node-name', 'nobody'])
  assert.equal(code, 1)
  assert.equal(text, 'weft: the cluster has no node nobody\n')
})
