/**
 * An append-only file of JSON records that survives the death of its writer at any instruction. One record is one
 * line and one write(2): a checksum, a space, the JSON.
 *
 *   5a3e0f91 {"op":"add","key":"3f…/eth0",…}
 *
 * A torn last line (the writer died, or the disk was full) fails its checksum and is cut off at the next opening. A
 * bad line with good ones after it is no torn write: the file was damaged; the line is left out, and a copy of the
 * file is kept beside it. Compaction writes a new file and renames it over the old one. Nothing is fsynced: see
 * docs/decisions/0005-journal-durability.md.
 *
 * Sources: write(2), rename(2); CRC-32 of ISO 3309 / ITU-T V.42.
 */
import {
  closeSync,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1
  return value
})

/** CRC-32 (reflected, polynomial 0x04c11db7). */
export function crc32(bytes: Uint8Array): number {
  let crc = ~0
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 255]! ^ (crc >>> 8)
  return ~crc >>> 0
}

const encodeLine = (record: object): Buffer => {
  const json = Buffer.from(JSON.stringify(record))
  return Buffer.concat([Buffer.from(`${crc32(json).toString(16).padStart(8, '0')} `), json, Buffer.from('\n')])
}

function decodeLine(line: Buffer): unknown {
  const json = line.subarray(9)
  if (line.length < 11 || crc32(json) !== Number.parseInt(line.toString('latin1', 0, 8), 16)) return undefined
  try {
    return JSON.parse(json.toString())
  } catch {
    return undefined
  }
}

export interface Reading {
  readonly records: readonly unknown[]
  /** Lines in the middle of the file that failed their checksum. */
  readonly damagedLines: number
  /** Bytes cut off the end. */
  readonly tornBytes: number
}

/** Splits a file's bytes into its good records. */
export function decodeLog(bytes: Buffer): Reading & { readonly goodBytes: number } {
  const records: unknown[] = []
  let [goodBytes, badLines, damagedLines] = [0, 0, 0]
  for (let at = 0; at < bytes.length; ) {
    const newline = bytes.indexOf(10, at)
    const end = newline < 0 ? bytes.length : newline
    const record = newline < 0 ? undefined : decodeLine(bytes.subarray(at, end))
    at = end + 1
    if (record === undefined) {
      badLines++
      continue
    }
    damagedLines = badLines
    goodBytes = at
    records.push(record)
  }
  return { records, damagedLines, tornBytes: bytes.length - goodBytes, goodBytes }
}

export class RecordLog {
  readonly path: string
  #fd: number
  #bytes: number
  #broken: Error | undefined

  private constructor(path: string, fd: number, bytes: number) {
    this.path = path
    this.#fd = fd
    this.#bytes = bytes
  }

  /** Opens or makes the file (0600) and reads what it holds. Throws the file system's errors. */
  static open(path: string): { log: RecordLog; reading: Reading } {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    const fd = openSync(path, 'a+', 0o600)
    const { goodBytes, ...reading } = decodeLog(readFileSync(fd))
    if (reading.damagedLines > 0) copyFileSync(path, `${path}.damaged`)
    if (reading.tornBytes > 0) ftruncateSync(fd, goodBytes)
    return { log: new RecordLog(path, fd, goodBytes), reading }
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Adds one record. Throws when the file cannot take it whole; the file is then as before. */
  append(record: object): void {
    if (this.#broken) throw new Error(`${this.path} is broken: ${this.#broken.message}`, { cause: this.#broken })
    const line = encodeLine(record)
    let written = 0
    try {
      written = writeSync(this.#fd, line)
      if (written !== line.length) throw new Error('no space left on device')
    } catch (cause) {
      this.#undo(written)
      throw new Error(`${this.path}: ${(cause as Error).message}`, { cause })
    }
    this.#bytes += line.length
  }

  #undo(written: number): void {
    if (written === 0) return
    try {
      ftruncateSync(this.#fd, this.#bytes)
    } catch (cause) {
      this.#broken = cause as Error
    }
  }

  /** Replaces everything by these records. On failure the old file stays in use. */
  compact(records: Iterable<object>): void {
    const fresh = `${this.path}.new`
    const fd = openSync(fresh, 'w+', 0o600)
    try {
      writeWhole(fd, Buffer.concat(Array.from(records, encodeLine)))
      renameSync(fresh, this.path)
    } catch (cause) {
      closeSync(fd)
      throw cause
    }
    closeSync(fd)
    const appending = openSync(this.path, 'a')
    closeSync(this.#fd)
    this.#fd = appending
    this.#bytes = fstatSync(appending).size
    this.#broken = undefined
  }

  close(): void {
    closeSync(this.#fd)
    this.#broken = new Error('closed')
  }
}

function writeWhole(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
}
