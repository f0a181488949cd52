/**
 * Tells of routes that were refused because they belong to another node: a peer that announces somebody else's block. Told
 * once for a peer and prefix until it is gone. It looks at what peers sent a while after something came, never in the way of
 * UPDATEs, and only where a policy has such a rule.
 */
import { type BgpEvent, MISPLACED_RULE, type PrefixOwner, type RibRoute } from '../model/bgp.ts'
import { Cidr } from '../net/cidr.ts'
import type { Clock, Timer } from './transport.ts'

/** Between two looks at everything that peers sent. */
const LOOK_MILLISECONDS = 5000
/** Routes that are remembered, so that a peer with endless ones costs no memory. */
const TOLD_MAX = 10_000

export interface LeakWatchHost {
  readonly ownership: readonly PrefixOwner[]
  readonly event: (event: BgpEvent) => void
  /** Peers with routes, and what each has sent. */
  received(): Iterable<{ readonly peer: string; readonly routes: Iterable<RibRoute> }>
}

export class LeakWatch {
  readonly #clock: Clock
  readonly #host: () => LeakWatchHost
  #told = new Set<string>()
  #timer: Timer | undefined

  constructor(clock: Clock, host: () => LeakWatchHost) {
    this.#clock = clock
    this.#host = host
  }

  /** Something came or went. */
  changed(): void {
    this.#timer ??= this.#clock.at(this.#clock.now() + LOOK_MILLISECONDS, () => {
      this.#timer = undefined
      this.#look(this.#host())
    })
  }

  close(): void {
    this.#timer?.cancel()
  }

  #look({ ownership, event, received }: LeakWatchHost): void {
    const before = this.#told
    this.#told = new Set()
    for (const { peer, routes } of received())
      for (const { prefix, nextHops, rejected } of routes) {
        if (rejected !== MISPLACED_RULE || this.#told.size >= TOLD_MAX) continue
        const key = `${peer} ${prefix}`
        if (!before.has(key) && !this.#told.has(key)) {
          const owner = ownerOf(ownership, prefix)?.owner ?? 'nobody'
          event({ type: 'misplaced', peer, prefix, nextHop: nextHops[0]?.address ?? '', owner })
        }
        this.#told.add(key)
      }
  }
}

/** Whose block a prefix is in, the longest one counts. */
function ownerOf(ownership: readonly PrefixOwner[], prefix: string): PrefixOwner | undefined {
  const cidr = Cidr.parse(prefix)
  let best: PrefixOwner | undefined
  let length = -1
  for (const owner of ownership) {
    const block = Cidr.parse(owner.prefix)
    if (!block.covers(cidr) || block.length <= length) continue
    best = owner
    length = block.length
  }
  return best
}
