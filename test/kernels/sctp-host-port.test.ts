/**
 * A host port of SCTP, by associations of the kernel's own SCTP: from outside, by the node itself, both families.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { after, before, test } from 'node:test'
import { CniNode, weftConfig } from '../netns/cni-node.ts'
import { TestNamespace } from '../netns/namespace.ts'

const node = new CniNode()
before(async () => {
  await node.start()
})
after(() => node.delete())

/** A server that answers every association with a word; resolves when it listens. */
function serve(pod: TestNamespace): Promise<ChildProcess> {
  const server = spawn('ip', [
    ...['netns', 'exec', pod.name, 'socat', '-d', '-d'],
    ...['SCTP6-LISTEN:99,reuseaddr,fork', 'SYSTEM:read line; echo sctp'],
  ])
  return new Promise((resolve, reject) => {
    server.stderr.on('data', (chunk: Buffer) => {
      if (/listening on/.test(chunk.toString())) resolve(server)
    })
    server.once('exit', (code) => reject(new Error(`socat ended with ${code}`)))
  })
}

/** Asks without closing its own side: an SCTP association has no half-closed state. */
const ask = (from: TestNamespace, address: string): string =>
  from.run(`echo hello | timeout 20 socat -t10 - ${address},shut-none 2>&1 || true`).trim()

test('an SCTP host port reaches its pod, and is gone after DEL', async () => {
  using pod = new TestNamespace()
  using outside = new TestNamespace()
  const { namespace } = node
  namespace.run(
    `ip link add up0 type veth peer name eth0 netns ${outside.name} && ip link set up0 up && ip addr add 192.0.2.1/24 dev up0 && ip -6 addr add fd00:ee::1/64 dev up0 nodad`,
  )
  outside.run('ip link set eth0 up && ip addr add 192.0.2.2/24 dev eth0 && ip -6 addr add fd00:ee::2/64 dev eth0 nodad')
  const portMappings = [{ hostPort: 9099, containerPort: 99, protocol: 'sctp' }]
  const added = await node.call('ADD', {
    containerId: 'sctp',
    netns: pod.path,
    config: weftConfig('1.0.0', { runtimeConfig: { portMappings } }),
  })
  assert.equal(added.exitCode, 0, added.stdout)
  const server = await serve(pod)
  try {
    assert.equal(ask(outside, 'SCTP4:192.0.2.1:9099'), 'sctp')
    assert.equal(ask(outside, 'SCTP6:[fd00:ee::1]:9099'), 'sctp')
    assert.equal(ask(namespace, 'SCTP4:192.0.2.1:9099'), 'sctp')
    assert.match(ask(outside, 'SCTP4:192.0.2.1:9098'), /refused/)
    assert.equal((await node.call('DEL', { containerId: 'sctp' })).exitCode, 0)
    assert.doesNotMatch(namespace.run('nft list table inet weft'), /9099/)
  } finally {
    server.kill()
  }
})
