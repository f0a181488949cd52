/**
 * Port-forward: for every connection the client opens a pair of SPDY streams, `error` and `data`, with the same
 * request id; data is joined to a connection into the pod.
 * Sources: Kubernetes port-forward protocol portforward.k8s.io.
 */
import type { Duplex } from 'node:stream'
import type { SpdyStream } from './spdy.ts'

export const portForwardProtocol = 'portforward.k8s.io'

type Connect = (port: number) => Promise<Duplex>

/** Takes the streams of one connection. Give `take` to the SpdyConnection. */
export class PortForwarder {
  readonly #connect: Connect
  readonly #waiting = new Map<string, SpdyStream>()

  constructor(connect: Connect) {
    this.#connect = connect
  }

  take(stream: SpdyStream): void {
    const type = stream.headers.get('streamtype')
    const port = Number(stream.headers.get('port'))
    const request = stream.headers.get('requestid') ?? stream.headers.get('port') ?? ''
    if ((type !== 'error' && type !== 'data') || !Number.isInteger(port) || port < 1 || port > 65_535) {
      stream.destroy()
      return
    }
    const key = (kind: string) => `${kind} ${request}`
    const other = this.#waiting.get(key(type === 'error' ? 'data' : 'error'))
    if (!other) {
      this.#waiting.set(key(type), stream)
      stream.on('close', () => this.#waiting.delete(key(type)))
      return
    }
    this.#waiting.delete(key(type === 'error' ? 'data' : 'error'))
    const [error, data] = type === 'error' ? [stream, other] : [other, stream]
    void this.#join(port, error, data)
  }

  async #join(port: number, error: SpdyStream, data: SpdyStream): Promise<void> {
    error.resume()
    let target: Duplex
    try {
      target = await this.#connect(port)
    } catch (cause) {
      error.end(`error forwarding port ${port}: ${(cause as Error).message}`)
      data.resume()
      data.end()
      return
    }
    target.on('error', (cause) => {
      if (!error.writableEnded) error.end(`error forwarding port ${port}: ${cause.message}`)
      data.destroy()
    })
    data.on('error', () => target.destroy())
    data.on('close', () => target.destroy())
    target.on('end', () => {
      if (!error.writableEnded) error.end()
    })
    data.pipe(target)
    target.pipe(data)
  }
}
