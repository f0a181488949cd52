/**
 * Readiness, liveness and startup probes: TCP and HTTP from the node's namespace to the pod's address, as a kubelet
 * does, and programs inside the pod. While a container has never answered, its first probes follow each other quickly, so
 * that a pod is ready when it is ready and not a period later.
 *
 * Sources: Kubernetes documentation, "Configure Liveness, Readiness and Startup Probes".
 */
import { request } from 'node:http'
import type { Socket } from 'node:net'
import { connect as secureConnect } from 'node:tls'
import { connectIn } from '../connect.ts'
import { type ContainerSpec, type ProbeSpec, portNumber } from './pod-spec.ts'

export interface ProbeTarget {
  /** Namespace to connect from. */
  readonly fromNetns: string
  readonly podIp: string
  readonly container: ContainerSpec
  /** Runs a program inside the container and resolves with its exit code. */
  exec(command: readonly string[], timeoutMs: number): Promise<number>
}

/** One attempt. Resolves when the container answered as it should; rejects with the reason. */
export async function probeOnce(probe: ProbeSpec, target: ProbeTarget): Promise<void> {
  const timeoutMs = (probe.timeoutSeconds ?? 1) * 1000
  if (probe.exec) {
    const code = await target.exec(probe.exec.command, timeoutMs)
    if (code !== 0) throw new Error(`command exited with ${code}`)
    return
  }
  const spec = probe.httpGet ?? probe.tcpSocket
  if (!spec) return
  const host = spec.host ?? target.podIp
  const socket = connectIn(target.fromNetns, host, portNumber(spec.port, target.container))
  try {
    await (probe.httpGet ? httpAnswer(socket, probe.httpGet, host, timeoutMs) : connected(socket, timeoutMs))
  } finally {
    socket.destroy()
  }
}

function connected(socket: Socket, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.setTimeout(timeoutMs, () => reject(new Error('connection timed out')))
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
}

function httpAnswer(
  socket: Socket,
  get: NonNullable<ProbeSpec['httpGet']>,
  host: string,
  timeoutMs: number,
): Promise<void> {
  const secure = get.scheme?.toUpperCase() === 'HTTPS'
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs)
    const settle = (error?: Error) => {
      clearTimeout(timer)
      if (error) reject(error)
      else resolve()
    }
    const headers = Object.fromEntries((get.httpHeaders ?? []).map(({ name, value }) => [name, value]))
    const options = {
      path: get.path ?? '/',
      headers: {
        host: host.includes(':') ? `[${host}]` : host,
        'user-agent': 'weft-lab-probe',
        connection: 'close',
        ...headers,
      },
    }
    const stream = secure ? secureConnect({ socket, rejectUnauthorized: false }) : socket
    const outgoing = request({ ...options, createConnection: () => stream })
    outgoing.on('error', settle)
    outgoing.on('response', (response) => {
      response.resume()
      const status = response.statusCode ?? 0
      settle(status >= 200 && status < 400 ? undefined : new Error(`HTTP probe failed with statuscode: ${status}`))
    })
    outgoing.end()
  })
}

const FIRST_WAITS_MS = [15, 25, 50, 100, 200, 400]

/** Probes until closed and tells each change: `healthy` after enough successes, not after enough failures. */
export class Prober {
  #timer: NodeJS.Timeout | undefined
  #closed = false
  #row = 0
  #last: boolean | undefined
  #attempts = 0
  #told: boolean | undefined
  readonly #probe: ProbeSpec
  readonly #target: ProbeTarget
  readonly #tell: (healthy: boolean, reason: string) => void
  readonly #eager: boolean

  /** `eager`: try quickly at first (readiness, startup); a liveness probe keeps to its period. */
  constructor(probe: ProbeSpec, target: ProbeTarget, eager: boolean, tell: (healthy: boolean, reason: string) => void) {
    this.#probe = probe
    this.#target = target
    this.#eager = eager
    this.#tell = tell
    this.#schedule((probe.initialDelaySeconds ?? 0) * 1000 || 5)
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #schedule(ms: number): void {
    if (!this.#closed) this.#timer = setTimeout(() => void this.#attempt(), ms)
  }

  async #attempt(): Promise<void> {
    let reason = ''
    let good = true
    try {
      await probeOnce(this.#probe, this.#target)
    } catch (error) {
      good = false
      reason = error instanceof Error ? error.message : String(error)
    }
    if (this.#closed) return
    const hurried = this.#eager && !good && this.#told !== true ? FIRST_WAITS_MS[this.#attempts++] : undefined
    this.#row = good === this.#last ? this.#row + 1 : 1
    this.#last = good
    const needed = good ? (this.#probe.successThreshold ?? 1) : (this.#probe.failureThreshold ?? 3)
    if (hurried !== undefined) {
      this.#row = 0
    } else if (this.#row >= needed && this.#told !== good) {
      this.#told = good
      this.#tell(good, reason)
    }
    const periodMs = (this.#probe.periodSeconds ?? 10) * 1000
    this.#schedule(Math.min(hurried ?? periodMs, periodMs))
  }
}
