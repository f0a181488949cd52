/**
 * Every message in one place: `decodeMessage` for a whole one, and the framing of a byte stream into messages.
 *
 * Sources: RFC 4271 section 4.
 */
import { HEADER_BYTES, MessageType } from './constants.ts'
import type { WireContext } from './context.ts'
import { beginMessage, decodeHeader, endMessage } from './header.ts'
import { decodeNotification, type Notification } from './notification.ts'
import { decodeOpen, type Open } from './open.ts'
import { decodeRouteRefresh, type RouteRefresh } from './route-refresh.ts'
import { decodeUpdate, type Update, type UpdateBuffers } from './update.ts'

export type Message =
  | { readonly type: 'open'; readonly open: Open }
  | { readonly type: 'update'; readonly update: Update }
  | { readonly type: 'notification'; readonly notification: Notification }
  | { readonly type: 'keepalive' }
  | { readonly type: 'routeRefresh'; readonly refresh: RouteRefresh }

/**
 * One whole message. Throws BgpError, also when the bytes are fewer or more than its header says. An UPDATE shares memory with
 * `bytes` and `buffers`, see `decodeUpdate`.
 */
export function decodeMessage(bytes: Uint8Array, context: WireContext, buffers?: UpdateBuffers): Message {
  const header = decodeHeader(bytes, context.messageBytesMax)
  if (header?.length !== bytes.length)
    throw new RangeError(`${bytes.length} bytes are no message of ${header?.length ?? `at least ${HEADER_BYTES}`}`)
  const body = bytes.subarray(HEADER_BYTES)
  switch (header.type) {
    case MessageType.OPEN:
      return { type: 'open', open: decodeOpen(body) }
    case MessageType.UPDATE:
      return { type: 'update', update: decodeUpdate(body, context, buffers) }
    case MessageType.NOTIFICATION:
      return { type: 'notification', notification: decodeNotification(body) }
    case MessageType.ROUTE_REFRESH:
      return { type: 'routeRefresh', refresh: decodeRouteRefresh(body) }
    default:
      return { type: 'keepalive' }
  }
}

/** The same nineteen bytes every time. */
export const encodeKeepalive = (): Uint8Array => endMessage(beginMessage(MessageType.KEEPALIVE, HEADER_BYTES))

/**
 * Cuts a byte stream into messages. `push` takes what arrived and calls back for each whole message, with bytes that are
 * valid during the call only; what is left waits, at most one message less a byte. A BgpError of a header or of the callback
 * leaves `push`; the stream is over then.
 */
export class MessageStream {
  /** May be raised once extended messages are negotiated. */
  messageBytesMax: number
  #rest: Uint8Array = new Uint8Array(0)
  #length = 0

  constructor(messageBytesMax: number) {
    this.messageBytesMax = messageBytesMax
  }

  /** Bytes that wait for the rest of their message. */
  get waiting(): number {
    return this.#length
  }

  push(chunk: Uint8Array, onMessage: (message: Uint8Array, type: number) => void): void {
    let from = 0
    // Only a message that was begun in an earlier chunk is copied together.
    while (this.#length > 0) {
      const header = decodeHeader(this.#rest, this.messageBytesMax, 0, this.#length)
      const wanted = (header?.length ?? HEADER_BYTES) - this.#length
      if (wanted > 0) {
        if (from === chunk.length) return
        const end = Math.min(from + wanted, chunk.length)
        this.#keep(chunk.subarray(from, end))
        from = end
      } else {
        this.#length = 0
        onMessage(this.#rest.subarray(0, header!.length), header!.type)
      }
    }
    while (chunk.length - from > 0) {
      const header = decodeHeader(chunk, this.messageBytesMax, from)
      if (!header || chunk.length - from < header.length) break
      onMessage(chunk.subarray(from, from + header.length), header.type)
      from += header.length
    }
    if (from < chunk.length) this.#keep(chunk.subarray(from))
  }

  #keep(bytes: Uint8Array): void {
    const needed = this.#length + bytes.length
    if (needed > this.#rest.length) {
      const grown = new Uint8Array(Math.max(needed, this.messageBytesMax))
      grown.set(this.#rest.subarray(0, this.#length))
      this.#rest = grown
    }
    this.#rest.set(bytes, this.#length)
    this.#length = needed
  }
}
