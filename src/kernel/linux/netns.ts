/**
 * Network namespaces by path: made, entered, deleted. A named one is a bind mount of the namespace's nsfs file, as
 * `ip netns` keeps them in /run/netns, so that both see each other's.
 *
 * A namespace is entered by the JavaScript thread itself, for one synchronous call; nothing else of this process can
 * run meanwhile, and the thread is back before the caller has its answer.
 *
 * Sources: network_namespaces(7), setns(2), ip-netns(8).
 */
import { closeSync, existsSync, mkdirSync, openSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { kernelError } from '../errno.ts'
import * as syscalls from './syscalls.ts'

const EINVAL = 22

/** The namespace that this thread is in now: at first the one that it started in, kept open so that it can always return. */
let current: number | undefined

function currentFd(): number {
  if (current === undefined) {
    const fd = syscalls.open('/proc/thread-self/ns/net', syscalls.O_RDONLY)
    if (fd < 0) throw kernelError('open the own network namespace', -fd)
    current = fd
  }
  return current
}

/** Opens the nsfs file of a namespace. The caller closes it with `closeNetns`. Throws KernelError. */
export function openNetns(path: string): number {
  const fd = syscalls.open(path, syscalls.O_RDONLY)
  if (fd < 0) throw kernelError(`open network namespace ${path}`, -fd)
  return fd
}

/** The ioctl that gives the namespace of a socket, whatever its kind. */
const SIOCGSKNS = 0x894c

/**
 * Opens the namespace that a connection was made from: the kernel makes the accepted end of a unix connection in the
 * namespace of the connecting one. The caller closes it with `closeNetns`. Throws KernelError.
 *
 * Sources: net/socket.c (sock_ioctl), net/unix/af_unix.c (unix_stream_connect).
 */
export function openNetnsOfSocket(socket: number): number {
  const fd = syscalls.ioctlNumber(socket, SIOCGSKNS, 0)
  if (fd < 0) throw kernelError('open the network namespace of a connection', -fd)
  return fd
}

export function closeNetns(fd: number): void {
  syscalls.close(fd)
}

/**
 * Runs `call` with this thread inside the namespace of `fd`. `call` must be synchronous and must not start work on
 * other threads: new threads would be born inside.
 */
export function insideNetns<T>(fd: number, describe: string, call: () => T): T {
  const back = currentFd()
  const entered = syscalls.setns(fd, syscalls.CLONE_NEWNET)
  if (entered < 0) throw kernelError(`enter network namespace ${describe}`, -entered)
  current = fd
  try {
    return call()
  } finally {
    current = back
    const left = syscalls.setns(back, syscalls.CLONE_NEWNET)
    // A thread that cannot return would write one namespace's state into another: nothing may go on from here.
    if (left < 0) process.abort()
  }
}

/** Runs a synchronous `call` inside the namespace at `path`. Throws KernelError when it cannot be entered. */
export function inNetns<T>(path: string, call: () => T): T {
  const fd = openNetns(path)
  try {
    return insideNetns(fd, path, call)
  } finally {
    closeNetns(fd)
  }
}

/**
 * Makes a new namespace and mounts it at `path` (created empty), its loopback still down. The folder is made a shared
 * mount as `ip netns add` does, so that the mount is seen in other mount namespaces. Throws KernelError (EEXIST, EPERM).
 */
export function createNetns(path: string): void {
  const what = `ip netns add ${path}`
  if (existsSync(path)) throw kernelError(what, 17)
  const folder = dirname(path)
  mkdirSync(folder, { recursive: true })
  shareMounts(folder)
  const back = currentFd()
  closeSync(openSync(path, 'wx', 0o444))
  const made = syscalls.unshare(syscalls.CLONE_NEWNET)
  let failed = made
  if (made >= 0) {
    failed = syscalls.mount('/proc/thread-self/ns/net', path, 'none', syscalls.MS_BIND)
    const left = syscalls.setns(back, syscalls.CLONE_NEWNET)
    if (left < 0) process.abort()
  }
  if (failed < 0) {
    rmSync(path, { force: true })
    throw kernelError(what, -failed)
  }
}

/**
 * Opens a new namespace that has no name: it ends when the last file descriptor and socket of it is closed. The caller
 * closes it with `closeNetns`. Throws KernelError (EPERM).
 */
export function openNewNetns(): number {
  const back = currentFd()
  const made = syscalls.unshare(syscalls.CLONE_NEWNET)
  if (made < 0) throw kernelError('make a network namespace', -made)
  const fd = syscalls.open('/proc/thread-self/ns/net', syscalls.O_RDONLY)
  const left = syscalls.setns(back, syscalls.CLONE_NEWNET)
  if (left < 0) process.abort()
  if (fd < 0) throw kernelError('open a new network namespace', -fd)
  return fd
}

/** Makes `folder` a shared mount point, once. Failing is harmless: the mounts are then private to this mount namespace. */
function shareMounts(folder: string): void {
  const shared = syscalls.mount('', folder, 'none', syscalls.MS_SHARED | syscalls.MS_REC)
  if (shared !== -EINVAL) return
  if (syscalls.mount(folder, folder, 'none', syscalls.MS_BIND | syscalls.MS_REC) < 0) return
  syscalls.mount('', folder, 'none', syscalls.MS_SHARED | syscalls.MS_REC)
}

/**
 * Unmounts and removes a named namespace; one that is gone already is fine. The kernel ends it when its last process
 * and socket are gone. Throws KernelError (EPERM, EBUSY).
 */
export function deleteNetns(path: string): void {
  if (!existsSync(path)) return
  const failed = syscalls.unmount(path, syscalls.MNT_DETACH)
  if (failed < 0 && failed !== -EINVAL) throw kernelError(`ip netns delete ${path}`, -failed)
  rmSync(path, { force: true })
}
