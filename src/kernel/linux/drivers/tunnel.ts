/**
 * User-space tunnels and their peers as kernel objects: the kernel does not know them, their processes do. A process that
 * is already there and is what is wanted is adopted; one of another version, address or port is replaced by one that takes
 * the device over from it while both run, so that no packet is lost, and its peers. The device and the routes over it stay
 * in any case: they are objects of their own.
 *
 * Sources: native/README.md (the control protocol).
 */
import { statSync } from 'node:fs'
import { formatOp } from '../../../model/format.ts'
import type { KernelObject, ObjectKind } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import type { Tunnel, TunnelPeer } from '../../../model/link.ts'
import { errnoOf, kernelError } from '../../errno.ts'
import type { KernelEvent, OpResult, Watch } from '../../kernel.ts'
import type { Driver, DriverContext, DriverSession } from '../driver.ts'
import {
  forgetTunnel,
  listTunnelSockets,
  startTunnel,
  TunnelConnection,
  TunnelRefusal,
  tunnelDirectory,
  tunnelProgram,
} from '../tunnel-client.ts'

export const tunnelDriver: Driver = {
  name: 'tunnel',
  kinds: ['tunnel', 'tunnel-peer'],
  open: (context) => new TunnelSession(context),
}

class TunnelSession implements DriverSession {
  readonly #context: DriverContext
  readonly #netns: number
  readonly #connections = new Map<string, TunnelConnection>()
  readonly #listeners = new Set<(event: KernelEvent) => void>()
  /** Tunnels that this session itself is ending: their end is no news. */
  readonly #ending = new Set<TunnelConnection>()
  #closed = false

  constructor(context: DriverContext) {
    this.#context = context
    this.#netns = context.inside(() => statSync('/proc/thread-self/ns/net').ino)
  }

  get #directory(): string {
    return tunnelDirectory(this.#netns)
  }

  async read(kinds: readonly ObjectKind[]): Promise<KernelObject[]> {
    const found: KernelObject[] = []
    for (const device of listTunnelSockets(this.#directory)) {
      const connection = await this.#connection(device)
      // One that ends while it is read is one that is not there.
      const state = await connection?.readState().catch(() => undefined)
      if (!state || state.netns !== this.#netns) continue
      if (kinds.includes('tunnel')) found.push(state.tunnel)
      if (kinds.includes('tunnel-peer')) found.push(...state.peers)
    }
    return found
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    const results: Promise<OpResult>[] = []
    for (const op of ops) {
      if (op.object.kind === 'tunnel') {
        // What was asked of peers before belongs to the process as it was before.
        await Promise.all(results)
        const result = this.#performTunnel(op, op.object)
        results.push(settle(op, result))
        await Promise.allSettled([result])
      } else {
        const peer = op.object as TunnelPeer
        const connection = await this.#connection(peer.device)
        results.push(settle(op, performPeer(op, peer, connection)))
      }
    }
    return Promise.all(results)
  }

  watch(_kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    this.#listeners.add(listener)
    return { close: () => this.#listeners.delete(listener) }
  }

  close(): void {
    this.#closed = true
    for (const connection of this.#connections.values()) connection.close()
    this.#connections.clear()
  }

  async #performTunnel(op: KernelOp, tunnel: Tunnel): Promise<void> {
    const standing = await this.#connection(tunnel.device)
    if (op.verb === 'delete') {
      if (!standing) throw new Refused('ENOENT', `there is no tunnel on ${tunnel.device}`)
      await this.#end(standing)
      return forgetTunnel(this.#directory, tunnel.device)
    }
    const state = await standing?.readState()
    if (!standing || !state) return this.#start(tunnel)
    const isUsable =
      state.version === tunnelProgram().version &&
      state.netns === this.#netns &&
      state.tunnel.local.equals(tunnel.local) &&
      state.tunnel.port === tunnel.port
    if (!isUsable) {
      if (state.netns === this.#netns) return this.#replace(standing, tunnel)
      // A folder that outlived its namespace, whose number another got.
      await this.#end(standing)
      return this.#start(tunnel)
    }
    if (state.tunnel.mtuBytes !== tunnel.mtuBytes) await standing.request(`set-mtu ${tunnel.mtuBytes}`)
    if (tunnel.subnets && tunnel.subnets.join() !== state.tunnel.subnets?.join())
      await standing.request(`set-subnets ${tunnel.subnets.join(' ')}`)
  }

  async #start(tunnel: Tunnel, takeOver = false): Promise<void> {
    const connection = await startTunnel((call) => this.#context.inside(call), this.#directory, tunnel, takeOver)
    this.#keep(tunnel.device, connection)
  }

  /** The old process ends when the new one is ready, and goes on when that fails. */
  async #replace(standing: TunnelConnection, tunnel: Tunnel): Promise<void> {
    this.#ending.add(standing)
    try {
      await this.#start(tunnel, true)
    } catch (error) {
      this.#ending.delete(standing)
      throw error
    }
  }

  async #end(connection: TunnelConnection): Promise<void> {
    this.#ending.add(connection)
    try {
      await connection.shutdown()
    } catch (error) {
      this.#ending.delete(connection)
      throw error
    }
  }

  /** The connection to a device's tunnel; a new one when there was none or the old one ended. */
  async #connection(device: string): Promise<TunnelConnection | undefined> {
    const kept = this.#connections.get(device)
    if (kept) return kept
    const connection = await TunnelConnection.open(this.#directory, device)
    if (connection) this.#keep(device, connection)
    return connection
  }

  #keep(device: string, connection: TunnelConnection): void {
    this.#connections.set(device, connection)
    void connection.closed.then(() => {
      if (this.#connections.get(device) === connection) this.#connections.delete(device)
      if (this.#ending.delete(connection) || this.#closed) return
      for (const listener of this.#listeners) listener({ type: 'resync' })
    })
  }
}

async function performPeer(op: KernelOp, peer: TunnelPeer, connection: TunnelConnection | undefined): Promise<void> {
  if (!connection) throw new Refused('ENODEV', `there is no tunnel on ${peer.device}`)
  if (op.verb === 'delete') await connection.request(`delete-peer ${peer.subnet}`)
  else await connection.request(`set-peer ${peer.subnet} ${peer.remote} ${peer.port}`)
}

class Refused extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** Errors as results, in the words of the tunnel. */
async function settle(op: KernelOp, work: Promise<void>): Promise<OpResult> {
  try {
    await work
    return undefined
  } catch (cause) {
    const error = cause as Error
    const code = error instanceof Refused ? error.code : error instanceof TunnelRefusal ? 'EINVAL' : 'EIO'
    return kernelError(formatOp(op), errnoOf(code), { extack: error.message }, { cause })
  }
}
