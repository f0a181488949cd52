/**
 * Sockets of this process inside other network namespaces. A TCP socket belongs to the namespace of the thread that made
 * it; Node makes it within the call when it has no name to resolve, so that one synchronous visit is enough.
 */
import { closeSync, openSync } from 'node:fs'
import { connect, createServer, isIPv6, type Socket } from 'node:net'
import { inNetns } from '../kernel/linux/netns.ts'
import * as syscalls from '../kernel/linux/syscalls.ts'

/** Starts a connection from inside a namespace to a literal address. Errors come as events of the socket. */
export function connectIn(netnsPath: string, ip: string, port: number): Socket {
  const family = isIPv6(ip) ? 6 : 4
  return inNetns(netnsPath, () =>
    connect({
      // A name whose look-up answers at once: with a literal address Node would connect in a later tick, outside.
      host: 'literal.invalid',
      port,
      family,
      autoSelectFamily: false,
      lookup: (_name, _options, done) => done(null, ip, family),
    }),
  )
}

/** A listening TCP socket of both families, made inside a namespace, as a file descriptor that the caller owns. */
export function listenIn(netnsPath: string, port: number): number {
  const server = createServer()
  // A refusal is seen at once below; its event comes later, when nobody listens any more.
  server.on('error', () => {})
  inNetns(netnsPath, () => server.listen({ port, exclusive: true }))
  const bound = (server as unknown as { _handle: { fd: number } | null })._handle
  if (!server.listening || !bound) throw new Error(`Cannot listen on port ${port} in ${netnsPath}`)
  // The server's own descriptor goes with the server; the listening socket lives on under a second one.
  const fd = openSync('/dev/null', 'r')
  const copied = syscalls.dup3(bound.fd, fd)
  server.close()
  if (copied < 0) {
    closeSync(fd)
    throw new Error(`Cannot keep the socket of port ${port} in ${netnsPath}`)
  }
  return fd
}
