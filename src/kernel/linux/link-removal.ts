/**
 * Deletes devices without stopping the event loop. Unregistering waits 16–20 ms for RCU however many devices go at
 * once, so deletes are gathered: while one send is under way, on a worker thread and a socket of its own, those that
 * come join the next, which moves them into one device group and deletes the group.
 *
 *   delete a ──► send [DELLINK a]                                      16 ms
 *   delete b, c, d (meanwhile) ──► send [SETLINK b,c,d group g][DELLINK group g]   16 ms for the three
 *
 * Sources: net/core/rtnetlink.c (rtnl_group_dellink), net/core/dev.c (unregister_netdevice_many).
 */
import type { KernelError } from '../../model/errors.ts'
import type { Acknowledgement } from '../../wire/netlink/message.ts'
import { RTM_DELLINK, RTM_NEWLINK } from '../../wire/rtnetlink/constants.gen.ts'
import { linkMessage, linkRequest } from '../../wire/rtnetlink/link.ts'
import type { OpResult } from '../kernel.ts'
import { failureError, type NetlinkSocket, nextTurn } from './netlink-socket.ts'

/** Groups of devices on their way out: a range that nobody configures by hand. */
const GROUP_BASE = 0x77000000

interface Removal {
  readonly device: string
  readonly op: string
  readonly resolve: (result: OpResult) => void
}

export class LinkRemoval {
  readonly #openSocket: () => NetlinkSocket
  #socket: NetlinkSocket | undefined
  #waiting: Removal[] = []
  #running = false
  #closed = false
  #nextGroup = GROUP_BASE + Math.floor(Math.random() * 0xffff) * 0x100

  constructor(openSocket: () => NetlinkSocket) {
    this.#openSocket = openSocket
  }

  /** Deletes a device by name; `op` is how an operator would say it. */
  delete(device: string, op: string): Promise<OpResult> {
    return new Promise((resolve) => {
      this.#waiting.push({ device, op, resolve })
      void this.#run()
    })
  }

  /** Deletes every device of a group. */
  async deleteGroup(group: number): Promise<OpResult> {
    const socket = this.#openSocket()
    try {
      const failure = await this.#sendGroupDelete(socket, group)
      return failure && failure.errno !== ENODEV ? failureError(`ip link delete group ${group}`, failure) : undefined
    } finally {
      socket.close()
    }
  }

  close(): void {
    this.#closed = true
    if (!this.#running) this.#socket?.close()
  }

  async #run(): Promise<void> {
    if (this.#running) return
    this.#running = true
    // What is asked for in this turn of the event loop goes together.
    await nextTurn()
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, MAX_AT_ONCE)
      try {
        this.#socket ??= this.#openSocket()
        if (batch.length === 1) await this.#deleteEach(this.#socket, batch)
        else await this.#deleteTogether(this.#socket, batch)
      } catch (error) {
        for (const removal of batch) removal.resolve(error as KernelError)
      }
    }
    this.#running = false
    if (this.#closed) this.#socket?.close()
  }

  async #deleteEach(socket: NetlinkSocket, removals: readonly Removal[]): Promise<void> {
    const batch = socket.batch()
    for (const { device } of removals) {
      const start = batch.begin(RTM_DELLINK, 0)
      linkMessage.encode(batch.writer, { header: linkRequest(0), attributes: { name: device } })
      batch.end(start)
    }
    const failures = await socket.transactAsync(batch)
    for (const [i, removal] of removals.entries()) settle(removal, failures.get(batch.firstSequence + i))
  }

  async #deleteTogether(socket: NetlinkSocket, removals: readonly Removal[]): Promise<void> {
    const group = this.#nextGroup++
    const moved: Removal[] = []
    const seen = new Set<string>()
    const batch = socket.batch()
    for (const { device } of removals) {
      const start = batch.begin(RTM_NEWLINK, 0)
      linkMessage.encode(batch.writer, { header: linkRequest(0), attributes: { name: device, group } })
      batch.end(start)
    }
    const failures = socket.transact(batch)
    for (const [i, removal] of removals.entries()) {
      const again = seen.has(removal.device) ? { errno: ENODEV } : undefined
      seen.add(removal.device)
      const failure = failures.get(batch.firstSequence + i) ?? again
      if (failure) settle(removal, failure)
      else moved.push(removal)
    }
    const failure = moved.length > 0 ? await this.#sendGroupDelete(socket, group) : undefined
    // A group with a device that cannot be deleted is refused whole: each on its own then, to tell which.
    if (failure) await this.#deleteEach(socket, moved)
    else for (const removal of moved) settle(removal, undefined)
  }

  async #sendGroupDelete(socket: NetlinkSocket, group: number): Promise<Acknowledgement | undefined> {
    const batch = socket.batch()
    const start = batch.begin(RTM_DELLINK, 0)
    linkMessage.encode(batch.writer, { header: linkRequest(0), attributes: { group } })
    batch.end(start)
    return (await socket.transactAsync(batch)).get(batch.firstSequence)
  }
}

const ENODEV = 19
const MAX_AT_ONCE = 512

function settle(removal: Removal, failure: Acknowledgement | undefined): void {
  removal.resolve(failure && failureError(removal.op, failure))
}
