/**
 * A file that is believed whole or not at all: replaced by renaming, with a digest over everything in it.
 *
 *   <kind> <version> <time> <SHA-256 of the time and the body>\n<body>
 */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

/** What a file is, and how it is read: another kind or version is refused. */
export interface Seal {
  readonly kind: string
  readonly version: number
  /** What it is called in messages: `the view of a cluster`. */
  readonly what: string
}

export interface SealedText {
  /** ISO 8601, for people. */
  readonly savedAt: string
  readonly body: string
}

/** A file larger than this is neither written nor read. */
export const MAX_SEALED_BYTES = 64 << 20

const digestOf = (savedAt: string, body: string): string =>
  createHash('sha256').update(`${savedAt}\n`).update(body).digest('hex')

/** Replaces the file; readers see the old one or the new. Throws what the file system says. Mode 0600. */
export function writeSealed(path: string, { kind, version }: Seal, { savedAt, body }: SealedText): void {
  mkdirSync(dirname(path), { recursive: true })
  const next = `${path}.tmp`
  writeFileSync(next, `${kind} ${version} ${savedAt} ${digestOf(savedAt, body)}\n${body}`, { mode: 0o600 })
  renameSync(next, path)
}

/** Undefined when there is no file; throws with the reason when it cannot be believed. */
export function readSealed(path: string, seal: Seal): SealedText | undefined {
  const text = readBounded(path)
  return text === undefined ? undefined : parseSealed(text, seal)
}

/** Throws with what is wrong. */
export function parseSealed(text: string, { kind, version, what }: Seal): SealedText {
  const end = text.indexOf('\n')
  const [magic, found, savedAt = '', digest] = text.slice(0, Math.max(end, 0)).split(' ')
  if (magic !== kind) throw new Error(`it is not ${what}`)
  if (found !== String(version)) throw new Error(`it is of version ${found?.slice(0, 8)}, not ${version}`)
  const body = text.slice(end + 1)
  if (digest !== digestOf(savedAt, body)) throw new Error('its checksum does not hold')
  return { savedAt, body }
}

function readBounded(path: string): string | undefined {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    if (fstatSync(fd).size > MAX_SEALED_BYTES) throw new Error(`it is larger than ${MAX_SEALED_BYTES} bytes`)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}
