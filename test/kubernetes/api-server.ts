/**
 * Kubernetes' own API server over Debian's etcd, and nothing else of a cluster: no controllers, no kubelets. For tests of
 * clients, and for benches that need a large cluster's objects without the cluster.
 *
 *     const api = await RealApiServer.start()                     on loopback, at ports of its own
 *     const api = await RealApiServer.start({ netns, address })   inside a namespace, where nodes of tests reach it
 *
 * Both programs end with the process that started them, however that ends (PR_SET_PDEATHSIG).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HttpClient, type RequestObserver } from '../../src/cluster/http-client.ts'
import { readKubeconfig } from '../../src/cluster/kubernetes/kubeconfig.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { Authority, type Issue } from '../../src/lab/certificates.ts'
import { certificateKubeconfig } from '../../src/lab/kubernetes/control-plane.ts'
import { ensurePrograms, type Programs } from '../../src/lab/kubernetes/programs.ts'
import { Relay } from './relay.ts'

export type Flags = Readonly<Record<string, string>>

export interface ApiServerWish {
  /** Where it runs and listens; this machine's loopback when left out. */
  readonly place?: { readonly netns: string; readonly address: string }
  /** Added to the API server's own, or instead of them. */
  readonly flags?: Flags
  /** Users whose requests are written down. */
  readonly audited?: readonly string[]
}

/** A request as the API server's audit log has it. */
export interface AuditedRequest {
  readonly user: string
  readonly verb: string
  /** Path and query. */
  readonly uri: string
  readonly code: number
  /** Unix time in milliseconds, when it arrived. */
  readonly atMs: number
}

interface AuditEvent {
  readonly stage: string
  readonly verb: string
  readonly requestURI: string
  readonly requestReceivedTimestamp: string
  readonly user: { readonly username: string }
  readonly responseStatus?: { readonly code: number }
}

/** Masters of the cluster: the administrator of tests. */
const admin: Issue = { commonName: 'admin', organizations: ['system:masters'], usages: ['client'] }

const memory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

/** Removes what tests that were killed have left. */
function sweep(): void {
  for (const name of readdirSync(memory)) {
    const pid = /^weft-test-api-(\d+)-/.exec(name)?.[1]
    if (pid && !existsSync(`/proc/${pid}`)) rmSync(join(memory, name), { recursive: true, force: true })
  }
}

const START_TIMEOUT_MS = 120_000
const SECURE_PORT = 6443

export class RealApiServer {
  readonly folder: string
  /** As clients in its own namespace reach it. */
  readonly url: string
  /** From this machine's loopback to it, with faults to order. */
  readonly relay: Relay
  readonly #wish: ApiServerWish
  readonly #programs: Programs
  readonly #authority = Authority.make()
  readonly #etcdPort: number
  readonly #children = new Map<'etcd' | 'kube-apiserver', ChildProcess>()
  #client: HttpClient | undefined

  private constructor(wish: ApiServerWish, programs: Programs, ports: { readonly api: number; readonly etcd: number }) {
    this.#wish = wish
    this.#programs = programs
    // What etcd writes is lost with the test anyway: memory spares the disk its many flushes.
    this.folder = mkdtempSync(join(memory, `weft-test-api-${process.pid}-`))
    process.once('exit', () => rmSync(this.folder, { recursive: true, force: true }))
    const address = wish.place?.address ?? '127.0.0.1'
    this.url = `https://${address}:${ports.api}`
    this.relay = new Relay({ ...(wish.place ? { netns: wish.place.netns } : {}), address, port: ports.api })
    this.#etcdPort = ports.etcd
    this.#writeCredentials(address)
  }

  static async start(wish: ApiServerWish = {}): Promise<RealApiServer> {
    sweep()
    const programs = await ensurePrograms((line) => console.log(line))
    const ports = wish.place ? { api: SECURE_PORT, etcd: 2379 } : { api: await freePort(), etcd: await freePort() }
    const server = new RealApiServer(wish, programs, ports)
    try {
      await server.relay.listen()
      server.#spawn('etcd', programs.etcd, server.#etcdFlags())
      await server.startApi()
    } catch (error) {
      await server.close()
      throw error
    }
    return server
  }

  /** An administrator's client, by a way of its own that no fault touches. */
  get client(): HttpClient {
    this.#client ??= this.clientAs(admin, { direct: true })
    return this.#client
  }

  /** A client through the relay, or past it. */
  clientAs(who: Issue = admin, options: { readonly direct?: boolean; readonly observe?: RequestObserver } = {}) {
    const direct = options.direct === true && this.#wish.place === undefined
    return new HttpClient(readKubeconfig(this.kubeconfig(who, direct ? this.url : this.relay.url)), options.observe)
  }

  /** Writes a kubeconfig with a new certificate for somebody; its path. */
  kubeconfig(who: Issue = admin, server = this.url): string {
    const { cert, key } = this.#authority.issue(who)
    const path = join(this.folder, `${who.commonName.replaceAll(':', '-')}-${server.split(':').at(-1)}.kubeconfig`)
    const ca = this.#authority.cert
    const text = certificateKubeconfig({ cluster: 'test', server, user: who.commonName, ca, cert, key })
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }

  get authority(): Authority {
    return this.#authority
  }

  get pid(): number {
    return this.#children.get('kube-apiserver')!.pid!
  }

  /** Starts the API server; resolves when it is ready. `flags` replace those of the wish. */
  async startApi(flags: Flags = this.#wish.flags ?? {}): Promise<void> {
    this.#spawn('kube-apiserver', join(this.#programs.folder, 'kubernetes'), { ...this.#apiFlags(), ...flags }, [
      'kube-apiserver',
    ])
    const deadline = performance.now() + START_TIMEOUT_MS
    for (;;) {
      const problem = await this.client.request({ method: 'GET', path: '/api/v1/namespaces/default' }).then(
        () => undefined,
        (error: Error) => error.message,
      )
      if (problem === undefined) return
      if (performance.now() > deadline || this.#children.get('kube-apiserver')!.exitCode !== null)
        throw new Error(`kube-apiserver is not ready: ${problem}\n${this.#logTail('kube-apiserver')}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  async stopApi(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    await this.#end('kube-apiserver', signal)
  }

  /** Forgets all history up to now in etcd. */
  compact(): void {
    const status = JSON.parse(this.etcdctl('endpoint', 'status', '--write-out=json')) as {
      Status: { header: { revision: number } }
    }[]
    this.etcdctl('compact', String(status[0]!.Status.header.revision))
  }

  etcdctl(...args: readonly string[]): string {
    const run = () =>
      spawnSync('etcdctl', [`--endpoints=http://127.0.0.1:${this.#etcdPort}`, ...args], {
        encoding: 'utf8',
        env: { PATH: process.env.PATH, ETCDCTL_API: '3' },
      })
    const { status, stdout, stderr } = this.#wish.place ? inNetns(this.#wish.place.netns, run) : run()
    if (status !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${stderr}`)
    return stdout
  }

  /** Readings of the API server's own metrics whose name and labels match, summed. */
  async metric(pattern: RegExp): Promise<number> {
    let text = ''
    await this.client.stream({ method: 'GET', path: '/metrics' }, (line) => {
      if (pattern.test(line)) text += `${line}\n`
    })
    const values = text.split('\n').map((line) => Number(line.slice(line.lastIndexOf(' ') + 1)))
    return values.reduce((sum, value) => sum + value, 0)
  }

  /** What the users of `audited` asked for so far, in order of arrival. A watch counts when it begins. */
  requests(user?: string): AuditedRequest[] {
    const path = this.#auditLog
    const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
    const events = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as AuditEvent)
    return events
      .filter(({ verb, stage }) => (verb === 'watch' ? stage === 'ResponseStarted' : stage === 'ResponseComplete'))
      .filter(({ user: { username } }) => user === undefined || username === user)
      .map(({ verb, requestURI: uri, requestReceivedTimestamp, user: { username }, responseStatus }) => ({
        user: username,
        verb,
        uri,
        code: responseStatus?.code ?? 0,
        atMs: Date.parse(requestReceivedTimestamp),
      }))
      .sort((a, b) => a.atMs - b.atMs)
  }

  get #auditLog(): string {
    return join(this.folder, 'audit.log')
  }

  async close(): Promise<void> {
    this.#client?.close()
    this.relay.close()
    await this.#end('kube-apiserver', 'SIGKILL')
    await this.#end('etcd', 'SIGKILL')
    rmSync(this.folder, { recursive: true, force: true })
  }

  #writeCredentials(address: string): void {
    const names = ['127.0.0.1', 'localhost', address]
    const { cert, key } = this.#authority.issue({ commonName: 'kube-apiserver', names, usages: ['server'] })
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const files = {
      'ca.crt': this.#authority.cert,
      'apiserver.crt': cert,
      'apiserver.key': key,
      'accounts.key': privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      'accounts.pub': createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString(),
    }
    const { audited = [] } = this.#wish
    const policy = {
      apiVersion: 'audit.k8s.io/v1',
      kind: 'Policy',
      rules: [...(audited.length > 0 ? [{ level: 'Metadata', users: audited }] : []), { level: 'None' }],
    }
    writeFileSync(join(this.folder, 'audit-policy.json'), JSON.stringify(policy))
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.folder, name), text, { mode: 0o600 })
  }

  #etcdFlags(): Flags {
    const url = `http://127.0.0.1:${this.#etcdPort}`
    // Port 0: nobody joins a cluster of one.
    const peers = 'http://127.0.0.1:0'
    return {
      'data-dir': join(this.folder, 'etcd'),
      'listen-client-urls': url,
      'advertise-client-urls': url,
      'listen-peer-urls': peers,
      'initial-advertise-peer-urls': peers,
      'initial-cluster': `default=${peers}`,
      'log-level': 'warn',
    }
  }

  #apiFlags(): Flags {
    const file = (name: string) => join(this.folder, name)
    const { hostname, port } = new URL(this.url)
    return {
      'etcd-servers': `http://127.0.0.1:${this.#etcdPort}`,
      'bind-address': hostname,
      'advertise-address': this.#wish.place ? hostname : '192.0.2.1',
      'secure-port': port,
      'tls-cert-file': file('apiserver.crt'),
      'tls-private-key-file': file('apiserver.key'),
      'client-ca-file': file('ca.crt'),
      'service-account-issuer': 'https://kubernetes.default.svc.cluster.local',
      'service-account-signing-key-file': file('accounts.key'),
      'service-account-key-file': file('accounts.pub'),
      'service-cluster-ip-range': '10.96.0.0/16',
      'authorization-mode': 'Node,RBAC',
      // Pods need no service account here: there is no controller that would make one.
      'disable-admission-plugins': 'ServiceAccount',
      'allow-privileged': 'true',
      'endpoint-reconciler-type': 'none',
      // A server that is told to end waits so long for the watches of others.
      'request-timeout': '15s',
      'shutdown-delay-duration': '0s',
      'audit-policy-file': file('audit-policy.json'),
      'audit-log-path': this.#auditLog,
      'audit-log-mode': 'blocking',
    }
  }

  #spawn(name: 'etcd' | 'kube-apiserver', program: string, flags: Flags, first: readonly string[] = []): void {
    const argv = [...first, ...Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`)]
    const output = openSync(this.#logFile(name), 'a')
    const start = () =>
      spawn('setpriv', ['--pdeathsig', 'KILL', program, ...argv], {
        cwd: '/',
        stdio: ['ignore', output, output],
        env: { PATH: process.env.PATH, HOME: this.folder },
      })
    this.#children.set(name, this.#wish.place ? inNetns(this.#wish.place.netns, start) : start())
    closeSync(output)
  }

  async #end(name: 'etcd' | 'kube-apiserver', signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.#children.get(name)
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await ended
  }

  #logFile(name: string): string {
    return join(this.folder, `${name}.log`)
  }

  #logTail(name: string): string {
    return readFileSync(this.#logFile(name), 'utf8').slice(-4000)
  }
}

/** A port of loopback that nobody has, a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}
