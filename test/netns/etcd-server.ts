/**
 * A real etcd of the machine, on loopback ports of its own with a directory of its own, and a line to it that can be cut.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { listenIn } from '../../src/lab/connect.ts'

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

export interface EtcdTls {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

export class EtcdServer {
  readonly folder: string
  readonly url: string
  readonly #process: ChildProcess
  readonly #sockets = new Set<Socket>()
  #line: Server | undefined
  #linePort = 0
  readonly #port: number
  readonly #tls: EtcdTls | undefined

  private constructor(folder: string, port: number, process_: ChildProcess, tls: EtcdTls | undefined) {
    this.folder = folder
    this.#port = port
    this.#tls = tls
    this.url = `${tls ? 'https' : 'http'}://127.0.0.1:${port}`
    this.#process = process_
    process.once('exit', () => process_.kill('SIGKILL'))
  }

  static async start(tls?: EtcdTls): Promise<EtcdServer> {
    const folder = mkdtempSync(join(tmpdir(), 'weft-test-etcd-'))
    const [client, peer] = [await freePort(), await freePort()]
    const scheme = tls ? 'https' : 'http'
    const flags = [
      ...['--name', 'test', '--data-dir', join(folder, 'data'), '--logger', 'zap', '--log-level', 'error'],
      ...['--listen-client-urls', `${scheme}://127.0.0.1:${client}`],
      ...['--advertise-client-urls', `${scheme}://127.0.0.1:${client}`],
      ...[
        '--listen-peer-urls',
        `http://127.0.0.1:${peer}`,
        '--initial-advertise-peer-urls',
        `http://127.0.0.1:${peer}`,
      ],
      ...['--initial-cluster', `test=http://127.0.0.1:${peer}`],
      ...(tls
        ? ['--trusted-ca-file', tls.ca, '--cert-file', tls.cert, '--key-file', tls.key, '--client-cert-auth']
        : []),
    ]
    const child = spawn('etcd', flags, { stdio: ['ignore', 'ignore', 'pipe'] })
    let output = ''
    child.stderr.on('data', (chunk) => {
      output += chunk
    })
    const server = new EtcdServer(folder, client, child, tls)
    const deadline = performance.now() + 30_000
    for (;;) {
      if (child.exitCode !== null || performance.now() > deadline) throw new Error(`etcd did not start: ${output}`)
      try {
        server.ctl('endpoint', 'health')
        return server
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  }

  /** Runs etcdctl and returns what it printed. */
  ctl(...args: string[]): string {
    const tls = this.#tls ? ['--cacert', this.#tls.ca, '--cert', this.#tls.cert, '--key', this.#tls.key] : []
    return execFileSync('etcdctl', ['--endpoints', this.url, ...tls, ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ETCDCTL_API: '3' },
    })
  }

  /** A line to the server that `cutLine` cuts; the same address after `openLine` again. */
  async openLine(): Promise<string> {
    const server = this.#makeLine()
    await new Promise<void>((resolve) => server.listen(this.#linePort, '127.0.0.1', resolve))
    this.#line = server
    this.#linePort = (server.address() as AddressInfo).port
    return `http://127.0.0.1:${this.#linePort}`
  }

  #makeLine(): Server {
    return createServer((socket) => {
      const onward = connect(this.#port, '127.0.0.1')
      for (const end of [socket, onward]) {
        this.#sockets.add(end)
        end.on('error', () => {})
        end.on('close', () => {
          this.#sockets.delete(end)
          socket.destroy()
          onward.destroy()
        })
      }
      socket.pipe(onward).pipe(socket)
    })
  }

  /** A line that listens inside a namespace, on all its addresses; the result names one of them. */
  async openLineIn(netnsPath: string, address: string): Promise<string> {
    const server = this.#makeLine()
    const fd = listenIn(netnsPath, 2379)
    await new Promise<void>((resolve) => server.listen({ fd }, resolve))
    this.#line = server
    return `http://${address}:2379`
  }

  cutLine(): void {
    this.#line?.close()
    this.#line = undefined
    for (const socket of this.#sockets) socket.destroy()
  }

  async stop(): Promise<void> {
    this.cutLine()
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#process.kill('SIGKILL')
    await ended
    rmSync(this.folder, { recursive: true, force: true })
  }
}
