/**
 * Which reports about nodes may go out, so that a peer that misbehaves a thousand times costs the cluster a handful of Events:
 * the same words once in five minutes; of one kind about one node five, then one in five minutes; of all kinds twenty, then
 * six a minute.
 *
 * What is wrong with a peer every other node sees. In a cluster of thousands some fifty of them speak, chosen by their names,
 * the peer's and the reason, the same ones each time; about itself a node always may.
 */
import type { NodeReport } from './cluster.ts'
import { TokenBucket } from './token-bucket.ts'

const REPEAT_MS = 5 * 60_000
const BURST = 20
const PER_SECOND = 0.1
const KIND_BURST = 5
const KIND_PER_SECOND = 1000 / REPEAT_MS
const MAX_REMEMBERED = 1024
const SPEAKERS = 50

export interface Speaker {
  /** The node that reports; undefined for a program that is alone with its task. */
  readonly host: string | undefined
  /** How many nodes there are. */
  clusterSize(): number
}

export class ReportLimiter {
  readonly #now: () => number
  readonly #speaker: Speaker
  readonly #last = new Map<string, number>()
  readonly #kinds = new Map<string, TokenBucket>()
  readonly #all: TokenBucket

  /** `now`: monotonic milliseconds. */
  constructor(
    speaker: Speaker = { host: undefined, clusterSize: () => 1 },
    now: () => number = () => performance.now(),
  ) {
    this.#speaker = speaker
    this.#now = now
    this.#all = new TokenBucket(PER_SECOND, BURST, now())
  }

  /** True when the report is to be sent; counts it then. */
  admit(report: NodeReport): boolean {
    const now = this.#now()
    const kind = `${report.node}\n${report.reason}`
    const words = `${kind}\n${report.message}`
    const last = this.#last.get(words)
    if (last !== undefined && now - last < REPEAT_MS) return false
    if (!this.#speaksOf(report.node, report.reason)) return false
    const bucket = this.#kinds.get(kind) ?? new TokenBucket(KIND_PER_SECOND, KIND_BURST, now)
    remember(this.#kinds, kind, bucket)
    if (!bucket.take(now) || !this.#all.take(now)) return false
    remember(this.#last, words, now)
    return true
  }

  #speaksOf(node: string, reason: string): boolean {
    const { host, clusterSize } = this.#speaker
    if (host === undefined || host === node) return true
    return hash(`${host}\n${node}\n${reason}`) * clusterSize() < SPEAKERS * 2 ** 32
  }
}

/** As the newest; the oldest goes when there are too many. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key)
  map.set(key, value)
  if (map.size > MAX_REMEMBERED) map.delete(map.keys().next().value!)
}

/** FNV-1a with a last mixing, 32 bits: spreads names, keeps no secret. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
