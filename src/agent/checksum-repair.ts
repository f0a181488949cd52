/**
 * VXLAN behind a device that computes wrong checksums: what pods send is dropped by who receives it, ping works, and nobody
 * says why. The kernel leaves checksums of wrapped packets to the device that sends them, and some cannot do it.
 *
 * Found out by trying: a datagram from this node to the tunnel's end on another node, where nobody listens. Its checksum is left
 * to the device. Whoever gets it whole says so (ICMP port unreachable, which the kernel itself computes); a datagram with a wrong
 * checksum is dropped without a word. Silence alone proves nothing, so the offload is turned off and the same is tried again:
 *
 *   answered ─────────────────────────────► fine
 *   silent ─► offload off ─► answered ────► broken: it stays off, also when the device is made anew
 *                        └─► silent ──────► on again, and another try later
 *
 * A device that has its offload off when an agent finds it keeps it off: an earlier agent, or somebody, had reason.
 *
 * Sources: kubernetes/kubernetes#88986, projectcalico/calico#3145, flannel-io/flannel#2152 (the symptom and the remedy); RFC 1122
 * section 3.2.2.1; Calico felix configuration `featureDetectOverride` (ChecksumOffloadBroken).
 */
import { createSocket } from 'node:dgram'
import type { Applier } from '../apply/applier.ts'
import type { Kernel } from '../kernel/kernel.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import type { Offload } from '../model/link.ts'
import type { Ip } from '../net/ip.ts'

export const CHECKSUM_FEATURE = 'tx-checksum-ip-generic'
/** Discard: where it is served after all, its silence costs a try. */
const PORT = 9
/** A reply within a cluster takes milliseconds; on a busy machine more. */
const WAIT_MS = 1000
const TRIES = 3
/** Peers that are asked about one device. */
const MAX_TARGETS = 3
/** Between two looks at what has changed. */
const LOOK_MS = 60_000

export interface ChecksumRepairOptions {
  readonly kernel: Pick<Kernel, 'read'>
  readonly applier: Pick<Applier, 'desired' | 'set' | 'remove' | 'settle' | 'inPlace'>
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void }
  /** Says whether this device's offload is off; undefined for a device that is not there or cannot say. */
  isOff(device: string): boolean | undefined
  /** `true`: broken without a try; `false`: never to be touched; undefined: to be found out. */
  override?(): boolean | undefined
  /** Said once for each device. */
  onBroken(message: string): void
  /** Whether a datagram to there is answered in any way. */
  readonly ask?: (target: Ip, signal: AbortSignal) => Promise<boolean>
}

type Verdict = 'fine' | 'broken' | 'unknown'

const sourceOf = (device: string): string => `checksum/${device}`

export class ChecksumRepair {
  readonly #options: ChecksumRepairOptions
  /** What was found out, and about which making of the device. */
  readonly #verdicts = new Map<string, { readonly ifindex: number; readonly verdict: Verdict }>()
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> | undefined
  readonly #closing = new AbortController()

  constructor(options: ChecksumRepairOptions) {
    this.#options = options
  }

  /** Devices whose offload is kept off. */
  get broken(): readonly string[] {
    return [...this.#verdicts].filter(([, { verdict }]) => verdict === 'broken').map(([device]) => device)
  }

  /** Looks now, and again every minute. */
  start(): void {
    void this.look()
    this.#timer ??= setInterval(() => void this.look(), LOOK_MS).unref()
  }

  /** Tries what is not known yet. Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.#lookAll()
      .catch((error: Error) => this.#options.log.warn({ err: error.message }, 'checksums of tunnels cannot be tried'))
      .finally(() => {
        this.#looking = undefined
      })
    return this.#looking
  }

  /** A try that is under way ends at once, and what it changed is as before. */
  async close(): Promise<void> {
    this.#closing.abort()
    clearInterval(this.#timer)
    await this.#looking
  }

  async #lookAll(): Promise<void> {
    const { applier, kernel } = this.#options
    if (this.#options.override?.() === false) return
    const targets = targetsOf([...applier.desired.entries()].map(([, object]) => object))
    for (const device of this.#verdicts.keys())
      if (!targets.has(device)) {
        this.#verdicts.delete(device)
        applier.remove(sourceOf(device))
      }
    const indexes = new Map((await kernel.read('link')).map(({ name, ifindex }) => [name, ifindex ?? 0]))
    for (const [device, ips] of targets) {
      const ifindex = indexes.get(device)
      const known = this.#verdicts.get(device)
      if (this.#closing.signal.aborted || ifindex === undefined) continue
      if (known?.verdict === 'broken' || (known?.verdict === 'fine' && known.ifindex === ifindex)) continue
      this.#verdicts.set(device, { ifindex, verdict: await this.#judge(device, ips) })
    }
  }

  async #judge(device: string, targets: readonly Ip[]): Promise<Verdict> {
    const { isOff, log, onBroken } = this.#options
    if (this.#options.override?.() === true) {
      await this.#turn(device, false)
      log.info({ device }, 'checksum offload is off, as told')
      return 'broken'
    }
    const off = isOff(device)
    if (off === undefined) return 'unknown'
    if (off) {
      await this.#turn(device, false)
      log.info({ device }, 'checksum offload was off already and stays off')
      return 'broken'
    }
    if (await this.#isAnswered(targets)) return 'fine'
    if (this.#closing.signal.aborted) return 'unknown'
    await this.#turn(device, false)
    if (await this.#isAnswered(targets)) {
      const message = `packets by ${device} had wrong checksums: its ${CHECKSUM_FEATURE} is turned off`
      log.warn({ device }, message)
      onBroken(message)
      return 'broken'
    }
    await this.#turn(device, true)
    return 'unknown'
  }

  /** The feature on or off, and wanted so only when off. */
  async #turn(device: string, on: boolean): Promise<void> {
    const { applier } = this.#options
    const offload: Offload = { kind: 'offload', device, features: { [CHECKSUM_FEATURE]: on } }
    applier.set({ source: sourceOf(device), objects: [offload] })
    await applier.settle()
    if (on) applier.remove(sourceOf(device))
  }

  /** Whether any of the peers answers: one that is away says nothing about the device. */
  async #isAnswered(targets: readonly Ip[]): Promise<boolean> {
    const ask = this.#options.ask ?? isAnswered
    const answers = await Promise.all(targets.map((target) => ask(target, this.#closing.signal)))
    return answers.includes(true)
  }
}

/** weft's VXLAN devices with addresses of peers' ends that routes by them lead to. */
function targetsOf(objects: readonly KernelObject[]): Map<string, Ip[]> {
  const targets = new Map<string, Ip[]>()
  for (const object of objects) if (object.kind === 'link' && object.type === 'vxlan') targets.set(object.name, [])
  for (const object of objects) {
    if (object.kind !== 'route') continue
    const { via, device } = object.hops[0] ?? {}
    const known = via && device !== undefined ? targets.get(device) : undefined
    // IPv6 goes by the link-local address of the peer's end, whose own address begins its subnet.
    if (known && known.length < MAX_TARGETS) known.push(via!.isLinkLocal ? object.destination.base : via!)
  }
  for (const [device, ips] of targets) if (ips.length === 0) targets.delete(device)
  return targets
}

/** Sends a datagram to where nobody listens, up to three times; true when it is refused, or answered. An abort is silence. */
export async function isAnswered(target: Ip, signal?: AbortSignal): Promise<boolean> {
  const socket = createSocket(target.family === 4 ? 'udp4' : 'udp6')
  try {
    return await new Promise<boolean>((resolve) => {
      let timer: NodeJS.Timeout | undefined
      const end = (answered: boolean): void => {
        clearTimeout(timer)
        resolve(answered)
      }
      // The refusal comes as an error of the connected socket.
      socket.on('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED'))
      socket.on('message', () => end(true))
      signal?.addEventListener('abort', () => end(false), { once: true })
      const send = (left: number): void => {
        if (left === 0) return end(false)
        socket.send(Buffer.alloc(64, 0x77), (error) => {
          if (error) end((error as NodeJS.ErrnoException).code === 'ECONNREFUSED')
        })
        timer = setTimeout(() => send(left - 1), WAIT_MS)
      }
      socket.connect(PORT, `${target}`, () => send(TRIES))
    })
  } finally {
    socket.close()
  }
}
