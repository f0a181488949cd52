/**
 * What nobody uses of the address pools any more goes back to them: addresses of pods that are gone, blocks and affinities of nodes
 * that are gone, claims that were left half done, handles without addresses, empty blocks beyond a node's first.
 *
 *   every interval:  list blocks, affinities, handles ─► who uses what (pods, nodes, agents' journals) ─► audit ─► the same finding as
 *                    last time, and it may be judged? ─► look again ─► mend, on condition that it is still what was found
 *
 * An address is freed when no pod of the API has it, its node is gone or that node's agent says that its journal does not
 * know it, it was so in two looks, with the same sequence number, and all other addresses of its handle are as free. What
 * cannot be asked is in use. So is an address that does not say whose it is.
 *
 * Sources: Calico design/ipam/ipam-gc.md, kube-controllers/pkg/controllers/node/ipam.go (two observations, all or none of a handle, a
 * node's last block stays).
 */
import { sleep } from '../cluster/backoff.ts'
import type { ClusterLog, NodeReport } from '../cluster/cluster.ts'
import { type AddressUse, type AuditInput, audit, type Finding } from '../ipam/audit.ts'
import { allocationsOf, type Cooldown, isEmpty, isInUse } from '../ipam/block.ts'
import { releaseBlock } from '../ipam/stores/block-claim.ts'
import { ConflictError, type IpamStore } from '../ipam/stores/ipam-store.ts'
import { freeAddresses, freeCooled, mend } from '../ipam/stores/mend.ts'
import type { BlockOwner, IpamSettings, IpPool, IpReservation } from '../model/calico.ts'
import type { Cidr } from '../net/cidr.ts'
import type { IpamMetrics } from './ipam-metrics.ts'

/** Who uses which address, as far as it can be known now. */
export interface AddressSight {
  /** Every pod's and every node's own. */
  readonly uses: readonly AddressUse[]
  /** Names of the nodes that exist. */
  readonly nodes: ReadonlySet<string>
  /** What the journal of a node's agent holds, as text; of nodes whose agent was asked and answered. */
  readonly journals: ReadonlyMap<string, ReadonlySet<string>>
}

export interface PoolObjects {
  readonly pools: readonly IpPool[]
  readonly reservations: readonly IpReservation[]
  readonly settings: IpamSettings
}

export interface IpamCollectorOptions {
  readonly store: IpamStore
  /** Milliseconds between two looks. */
  readonly interval: number
  readonly log: ClusterLog
  readonly events: { report(report: NodeReport): unknown }
  readonly metrics: IpamMetrics
  readonly signal: AbortSignal
  /** Undefined: the cluster has no pools, and nothing is done. */
  readPools(): Promise<PoolObjects | undefined>
  /** Rejects when it cannot be known: then nothing is done. */
  look(): Promise<AddressSight>
  /** Unix time in milliseconds. */
  now(): number
  mayWrite(): boolean
}

type Leak = Extract<Finding, { kind: 'leaked-address' }>

/** No more addresses are freed in one look; the others wait for the next. */
const MAX_FREED = 1000
const MAX_TOLD = 10

export class IpamCollector {
  readonly #options: IpamCollectorOptions
  readonly #counts = { reads: 0, writes: 0, conflicts: 0 }
  /** What was found at the last look, each with the state that it was found in. */
  #before = new Map<string, string>()

  constructor(options: IpamCollectorOptions) {
    this.#options = options
  }

  /** Looks once in an interval, until the signal. Never rejects. */
  async run(): Promise<void> {
    const { interval, signal, log } = this.#options
    while (!signal.aborted) {
      await sleep(interval, signal)
      if (signal.aborted) return
      try {
        await this.collect()
      } catch (error) {
        if (!signal.aborted)
          log.warn({ err: (error as Error).message }, 'the address pools could not be looked through')
      }
    }
  }

  /** One look. Rejects when something that must be known cannot be. */
  async collect(): Promise<void> {
    const { store, metrics, now, look, readPools } = this.#options
    const objects = await readPools()
    if (!objects) return this.#forget()
    // In this order: what is given after the list is not judged, what is used after it is known.
    const [blocks, affinities, handles] = await Promise.all([
      store.blocks.list(),
      store.affinities.list(),
      store.handles.list(),
    ])
    const unreadable = [...blocks.problems, ...affinities.problems, ...handles.problems]
    for (const { message } of unreadable)
      this.#options.log.warn({ err: message }, 'an object of the address pools cannot be read')
    const sight = await look()
    const input: AuditInput = {
      ...objects,
      blocks: blocks.objects,
      affinities: affinities.objects,
      handles: handles.objects,
      nodes: sight.nodes,
      inUse: sight.uses,
      unreadable,
      now: now(),
    }
    const findings = audit(input)
    const cooldown = { nowMilliseconds: now(), seconds: objects.settings.ipCooldownSeconds }
    const leaks = findings.filter((each): each is Leak => each.kind === 'leaked-address' && mayBeJudged(each, sight))
    const seen = new Map<string, string>()
    const twice = <T>(found: readonly T[], keyOf: (each: T) => string, stateOf: (each: T) => string): T[] =>
      found.filter((each) => {
        seen.set(keyOf(each), stateOf(each))
        return this.#before.get(keyOf(each)) === stateOf(each)
      })
    const sure = wholeHandles(twice(leaks, leakKey, leakState), input)
    const mendable = twice(findings.filter(isMendable), mendKey, mendState)
    const idle = twice(
      spareBlocks(input, cooldown),
      ({ cidr }) => `spare ${cidr}`,
      ({ state }) => state,
    )
    const goneNodes = findings.filter((each) => each.kind === 'node-gone')
    const gone = twice(
      goneNodes,
      ({ node }) => `gone ${node}`,
      () => 'gone',
    )
    this.#before = seen
    metrics.set(input, leaks)

    await this.#free(sure, cooldown, input.pools)
    for (const finding of mendable)
      await this.#try(finding.message, () => mend({ store, counts: this.#counts }, finding, cooldown))
    for (const { cidr } of coolBlocks(input, cooldown))
      await this.#try(`${cidr} cools down`, () => freeCooled({ store, counts: this.#counts }, cidr, cooldown))
    for (const { node, blocks: cidrs } of gone)
      for (const cidr of cidrs) await this.#release({ type: 'host', name: node }, cidr, cooldown)
    for (const { owner, cidr } of idle) await this.#release(owner, cidr, cooldown)
  }

  /** Of the findings that are sure, those whose node says the same when it is asked once more. */
  async #free(sure: readonly Leak[], cooldown: Cooldown, pools: readonly IpPool[]): Promise<void> {
    const { store, log, events, metrics, look } = this.#options
    const due = sure.slice(0, MAX_FREED)
    if (due.length === 0) return
    const again = await look()
    const used = new Set(again.uses.map(({ ip }) => `${ip}`))
    const free = due.filter((leak) => !used.has(`${leak.address.ip}`) && mayBeJudged(leak, again))
    const byBlock = new Map<string, Leak[]>()
    for (const leak of free) {
      const block = `${leak.address.block}`
      byBlock.set(block, [...(byBlock.get(block) ?? []), leak])
    }
    const told = new Map<string, string[]>()
    for (const leaks of byBlock.values()) {
      const { block } = leaks[0]!.address
      await this.#try(`leaked addresses of ${block}`, async () => {
        const addresses = leaks.map(({ address }) => address)
        const freed = await freeAddresses({ store, counts: this.#counts }, block, addresses, cooldown)
        const pool = pools.find(({ cidr }) => cidr.covers(block))?.name ?? ''
        for (const ip of freed) {
          const { node = '', attributes } = addresses.find((each) => each.ip.equals(ip))!
          metrics.countReclaimed(pool, node)
          told.set(node, [...(told.get(node) ?? []), `${ip} (${attributes.namespace ?? ''}/${attributes.pod ?? ''})`])
        }
      })
    }
    for (const [node, freed] of told) {
      log.info({ node, addresses: freed.length }, 'addresses that nobody uses are freed')
      const more = freed.length > MAX_TOLD ? ` and ${freed.length - MAX_TOLD} more` : ''
      const message = `addresses that no pod has are freed: ${freed.slice(0, MAX_TOLD).join(', ')}${more}`
      events.report({ node, severity: 'Warning', reason: 'AddressesFreed', message })
    }
  }

  async #release(owner: BlockOwner, cidr: Cidr, cooldown: Cooldown): Promise<void> {
    const { store, log } = this.#options
    await this.#try(`block ${cidr}`, async () => {
      const released = await releaseBlock({ store, counts: this.#counts }, { owner, cidr, mustBeEmpty: true, cooldown })
      if (released !== 'kept')
        log.info({ block: `${cidr}`, node: owner.name }, 'a block that nobody uses is given back')
    })
  }

  /** Who is late against a node that lives finds it so at the next look. */
  async #try(what: string, step: () => Promise<unknown>): Promise<void> {
    const { log, mayWrite, signal } = this.#options
    if (signal.aborted || !mayWrite()) return
    try {
      await step()
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error
      log.debug({ what }, 'changed meanwhile')
    }
  }

  #forget(): void {
    this.#before = new Map()
    this.#options.metrics.reset()
  }
}

/** An address that says whose it is, of a node that is gone, or whose agent does not know it. A tunnel's lives as long as its node. */
function mayBeJudged({ address: { ip, node, attributes } }: Leak, { nodes, journals }: AddressSight): boolean {
  if (node === undefined || (attributes.pod === undefined && attributes.type === undefined)) return false
  if (!nodes.has(node)) return true
  return attributes.type === undefined && journals.get(node)?.has(`${ip}`) === false
}

const leakKey = ({ address: { ip, block } }: Leak): string => `leak ${ip} ${block}`
const leakState = ({ address: { handleId, sequenceNumber } }: Leak): string => `${handleId} ${sequenceNumber}`

/** Those of handles all of whose addresses are among them. */
function wholeHandles(leaks: readonly Leak[], { blocks }: AuditInput): Leak[] {
  const leaked = new Set(leaks.map(({ address: { ip, block } }) => `${ip} ${block}`))
  const kept = new Set<string>()
  for (const { value } of blocks)
    for (const each of allocationsOf(value))
      if (each.handleId !== undefined && isInUse(each) && !leaked.has(`${each.ip} ${value.cidr}`))
        kept.add(each.handleId)
  return leaks.filter(({ address: { handleId } }) => handleId === undefined || !kept.has(handleId))
}

type Mendable = Extract<
  Finding,
  {
    kind:
      | 'handle-without-addresses'
      | 'handle-count'
      | 'block-without-affinity'
      | 'affinity-without-block'
      | 'affinity-mismatch'
      | 'affinity-unfinished'
  }
>

const isMendable = (finding: Finding): finding is Mendable =>
  finding.kind === 'handle-without-addresses' ||
  finding.kind === 'handle-count' ||
  finding.kind === 'block-without-affinity' ||
  finding.kind === 'affinity-without-block' ||
  finding.kind === 'affinity-mismatch' ||
  finding.kind === 'affinity-unfinished'

const mendKey = ({ kind, message }: Mendable): string => `${kind} ${message}`
const mendState = (finding: Mendable): string =>
  'handle' in finding ? finding.handle.revision : 'affinity' in finding ? finding.affinity.revision : ''

/** Blocks without an address in use or cooling down, but for one of each family that a node keeps. */
function spareBlocks({ blocks, nodes }: AuditInput, cooldown: Cooldown) {
  const kept = new Set<string>()
  const spare: { readonly owner: BlockOwner; readonly cidr: Cidr; readonly state: string }[] = []
  const keyOf = (owner: BlockOwner, cidr: Cidr) => `${owner.name} ${cidr.family}`
  for (const { value } of blocks) if (value.owner && !isEmpty(value)) kept.add(keyOf(value.owner, value.cidr))
  for (const { value } of blocks) {
    const { owner, cidr, sequenceNumber, ownedSince } = value
    if (owner?.type !== 'host' || !nodes.has(owner.name) || !isEmpty(value)) continue
    // A clock that is wrong keeps a block no longer than the next look.
    const age = cooldown.nowMilliseconds - Date.parse(ownedSince ?? '1970-01-01')
    if (kept.has(keyOf(owner, cidr)) && !(age >= 0 && age < 60_000))
      spare.push({ owner, cidr, state: `${sequenceNumber}` })
    else kept.add(keyOf(owner, cidr))
  }
  return spare
}

/** Blocks with marks of releases: nobody else writes to a block in which nothing happens. */
const coolBlocks = ({ blocks }: AuditInput, { nowMilliseconds, seconds }: Cooldown): { readonly cidr: Cidr }[] =>
  blocks.flatMap(({ value: { cidr, attributes } }) =>
    attributes.some(({ releasedAt }) => {
      const age = nowMilliseconds - Date.parse(releasedAt ?? '')
      return releasedAt !== undefined && (!(age >= 0) || age >= (seconds + 1) * 1000)
    })
      ? [{ cidr }]
      : [],
  )
