/**
 * Numbers that others keep, read when the metrics are asked for: the applier's and the loop's, address ranges, counters of
 * netlink, of the packet rules and of tunnel processes. A part that cannot be read keeps what it said last.
 */
import type { Counter } from 'prom-client'
import type { Applier } from '../apply/applier.ts'
import type { CniServer } from '../cni/server.ts'
import { errnoCode } from '../kernel/errno.ts'
import type { Kernel } from '../kernel/kernel.ts'
import { readNftCounters } from '../kernel/linux/drivers/nft.ts'
import { netlinkCounts } from '../kernel/linux/netlink-counts.ts'
import { listTunnelSockets, TunnelConnection } from '../kernel/linux/tunnel-client.ts'
import type { Check } from '../status/checks.ts'
import type { AgentMetrics } from './metrics.ts'
import type { NetworkLoop } from './network-loop.ts'

export interface MeasuredParts {
  readonly kernel: Kernel
  readonly applier: Applier
  readonly loop: NetworkLoop
  readonly cni: CniServer
  readonly runDir: string
  live(): readonly Check[]
  ready(): readonly Check[]
}

/** Callers of CNI may bring ranges of their own: more than this many are not told apart. */
const MOST_RANGES = 32
/** How names of counters of dropped packets begin; the rest is the check. */
const FORGED = /^(?:calico-)?forged-|^calico-(?=tunnel-from-pod$)/

export async function readMetrics(metrics: AgentMetrics, parts: MeasuredParts): Promise<string> {
  readLoop(metrics, parts.loop)
  readApplier(metrics, parts.applier)
  readRanges(metrics, parts.cni)
  readNetlink(metrics)
  metrics.process.setChecks('healthz', parts.live())
  metrics.process.setChecks('readyz', parts.ready())
  await Promise.allSettled([readRules(metrics, parts.kernel), readTunnels(metrics, parts.runDir)])
  return metrics.registry.metrics()
}

function readLoop(metrics: AgentMetrics, loop: NetworkLoop): void {
  const { believed, refused } = loop.peerCounts
  metrics.peers.set({ state: 'believed' }, believed)
  metrics.peers.set({ state: 'refused' }, refused)
  metrics.felixHosts.set(believed + refused + 1)
  metrics.peersByPath.reset()
  for (const [path, count] of loop.peersByPath()) metrics.peersByPath.set({ path }, count)
  const { pools, blocks, requests } = loop.poolCounts ?? {}
  for (const [state, count] of Object.entries(pools ?? {})) metrics.pools.set({ state }, count)
  for (const [owner, count] of Object.entries(blocks ?? {})) metrics.poolBlocks.set({ owner }, count)
  setTotal(
    metrics.poolRequests,
    Object.entries(requests ?? {}).map(([kind, count]) => [{ kind }, count]),
  )
}

function readApplier(metrics: AgentMetrics, applier: Applier): void {
  const kinds = new Map<string, number>()
  for (const [, { kind }] of applier.desired.entries()) kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
  metrics.desired.reset()
  for (const [kind, count] of kinds) metrics.desired.set({ kind }, count)
  metrics.failing.set(applier.failures().length)
  metrics.queued.set(applier.queued)
  const { driftSeen, readings } = applier.counts
  setTotal(metrics.drift, [[{}, driftSeen]])
  setTotal(metrics.reads, [[{}, readings]])
}

function readRanges(metrics: AgentMetrics, cni: CniServer): void {
  metrics.addressesInUse.reset()
  metrics.addressesFree.reset()
  for (const [index, { range, taken, free }] of cni.usage().entries()) {
    const labels = { range: index < MOST_RANGES ? `${range.subnet}` : 'other' }
    metrics.addressesInUse.inc(labels, taken)
    metrics.addressesFree.inc(labels, Number(free))
  }
}

function readNetlink(metrics: AgentMetrics): void {
  setTotal(metrics.dumpRetries, [[{}, netlinkCounts.dumpRetries]])
  setTotal(metrics.overruns, [[{}, netlinkCounts.overruns]])
  setTotal(
    metrics.netlinkErrors,
    [...netlinkCounts.refusals].map(([errno, count]) => [{ code: errnoCode(errno) }, count]),
  )
}

async function readRules(metrics: AgentMetrics, kernel: Kernel): Promise<void> {
  // Both dialects count forged packets of tunnels, each in its own chains.
  const byCheck = new Map<string, number>()
  for (const { table, name, packets } of await readNftCounters(kernel)) {
    if (table !== 'weft' || !FORGED.test(name)) continue
    const check = name.replace(FORGED, '')
    byCheck.set(check, (byCheck.get(check) ?? 0) + Number(packets))
  }
  setTotal(
    metrics.forged,
    [...byCheck].map(([check, packets]) => [{ check }, packets]),
  )
}

async function readTunnels(metrics: AgentMetrics, runDir: string): Promise<void> {
  const tunnels = new Map<string, ReadonlyMap<string, number>>()
  for (const device of listTunnelSockets(runDir)) {
    const tunnel = await TunnelConnection.open(runDir, device)
    if (!tunnel) continue
    try {
      tunnels.set(device, await tunnel.readCounters())
    } finally {
      tunnel.close()
    }
  }
  setTunnels(metrics, tunnels)
}

/** Sorts a tunnel's counters (`sent-packets`, `dropped-no-peer`, …) into metrics by what their names say. */
export function setTunnels(metrics: AgentMetrics, tunnels: ReadonlyMap<string, ReadonlyMap<string, number>>): void {
  for (const each of [metrics.tunnelPackets, metrics.tunnelBytes, metrics.tunnelDrops, metrics.tunnelEvents])
    each.reset()
  for (const [device, counters] of tunnels)
    for (const [name, value] of counters) {
      const [, direction, unit] = /^(sent|received)-(packets|bytes)$/.exec(name) ?? []
      const reason = /^dropped-(.+)$/.exec(name)?.[1]
      if (direction) (unit === 'bytes' ? metrics.tunnelBytes : metrics.tunnelPackets).inc({ device, direction }, value)
      else if (reason) metrics.tunnelDrops.inc({ device, reason }, value)
      else metrics.tunnelEvents.inc({ device, event: name }, value)
    }
}

/** Puts totals that are kept elsewhere in place of what the counter had. */
function setTotal<L extends string>(
  counter: Counter<L>,
  totals: readonly (readonly [Partial<Record<L, string>>, number])[],
): void {
  counter.reset()
  for (const [labels, total] of totals) counter.inc(labels, total)
}
