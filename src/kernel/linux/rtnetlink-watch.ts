/**
 * Multicast of rtnetlink: what anybody changes in a namespace, as events. The watch keeps the names of devices by index,
 * so that an event about a device that is gone by now still names it. When the kernel had to drop messages (ENOBUFS), or
 * a message cannot be decoded, the listener is told to read again.
 *
 * Making one device is told in half a dozen messages, each about the whole device. Of messages about one device that
 * follow each other with nothing but link messages between, only the last is decoded and told.
 *
 * Sources: include/uapi/linux/rtnetlink.h (RTNLGRP_*).
 */
import { DecodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { keyOf } from '../../model/kernel-object.ts'
import { NETLINK_ROUTE } from '../../wire/netlink/constants.gen.ts'
import { type MessageHeader, readMessages } from '../../wire/netlink/message.ts'
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../../wire/rtnetlink/constants.gen.ts'
import { describeRtnetlink } from '../../wire/rtnetlink/describe.ts'
import { linkHeader, linkMessage } from '../../wire/rtnetlink/link.ts'
import type { KernelEvent, Watch } from '../kernel.ts'
import type { DriverContext } from './driver.ts'
import { MulticastSocket } from './multicast-socket.ts'
import { nlDebug } from './netlink-debug.ts'
import type { AnyRtnetlinkKind, DeviceNames } from './rtnetlink-kind.ts'

/** Devices whose last message may wait; more would keep the event loop for long when they are told. */
const MAX_PENDING = 8

const AF_BRIDGE = 7

/**
 * A bridge tells each port's state again, in messages of a family of their own: half of what the making of a pod's device
 * is told in. Each comes alone, and is looked at no further.
 */
const isPortState = (datagram: Uint8Array): boolean =>
  datagram[4] === RTM_NEWLINK && datagram[5] === 0 && datagram[16] === AF_BRIDGE

export class RtnetlinkWatch implements Watch, DeviceNames {
  readonly #context: DriverContext
  readonly #kinds: readonly AnyRtnetlinkKind[]
  readonly #listener: (event: KernelEvent) => void
  readonly #watchesLinks: boolean
  /** The last message about each device, of the run of link messages under way. */
  readonly #pending = new Map<number, { readonly header: MessageHeader; readonly payload: Uint8Array }>()
  readonly #names = new Map<number, string>()
  readonly #socket: MulticastSocket

  constructor(context: DriverContext, kinds: readonly AnyRtnetlinkKind[], listener: (event: KernelEvent) => void) {
    this.#context = context
    this.#kinds = kinds
    this.#listener = listener
    this.#watchesLinks = kinds.some(({ kind }) => kind === 'link')
    const groups = new Set([RTNLGRP_LINK, ...kinds.flatMap((kind) => kind.groups)])
    const listeners = {
      datagram: (bytes: Uint8Array) => this.#receive(bytes),
      drained: () => this.#attempt(() => this.#tellLinks()),
      lost: () => this.#resync(),
    }
    this.#socket = context.inside(() => new MulticastSocket(NETLINK_ROUTE, groups, listeners))
  }

  name(index: number): string {
    let name = this.#names.get(index)
    if (name === undefined) {
      name = this.#context.deviceName(index)
      if (name === undefined) return `#${index}`
      this.#names.set(index, name)
    }
    return name
  }

  close(): void {
    this.#socket.close()
  }

  #resync(): void {
    this.#names.clear()
    this.#pending.clear()
    this.#listener({ type: 'resync' })
  }

  #receive(datagram: Uint8Array): void {
    nlDebug?.('*', this.#context.netnsPath ?? '', datagram, describeRtnetlink)
    if (isPortState(datagram)) return
    this.#attempt(() => this.#visit(datagram))
  }

  #attempt(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error
      this.#resync()
    }
  }

  #visit(datagram: Uint8Array): void {
    readMessages(datagram, (header, payload) => {
      const isLink = header.type === RTM_NEWLINK || header.type === RTM_DELLINK
      if (!isLink) {
        this.#tellLinks()
        this.#tell(header, payload)
        return
      }
      const start = payload.offset
      if (payload.buffer[start] !== 0) return
      const { index } = linkHeader.decode(payload)
      payload.offset = start
      if (header.type === RTM_NEWLINK) {
        this.#pending.set(index, { header, payload: payload.buffer.slice(start, payload.end) })
        if (this.#pending.size >= MAX_PENDING) this.#tellLinks()
        return
      }
      this.#pending.delete(index)
      this.#tell(header, payload)
      this.#names.delete(index)
    })
  }

  #tellLinks(): void {
    if (this.#pending.size === 0) return
    const links = [...this.#pending.values()]
    this.#pending.clear()
    for (const { header, payload } of links) this.#tell(header, new Reader(payload))
  }

  #tell(header: MessageHeader, payload: Reader): void {
    const start = payload.offset
    if (header.type === RTM_NEWLINK && !this.#watchesLinks) {
      const { header: link, attributes } = linkMessage.decode(payload)
      if (attributes.name !== undefined) this.#names.set(link.index, attributes.name)
    }
    for (const row of this.#kinds) {
      const which = row.types.indexOf(header.type)
      if (which < 0) continue
      payload.offset = start
      const object = row.decode(header, payload, this)
      if (object?.kind === 'link' && object.ifindex !== undefined) this.#names.set(object.ifindex, object.name)
      if (object) this.#listener({ type: which === 0 ? 'new' : 'delete', key: keyOf(object), object })
    }
  }
}
