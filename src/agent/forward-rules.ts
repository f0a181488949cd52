/**
 * Keeps pods' packets from being lost in somebody else's forward chain: what datapath/firewall/forward.ts plans, done whenever
 * such a chain changes. nf_tables announces its changes; x_tables does not and is looked at every five seconds, as flannel does.
 *
 *   nft multicast ─┐
 *   5 s (legacy) ──┼─► read chains ─► plan ─► rules in iptables' FORWARD
 *   pod network ───┘                     └──► Event, log, remark in /readyz
 */
import { type ForwardPlan, planForward, planForwardRemoval } from '../datapath/firewall/forward.ts'
import type { Kernel, Watch } from '../kernel/kernel.ts'
import { changeForwardRules, readForwardChains, watchForwardChains } from '../kernel/linux/forward-chains.ts'
import {
  changeLegacyForwardRules,
  type LegacyAccess,
  ownLegacyAccess,
  readLegacyForwardChains,
} from '../kernel/linux/iptables-legacy.ts'
import { type ForwardChain, type ForwardChange, formatForwardChange } from '../model/forward-chain.ts'
import type { Cidr } from '../net/cidr.ts'

const LEGACY_INTERVAL_MS = 5_000
/** One change of another's rules comes as many messages. */
const REST_MS = 50

export interface ForwardRulesOptions {
  readonly kernel: Kernel
  /** flannel's --iptables-forward-rules. */
  readonly enabled: boolean
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void }
  /** Said once for each new problem. */
  onProblem(problem: string): void
  readonly legacy?: LegacyAccess
}

export class ForwardRules {
  readonly #options: ForwardRulesOptions
  readonly #legacy: LegacyAccess
  #blocks: readonly Cidr[] | undefined
  #watch: Watch | undefined
  #interval: NodeJS.Timeout | undefined
  #timer: NodeJS.Timeout | undefined
  #checking: Promise<void> | undefined
  #again = false
  #closed = false
  #problems: readonly string[] = []
  /** Chains of nf_tables as they were read last, good until the watch tells of a change; undefined after one of our own. */
  #known: readonly ForwardChain[] | undefined
  #changed = false

  constructor(options: ForwardRulesOptions) {
    this.#options = options
    this.#legacy = options.legacy ?? ownLegacyAccess
  }

  /** Which pod networks are to pass. The first call begins to watch. */
  setBlocks(blocks: readonly Cidr[]): void {
    if (this.#closed || `${blocks}` === `${this.#blocks}`) return
    this.#blocks = blocks
    this.#watch ??= watchForwardChains(this.#options.kernel, () => this.#schedule())
    this.#interval ??= setInterval(() => void this.#run(), LEGACY_INTERVAL_MS).unref()
    void this.check()
  }

  /** Where packets of pods are lost, and what to do; undefined where they are not. */
  get problem(): string | undefined {
    return this.#problems.length > 0 ? this.#problems.join('\n') : undefined
  }

  close(): void {
    this.#closed = true
    this.#watch?.close()
    clearInterval(this.#interval)
    clearTimeout(this.#timer)
  }

  #schedule(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      void this.check()
    }, REST_MS)
  }

  /** Looks and puts right; looks again when something came meanwhile. Never rejects. */
  check(): Promise<void> {
    this.#changed = true
    return this.#run()
  }

  #run(): Promise<void> {
    this.#again = true
    this.#checking ??= this.#checkAll().finally(() => {
      this.#checking = undefined
    })
    return this.#checking
  }

  async #checkAll(): Promise<void> {
    while (this.#again && !this.#closed) {
      this.#again = false
      await this.#checkOnce()
    }
  }

  async #checkOnce(): Promise<void> {
    const { kernel, enabled, log } = this.#options
    if (!this.#blocks) return
    const problems: string[] = []
    const known = this.#changed ? undefined : this.#known
    this.#changed = false
    const chains = known ?? (await readChains(kernel, problems))
    const plan = planForward([...chains, ...(await readLegacy(this.#legacy, problems))], this.#blocks, enabled)
    if (this.#closed) return
    this.#known = problems.length === 0 && plan.changes.length === 0 ? chains : undefined
    problems.unshift(...plan.problems)
    const written = await attempt(problems, "Rules for pods' packets cannot be written", () =>
      execute(kernel, this.#legacy, plan.changes),
    )
    for (const change of written ?? [])
      log.info({ command: formatForwardChange(change) }, "pods' packets in another's FORWARD")
    this.#report(problems)
  }

  #report(problems: readonly string[]): void {
    for (const problem of problems) {
      if (this.#problems.includes(problem)) continue
      this.#options.log.warn({ problem }, "packets of pods may be lost in another's forward chain")
      this.#options.onProblem(problem)
    }
    if (problems.length === 0 && this.#problems.length > 0)
      this.#options.log.info({}, "no other forward chain loses pods' packets any more")
    this.#problems = problems
  }
}

/** Does the work, or adds to `problems` why not. */
async function attempt<T>(problems: string[], what: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    problems.push(`${what}: ${(error as Error).message.trim()}`)
    return undefined
  }
}

/** Reads the chains of others and plans by them; what cannot be read is among the problems. Never rejects. */
export async function planForwardRules(
  kernel: Kernel,
  blocks: readonly Cidr[],
  enabled: boolean,
  legacy: LegacyAccess = ownLegacyAccess,
): Promise<ForwardPlan> {
  const problems: string[] = []
  const chains = [...(await readChains(kernel, problems)), ...(await readLegacy(legacy, problems))]
  const plan = planForward(chains, blocks, enabled)
  return { changes: plan.changes, problems: [...plan.problems, ...problems] }
}

async function readChains(kernel: Kernel, problems: string[]): Promise<readonly ForwardChain[]> {
  return (await attempt(problems, 'The forward chains cannot be read', () => readForwardChains(kernel))) ?? []
}

async function readLegacy(legacy: LegacyAccess, problems: string[]): Promise<readonly ForwardChain[]> {
  const what = "x_tables has a filter table, and whether its FORWARD drops pods' packets cannot be seen"
  return (await attempt(problems, what, () => readLegacyForwardChains(legacy))) ?? []
}

/** Resolves with the changes when they are made. Throws KernelError, Error. */
async function execute(
  kernel: Kernel,
  legacy: LegacyAccess,
  changes: readonly ForwardChange[],
): Promise<readonly ForwardChange[]> {
  const of = (backend: ForwardChain['backend']) => changes.filter(({ chain }) => chain.backend === backend)
  await changeForwardRules(kernel, of('nft'))
  await changeLegacyForwardRules(legacy, of('legacy'))
  return changes
}

/** Takes weft's rules out of the chains of others; returns the commands that it comes to. Throws KernelError, Error. */
export async function removeForwardRules(kernel: Kernel, legacy: LegacyAccess = ownLegacyAccess): Promise<string[]> {
  const ofLegacy = await readLegacyForwardChains(legacy).catch((error: NodeJS.ErrnoException) => {
    // Without the tool weft wrote nothing there.
    if (error.code === 'ENOENT') return []
    throw error
  })
  const changes = planForwardRemoval([...(await readForwardChains(kernel)), ...ofLegacy])
  return (await execute(kernel, legacy, changes)).map(formatForwardChange)
}
