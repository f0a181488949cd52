/** Writing answers: JSON or YAML, compressed when large and wanted, errors as Status. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { stringify } from 'yaml'
import { formatJson } from '../../../bytes/json.ts'
import { ApiError, internal } from '../api-error.ts'
import { negotiate } from './negotiate.ts'

/** Answers from this size on are compressed, off the event loop. */
const compressFromBytes = 128 * 1024
const compress = promisify(gzip)

export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly warnings: string[]
}

/** Texts of the Warning header: quoted strings without line breaks (RFC 7234 section 5.5). */
const warningHeader = (texts: readonly string[]): string[] =>
  texts.slice(0, 20).map(
    (text) =>
      `299 - "${text
        .replace(/[\r\n]+/g, ' ')
        .replace(/[\\"]/g, '\\$&')
        .slice(0, 1000)}"`,
  )

export async function sendText(
  { request, response, warnings }: Exchange,
  code: number,
  contentType: string,
  text: string | Buffer,
): Promise<void> {
  if (warnings.length) response.setHeader('Warning', warningHeader(warnings))
  response.setHeader('Content-Type', contentType)
  let body = typeof text === 'string' ? Buffer.from(text) : text
  if (body.length >= compressFromBytes && /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))) {
    response.setHeader('Content-Encoding', 'gzip')
    body = await compress(body, { level: 1 })
  }
  response.setHeader('Content-Length', body.length)
  response.writeHead(code)
  response.end(request.method === 'HEAD' ? undefined : body)
}

export function sendObject(exchange: Exchange, code: number, object: unknown): Promise<void> {
  const { media } = negotiateLeniently(exchange.request.headers.accept)
  if (media === 'application/yaml') return sendText(exchange, code, 'application/yaml', stringify(object))
  return sendText(exchange, code, 'application/json', `${formatJson(object)}\n`)
}

function negotiateLeniently(accept: string | undefined): { media: string } {
  try {
    return negotiate(accept)
  } catch {
    return { media: 'application/json' }
  }
}

export async function sendError(exchange: Exchange, error: unknown): Promise<ApiError> {
  const known = error instanceof ApiError ? error : internal(error)
  const { response } = exchange
  if (response.headersSent) response.destroy()
  else {
    if (known.code === 401) response.setHeader('WWW-Authenticate', 'Bearer realm="weft"')
    if (known.details?.retryAfterSeconds) response.setHeader('Retry-After', known.details.retryAfterSeconds)
    await sendObject(exchange, known.code, known.toStatus())
  }
  return known
}
