/**
 * Makes TUN and TAP devices: the one kind of device that netlink cannot create. The device is persistent, so that it
 * outlives the file descriptor that made it.
 *
 * Sources: include/uapi/linux/if_tun.h; Documentation/networking/tuntap.rst.
 */

import { encodeUtf8 } from '../../bytes/text.ts'
import { formatObject } from '../../model/format.ts'
import type { Link } from '../../model/link.ts'
import { IFF_TAP, IFF_TUN } from '../../wire/rtnetlink/kinds/tun.ts'
import { kernelError } from '../errno.ts'
import type { DriverContext } from './driver.ts'
import * as syscalls from './syscalls.ts'

const TUNSETIFF = 0x400454ca
const TUNSETPERSIST = 0x400454cb
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
const IFF_TUN_EXCL = 0x8000
const O_RDWR = 2
const IFNAME_BYTES = 16

/** Throws KernelError (EBUSY when the device exists, ENODEV without the tun module, EPERM). */
export function createTun(context: DriverContext, link: Extract<Link, { type: 'tun' }>): void {
  const what = `${formatObject(link)}`
  const request = new Uint8Array(40)
  request.set(encodeUtf8(link.name).subarray(0, IFNAME_BYTES - 1))
  const mode = link.settings?.mode === 'tap' ? IFF_TAP : IFF_TUN
  const flags = mode | IFF_NO_PI | IFF_TUN_EXCL | (link.settings?.vnetHeader ? IFF_VNET_HDR : 0)
  new DataView(request.buffer).setUint16(IFNAME_BYTES, flags, true)
  context.inside(() => {
    const fd = syscalls.open('/dev/net/tun', O_RDWR)
    if (fd < 0) throw kernelError(what, -fd)
    try {
      const made = syscalls.ioctl(fd, TUNSETIFF, request)
      if (made < 0) throw kernelError(what, -made)
      const kept = syscalls.ioctlNumber(fd, TUNSETPERSIST, 1)
      if (kept < 0) throw kernelError(what, -kept)
    } finally {
      syscalls.close(fd)
    }
  })
}
