/**
 * Captures on many devices of many namespaces at once, by tcpdump, one each, all on the machine's one clock. What is shown
 * of a packet's way is what was seen there, never what should have been.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { inNetns } from '../kernel/linux/netns.ts'
import { decodePacket, type FrameStart, type Layer } from '../wire/packet/packet.ts'
import { decodeCapture } from '../wire/pcap/pcap.ts'
import { LAB_VARIABLE } from './process.ts'

export interface CapturePoint {
  readonly netnsPath: string
  readonly device: string
}

export interface SeenFrame {
  readonly timeNanoseconds: bigint
  readonly layers: readonly Layer[]
}

const LINK_ETHERNET = 1
const FILE_HEADER_BYTES = 24
const OPEN_TIMEOUT_MS = 15_000
/** Enough for any header stack of a walk, small enough to keep nothing else. */
const SNAP_BYTES = 256

/** The device went away between looking and listening: a data path that has just been left. */
export class DeviceGone extends Error {
  override readonly name = 'DeviceGone'
}

/** One running tcpdump. */
export class Capture {
  readonly #child: ChildProcess
  readonly #chunks: Buffer[] = []
  readonly #closed: Promise<void>

  private constructor(child: ChildProcess) {
    this.#child = child
    child.stdout!.on('data', (chunk: Buffer) => this.#chunks.push(chunk))
    this.#closed = new Promise((resolve) => {
      child.once('close', () => resolve())
    })
  }

  /** Resolves when the device is being listened to; rejects with DeviceGone when there is none (any more). `filter` is tcpdump's expression. */
  static async open(lab: string, point: CapturePoint, filter: string): Promise<Capture> {
    const argv = [
      '-i',
      point.device,
      '-n',
      '-U',
      '-s',
      String(SNAP_BYTES),
      '--immediate-mode',
      '--time-stamp-precision=nano',
      '-Z',
      'root',
      '-w',
      '-',
      filter,
    ]
    const child = inNetns(point.netnsPath, () =>
      spawn('tcpdump', argv, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, [LAB_VARIABLE]: lab } }),
    )
    const capture = new Capture(child)
    await new Promise<void>((resolve, reject) => {
      let text = ''
      const timer = setTimeout(
        () => reject(new Error(`tcpdump does not start on ${point.device}: ${text}`)),
        OPEN_TIMEOUT_MS,
      )
      const settle = (error?: Error) => {
        clearTimeout(timer)
        if (error) reject(error)
        else resolve()
      }
      child.once('error', (error) =>
        settle(new Error('the walk needs tcpdump (Debian package tcpdump)', { cause: error })),
      )
      child.once('exit', () => {
        const message = `tcpdump ended on ${point.device}: ${text.trim()}`
        settle(/No such device|not up|went down/.test(text) ? new DeviceGone(message) : new Error(message))
      })
      child.stderr!.on('data', (chunk: Buffer) => {
        text += chunk
        if (text.includes('listening on')) settle()
      })
    })
    return capture
  }

  /** True when a frame has come out of the capture. One that the kernel holds for it yet is lost when it is closed. */
  get hasFrames(): boolean {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0) > FILE_HEADER_BYTES
  }

  /** Ends the capture and gives what was seen. */
  async close(): Promise<SeenFrame[]> {
    this.#child.kill('SIGINT')
    await this.#closed
    const bytes = Buffer.concat(this.#chunks)
    if (bytes.length <= FILE_HEADER_BYTES) return []
    const { linkType, frames } = decodeCapture(bytes)
    const start: FrameStart = linkType === LINK_ETHERNET ? 'ethernet' : 'ip'
    return frames.map((frame) => ({ timeNanoseconds: frame.timeNanoseconds, layers: decodePacket(frame.bytes, start) }))
  }
}
