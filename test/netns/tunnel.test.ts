import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import type { KernelEvent } from '../../src/kernel/kernel.ts'
import { LinuxKernel } from '../../src/kernel/linux/linux-kernel.ts'
import type { Tunnel } from '../../src/model/link.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { ping1k, type TunnelEnd, TunnelPair, transfer } from './tunnel-pair.ts'

const MEGABYTES = Number(process.env.WEFT_TUNNEL_MEGABYTES ?? 24)

const ping = (end: TunnelEnd, args: string): string =>
  spawnSync('ip', ['netns', 'exec', end.namespace.name, 'ping', '-c', '1', '-W', '2', ...args.split(' ')], {
    encoding: 'utf8',
  }).stdout

/** Waits for something that must come, and keeps the test alive meanwhile. */
async function inTime<T>(event: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('waited in vain')), 30_000)
  })
  return Promise.race([event, late]).finally(() => clearTimeout(timer))
}

async function equalDigests(from: TunnelEnd, to: TunnelEnd, family: 4 | 6): Promise<void> {
  const [sent, received] = await transfer(from, to, family, MEGABYTES)
  assert.match(sent!, /^[0-9a-f]{64}$/)
  assert.equal(received, sent)
}

describe('a pair of tunnels', () => {
  let pair: TunnelPair
  before(async () => {
    pair = await TunnelPair.start('weft', 'weft')
  })
  after(() => pair.delete())

  test('carries both families, one hop taken on each end', () => {
    assert.match(ping(pair.left, '10.1.2.1'), / ttl=62 /)
    assert.match(ping(pair.left, 'fd00:2::1'), / ttl=62 /)
    assert.match(ping(pair.right, '10.1.1.1 -s 1444 -M do'), / ttl=62 /)
  })

  test('carries streams unchanged in both directions', async () => {
    await equalDigests(pair.left, pair.right, 4)
    await equalDigests(pair.right, pair.left, 6)
    assert.ok((await pair.right.counter('merged-packets')) > 1000, 'bursts are merged')
    assert.equal(await pair.right.counter('passed-bad-checksum'), 0)
  })

  test('is read back as it was asked for', async () => {
    const { kernel } = pair.left.namespace
    const wanted = pair.left.objects().filter((object) => object.kind === 'tunnel' || object.kind === 'tunnel-peer')
    assert.deepEqual(await kernel.read('tunnel', 'tunnel-peer'), wanted)
    assert.deepEqual(await pair.right.namespace.kernel.read('link').then((all) => all.length), 3)
  })

  test('on the wire there is one inner packet a datagram, no longer than the MTU', async () => {
    // A virtual wire carries bursts as they are, unless its ends say that they cannot.
    const split = (state: 'on' | 'off') => {
      for (const end of [pair.left, pair.right])
        end.namespace.run(`ethtool -K u0 tx-udp-segmentation ${state} >/dev/null`)
    }
    split('off')
    const filter = ['-lni', 'u0', '-c', '100', '-Z', 'root', 'udp', 'port', '8285']
    const tcpdump = spawn('ip', ['netns', 'exec', pair.right.namespace.name, 'tcpdump', ...filter])
    let captured = ''
    tcpdump.stdout.on('data', (chunk) => {
      captured += chunk
    })
    const over = once(tcpdump, 'close')
    // It says so when it listens.
    await inTime(once(tcpdump.stderr, 'data'))
    await transfer(pair.right, pair.left, 4, 4)
    await inTime(over)
    split('on')
    const lengths = [...captured.matchAll(/length (\d+)/g)].map((match) => Number(match[1]))
    assert.ok(lengths.length >= 100)
    assert.equal(Math.max(...lengths), 1472)
  })

  test('tells senders why their packets end', () => {
    assert.match(ping(pair.left, '-t 1 10.1.2.1'), /From 10\.1\.2\.0 .*Time to live exceeded/)
    assert.match(ping(pair.left, '-t 2 10.1.2.1'), / ttl=62 |Time to live exceeded/)
    assert.match(ping(pair.left, '-t 1 fd00:2::1'), /From fd00:2:: .*Time exceeded/)
    pair.left.namespace.run('ip route add 10.1.9.0/24 dev flannel0; ip route add fd00:9::/64 dev flannel0')
    assert.match(ping(pair.left, '10.1.9.9'), /From 10\.1\.9\.9 .*Destination Net Unreachable/)
    assert.match(ping(pair.left, 'fd00:9::9'), /From fd00:9::9 .*Destination unreachable: No route/)
    pair.left.namespace.run('ip link set flannel0 mtu 3000')
    assert.match(ping(pair.left, '-M do -s 2000 10.1.2.1'), /Frag(mentation)? needed .*mtu = 1472/)
    assert.match(ping(pair.left, '-M do -s 2000 fd00:2::1'), /Packet too big: mtu=1472/)
    pair.left.namespace.run('ip link set flannel0 mtu 1472')
  })

  test('a new session adopts the running process and changes only what differs', async () => {
    const connection = await pair.left.connect()
    const { pid } = await connection.readState()
    pair.left.namespace.kernel.close()
    const kernel = LinuxKernel.openAt(pair.left.namespace.path)
    try {
      const tunnel = pair.left.objects().find((object) => object.kind === 'tunnel') as Tunnel
      const object = { ...tunnel, mtuBytes: 1400, subnets: [Cidr.parse('10.1.1.0/24'), Cidr.parse('fd00:1::/64')] }
      assert.deepEqual(await kernel.execute([{ verb: 'set', object }]), [undefined])
      assert.deepEqual((await connection.readState()).pid, pid)
      assert.match(pair.left.namespace.run('ip link show flannel0'), /mtu 1400/)
      assert.deepEqual(await kernel.execute([{ verb: 'set', object: tunnel }]), [undefined])

      // Another port is another socket: the process is replaced, its peers move on, the device and its routes stay.
      const before = pair.left.namespace.run('ip -d link show flannel0; ip route; ip -6 route')
      const closed = connection.closed
      assert.deepEqual(await kernel.execute([{ verb: 'set', object: { ...tunnel, port: 8286 } }]), [undefined])
      await inTime(closed)
      assert.equal((await kernel.read('tunnel-peer')).length, 2)
      assert.deepEqual(await kernel.execute([{ verb: 'set', object: tunnel }]), [undefined])
      assert.equal(pair.left.namespace.run('ip -d link show flannel0; ip route; ip -6 route'), before)
      assert.match(ping(pair.left, '10.1.2.1'), / ttl=62 /)
    } finally {
      kernel.close()
    }
  })

  test('peers are replaced as one, or not at all', async () => {
    const connection = await pair.left.connect()
    const list = () => connection.request('list')
    const before = await list()
    await assert.rejects(connection.request('replace-peers 2\n10.9.0.0/24 192.0.2.1 8285\n10.9.0.1/24 x 0'), /x|10\.9/)
    assert.deepEqual(await list(), before)
    await assert.rejects(connection.request('set-peer 10.9.0.0/24 192.0.2.1 0'), /0 is not a port/)
    await assert.rejects(connection.request('delete-peer 10.9.0.0/24'), /no peer/)
    await assert.rejects(connection.request('set-mtu 100'), /no MTU/)
    await assert.rejects(connection.request('nonsense'), /no command/)
    connection.close()
  })

  test('a second process on the device is refused and leaves the first alone', async () => {
    const { namespace } = pair.left
    const again = spawnSync(
      'ip',
      [
        ...['netns', 'exec', namespace.name, 'dist/native/weft-tunnel', '--device', 'flannel0', '--mtu', '1472'],
        ...['--local', '192.168.0.1', '--port', '9999', '--control', `/run/netns/${namespace.name}.sock`],
      ],
      { encoding: 'utf8', timeout: 30_000 },
    )
    assert.equal(again.status, 1)
    assert.match(again.stderr, /flannel0 has another process attached/)
    assert.match(ping(pair.left, '10.1.2.1'), / ttl=62 /)
  })
})

describe('forged and broken packets', () => {
  let pair: TunnelPair
  before(async () => {
    pair = await TunnelPair.start('weft', 'weft')
    // Its port is then free for a forger with a node's own address.
    const connection = await pair.right.connect()
    await connection.shutdown()
    pair.right.namespace.run('ip addr add 192.168.0.3/24 dev u0')
  })
  after(() => pair.delete())

  /** Sends datagrams from the right namespace, and resolves when the tunnel has counted them. */
  async function forge(source: string, packets: readonly Uint8Array[], counter: string): Promise<void> {
    const before = await pair.left.counter(counter)
    const script = `
      const socket = require('node:dgram').createSocket('udp4')
      const packets = ${JSON.stringify(packets.map((packet) => Buffer.from(packet).toString('base64')))}
      socket.bind(8285, '${source}', async () => {
        for (const packet of packets)
          await new Promise((done) => socket.send(Buffer.from(packet, 'base64'), 8285, '192.168.0.1', done))
        socket.close()
      })`
    const sent = spawnSync('ip', ['netns', 'exec', pair.right.namespace.name, process.execPath, '-e', script])
    assert.equal(sent.status, 0, String(sent.stderr))
    for (let tries = 0; tries < 1000; tries++) {
      if ((await pair.left.counter(counter)) >= before + packets.length) return
      await new Promise((resolve) => setImmediate(resolve))
    }
    assert.equal(await pair.left.counter(counter), before + packets.length, counter)
  }

  function inner(source: string, destination: string, ttl = 9): Uint8Array {
    const [from, to] = [Ip.parse(source), Ip.parse(destination)]
    if (from.family === 6) {
      const packet = new Uint8Array(48)
      packet.set([0x60, 0, 0, 0, 0, 8, 17, ttl])
      from.writeTo(packet, 8)
      to.writeTo(packet, 24)
      return packet
    }
    const packet = new Uint8Array(28)
    packet.set([0x45, 0, 0, 28, 0, 1, 0, 0, ttl, 17, 0, 0])
    from.writeTo(packet, 12)
    to.writeTo(packet, 16)
    return packet
  }

  test('a stranger is not listened to', async () => {
    await forge(
      '192.168.0.3',
      [inner('10.1.2.1', '10.1.1.1'), inner('fd00:2::1', 'fd00:1::1')],
      'dropped-unknown-sender',
    )
  })

  test('a node speaks for its own networks only', async () => {
    const forged = [inner('10.1.3.1', '10.1.1.1'), inner('10.1.1.1', '10.1.1.1'), inner('fd00:3::1', 'fd00:1::1')]
    await forge('192.168.0.2', [...forged, inner('192.168.0.1', '10.1.1.1')], 'dropped-forged-source')
  })

  test('what is not for this node is not passed on', async () => {
    const astray = [inner('10.1.2.1', '10.1.2.2'), inner('10.1.2.1', '8.8.8.8'), inner('fd00:2::1', 'ff02::1')]
    await forge('192.168.0.2', astray, 'dropped-not-for-us')
  })

  test('what is no packet is dropped', async () => {
    const whole = inner('10.1.2.1', '10.1.1.1')
    const cut = [1, 19, 20, 27].map((length) => whole.slice(0, length))
    const shortHeader = inner('10.1.2.1', '10.1.1.1')
    shortHeader[0] = 0x44
    const noise = new Uint8Array(1400).fill(0xa5)
    await forge('192.168.0.2', [...cut, shortHeader, noise, new Uint8Array([0x60])], 'dropped-malformed')
  })

  test('the tunnel still works, and counts what was well', async () => {
    const before = await pair.left.counter('received-packets')
    await forge('192.168.0.2', [inner('10.1.2.1', '10.1.1.1'), inner('192.168.0.2', '10.1.1.1')], 'received-packets')
    assert.equal(await pair.left.counter('received-packets'), before + 2)
    await forge('192.168.0.2', [inner('10.1.2.1', '10.1.1.1', 1)], 'dropped-ttl-exceeded')
  })
})

test('exchanges packets with a plain one-packet loop in both directions', async () => {
  const pair = await TunnelPair.start('weft', 'plain')
  try {
    assert.match(ping(pair.left, '10.1.2.1'), / ttl=62 /)
    await equalDigests(pair.left, pair.right, 4)
    await equalDigests(pair.right, pair.left, 4)
  } finally {
    await pair.delete()
  }
})

test('works over IPv6', async () => {
  const pair = await TunnelPair.start('weft', 'weft', 6)
  try {
    assert.match(ping(pair.left, '10.1.2.1 -s 1424 -M do'), / ttl=62 /)
    await equalDigests(pair.left, pair.right, 4)
    await equalDigests(pair.right, pair.left, 6)
  } finally {
    await pair.delete()
  }
})

test('works where the underlay has no offloads', async () => {
  const pair = await TunnelPair.start('weft', 'weft')
  try {
    for (const end of [pair.left, pair.right])
      end.namespace.run('ethtool -K u0 tx off gso off tso off gro off tx-udp-segmentation off >/dev/null')
    await equalDigests(pair.left, pair.right, 4)
  } finally {
    await pair.delete()
  }
})

test('a killed process is noticed; device and routes stay, and traffic goes on with the next one', async () => {
  const pair = await TunnelPair.start('weft', 'weft')
  try {
    const { kernel } = pair.left.namespace
    const events: KernelEvent[] = []
    const noticed = new Promise<void>((resolve) => {
      kernel.watch(['tunnel', 'tunnel-peer'], (event) => {
        events.push(event)
        resolve()
      })
    })
    const connection = await pair.left.connect()
    process.kill((await connection.readState()).pid, 'SIGKILL')
    await inTime(noticed)
    assert.deepEqual(events, [{ type: 'resync' }])
    assert.deepEqual(await kernel.read('tunnel', 'tunnel-peer'), [])
    assert.match(pair.left.namespace.run('ip route'), /10\.1\.2\.0\/24 dev flannel0/)
    const again = pair.left.objects().filter((object) => object.kind === 'tunnel' || object.kind === 'tunnel-peer')
    await pair.left.execute(again.map((object) => ({ verb: 'add', object })))
    assert.equal(ping1k(pair.left, '--to 10.1.2.1 --duration-ms 100').lost, 0)
  } finally {
    await pair.delete()
  }
})

test('the process ends with its device', async () => {
  const pair = await TunnelPair.start('weft', 'weft')
  try {
    const connection = await pair.left.connect()
    pair.left.namespace.run('ip link delete flannel0')
    await inTime(connection.closed)
    assert.deepEqual(await pair.left.namespace.kernel.read('tunnel'), [])
  } finally {
    await pair.delete()
  }
})

test('a tunnel that cannot be started says why', async () => {
  const pair = await TunnelPair.start('weft', 'weft')
  try {
    const busy = pair.left.namespace.kernel
    const tunnel = pair.left.objects().find((object) => object.kind === 'tunnel') as Tunnel
    const [failure] = await busy.execute([{ verb: 'add', object: { ...tunnel, device: 'other0' } }])
    assert.match(failure!.message, /listen on 192\.168\.0\.1:8285: Address already in use/)
    const [missing] = await busy.execute([{ verb: 'delete', object: { ...tunnel, device: 'none0' } }])
    assert.equal(missing!.code, 'ENOENT')
  } finally {
    await pair.delete()
  }
})
