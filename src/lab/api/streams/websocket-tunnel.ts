/**
 * A WebSocket as a plain byte stream: SPDY of port-forward inside it.
 * Sources: KEP-4006, "Port Forward over WebSockets" (subprotocol SPDY/3.1+portforward.k8s.io).
 */
import { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'

export const tunnelProtocol = 'SPDY/3.1+portforward.k8s.io'

/** Binary messages in and out; the end of either side closes the socket. */
export function websocketTunnel(socket: WebSocket): Duplex {
  const tunnel = new Duplex({
    read: () => socket.resume(),
    write(chunk: Buffer, _encoding, done) {
      if (socket.readyState !== socket.OPEN) return done()
      socket.send(chunk, () => done())
    },
    final(done) {
      socket.close(1000)
      done()
    },
    destroy(error, done) {
      socket.terminate()
      done(error)
    },
  })
  socket.on('message', (data: Buffer) => {
    if (!tunnel.push(data)) socket.pause()
  })
  socket.on('error', () => tunnel.destroy())
  socket.on('close', () => {
    tunnel.push(null)
    tunnel.destroy()
  })
  return tunnel
}
