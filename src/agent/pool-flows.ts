/**
 * What goes where: one flow for each peer and pool that have a block in common. Ten thousand flows are a handful of kinds,
 * for most peers say the same and are sent to alike; so flows are kept by kind, and a decision costs as much as there are
 * kinds, not flows.
 */
import type { PathId } from '../datapath/path.ts'
import type { Flow, SendMode } from '../datapath/transition.ts'

export interface PoolFlow {
  readonly node: string
  /** Name of the pool, or what stands in its place. */
  readonly pool: string
  readonly current: PathId | undefined
}

interface Entry extends PoolFlow {
  current: PathId | undefined
  /** Blocks for which it is there. */
  uses: number
  wanted: PathId | undefined
  accepts: readonly PathId[]
  kind: Kind | undefined
}

interface Kind {
  readonly flow: Flow
  readonly entries: Set<Entry>
}

const modes = new Map<PathId, SendMode>()

/** The mode that sends by a path; always the same object for one path. */
export function modeBy(path: PathId): SendMode {
  const mode = modes.get(path) ?? { path, direct: false }
  if (modes.size < 256) modes.set(path, mode)
  return mode
}

export class PoolFlows {
  readonly #byNode = new Map<string, Map<string, Entry>>()
  readonly #kinds = new Map<string, Kind>()
  readonly #onLeft: (mode: SendMode) => void

  /** `onLeft`: a flow was sent in this mode and is not any more. */
  constructor(onLeft: (mode: SendMode) => void) {
    this.#onLeft = onLeft
  }

  /** By kind, for the transition. */
  get kinds(): ReadonlyMap<string, Flow> {
    return new Map([...this.#kinds].map(([key, { flow }]) => [key, flow]))
  }

  /** Modes that anything is sent in. */
  get modes(): Set<SendMode> {
    const out = new Set<SendMode>()
    for (const { flow } of this.#kinds.values()) if (flow.current) out.add(flow.current)
    return out
  }

  of(node: string): Iterable<PoolFlow> {
    return this.#byNode.get(node)?.values() ?? []
  }

  get(node: string, pool: string): PoolFlow | undefined {
    return this.#byNode.get(node)?.get(pool)
  }

  /** One more block wants it. True when it is new: it has to be judged. */
  use(node: string, pool: string): boolean {
    const flows = this.#byNode.get(node) ?? new Map<string, Entry>()
    this.#byNode.set(node, flows)
    const entry = flows.get(pool)
    if (entry) {
      entry.uses++
      return false
    }
    flows.set(pool, { node, pool, uses: 1, wanted: undefined, accepts: [], current: undefined, kind: undefined })
    return true
  }

  /** One block less. */
  unuse(node: string, pool: string): void {
    const flows = this.#byNode.get(node)
    const entry = flows?.get(pool)
    if (!flows || !entry || --entry.uses > 0) return
    this.#setCurrent(entry, undefined)
    this.#leaveKind(entry)
    flows.delete(pool)
    if (flows.size === 0) this.#byNode.delete(node)
  }

  /** How it is wanted and may be sent; undefined while its peer cannot be reached at all. True when it is not sent any more. */
  judge(node: string, pool: string, wanted: PathId | undefined, accepts: readonly PathId[]): boolean {
    const entry = this.#byNode.get(node)?.get(pool)
    if (!entry) return false
    entry.wanted = wanted
    entry.accepts = accepts
    const isLost = wanted === undefined && entry.current !== undefined
    if (isLost) this.#setCurrent(entry, undefined)
    this.#enterKind(entry)
    return isLost
  }

  /** Takes a decision over. Returns the flows that it changes. */
  take(toward: ReadonlyMap<string, SendMode>): PoolFlow[] {
    const changed: Entry[] = []
    for (const [key, { flow, entries }] of this.#kinds)
      if (toward.get(key)?.path !== flow.current?.path)
        for (const entry of entries) {
          this.#setCurrent(entry, toward.get(key)?.path)
          changed.push(entry)
        }
    for (const entry of changed) this.#enterKind(entry)
    return changed
  }

  #setCurrent(entry: Entry, path: PathId | undefined): void {
    if (entry.current !== undefined && entry.current !== path) this.#onLeft(modeBy(entry.current))
    entry.current = path
  }

  #enterKind(entry: Entry): void {
    this.#leaveKind(entry)
    const { wanted, accepts, current } = entry
    if (wanted === undefined) return
    const key = `${wanted} ${current ?? '-'} ${accepts.join()}`
    let kind = this.#kinds.get(key)
    if (!kind) {
      const flow = { wanted: modeBy(wanted), accepts, current: current === undefined ? undefined : modeBy(current) }
      kind = { flow, entries: new Set() }
      this.#kinds.set(key, kind)
    }
    kind.entries.add(entry)
    entry.kind = kind
  }

  #leaveKind(entry: Entry): void {
    const { kind } = entry
    entry.kind = undefined
    if (!kind?.entries.delete(entry) || kind.entries.size > 0) return
    for (const [key, other] of this.#kinds) if (other === kind) this.#kinds.delete(key)
  }
}
