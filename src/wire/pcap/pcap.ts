/**
 * The classic capture file: reads what tcpdump and tshark write, in both byte orders and both time resolutions.
 *
 * Sources: draft-ietf-opsawg-pcap section 4 and 5; link types from the tcpdump group's list (1 Ethernet, 12 and 101 raw IP,
 * 113 Linux cooked).
 */
import { DecodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'

export interface CapturedFrame {
  /** Nanoseconds since the epoch. */
  readonly timeNanoseconds: bigint
  /** Bytes on the wire; more than `bytes.length` when the capture cut the frame. */
  readonly originalLength: number
  /** Shares the file's buffer. */
  readonly bytes: Uint8Array
}

export interface CaptureFile {
  readonly linkType: number
  readonly frames: readonly CapturedFrame[]
}

/** No frame of a real capture is larger; a length beyond it means that the file is broken. */
const maxFrameBytes = 1 << 20

/** Decodes a whole file. Throws DecodeError on a bad header; a last frame that was cut off is left out. */
export function decodeCapture(file: Uint8Array): CaptureFile {
  const reader = new Reader(file)
  const magic = reader.u32le()
  const little = magic === 0xa1b2c3d4 || magic === 0xa1b23c4d
  const nanoseconds = magic === 0xa1b23c4d || magic === 0x4d3cb2a1
  if (!little && magic !== 0xd4c3b2a1 && magic !== 0x4d3cb2a1) throw new DecodeError('not a capture file', 0)
  const u32 = little ? () => reader.u32le() : () => reader.u32be()
  reader.skip(16)
  const linkType = u32() & 0xfffffff
  const frames: CapturedFrame[] = []
  while (reader.remaining >= 16) {
    const seconds = BigInt(u32())
    const fraction = BigInt(u32()) * (nanoseconds ? 1n : 1000n)
    const length = u32()
    const originalLength = u32()
    if (length > maxFrameBytes) reader.fail(`a frame of ${length} bytes`)
    if (length > reader.remaining) break
    frames.push({ timeNanoseconds: seconds * 1_000_000_000n + fraction, originalLength, bytes: reader.bytes(length) })
  }
  return { linkType, frames }
}
