import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, utimesSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { after, before, describe, test } from 'node:test'
import { Applier } from '../../src/apply/applier.ts'
import { forgetLostTunnels, TunnelConnection, tunnelDirectory } from '../../src/kernel/linux/tunnel-client.ts'
import { SteadyPing } from './steady-ping.ts'
import { native, type TunnelEnd, TunnelPair } from './tunnel-pair.ts'

/** What the tunnel asks the device to hold (native/tunnel/src/device.rs). */
const QUEUE_PACKETS = 4096

const inside = (end: TunnelEnd, ...command: string[]): ChildProcess =>
  spawn('ip', ['netns', 'exec', end.namespace.name, ...command], { stdio: ['ignore', 'pipe', 'inherit'] })

async function textOf(child: ChildProcess): Promise<string> {
  let text = ''
  child.stdout!.on('data', (chunk) => {
    text += chunk
  })
  await once(child, 'close')
  return text
}

/** Waits, with a look at every turn of the loop, for what must come. */
async function until(isSo: () => Promise<boolean> | boolean): Promise<void> {
  const end = performance.now() + 30_000
  while (!(await isSo())) {
    assert.ok(performance.now() < end, 'waited in vain')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

async function pidOf(end: TunnelEnd): Promise<number> {
  const connection = await end.connect()
  const { pid } = await connection.readState()
  connection.close()
  return pid
}

const directoryOf = (end: TunnelEnd): string => tunnelDirectory(statSync(end.namespace.path).ino)

/** Starts a tunnel as the agent does, in place of the one that is there. */
function takeOver(end: TunnelEnd, control = `${directoryOf(end)}/tunnel-flannel0.sock`): ChildProcess {
  const options = ['--device', 'flannel0', '--mtu', `${end.mtuBytes}`, '--local', `${end.outerIp()}`]
  return inside(end, native('weft-tunnel'), ...options, '--control', control, '--take-over')
}

/** 1,000 packets a second from left to right. */
const steadyPing = (pair: TunnelPair): Promise<SteadyPing> =>
  SteadyPing.start(pair.left.namespace, pair.right.innerIp(4), '--icmp')

describe('a burst while the tunnel cannot run', () => {
  const count = 4000
  let pair: TunnelPair
  before(async () => {
    pair = await TunnelPair.start('weft', 'weft')
  })
  after(() => pair.delete())

  /** Datagrams as fast as they can be sent, to a port that nobody listens to. */
  const burst = async (): Promise<void> => {
    const script = `
      const socket = require('node:dgram').createSocket('udp4')
      let left = ${count}
      for (let i = 0; i < ${count}; i++) socket.send('x', 9, '10.1.2.1', () => --left || socket.close())`
    await textOf(inside(pair.left, process.execPath, '-e', script))
  }

  test('waits in the device of the sender', async () => {
    assert.match(pair.left.namespace.run('ip link show flannel0'), new RegExp(` qlen ${QUEUE_PACKETS}`))
    const [pid, sent] = [await pidOf(pair.left), await pair.left.counter('sent-packets')]
    process.kill(pid, 'SIGSTOP')
    await burst()
    process.kill(pid, 'SIGCONT')
    await until(async () => (await pair.left.counter('sent-packets')) >= sent + count)
  })

  test('waits in the socket of the receiver', async () => {
    const [pid, received] = [await pidOf(pair.right), await pair.right.counter('received-packets')]
    const sent = await pair.left.counter('sent-packets')
    process.kill(pid, 'SIGSTOP')
    await burst()
    await until(async () => (await pair.left.counter('sent-packets')) >= sent + count)
    process.kill(pid, 'SIGCONT')
    await until(async () => (await pair.right.counter('received-packets')) >= received + count)
  })

  test('a process that stands still is an error in time, not a wait for ever', async () => {
    const pid = await pidOf(pair.left)
    process.kill(pid, 'SIGSTOP')
    try {
      const connection = await TunnelConnection.open(directoryOf(pair.left), 'flannel0', 200)
      await assert.rejects(connection!.readState(), /has not answered for 0\.2 s/)
      const another = await TunnelConnection.open(directoryOf(pair.left), 'flannel0', 200)
      await assert.rejects(another!.shutdown(), /has not answered for 0\.2 s/)
    } finally {
      process.kill(pid, 'SIGCONT')
    }
  })
})

describe('another process takes over', () => {
  let pair: TunnelPair
  before(async () => {
    pair = await TunnelPair.start('weft', 'weft')
  })
  after(() => pair.delete())

  test('and nothing is lost', async () => {
    const ping = await steadyPing(pair)
    const before = await pair.left.connect().then((connection) => connection.readState())
    for (const end of [pair.left, pair.right, pair.left, pair.right, pair.left]) {
      const old = await end.connect()
      const { pid } = await old.readState()
      const child = takeOver(end)
      await once(child.stdout!, 'data')
      await old.closed
      assert.notEqual(await pidOf(end), pid)
    }
    const { sent, lost } = await ping.stop()
    assert.ok(sent > 0)
    assert.equal(lost, 0, `${lost} of ${sent}`)
    const connection = await pair.left.connect()
    const state = await connection.readState()
    connection.close()
    assert.deepEqual(state.peers, before.peers)
  })

  test('or dies on the way: the old one goes on, and is found again', async () => {
    const path = `${directoryOf(pair.left)}/tunnel-flannel0.sock`
    const pid = await pidOf(pair.left)
    const heir = await pair.left.connect()
    assert.match((await heir.request('hand-over')).join('\n'), /^device flannel0\n/)
    rmSync(path)
    heir.close()
    await until(() => existsSync(path))
    assert.equal(await pidOf(pair.left), pid)
    const stranger = await pair.left.connect()
    await assert.rejects(stranger.request('release'), /nothing was handed over/)
    stranger.close()
    const ping = await steadyPing(pair)
    await until(async () => (await pair.left.counter('received-packets')) > 0)
    assert.equal((await ping.stop()).lost, 0)
  })

  test('cannot, being for another device: the old one goes on', async () => {
    const pid = await pidOf(pair.left)
    const control = `${directoryOf(pair.left)}/tunnel-flannel0.sock`
    const options = ['--device', 'other0', '--mtu', '1400', '--local', '192.168.0.1', '--control', control]
    const child = inside(pair.left, native('weft-tunnel'), ...options, '--take-over')
    assert.deepEqual(await once(child, 'close'), [1, null])
    assert.equal(await pidOf(pair.left), pid)
  })

  test('the way to a tunnel is gone when it says that it ends', async () => {
    const path = `${directoryOf(pair.right)}/tunnel-flannel0.sock`
    const connection = await pair.right.connect()
    await connection.request('shutdown')
    assert.equal(existsSync(path), false)
    await connection.closed
  })
})

test('a tunnel of the first protocol is ended, and its peers move on', async () => {
  const pair = await TunnelPair.start('weft', 'weft')
  const folder = mkdtempSync(`${tmpdir()}/weft-test-`)
  const path = `${folder}/tunnel.sock`
  const heard: string[] = []
  const server = createServer((socket) => {
    socket.setEncoding('utf8').on('data', (text: string) => {
      heard.push(text.trim())
      if (text === 'list\n') socket.write('peer 10.1.2.0/24 192.168.0.2 8285\nok\n')
      else if (text === 'shutdown\n') socket.end('ok\n')
      else socket.write('error there is no command\n')
    })
  })
  try {
    const connection = await pair.left.connect()
    await connection.shutdown()
    server.listen(path)
    await once(server, 'listening')
    const child = takeOver(pair.left, path)
    await once(child.stdout!, 'data')
    assert.deepEqual(heard, ['list', 'hand-over', 'shutdown'])
    const again = await TunnelConnection.open(folder, 'none')
    assert.equal(again, undefined)
    const ping = await steadyPing(pair)
    await until(async () => (await pair.right.counter('received-packets')) > 10)
    assert.equal((await ping.stop()).lost, 0)
    child.kill('SIGTERM')
  } finally {
    server.close()
    rmSync(folder, { recursive: true })
    await pair.delete()
  }
})

test('a killed tunnel is back in less than a second', async () => {
  const pair = await TunnelPair.start('weft', 'weft')
  const applier = new Applier(pair.left.namespace.kernel)
  try {
    applier.set({ source: 'test', objects: pair.left.objects() })
    await applier.start()
    await applier.settle()
    const ping = await steadyPing(pair)
    const pid = await pidOf(pair.left)
    const received = await pair.right.counter('received-packets')
    await until(async () => (await pair.right.counter('received-packets')) > received + 10)
    process.kill(pid, 'SIGKILL')
    const killed = await pair.right.counter('received-packets')
    await until(async () => (await pair.right.counter('received-packets')) > killed + 100)
    const { lost } = await ping.stop()
    assert.notEqual(await pidOf(pair.left), pid)
    assert.ok(lost < 1000, `${lost} lost at 1,000 a second`)
  } finally {
    await applier.close()
    await pair.delete()
  }
})

test('the folders of namespaces that are gone are removed, others stay', async () => {
  const pair = await TunnelPair.start('weft', 'weft')
  const root = mkdtempSync(`${tmpdir()}/weft-test-`)
  try {
    const all = ['11', '12', '13', 'other']
    for (const name of all) mkdirSync(`${root}/${name}`)
    symlinkSync(`${directoryOf(pair.left)}/tunnel-flannel0.sock`, `${root}/12/tunnel-flannel0.sock`)
    symlinkSync(`${root}/nowhere`, `${root}/11/tunnel-flannel0.sock`)
    const long = new Date(Date.now() - 3600_000)
    for (const name of ['11', '12', 'other']) utimesSync(`${root}/${name}`, long, long)
    await forgetLostTunnels(root)
    // One that answers, one that may be of a tunnel that starts, and one that is none of ours.
    assert.deepEqual(
      all.filter((name) => existsSync(`${root}/${name}`)),
      ['12', '13', 'other'],
    )
  } finally {
    rmSync(root, { recursive: true })
    await pair.delete()
  }
})
