/**
 * Multicast: what anybody changes in a namespace, as events. The netlink socket hangs in Node's own event loop, without
 * a thread and without polling: a datagram handle is opened on a placeholder UDP socket, whose file descriptor is then
 * made to mean the netlink socket (dup3) before the loop first looks at it. libuv reads it with recvmsg either way.
 *
 * The watch keeps the names of devices by index, so that an event about a device that is gone by now still names it.
 * When the kernel had to drop messages (ENOBUFS), the listener is told to read again.
 *
 * Sources: netlink(7) (ENOBUFS, NETLINK_ADD_MEMBERSHIP); include/uapi/linux/rtnetlink.h (RTNLGRP_*).
 */
import { createSocket, type Socket } from 'node:dgram'
import { keyOf } from '../../model/kernel-object.ts'
import * as nl from '../../wire/netlink/constants.gen.ts'
import { readMessages } from '../../wire/netlink/message.ts'
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../../wire/rtnetlink/constants.gen.ts'
import { describeRtnetlink } from '../../wire/rtnetlink/describe.ts'
import { linkMessage } from '../../wire/rtnetlink/link.ts'
import { kernelError } from '../errno.ts'
import type { KernelEvent, Watch } from '../kernel.ts'
import type { DriverContext } from './driver.ts'
import { nlDebug } from './netlink-debug.ts'
import { setReceiveBuffer } from './netlink-socket.ts'
import type { AnyRtnetlinkKind, DeviceNames } from './rtnetlink-kind.ts'
import * as syscalls from './syscalls.ts'

const RECEIVE_BUFFER_BYTES = 16 << 20
/** Datagrams read in one go before the event loop gets its turn. */
const MAX_DRAIN = 256

const inbox = new Uint8Array(64 * 1024)

export class RtnetlinkWatch implements Watch, DeviceNames {
  readonly #context: DriverContext
  readonly #kinds: readonly AnyRtnetlinkKind[]
  readonly #listener: (event: KernelEvent) => void
  readonly #names = new Map<number, string>()
  readonly #socket: Socket
  readonly #fd: number
  #closed = false

  constructor(context: DriverContext, kinds: readonly AnyRtnetlinkKind[], listener: (event: KernelEvent) => void) {
    this.#context = context
    this.#kinds = kinds
    this.#listener = listener
    const groups = new Set([RTNLGRP_LINK, ...kinds.flatMap((kind) => kind.groups)])
    const { socket, fd } = context.inside(() => openMulticast(groups))
    this.#socket = socket
    this.#fd = fd
    socket.on('message', (datagram) => this.#receive(datagram))
    socket.on('error', () => this.#resync())
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
    if (this.#closed) return
    this.#closed = true
    this.#socket.close()
  }

  #resync(): void {
    if (this.#closed) return
    this.#names.clear()
    this.#listener({ type: 'resync' })
  }

  #receive(first: Uint8Array): void {
    this.#visit(first)
    for (let i = 0; i < MAX_DRAIN && !this.#closed; i++) {
      const got = syscalls.recv(this.#fd, inbox, syscalls.MSG_DONTWAIT)
      if (got === -syscalls.ENOBUFS) this.#resync()
      else if (got <= 0) return
      else this.#visit(inbox.subarray(0, got))
    }
  }

  #visit(datagram: Uint8Array): void {
    nlDebug?.('*', this.#context.netnsPath ?? '', datagram, describeRtnetlink)
    readMessages(datagram, (header, payload) => {
      const start = payload.offset
      if (header.type === RTM_NEWLINK) {
        const { header: link, attributes } = linkMessage.decode(payload)
        if (attributes.name !== undefined) this.#names.set(link.index, attributes.name)
      }
      for (const row of this.#kinds) {
        const which = row.types.indexOf(header.type)
        if (which < 0) continue
        payload.offset = start
        const object = row.decode(header, payload, this)
        if (object) this.#listener({ type: which === 0 ? 'new' : 'delete', key: keyOf(object), object })
      }
      if (header.type === RTM_DELLINK) {
        payload.offset = start
        const { header: link } = linkMessage.decode(payload)
        if (link.family === 0) this.#names.delete(link.index)
      }
    })
  }
}

/** A datagram handle whose file descriptor is a netlink socket in these groups. Runs inside the namespace. */
function openMulticast(groups: ReadonlySet<number>): { socket: Socket; fd: number } {
  const flags = syscalls.SOCK_CLOEXEC | syscalls.SOCK_NONBLOCK
  const netlink = syscalls.socket(syscalls.AF_NETLINK, syscalls.SOCK_RAW | flags, nl.NETLINK_ROUTE)
  if (netlink < 0) throw kernelError('watch rtnetlink', -netlink)
  try {
    const bound = syscalls.bindNetlink(netlink)
    if (bound < 0) throw kernelError('watch rtnetlink', -bound)
    setReceiveBuffer(netlink, RECEIVE_BUFFER_BYTES)
    for (const group of groups) {
      const joined = syscalls.setsockoptInt(netlink, syscalls.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, group)
      if (joined < 0) throw kernelError(`watch rtnetlink group ${group}`, -joined)
    }
    const placeholder = syscalls.socket(syscalls.AF_INET, syscalls.SOCK_DGRAM | flags, 0)
    if (placeholder < 0) throw kernelError('watch rtnetlink', -placeholder)
    const socket = createSocket('udp4')
    socket.bind({ fd: placeholder })
    const moved = syscalls.dup3(netlink, placeholder)
    if (moved < 0) {
      socket.close()
      throw kernelError('watch rtnetlink', -moved)
    }
    return { socket, fd: placeholder }
  } finally {
    syscalls.close(netlink)
  }
}
