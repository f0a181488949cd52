/**
 * The speaker's streams over real TCP between two namespaces: both families, link-local addresses, MD5 keys that change
 * on a living listener, TTL security against a peer that is too far away, and connections of strangers.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { realClock } from '../../src/bgp/session/real-clock.ts'
import { TcpWire } from '../../src/bgp/session/tcp-wire.ts'
import type { AcceptRule, ConnectTarget, Stream } from '../../src/bgp/transport.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

let left: TestNamespace
let right: TestNamespace
let router: TestNamespace
const PORT = 1790

before(() => {
  left = new TestNamespace()
  right = new TestNamespace()
  router = new TestNamespace()
  // left ── right directly; left ── router ── right (10.1.x) for peers that are one hop further away.
  // A link-local address that is still checked for a double is no source.
  for (const end of [left, right]) end.run('sysctl -qw net.ipv6.conf.default.accept_dad=0')
  left.run(`ip link add direct type veth peer name direct netns ${right.name}`)
  left.run(`ip link add hop type veth peer name left netns ${router.name}`)
  right.run(`ip link add hop type veth peer name right netns ${router.name}`)
  left.run('ip addr add 10.0.0.1/24 dev direct && ip addr add fd00::1/64 dev direct nodad && ip link set direct up')
  right.run('ip addr add 10.0.0.2/24 dev direct && ip addr add fd00::2/64 dev direct nodad && ip link set direct up')
  left.run('ip addr add 10.1.1.2/24 dev hop && ip link set hop up && ip route add 10.1.2.0/24 via 10.1.1.1')
  right.run('ip addr add 10.1.2.2/24 dev hop && ip link set hop up && ip route add 10.1.1.0/24 via 10.1.2.1')
  router.run('ip addr add 10.1.1.1/24 dev left && ip link set left up')
  router.run('ip addr add 10.1.2.1/24 dev right && ip link set right up && sysctl -qw net.ipv4.ip_forward=1')
})

after(() => {
  for (const namespace of [left, right, router]) namespace?.delete()
})

interface Opened {
  readonly stream: Stream
  /** What came, as text. */
  text: string
  closed: string | undefined
}

/** A listener on every address of the right side. */
function serve(rules: readonly AcceptRule[]) {
  const wire = new TcpWire()
  const accepted: Opened[] = []
  const waiting: ((opened: Opened) => void)[] = []
  const endpoints = [
    { address: Ip.any(4), port: PORT },
    { address: Ip.any(6), port: PORT },
  ]
  const plan = (next: readonly AcceptRule[]) =>
    inNetns(right.path, () =>
      wire.listen({ endpoints, rules: next }, (stream) => {
        const opened: Opened = { stream, text: '', closed: undefined }
        accepted.push(opened)
        waiting.shift()?.(opened)
        return listenerOf(opened)
      }),
    )
  plan(rules)
  const next = () => new Promise<Opened>((resolve) => waiting.push(resolve))
  return { wire, plan, next, accepted }
}

const listenerOf = (opened: Opened) => ({
  data: (bytes: Uint8Array) => {
    opened.text += new TextDecoder().decode(bytes)
    if (opened.text.endsWith('?')) opened.stream.send(new TextEncoder().encode('yes'))
  },
  drained: () => {},
  closed: (reason: string) => {
    opened.closed = reason
  },
})

/** Connects from the left side; the reason as text when that fails. */
function call(target: Partial<ConnectTarget> & { readonly to: string; readonly device?: string }) {
  const wire = new TcpWire()
  return new Promise<{ stream: Stream; answer: Promise<string> } | string>((resolve) => {
    const done = realClock.at(realClock.now() + 2500, () => {
      attempt.cancel()
      resolve('no answer')
    })
    let heard: (text: string) => void = () => {}
    const answer = new Promise<string>((tell) => {
      heard = tell
    })
    const attempt = inNetns(left.path, () =>
      wire.connect(
        { remote: { address: Ip.parse(target.to), port: PORT, device: target.device }, sendTtl: 64, ...target },
        {
          opened: (stream) => {
            done.cancel()
            resolve({ stream, answer })
          },
          data: (bytes) => heard(new TextDecoder().decode(bytes)),
          drained: () => {},
          closed: (reason) => {
            done.cancel()
            heard(`closed: ${reason}`)
            resolve(reason)
          },
        },
      ),
    )
  })
}

const rule = (from: string, more: Partial<AcceptRule> = {}): AcceptRule => ({
  from: Cidr.parse(from),
  sendTtl: 64,
  ...more,
})

const ask = async (connection: Awaited<ReturnType<typeof call>>): Promise<string> => {
  if (typeof connection === 'string') return connection
  connection.stream.send(new TextEncoder().encode('there?'))
  const answer = await connection.answer
  connection.stream.close()
  return answer
}

const linkLocal = (namespace: TestNamespace): string =>
  namespace
    .json<{ addr_info: { scope: string; local: string; family: string }[] }[]>('ip -j addr show dev direct')[0]!
    .addr_info.find(({ scope, family }) => scope === 'link' && family === 'inet6')!.local

test('both families and link-local addresses, from a given source, to whom a rule lets in', async () => {
  const own = linkLocal(left)
  const { wire, accepted } = serve([rule('10.0.0.1/32'), rule('fd00::/64'), rule(`${own}/128`, { device: 'direct' })])
  try {
    assert.equal(await ask(await call({ to: '10.0.0.2', localAddress: Ip.parse('10.0.0.1') })), 'yes')
    assert.equal(await ask(await call({ to: 'fd00::2' })), 'yes')
    assert.equal(await ask(await call({ to: linkLocal(right), device: 'direct' })), 'yes')
    assert.deepEqual(
      accepted.map(({ stream }) => [String(stream.remote.address), stream.remote.device]),
      [
        ['10.0.0.1', undefined],
        ['fd00::1', undefined],
        [own, 'direct'],
      ],
    )
    assert.equal(String(accepted[0]!.stream.local.address), '10.0.0.2')
    // A stranger: taken by the kernel, dropped before a byte is read.
    assert.match(await ask(await call({ to: '10.1.2.2' })), /^(closed: |read ECONNRESET|connection reset)/i)
    assert.equal(accepted.length, 3)
  } finally {
    wire.close()
  }
})

test('a refused connection says so', async () => {
  assert.match(String(await call({ to: '10.0.0.2' })), /refused/)
  assert.match(String(await call({ to: '192.0.2.1' })), /unreachable/)
  assert.match(String(await call({ to: linkLocal(right), device: 'nowhere' })), /nowhere/)
})

test('MD5: the same key on both sides, changed and removed on a living listener, of one peer and of a prefix', async () => {
  const { wire, plan } = serve([rule('10.0.0.1/32', { password: 'first' }), rule('10.1.0.0/16', { password: 'many' })])
  const reach = async (to: string, password?: string) => ask(await call({ to, ...(password ? { password } : {}) }))
  try {
    assert.equal(await reach('10.0.0.2', 'first'), 'yes')
    assert.equal(await reach('10.1.2.2', 'many'), 'yes')
    assert.equal(await reach('10.0.0.2', 'wrong'), 'no answer')
    plan([rule('10.0.0.1/32', { password: 'second' }), rule('10.1.0.0/16')])
    assert.equal(await reach('10.0.0.2', 'second'), 'yes')
    assert.equal(await reach('10.0.0.2', 'first'), 'no answer')
    assert.equal(await reach('10.1.2.2'), 'yes')
    plan([rule('10.0.0.1/32')])
    assert.equal(await reach('10.0.0.2'), 'yes')
  } finally {
    wire.close()
  }
})

test('TTL security: the neighbour is heard, a peer behind a router is not', async () => {
  const near = { sendTtl: 255, minimumTtl: 255 }
  const { wire, next } = serve([rule('10.0.0.1/32', near), rule('10.1.1.2/32', near)])
  try {
    assert.equal(await ask(await call({ to: '10.0.0.2', ...near })), 'yes')
    const arrived = next()
    const far = await call({ to: '10.1.2.2', sendTtl: 255 })
    assert.ok(typeof far !== 'string')
    const { stream: accepted } = await arrived
    far.stream.send(new TextEncoder().encode('there?'))
    // What was sent lies in the sender's queue, unacknowledged: the kernel of the other side drops it.
    const first = await Promise.race([far.answer, once(1500)])
    assert.equal(first, 'nothing')
    assert.match(right.run('nstat -asz TcpExtTCPMinTTLDrop'), /TCPMinTTLDrop\s+[1-9]/)
    far.stream.abort()
    accepted.abort()
  } finally {
    wire.close()
  }
})

const once = (milliseconds: number) =>
  new Promise<string>((resolve) => realClock.at(realClock.now() + milliseconds, () => resolve('nothing')))
