/**
 * Two namespaces joined by an underlay of MTU 1500, each with a user-space tunnel or the plain loop that flannel's proxy is
 * stood for by, and addresses of an inner network on the loopback.
 *
 *   10.1.1.1 [left] flannel0 ─ 192.168.0.1 ═══ 192.168.0.2 ─ flannel0 [right] 10.1.2.1
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { forgetTunnel, TunnelConnection, tunnelDirectory } from '../../src/kernel/linux/tunnel-client.ts'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

/** Tunnel processes inherit this: a later test can tell whose they are when this one was killed. */
process.env.WEFT_LAB = `weft-test-${process.pid}`

/** Ends the tunnel processes of tests that are gone. */
function sweep(isOver: (testPid: number) => boolean): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('/weft-tunnel\0')) continue
      const owner = /(?:^|\0)WEFT_LAB=weft-test-(\d+)\0/.exec(readFileSync(`/proc/${pid}/environ`, 'utf8'))?.[1]
      if (owner && isOver(Number(owner))) process.kill(Number(pid), 'SIGKILL')
    } catch {
      // Gone meanwhile.
    }
  }
}
sweep((testPid) => {
  try {
    process.kill(testPid, 0)
    return false
  } catch {
    return true
  }
})
process.once('exit', () => sweep((testPid) => testPid === process.pid))

export const native = (name: string): string => fileURLToPath(new URL(`../../dist/native/${name}`, import.meta.url))

export type TunnelKind = 'weft' | 'plain'
export type Outer = 4 | 6

export class TunnelEnd {
  readonly namespace = new TestNamespace()
  readonly number: number
  readonly outer: Outer
  #plain: ChildProcess | undefined

  constructor(number: number, outer: Outer) {
    this.number = number
    this.outer = outer
  }

  outerIp(number = this.number): Ip {
    return Ip.parse(this.outer === 4 ? `192.168.0.${number}` : `fd01::${number}`)
  }

  get mtuBytes(): number {
    return this.outer === 4 ? 1472 : 1452
  }

  innerIp(family: 4 | 6): string {
    return family === 4 ? `10.1.${this.number}.1` : `fd00:${this.number}::1`
  }

  /** Everything that a plan would ask for, in order. */
  objects(): KernelObject[] {
    const other = 3 - this.number
    const device = 'flannel0'
    const mtuBytes = this.mtuBytes
    const subnets = [Cidr.parse(`10.1.${this.number}.0/24`), Cidr.parse(`fd00:${this.number}::/64`)]
    const theirs = [Cidr.parse(`10.1.${other}.0/24`), Cidr.parse(`fd00:${other}::/64`)]
    return [
      {
        kind: 'link',
        name: device,
        type: 'tun',
        settings: { mode: 'tun', vnetHeader: true, persist: true },
        mtuBytes,
        up: true,
        addressGeneration: 'none',
        alias: 'weft:udp',
      },
      { kind: 'tunnel', device, mtuBytes, local: this.outerIp(), port: 8285, subnets },
      ...theirs.map((subnet): KernelObject => {
        return { kind: 'tunnel-peer', device, subnet, remote: this.outerIp(other), port: 8285 }
      }),
      ...theirs.map((destination, i): KernelObject => {
        const source = Ip.parse(this.innerIp(i === 0 ? 4 : 6))
        return { kind: 'route', destination, source, hops: [{ device }], protocol: 119 }
      }),
    ]
  }

  async start(kind: TunnelKind): Promise<void> {
    this.namespace.run(`ip addr add ${this.innerIp(4)}/24 dev lo; ip addr add ${this.innerIp(6)}/64 dev lo nodad`)
    if (kind === 'weft') return this.execute(this.objects().map((object) => ({ verb: 'add', object })))
    const other = 3 - this.number
    const args = ['--device', 'flannel0', '--mtu', `${this.mtuBytes}`, '--local', `${this.outerIp()}`]
    const peer = ['--peer', `10.1.${other}.0/24=${this.outerIp(other)}`]
    const command = ['netns', 'exec', this.namespace.name, native('weft-udp-loop'), ...args, ...peer]
    this.#plain = spawn('ip', command, { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(this.#plain.stdout!, 'data')
    this.namespace.run(`ip link set flannel0 up; ip route add 10.1.${other}.0/24 dev flannel0 src ${this.innerIp(4)}`)
  }

  async execute(ops: readonly KernelOp[]): Promise<void> {
    for (const result of await this.namespace.kernel.execute(ops)) if (result) throw result
  }

  get #directory(): string {
    return tunnelDirectory(statSync(this.namespace.path).ino)
  }

  /** A connection of one's own to the tunnel process. */
  async connect(): Promise<TunnelConnection> {
    const connection = await TunnelConnection.open(this.#directory, 'flannel0')
    if (!connection) throw new Error(`no tunnel answers in ${this.#directory}`)
    return connection
  }

  async counter(name: string): Promise<number> {
    const connection = await this.connect()
    const value = (await connection.readCounters()).get(name)
    connection.close()
    if (value === undefined) throw new Error(`no counter ${name}`)
    return value
  }

  async delete(): Promise<void> {
    this.#plain?.kill('SIGKILL')
    const connection = await this.connect().catch(() => undefined)
    await connection?.shutdown()
    forgetTunnel(this.#directory, 'flannel0')
    this.namespace.delete()
  }
}

export class TunnelPair {
  readonly left: TunnelEnd
  readonly right: TunnelEnd

  private constructor(outer: Outer) {
    this.left = new TunnelEnd(1, outer)
    this.right = new TunnelEnd(2, outer)
    const [a, b] = [this.left.namespace, this.right.namespace]
    a.run(`ip link add u0 mtu 1500 type veth peer name u0 netns ${b.name}`)
    for (const [end, n] of [
      [a, 1],
      [b, 2],
    ] as const) {
      end.run(`ip link set u0 up; ip addr add 192.168.0.${n}/24 dev u0; ip addr add fd01::${n}/64 dev u0 nodad`)
    }
  }

  static async start(left: TunnelKind, right: TunnelKind, outer: Outer = 4): Promise<TunnelPair> {
    const pair = new TunnelPair(outer)
    await pair.left.start(left)
    await pair.right.start(right)
    return pair
  }

  async delete(): Promise<void> {
    await this.left.delete()
    await this.right.delete()
  }
}

/** Sends `megabytes` of noise over TCP and gives the digests at both ends. */
export async function transfer(from: TunnelEnd, to: TunnelEnd, family: 4 | 6, megabytes: number): Promise<string[]> {
  const target = family === 4 ? `TCP4:${to.innerIp(4)}:5001` : `TCP6:[${to.innerIp(6)}]:5001`
  const listen = family === 4 ? 'TCP4-LISTEN:5001' : 'TCP6-LISTEN:5001'
  const bash = (end: TunnelEnd, script: string) =>
    spawn('ip', ['netns', 'exec', end.namespace.name, 'bash', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const receiver = bash(to, `socat -u ${listen},reuseaddr STDOUT | sha256sum`)
  const noise = `openssl enc -aes-128-ctr -nosalt -pass pass:weft -in /dev/zero 2>/dev/null | head -c ${megabytes}M`
  const sender = bash(from, `${noise} | tee >(socat -u STDIN ${target},retry=50,interval=0.1) | sha256sum`)
  const read = async (child: ChildProcess): Promise<string> => {
    let text = ''
    child.stdout!.on('data', (chunk) => {
      text += chunk
    })
    await once(child, 'close')
    return text.slice(0, 64)
  }
  return Promise.all([read(sender), read(receiver)])
}

/** Runs one of weft's own measuring programs inside and gives the JSON that it printed. */
export function ping1k(end: TunnelEnd, args: string): { sent: number; lost: number; rttUs: { p50: number } } {
  const command = ['netns', 'exec', end.namespace.name, native('weft-pod'), 'ping1k', ...args.split(' ')]
  return JSON.parse(execFileSync('ip', command, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
}
