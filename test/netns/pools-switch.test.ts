import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, type TestContext, test } from 'node:test'
import { probeLinkKinds } from '../../src/kernel/probe.ts'
import type { FelixSettings, IpPool } from '../../src/model/calico.ts'
import { PoolCluster, type PoolNode, startPing, testPool } from './pool-cluster.ts'

interface Mode {
  readonly pool: Partial<IpPool>
  readonly felix?: Partial<FelixSettings>
  /** By family. */
  readonly paths: Readonly<Record<4 | 6, string>>
}

const vxlan = (vni: number, port: number) => ({
  paths: { 4: `calico/vxlan/${vni}/${port}`, 6: `calico/vxlan-v6/${vni}/${port}` },
  pool: { vxlanMode: 'Always' },
  felix: { vxlanVni: vni, vxlanPort: port },
})

const plain: Mode = { pool: {}, paths: { 4: 'calico/plain', 6: 'calico/plain' } }
const ipip: Mode = { pool: { ipipMode: 'Always' }, paths: { 4: 'calico/ipip', 6: 'calico/plain' } }
const geneve: Mode = {
  pool: { geneveMode: 'Always' },
  paths: { 4: 'calico/geneve/4096/6081', 6: 'calico/geneve/4096/6081' },
}
const wrapped: Mode = vxlan(4096, 4789) as Mode
/** One device name: by way of another VNI. */
const otherPort: Mode = vxlan(4096, 4790) as Mode
const otherVni: Mode = vxlan(7, 4789) as Mode

/** Every one to every other, in as few moves as there are pairs. */
function walkOfAllPairs<T>(things: readonly T[]): readonly T[] {
  const left = new Set(things.flatMap((_, a) => things.flatMap((_, b) => (a === b ? [] : [a * things.length + b]))))
  const walk = [0]
  const extend = (at: number): boolean => {
    if (left.size === 0) return true
    for (let to = 0; to < things.length; to++) {
      const edge = at * things.length + to
      if (!left.delete(edge)) continue
      walk.push(to)
      if (extend(to)) return true
      walk.pop()
      left.add(edge)
    }
    return false
  }
  extend(0)
  return walk.map((at) => things[at]!)
}

const cluster = new PoolCluster([1, 1, 1])
after(() => cluster.close())

test('pools change from every mode to every other and lose nothing', async (t: TestContext) => {
  const kinds = await probeLinkKinds(['ipip', 'geneve'])
  // Where the kernel has more kinds it is a guest's, which is slow: ports are changed where it has not.
  const more = [...(kinds.has('ipip') ? [ipip] : []), ...(kinds.has('geneve') ? [geneve] : [])]
  const rate = more.length > 0 ? 100 : 1000
  const modes = [wrapped, plain, ...(more.length > 0 ? more : [otherPort, otherVni])]
  t.diagnostic(`${modes.length} modes: ${modes.map(({ paths }) => paths[4])}`)
  const poolsOf = ({ pool }: Mode) => [
    testPool('four', '172.26.0.0/16', pool),
    testPool('six', 'fd00:26::/32', pool.ipipMode ? {} : pool),
  ]
  const change = async ({ paths, ...mode }: Mode) => {
    cluster.setFelix(mode.felix ?? {})
    cluster.setPools(poolsOf({ paths, ...mode }))
    await cluster.settled((_from, _to, pool) => paths[pool === 'four' ? 4 : 6], ['four', 'six'])
  }
  const walk = walkOfAllPairs(modes)
  assert.equal(walk.length, modes.length * (modes.length - 1) + 1)
  await cluster.start(poolsOf(walk[0]!))
  await change(walk[0]!)
  const [n1, n2, n3] = cluster.nodes as [PoolNode, PoolNode, PoolNode]
  for (const to of [n2.podIp, n3.podIp, n2.podIpv6, n3.podIpv6]) n1.pod.run(`ping -c 3 -i 0.1 -W 2 ${to}`)
  n2.pod.run('iperf3 -s -1 -D')
  const stream = spawn('ip', ['netns', 'exec', n1.pod.name, 'iperf3', '-J', '-b', '5M', '-t', '600', '-c', n2.podIp], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => stream.kill('SIGKILL'))
  let report = ''
  stream.stdout.on('data', (chunk) => {
    report += chunk
  })
  const losses: number[] = []
  for (const mode of walk.slice(1)) {
    const pings = await Promise.all([n2.podIp, n2.podIpv6, n3.podIp].map((to) => startPing(n1, to, rate)))
    const start = performance.now()
    await change(mode)
    const took = performance.now() - start
    const counts = await Promise.all(pings.map((ping) => ping.stop()))
    const lost = counts.map((count) => count.lost)
    t.diagnostic(`${mode.paths[4]}: ${took.toFixed(0)} ms, lost ${lost} of ${counts.map(({ sent }) => sent)}`)
    losses.push(...lost)
  }
  stream.kill('SIGINT')
  await once(stream, 'close')
  const { intervals, error } = JSON.parse(report) as { intervals: { sum: { bytes: number } }[]; error?: string }
  assert.ok(intervals.length > 0 && intervals.every(({ sum }) => sum.bytes > 0), `the connection stood still: ${error}`)
  assert.ok(
    losses.every((lost) => lost === 0),
    `lost ${losses}`,
  )
  await change(plain)
  assert.equal(
    n1.namespace.run('ip -o link show type vxlan; ip -o link show | grep -E "tunl0.*,UP|geneve" || true'),
    '',
  )
})
