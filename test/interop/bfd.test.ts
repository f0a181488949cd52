/** BFD with bird2 and FRR's bfdd: both families, detection, the operator's will, changed intervals, what must be dropped. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import type { BfdSettings } from '../../src/bgp/bfd.ts'
import { type BfdChange, BfdHost, type BfdPeer } from '../../src/bgp/session/bfd-host.ts'
import { realClock } from '../../src/bgp/session/real-clock.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { Ip } from '../../src/net/ip.ts'
import { BfdDiagnostic, type BfdPacket, BfdState, encodeBfdPacket } from '../../src/wire/bfd/packet.ts'
import { TestNamespace } from '../netns/namespace.ts'

const OURS = { 4: '10.0.0.1', 6: 'fd00::1' } as const
const THEIRS = { 4: '10.0.0.2', 6: 'fd00::2' } as const
const PATIENCE_MS = 20_000
/** The sessions live in this thread: whoever blocks it for a detection time ends them. */
const run = async (command: string, ...args: readonly string[]): Promise<string> =>
  (await promisify(execFile)(command, args)).stdout

const settings = (milliseconds: number): BfdSettings => ({
  minTransmitMicroseconds: milliseconds * 1000,
  minReceiveMicroseconds: milliseconds * 1000,
  detectMultiplier: 10,
})
/** Detection after 3 s: on a busy machine this process may have to wait for longer than a real agent's thread would. */
const peer = (family: 4 | 6, milliseconds = 300): BfdPeer => ({
  key: `v${family}`,
  remote: Ip.parse(THEIRS[family]),
  localAddress: Ip.parse(OURS[family]),
  multihop: false,
  settings: settings(milliseconds),
})

/** Our end in a namespace, its daemon's in another, a veth between them. */
class Link {
  readonly ours = new TestNamespace()
  readonly theirs = new TestNamespace()
  readonly changes: BfdChange[] = []
  readonly problems: string[] = []
  #heard: (() => void) | undefined
  readonly host = new BfdHost(
    realClock,
    (change) => {
      this.changes.push(change)
      this.#heard?.()
    },
    (key, problem) => this.problems.push(`${key}: ${problem.message}`),
  )

  constructor() {
    this.ours.run(`ip link add eth0 type veth peer name eth0 netns ${this.theirs.name}`)
    for (const [space, [v4, v6]] of [
      [this.ours, [OURS[4], OURS[6]]],
      [this.theirs, [THEIRS[4], THEIRS[6]]],
    ] as const)
      space.run(`ip addr add ${v4}/24 dev eth0; ip addr add ${v6}/64 dev eth0 nodad; ip link set eth0 up`)
  }

  setPeers(...peers: readonly BfdPeer[]): void {
    inNetns(this.ours.path, () => this.host.setPeers(peers))
    assert.deepEqual(this.problems, [])
  }

  report(key: string) {
    return this.host.reports().find((each) => each.key === key)!
  }

  /** Resolves with the first change from here on that is one. */
  async change(is: (change: BfdChange) => boolean): Promise<BfdChange> {
    const from = this.changes.length
    const late = AbortSignal.timeout(PATIENCE_MS)
    for (;;) {
      const found = this.changes.slice(from).find(is)
      if (found) return found
      await new Promise<void>((resolve, reject) => {
        this.#heard = resolve
        late.onabort = () => reject(new Error(`no such change among ${JSON.stringify(this.changes.slice(from))}`))
      })
    }
  }

  async up(...keys: readonly string[]): Promise<void> {
    for (const key of keys)
      if (this.report(key).state !== BfdState.Up)
        await this.change((change) => change.key === key && change.to === BfdState.Up)
  }

  close(): void {
    this.host.close()
    this.ours.delete()
    this.theirs.delete()
  }
}

/** A daemon of another project in a namespace, ended by pid. */
class Daemon {
  readonly #child: ChildProcess
  #out = ''

  constructor(space: TestNamespace, command: string, ...args: readonly string[]) {
    this.#child = spawn('ip', ['netns', 'exec', space.name, command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.on('data', (chunk: Buffer) => {
        this.#out += chunk
      })
  }

  get output(): string {
    return this.#out
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.kill('SIGKILL')
    await once(this.#child, 'close')
  }
}

async function appears(path: string, daemon: Daemon): Promise<void> {
  const end = performance.now() + PATIENCE_MS
  while (!existsSync(path)) {
    assert.ok(performance.now() < end, `${path} did not appear: ${daemon.output}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const missing = (...programs: readonly string[]): string | false => {
  const absent = programs.filter((program) => !existsSync(program))
  return absent.length > 0 && `${absent.join(', ')} is not installed`
}

describe('bird2', { skip: missing('/usr/sbin/bird') }, () => {
  let link: Link
  let daemon: Daemon
  let folder: string

  before(async () => {
    link = new Link()
    folder = mkdtempSync(join(tmpdir(), 'weft-bird-'))
    writeFileSync(
      join(folder, 'bird.conf'),
      `log "${folder}/log" all;
router id 10.0.0.2;
protocol device {}
protocol bfd {
  interface "eth0" { min rx interval 60 ms; min tx interval 60 ms; idle tx interval 300 ms; multiplier 10; };
  neighbor ${OURS[4]} dev "eth0";
  neighbor ${OURS[6]} dev "eth0";
}
`,
    )
    daemon = new Daemon(link.theirs, '/usr/sbin/bird', '-f', '-c', `${folder}/bird.conf`, '-s', `${folder}/ctl`)
    await appears(`${folder}/ctl`, daemon)
  })
  after(async () => {
    link.close()
    await daemon.stop()
    rmSync(folder, { recursive: true })
  })
  const birdc = (...words: readonly string[]) => run('/usr/sbin/birdc', '-s', `${folder}/ctl`, ...words)

  test('sessions of both families come up, and each side shows the intervals that were agreed', async () => {
    link.setPeers(peer(4), peer(6))
    await link.up('v4', 'v6')
    for (const key of ['v4', 'v6']) assert.equal(link.report(key).transmitMicroseconds, 300_000)
    const shown = await birdc('show', 'bfd', 'sessions')
    assert.match(shown, /10\.0\.0\.1 +eth0 +Up .* 0\.300 +3\.000/)
    assert.match(shown, /fd00::1 +eth0 +Up /)
  })

  test('slower and faster intervals on a living session, by a poll that bird answers', async () => {
    const count = link.changes.length
    for (const milliseconds of [600, 300]) {
      link.setPeers(peer(4, milliseconds), peer(6))
      const wanted = milliseconds * 1000
      const end = performance.now() + PATIENCE_MS
      while (link.report('v4').detectionMicroseconds !== 10 * wanted) {
        assert.ok(performance.now() < end, `detection ${link.report('v4').detectionMicroseconds}`)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    assert.equal(link.changes.length, count, 'no session fell')
  })

  test('a link that goes silent is noticed by both within their detection times', async () => {
    const fell = link.change(({ key, from }) => key === 'v4' && from === BfdState.Up)
    await run(
      'ip',
      'netns',
      'exec',
      link.theirs.name,
      'sh',
      '-c',
      'sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1; ip link set eth0 down',
    )
    assert.equal((await fell).diagnostic, BfdDiagnostic.DetectionTimeExpired)
    const end = performance.now() + PATIENCE_MS
    while (/ Up /.test(await birdc('show', 'bfd', 'sessions')) || link.report('v6').state === BfdState.Up) {
      assert.ok(performance.now() < end)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await run('ip', 'netns', 'exec', link.theirs.name, 'sh', '-c', 'ip link set eth0 up')
    await link.up('v4', 'v6')
  })

  test('packets from beyond the link, of strangers and of no session change nothing', async () => {
    await run('ip', 'netns', 'exec', link.theirs.name, 'sh', '-c', 'ip addr add 10.9.9.9/32 dev lo')
    await run('ip', 'netns', 'exec', link.ours.name, 'sh', '-c', 'ip route add 10.9.9.9/32 dev eth0')
    const changes = link.changes.length
    const down: BfdPacket = {
      diagnostic: 0,
      state: BfdState.Down,
      poll: false,
      final: false,
      controlPlaneIndependent: false,
      demand: false,
      detectMultiplier: 10,
      myDiscriminator: 1,
      yourDiscriminator: 0,
      desiredMinTransmitMicroseconds: 60_000,
      requiredMinReceiveMicroseconds: 60_000,
      requiredMinEchoReceiveMicroseconds: 0,
    }
    const ours = link.report('v4').localDiscriminator
    // The first would end the session; the filter drops it before it is read, and the last comes after it.
    const cases: readonly (readonly [ttl: number, from: string, bytes: Uint8Array, dropped: number])[] = [
      [254, THEIRS[4], encodeBfdPacket({ ...down, yourDiscriminator: ours }), 0],
      [255, '10.9.9.9', encodeBfdPacket({ ...down, yourDiscriminator: ours }), 1],
      [255, '10.9.9.9', encodeBfdPacket(down), 1],
      [255, THEIRS[4], encodeBfdPacket({ ...down, yourDiscriminator: ours === 5 ? 6 : 5 }), 1],
      [255, THEIRS[4], encodeBfdPacket({ ...down, yourDiscriminator: ours }).subarray(0, 23), 1],
    ]
    for (const [ttl, from, bytes, dropped] of cases) {
      const expected = link.host.dropped + dropped
      const program = `const socket = require('node:dgram').createSocket('udp4')
        socket.bind(0, '${from}', () => {
          socket.setTTL(${ttl})
          socket.send(Buffer.from('${Buffer.from(bytes).toString('hex')}', 'hex'), 3784, '${OURS[4]}', () => socket.close())
        })`
      await run('ip', 'netns', 'exec', link.theirs.name, process.execPath, '-e', program)
      const { received } = link.report('v4')
      const end = performance.now() + PATIENCE_MS
      while (link.host.dropped < expected || link.report('v4').received < received + 2) {
        assert.ok(performance.now() < end, `${ttl} ${from}: ${link.host.dropped}`)
        await new Promise((resolve) => setImmediate(resolve))
      }
      assert.equal(link.host.dropped, expected)
    }
    assert.deepEqual(link.changes.slice(changes), [])
  })

  test('our leaving is told as the will of an operator, and bird logged no complaint', async () => {
    link.setPeers()
    const end = performance.now() + PATIENCE_MS
    while (/ Up /.test(await birdc('show', 'bfd', 'sessions'))) assert.ok(performance.now() < end)
    // That its link was down is no complaint about us.
    const log = readFileSync(`${folder}/log`, 'utf8').replace(/^.*Network is (unreachable|down)\n/gm, '')
    assert.doesNotMatch(log, /<(WARN|ERR|BUG|AUTH)>/)
  })
})

describe('FRR', { skip: missing('/usr/lib/frr/bfdd', '/usr/lib/frr/zebra') }, () => {
  let link: Link
  let folder: string
  const daemons: Daemon[] = []

  before(async () => {
    link = new Link()
    folder = mkdtempSync(join(tmpdir(), 'weft-frr-'))
    mkdirSync(join(folder, 'vty'))
    // FRR gives its privileges up and then makes its sockets.
    execFileSync('chown', ['-R', 'frr:frr', folder])
    writeFileSync(join(folder, 'zebra.conf'), 'hostname theirs\n')
    writeFileSync(
      join(folder, 'bfdd.conf'),
      `hostname theirs
bfd
 profile fast
  detect-multiplier 10
  receive-interval 60
  transmit-interval 60
 !
 peer ${OURS[4]} local-address ${THEIRS[4]} interface eth0
  profile fast
 !
 peer ${OURS[6]} local-address ${THEIRS[6]} interface eth0
  profile fast
 !
!
`,
    )
    const common = [
      '-u',
      'frr',
      '-g',
      'frr',
      '--vty_socket',
      `${folder}/vty`,
      '-z',
      `${folder}/zserv`,
      '--log',
      'stdout',
    ]
    for (const name of ['zebra', 'bfdd']) {
      const own = ['-f', `${folder}/${name}.conf`, '-i', `${folder}/${name}.pid`]
      const control = name === 'bfdd' ? ['--bfdctl', `${folder}/bfdctl`] : []
      daemons.push(new Daemon(link.theirs, `/usr/lib/frr/${name}`, ...common, ...own, ...control))
      await appears(name === 'zebra' ? `${folder}/zserv` : `${folder}/vty/bfdd.vty`, daemons.at(-1)!)
    }
  })
  after(async () => {
    link.close()
    for (const daemon of daemons) await daemon.stop()
    rmSync(folder, { recursive: true })
  })
  const vtysh = (command: string) => run('vtysh', '--vty_socket', `${folder}/vty`, '-d', 'bfdd', '-c', command)

  test('sessions of both families come up with what was agreed', async () => {
    link.setPeers(peer(4), peer(6))
    await link.up('v4', 'v6')
    const shown = JSON.parse(await vtysh('show bfd peers json')) as {
      peer: string
      status: string
      'remote-id': number
      'remote-receive-interval': number
    }[]
    assert.equal(shown.length, 2)
    for (const each of shown) assert.equal(each.status, 'up', JSON.stringify(each))
    const ids = link.host.reports().map((report) => report.localDiscriminator)
    assert.deepEqual(new Set(shown.map((each) => each['remote-id'])), new Set(ids))
  })

  test('a peer shut down by its operator is not a broken path', async () => {
    const told = link.change(({ key }) => key === 'v4')
    await vtysh(`configure\nbfd\npeer ${OURS[4]} local-address ${THEIRS[4]} interface eth0\nshutdown`)
    assert.deepEqual(
      [(await told).to, (await told).byPeersOperator, (await told).diagnostic],
      [BfdState.Down, true, BfdDiagnostic.NeighborSignaledDown],
    )
    await vtysh(`configure\nbfd\npeer ${OURS[4]} local-address ${THEIRS[4]} interface eth0\nno shutdown`)
    await link.up('v4')
  })

  test('a killed daemon is noticed', async () => {
    const fell = link.change(({ key, from }) => key === 'v6' && from === BfdState.Up)
    const [, bfdd] = daemons
    assert.match(bfdd!.output, /bfdd .* starting/)
    assert.doesNotMatch(
      bfdd!.output,
      /\b(error|malformed|dropped|invalid|EC \d+)\b/i,
      'it logged no complaint about us',
    )
    await bfdd!.stop()
    assert.equal((await fell).diagnostic, BfdDiagnostic.DetectionTimeExpired)
  })
})
