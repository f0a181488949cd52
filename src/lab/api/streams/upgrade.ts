/**
 * Accepting an upgrade: WebSocket with a subprotocol, or SPDY/3.1 with a stream protocol version.
 * Sources: RFC 6455 section 4.2.2; RFC 9110 section 7.8; Kubernetes header X-Stream-Protocol-Version.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { ApiError, badRequest } from '../api-error.ts'

/** Largest WebSocket message: clients send at most 32 KiB at once. */
const messageLimitBytes = 1024 * 1024

const upgradeOf = (request: IncomingMessage): string => String(request.headers.upgrade ?? '').toLowerCase()

export const isWebsocket = (request: IncomingMessage): boolean => upgradeOf(request) === 'websocket'

/** The first of the client's protocols that is also ours. */
function choose(offered: readonly string[], known: readonly string[]): string {
  const chosen = known.find((protocol) => offered.includes(protocol))
  if (!chosen)
    throw new ApiError(
      403,
      'Forbidden',
      `unable to upgrade: unable to negotiate protocol: client supports [${offered.join(' ')}], server accepts [${known.join(' ')}]`,
    )
  return chosen
}

const listOf = (header: string | string[] | undefined): string[] =>
  [header ?? []]
    .flat()
    .flatMap((text) => text.split(','))
    .map((text) => text.trim())
    .filter((text) => text !== '')

/** Throws before answering when no protocol fits. */
export function acceptWebsocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  protocols: readonly string[],
): Promise<WebSocket> {
  const protocol = choose(listOf(request.headers['sec-websocket-protocol']), protocols)
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: messageLimitBytes,
    handleProtocols: () => protocol,
  })
  return new Promise((done, fail) => {
    socket.once('close', () => fail(badRequest('the client went away')))
    server.handleUpgrade(request, socket, head, done)
  })
}

/** Answers 101 and returns the stream protocol. Throws before answering when nothing fits. */
export function acceptSpdy(request: IncomingMessage, socket: Duplex, protocols: readonly string[]): string {
  if (upgradeOf(request) !== 'spdy/3.1')
    throw badRequest(`unable to upgrade: ${request.headers.upgrade ?? 'no protocol'} is not supported`)
  const offered = listOf(request.headers['x-stream-protocol-version'])
  const protocol = offered.length ? choose(offered, protocols) : protocols.at(-1)!
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${protocol}\r\n\r\n`,
  )
  return protocol
}
