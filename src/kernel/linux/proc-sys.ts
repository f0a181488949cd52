/**
 * Kernel variables in a container. Runtimes mount /proc/sys read-only there, in the container's own mount namespace; who may
 * administer that namespace may say otherwise, and a container that shares the node's network has to.
 *
 * Sources: mount(2) "Remounting an existing mount"; OCI runtime-spec config-linux.md "Readonly Paths".
 */
import { readFileSync } from 'node:fs'
import { kernelError } from '../errno.ts'
import * as syscalls from './syscalls.ts'

const PLACE = '/proc/sys'

/**
 * Makes /proc/sys writable when it is a read-only mount; does nothing elsewhere. Returns whether it did. Throws KernelError
 * when that is not permitted (EPERM without CAP_SYS_ADMIN, EACCES under an AppArmor profile that forbids mounts).
 */
export function makeSysctlsWritable(): boolean {
  // The last line of a place is the mount that is on top.
  const mount = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .findLast((fields) => fields[4] === PLACE)
  if (!mount?.[5]?.split(',').includes('ro')) return false
  const { MS_REMOUNT, MS_BIND, MS_NOSUID, MS_NODEV, MS_NOEXEC } = syscalls
  const result = syscalls.mount('none', PLACE, 'none', MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC)
  if (result < 0) throw kernelError(`mount -o remount,bind,rw ${PLACE}`, -result)
  return true
}
