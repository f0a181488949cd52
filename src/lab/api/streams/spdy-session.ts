/**
 * Streams of a command over SPDY: the client opens one SPDY stream for each, named by its `streamtype` header.
 * Sources: Kubernetes remote command protocols, channel.k8s.io and v2 to v4.channel.k8s.io.
 */

import { type Outcome, parseSize, type Session, type StreamChoice, type TerminalSize } from './session.ts'
import type { SpdyConnection, SpdyStream } from './spdy.ts'

/** Newest first. Version 1 does without a reset of streams that version 2 has; v4 tells the outcome as JSON. */
export const spdyProtocols = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io']

/** Streams that the client did not open by then will not come. */
const openMilliseconds = 30_000

/** Collects the streams of a connection; resolves when all that were asked for are there. */
export function spdySession(
  connection: SpdyConnection,
  streams: ReadonlyMap<string, SpdyStream>,
  choice: StreamChoice,
  protocol: string,
  arrived: (listener: () => void) => void,
): Promise<Session> {
  const wanted = ['error']
  if (choice.stdin) wanted.push('stdin')
  if (choice.stdout) wanted.push('stdout')
  if (choice.stderr && !choice.tty) wanted.push('stderr')
  const resizes = choice.tty && (protocol === 'v4.channel.k8s.io' || protocol === 'v3.channel.k8s.io')
  if (resizes) wanted.push('resize')
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error('the client did not open its streams in time')), openMilliseconds)
    const look = (): void => {
      if (!wanted.every((name) => streams.has(name))) return
      clearTimeout(timer)
      done(makeSession(connection, streams, protocol))
    }
    connection.onClose(() => {
      clearTimeout(timer)
      fail(new Error('the client went away'))
    })
    arrived(look)
    look()
  })
}

function makeSession(connection: SpdyConnection, streams: ReadonlyMap<string, SpdyStream>, protocol: string): Session {
  const aborted = new AbortController()
  connection.onClose(() => aborted.abort())
  const stdin = streams.get('stdin')
  const stdout = streams.get('stdout')
  const stderr = streams.get('stderr')
  // Streams that only one side writes to: the other direction is not read.
  for (const stream of [stdout, stderr, streams.get('error')]) stream?.resume()
  return {
    ...(stdin && { stdin }),
    ...(stdout && { stdout }),
    ...(stderr && { stderr }),
    signal: aborted.signal,
    onResize: (listener) => readSizes(streams.get('resize'), listener),
    async finish(outcome) {
      const text = protocol === 'v4.channel.k8s.io' ? JSON.stringify(outcome) : plainText(outcome)
      await Promise.all(
        [stdout, stderr, streams.get('error')].map(
          (stream) =>
            new Promise<void>((done) => {
              if (!stream || stream.destroyed) return done()
              stream.once('error', () => done())
              if (stream === streams.get('error') && text) stream.end(text, () => done())
              else stream.end(() => done())
            }),
        ),
      )
      connection.end()
    },
  }
}

const plainText = (outcome: Outcome): string => (outcome.status === 'Success' ? '' : String(outcome.message))

function readSizes(stream: SpdyStream | undefined, listener: (size: TerminalSize) => void): void {
  let text = ''
  stream?.on('data', (chunk: Buffer) => {
    text = (text + chunk.toString()).slice(-4096)
    for (let end = text.indexOf('}'); end !== -1; end = text.indexOf('}')) {
      const size = parseSize(text.slice(0, end + 1))
      text = text.slice(end + 1)
      if (size) listener(size)
    }
  })
}
