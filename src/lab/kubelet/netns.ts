/**
 * The few things a kubelet does to a pod's network namespace itself: see whether it is there, set its loopback up.
 *
 * Sources: netdevice(7) (SIOCSIFFLAGS, struct ifreq), include/uapi/linux/magic.h (NSFS_MAGIC).
 */
import { statfsSync } from 'node:fs'
import { inNetns } from '../../kernel/linux/netns.ts'
import * as syscalls from '../../kernel/linux/syscalls.ts'

const NSFS_MAGIC = 0x6e736673
const SIOCSIFFLAGS = 0x8914
const IFREQ_SIZE = 40
const IFREQ_FLAGS_OFFSET = 16
const IFF_UP = 1

/** True when a namespace is mounted at the path; false for nothing and for a plain file that a reboot left. */
export function netnsExists(path: string): boolean {
  try {
    return statfsSync(path).type === NSFS_MAGIC
  } catch {
    return false
  }
}

/** Sets `lo` up inside the namespace, which gives it 127.0.0.1 and ::1. */
export function loopbackUp(path: string): void {
  const request = Buffer.alloc(IFREQ_SIZE)
  request.write('lo', 0, 'latin1')
  request.writeUInt16LE(IFF_UP, IFREQ_FLAGS_OFFSET)
  const failed = inNetns(path, () => {
    const fd = syscalls.socket(syscalls.AF_INET, syscalls.SOCK_DGRAM | syscalls.SOCK_CLOEXEC, 0)
    if (fd < 0) return fd
    const answer = syscalls.ioctl(fd, SIOCSIFFLAGS, request)
    syscalls.close(fd)
    return answer
  })
  if (failed < 0) throw new Error(`Cannot set lo up in ${path} (errno ${-failed})`)
}
