import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { askControl } from '../../src/lab/control.ts'
import { labPaths, nativeProgram } from '../../src/lab/layout.ts'
import { TestLab } from './test-lab.ts'

const lab = new TestLab()
const ips: Record<string, string> = {}
const ips6: Record<string, string> = {}

before(async () => {
  await lab.up('--nodes', '2')
  for (const [pod, node] of [
    ['a', 'n1'],
    ['b', 'n2'],
  ] as const) {
    const { ip, ip6 } = await lab.server(pod, node)
    ips[pod] = ip
    ips6[pod] = ip6!
  }
})
after(() => lab.down())

interface Tally {
  readonly sent: number
  readonly received: number
  readonly lost: number
}

/** A thousand messages a second from pod a, over a path that works, until stopped. */
class Stream {
  readonly #child: ChildProcess
  #out = ''

  private constructor(child: ChildProcess) {
    this.#child = child
    child.stdout!.on('data', (chunk: Buffer) => {
      this.#out += chunk
    })
  }

  static async start(...how: readonly string[]): Promise<Stream> {
    const { pid } = await askControl<{ pid: number }>(labPaths(lab.name).control, { command: 'locate', target: 'a' })
    const program = nativeProgram('weft-pod')
    const child = spawn(program, ['run', '--join', String(pid), '--', program, 'ping1k', ...how], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, WEFT_LAB: lab.name },
    })
    const stream = new Stream(child)
    const [text] = (await once(child.stderr!, 'data')) as [Buffer]
    assert.match(text.toString(), /first reply/)
    return stream
  }

  async stop(): Promise<Tally> {
    this.#child.kill('SIGTERM')
    await once(this.#child, 'close')
    return JSON.parse(this.#out) as Tally
  }
}

const streams = () =>
  Promise.all([
    Stream.start('--to', ips.b!, '--icmp'),
    Stream.start('--to', ips6.b!, '--icmp'),
    Stream.start('--to', ips.b!, '--tcp', '9000'),
  ])

async function losesNothing(what: () => Promise<unknown>): Promise<void> {
  const running = await streams()
  await what()
  const tallies = await Promise.all(running.map((stream) => stream.stop()))
  for (const [i, tally] of tallies.entries()) {
    assert.ok(tally.sent > 50, `stream ${i} ran`)
    assert.equal(tally.lost, 0, `${['ping', 'ping over IPv6', 'TCP connection'][i]}: ${JSON.stringify(tally)}`)
  }
}

for (const [from, to] of [
  ['vxlan', 'host-gw'],
  ['host-gw', 'vxlan-direct'],
  ['vxlan-direct', 'vxlan'],
] as const)
  test(`${from} → ${to} loses nothing of a 1 kHz ping in either family, and a TCP connection lives on`, () =>
    losesNothing(() => lab.weft('switch', to)))

test('vxlan → udp → host-gw → udp → vxlan loses no IPv4 packet and keeps a TCP connection', async () => {
  for (const to of ['udp', 'host-gw', 'udp', 'vxlan']) {
    const running = await Promise.all([
      Stream.start('--to', ips.b!, '--icmp'),
      Stream.start('--to', ips.b!, '--tcp', '9000'),
    ])
    await lab.weft('switch', to)
    for (const tally of await Promise.all(running.map((stream) => stream.stop())))
      assert.equal(tally.lost, 0, `${to}: ${JSON.stringify(tally)}`)
  }
})

test('killed agents are started again and no packet is lost', () =>
  losesNothing(async () => {
    for (const node of ['n1', 'n2']) {
      const before = Number((await status()).nodes.find((each) => each.name === node)!.agentRestarts)
      await lab.weft('fault', 'kill-agent', node)
      while ((await status()).nodes.find((each) => each.name === node)!.agentRestarts === before)
        await new Promise((resolve) => setImmediate(resolve))
    }
    await lab.server('fresh', 'n1')
  }))

const status = async () =>
  JSON.parse(await lab.weft('status', '--json')) as { nodes: { name: string; agentRestarts: number }[] }
