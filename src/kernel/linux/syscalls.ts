/**
 * The system calls that Node does not have, typed: the one place that loads koffi. Every call returns the kernel's
 * answer, or minus errno; nothing throws. Buffers are passed by address, never copied: a Uint8Array handed to an
 * async call must stay untouched until it is answered.
 *
 * Network namespaces belong to a thread. Synchronous calls run on the calling JavaScript thread; `Async` ones on a
 * libuv worker, whose namespace is nobody's business: only calls on sockets that exist already may go there.
 *
 * Sources: the manual pages socket(2), netlink(7), setns(2), mount(2), umount2(2), netdevice(7).
 */
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const socketFilter = koffi.struct({ length: 'uint16_t', filter: 'const void *' })

const c = {
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  bind: libc.func('int bind(int fd, const void *address, uint32_t length)'),
  connect: libc.func('int connect(int fd, const void *address, uint32_t length)'),
  getsockname: libc.func('int getsockname(int fd, void *address, void *length)'),
  getpeername: libc.func('int getpeername(int fd, void *address, void *length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  accept4: libc.func('int accept4(int fd, void *address, void *length, int flags)'),
  sendto: libc.func(
    'long sendto(int fd, const void *buffer, unsigned long length, int flags, void *to, uint32_t size)',
  ),
  recv: libc.func('long recv(int fd, void *buffer, unsigned long length, int flags)'),
  recvfrom: libc.func(
    'long recvfrom(int fd, void *buffer, unsigned long length, int flags, void *from, void *fromLength)',
  ),
  setsockopt: libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)'),
  attachFilter: libc.func('setsockopt', 'int', ['int', 'int', 'int', koffi.pointer(socketFilter), 'uint32_t']),
  getsockopt: libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
  poll: libc.func('int poll(void *fds, unsigned long count, int timeout)'),
  ioctl: libc.func('int ioctl(int fd, unsigned long request, void *argument)'),
  ioctlNumber: libc.func('ioctl', 'int', ['int', 'unsigned long', 'unsigned long']),
  dup3: libc.func('int dup3(int from, int to, int flags)'),
  open: libc.func('int open(const char *path, int flags, uint32_t mode)'),
  close: libc.func('int close(int fd)'),
  setns: libc.func('int setns(int fd, int type)'),
  unshare: libc.func('int unshare(int flags)'),
  mount: libc.func(
    'int mount(const char *from, const char *to, const char *type, unsigned long flags, const char *data)',
  ),
  umount2: libc.func('int umount2(const char *path, int flags)'),
}

const answer = (result: number): number => (result < 0 ? -koffi.errno() : result)

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
export const SO_RCVBUF = 8
export const SO_RCVBUFFORCE = 33
export const SO_SNDBUFFORCE = 32
export const SOL_NETLINK = 270
export const MSG_TRUNC = 0x20
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000
export const O_RDONLY = 0
export const O_CLOEXEC = 0o2000000
export const CLONE_NEWNET = 0x40000000
export const MS_NOSUID = 2
export const MS_NODEV = 4
export const MS_NOEXEC = 8
export const MS_REMOUNT = 32
export const MS_BIND = 4096
export const MS_REC = 16384
export const MS_SHARED = 1 << 20
export const MNT_DETACH = 2
export const POLLIN = 1
export const EINPROGRESS = 115
export const EAGAIN = 11
export const ECONNABORTED = 103
export const ENOBUFS = 105

/** File descriptor or -errno. */
export const socket = (domain: number, type: number, protocol: number): number =>
  answer(c.socket(domain, type, protocol))

export const close = (fd: number): number => answer(c.close(fd))

/** Binds a netlink socket: port number by the kernel when 0, groups 1..32 as a mask. */
export function bindNetlink(fd: number, port = 0, groupMask = 0): number {
  const address = new DataView(new ArrayBuffer(12))
  address.setUint16(0, AF_NETLINK, true)
  address.setUint32(4, port, true)
  address.setUint32(8, groupMask, true)
  return answer(c.bind(fd, new Uint8Array(address.buffer), 12))
}

const SUN_PATH_BYTES = 108

/** Binds a unix socket to a path of at most 107 bytes; -ENAMETOOLONG beyond. */
export function bindUnix(fd: number, path: string): number {
  const bytes = new TextEncoder().encode(path)
  if (bytes.length >= SUN_PATH_BYTES) return -36
  const address = new Uint8Array(2 + SUN_PATH_BYTES)
  new DataView(address.buffer).setUint16(0, AF_UNIX, true)
  address.set(bytes, 2)
  return answer(c.bind(fd, address, address.length))
}

export const listen = (fd: number, backlog: number): number => answer(c.listen(fd, backlog))

/** The descriptor of the next connection, non-blocking and close-on-exec, or -errno. */
export const accept = (fd: number): number => answer(c.accept4(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC))

/** Count of bytes sent, or -errno. Sends to the kernel, or to where the socket is connected. */
export const send = (fd: number, bytes: Uint8Array, flags = 0): number =>
  answer(c.sendto(fd, bytes, bytes.length, flags, null, 0))

/** The same to an address in the kernel's form (struct sockaddr_in, sockaddr_in6). */
export const sendTo = (fd: number, bytes: Uint8Array, address: Uint8Array): number =>
  answer(c.sendto(fd, bytes, bytes.length, MSG_DONTWAIT, address, address.length))

/**
 * `send` on a worker thread, for messages that the kernel answers late (deleting a link). Resolves with the count
 * sent or -1: errno is the worker's own and is lost, so a failed send is to be repeated with `send`.
 */
export const sendAsync = (fd: number, bytes: Uint8Array): Promise<number> =>
  new Promise((resolve, reject) => {
    c.sendto.async(fd, bytes, bytes.length, 0, null, 0, (error: unknown, result: number) => {
      if (error) reject(error)
      else resolve(result)
    })
  })

/** Count of bytes received (more than the buffer holds with MSG_TRUNC), or -errno. */
export const recv = (fd: number, buffer: Uint8Array, flags: number): number =>
  answer(c.recv(fd, buffer, buffer.length, flags))

/** `recv` of a datagram; its sender's address in the kernel's form is written to `from` (28 bytes). Does not wait. */
export const recvFrom = (fd: number, buffer: Uint8Array, from: Uint8Array): number =>
  answer(c.recvfrom(fd, buffer, buffer.length, MSG_DONTWAIT, from, Uint32Array.of(from.length)))

const option = new Int32Array(1)

/** Sets a 32-bit socket option. */
export function setsockoptInt(fd: number, level: number, name: number, value: number): number {
  option[0] = value
  return answer(c.setsockopt(fd, level, name, option, 4))
}

/** Sets a socket option of any other shape. */
export const setsockopt = (fd: number, level: number, name: number, value: Uint8Array): number =>
  answer(c.setsockopt(fd, level, name, value, value.length))

const SO_ATTACH_FILTER = 26

/** Lets through what a classic BPF program accepts: eight bytes an instruction (struct sock_filter, linux/filter.h). */
export const attachFilter = (fd: number, program: Uint8Array): number =>
  answer(
    c.attachFilter(
      fd,
      SOL_SOCKET,
      SO_ATTACH_FILTER,
      { length: program.length / 8, filter: program },
      koffi.sizeof(socketFilter),
    ),
  )

/** The value of a 32-bit socket option that is never negative, or -errno. */
export function getsockoptInt(fd: number, level: number, name: number): number {
  const value = new Int32Array(1)
  const result = answer(c.getsockopt(fd, level, name, value, Uint32Array.of(4)))
  return result < 0 ? result : value[0]!
}

/** Binds to an address in the kernel's form (struct sockaddr_in, sockaddr_in6). */
export const bind = (fd: number, address: Uint8Array): number => answer(c.bind(fd, address, address.length))

/** Connects to such an address; -EINPROGRESS of a non-blocking socket that goes on by itself. */
export const connect = (fd: number, address: Uint8Array): number => answer(c.connect(fd, address, address.length))

const SOCKADDR_BYTES = 28

function nameOf(call: typeof c.getsockname, fd: number): Uint8Array | number {
  const address = new Uint8Array(SOCKADDR_BYTES)
  const length = Uint32Array.of(SOCKADDR_BYTES)
  const result = answer(call(fd, address, length))
  return result < 0 ? result : address.subarray(0, length[0])
}

/** Where a socket is bound, in the kernel's form, or -errno. */
export const getsockname = (fd: number): Uint8Array | number => nameOf(c.getsockname, fd)

/** Where a socket is connected, in the kernel's form, or -errno. */
export const getpeername = (fd: number): Uint8Array | number => nameOf(c.getpeername, fd)

/** Waits until `fd` can be read; 1, 0 after the timeout, or -errno. Blocks the thread. */
export function pollReadable(fd: number, timeoutMilliseconds: number): number {
  const entry = new DataView(new ArrayBuffer(8))
  entry.setInt32(0, fd, true)
  entry.setInt16(4, POLLIN, true)
  return answer(c.poll(new Uint8Array(entry.buffer), 1, timeoutMilliseconds))
}

export const ioctl = (fd: number, request: number, argument: Uint8Array): number =>
  answer(c.ioctl(fd, request, argument))

/** An ioctl whose argument is a number, not an address. */
export const ioctlNumber = (fd: number, request: number, argument: number): number =>
  answer(c.ioctlNumber(fd, request, argument))

const FIOCLEX = 0x5451

/** The descriptor ends where this process executes another program (FD_CLOEXEC). */
export const closeOnExec = (fd: number): number => answer(c.ioctlNumber(fd, FIOCLEX, 0))

/** Makes `to` mean what `from` means, close-on-exec. */
export const dup3 = (from: number, to: number): number => answer(c.dup3(from, to, O_CLOEXEC))

/** File descriptor or -errno; always close-on-exec. */
export const open = (path: string, flags: number, mode = 0): number => answer(c.open(path, flags | O_CLOEXEC, mode))

/** Moves the calling thread into the namespace of `fd`. */
export const setns = (fd: number, type: number): number => answer(c.setns(fd, type))

export const unshare = (flags: number): number => answer(c.unshare(flags))

export const mount = (from: string, to: string, type: string, flags: number): number =>
  answer(c.mount(from, to, type, flags, null))

export const unmount = (path: string, flags: number): number => answer(c.umount2(path, flags))

/**
 * Calls back when a descriptor can be read (or written) or has an error: once, in a turn of the event loop of its own, and after that
 * again once it is armed. Armed from the beginning. Keeps the process alive until it is closed; the descriptor must be
 * closed after it.
 */
export class Readiness {
  readonly #handle: ReturnType<typeof koffi.node.poll>
  readonly #ready: () => void
  readonly #wanted: { readonly readable: boolean; readonly writable: boolean }
  #closed = false

  constructor(fd: number, listener: () => void, to: 'read' | 'write' = 'read') {
    this.#wanted = { readable: to === 'read', writable: to === 'write' }
    const tell = (): void => {
      if (!this.#closed) listener()
    }
    // What runs in libuv's own callback runs outside Node: no promise would settle after it.
    this.#ready = () => {
      this.#handle.stop()
      setImmediate(tell)
    }
    this.#handle = koffi.node.poll(fd, this.#wanted, this.#ready)
  }

  arm(): void {
    if (!this.#closed) this.#handle.start(this.#wanted, this.#ready)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#handle.close()
  }
}
