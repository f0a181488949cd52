/**
 * What the agent counts, in Prometheus' words: names begin with `weft_` except where a peer's or Kubernetes' own name says
 * the same (process_…, rest_client_…, kubernetes_healthcheck, felix_…). What each means, and what to do when it is wrong:
 * docs/metrics.md, which a test holds to this registry.
 *
 * Labels have few values by design: data paths, kinds of kernel objects, codes, devices of tunnels, and at most 32 ranges.
 *
 * Sources: Prometheus "Metric and label naming"; Calico "Felix Prometheus metrics" (the felix_ names).
 */
import { Counter, Gauge, Histogram, Registry, Summary } from 'prom-client'
import type { ApplyReport } from '../apply/applier.ts'
import type { ListReason, WatchEnd } from '../cluster/cluster.ts'
import { CniCode } from '../cni/error.ts'
import { keyOf } from '../model/kernel-object.ts'
import { ProcessMetrics } from '../status/process-metrics.ts'

const COMMANDS: ReadonlySet<string> = new Set(['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'])
const CODES: ReadonlySet<number> = new Set([0, ...Object.values(CniCode)])
const APPLY_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5]
const CNI_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30]

export class AgentMetrics {
  readonly registry = new Registry()
  readonly process: ProcessMetrics

  readonly cniAttachments = this.#gauge('weft_cni_attachments', 'Pod interfaces alive')
  readonly cniDraining = this.#gauge('weft_cni_draining_addresses', 'Pod addresses on their way back to their range')
  readonly addressesInUse = this.#gauge(
    'weft_ipam_addresses_in_use',
    'Addresses of a range that pods hold, or held and are giving back',
    ['range'],
  )
  readonly addressesFree = this.#gauge('weft_ipam_addresses_free', 'Addresses of a range that can be given', ['range'])

  readonly peers = this.#gauge('weft_peers', 'Other nodes, by whether their words are believed', ['state'])
  readonly peersByPath = this.#gauge('weft_peers_by_path', 'Other nodes that are sent to by a data path', ['path'])
  readonly peerProblems = this.#counter('weft_peer_problems_total', 'Words of other nodes that were refused')
  readonly configErrors = this.#counter('weft_config_errors_total', 'Network configurations that were refused')

  readonly pools = this.#gauge('weft_pools', 'Address pools, by whether they are used', ['state'])
  readonly poolBlocks = this.#gauge('weft_pool_blocks', 'Blocks of address pools that this node knows, by whose', [
    'owner',
  ])
  readonly poolRequests = this.#counter(
    'weft_pool_store_requests_total',
    'What giving and freeing addresses of pools asked of the store',
    ['kind'],
  )

  readonly connected = this.#gauge('weft_cluster_connected', '1 while the cluster store can be reached')
  readonly synced = this.#gauge('weft_cluster_synced', '1 after the first complete list')
  readonly remembered = this.#gauge(
    'weft_cluster_from_cache',
    '1 while this node works from what it remembers of the cluster',
  )
  readonly #lists = this.#counter('weft_cluster_lists_total', 'Complete lists of the cluster store, by why', [
    'resource',
    'reason',
  ])
  readonly #watchEnds = this.#counter('weft_cluster_watch_restarts_total', 'Watches that ended, by how', [
    'resource',
    'reason',
  ])

  readonly #operations = this.#counter('weft_apply_operations_total', 'Changes made to the kernel', ['kind', 'verb'])
  readonly #failures = this.#counter('weft_apply_failures_total', 'Changes that the kernel refused', ['kind', 'code'])
  readonly failing = this.#gauge('weft_apply_failing_objects', 'Refused changes that wait for another try')
  readonly queued = this.#gauge('weft_apply_queue_objects', 'Kernel objects that wait to be looked at')
  readonly desired = this.#gauge('weft_apply_desired_objects', 'Kernel objects that this node should have', ['kind'])
  readonly reads = this.#counter('weft_apply_kernel_reads_total', 'Readings of the kernel, of some kinds or of all')
  readonly readErrors = this.#counter('weft_apply_kernel_read_failures_total', 'Readings of the kernel that failed')
  readonly drift = this.#counter(
    'weft_drift_healed_total',
    'Wanted objects that somebody else changed, put right again',
  )

  readonly netlinkErrors = this.#counter('weft_netlink_errors_total', 'Netlink requests that the kernel refused', [
    'code',
  ])
  readonly dumpRetries = this.#counter(
    'weft_netlink_dump_retries_total',
    'Netlink dumps that began again because they were interrupted',
  )
  readonly overruns = this.#counter(
    'weft_netlink_overruns_total',
    'Times that the kernel dropped netlink messages for want of room',
  )

  readonly forged = this.#counter('weft_forged_packets_total', 'Packets dropped as forged, by the check that failed', [
    'check',
  ])
  readonly tunnelPackets = this.#counter('weft_tunnel_packets_total', 'Packets that the user-space tunnel carried', [
    'device',
    'direction',
  ])
  readonly tunnelBytes = this.#counter('weft_tunnel_bytes_total', 'Bytes that the user-space tunnel carried', [
    'device',
    'direction',
  ])
  readonly tunnelDrops = this.#counter(
    'weft_tunnel_dropped_packets_total',
    'Packets that the user-space tunnel dropped, by why',
    ['device', 'reason'],
  )
  readonly tunnelEvents = this.#counter('weft_tunnel_events_total', 'What else the user-space tunnel counts', [
    'device',
    'event',
  ])

  readonly felixHosts = this.#gauge('felix_cluster_num_hosts', 'Nodes of the cluster, this one included')
  readonly felixEndpoints = this.#gauge('felix_active_local_endpoints', 'Pod interfaces alive on this node')
  readonly felixState = this.#gauge(
    'felix_resync_state',
    'The cluster store: 1 waited for, 2 being listed, 3 listed and followed',
  )
  readonly #felixFailures = this.#counter('felix_int_dataplane_failures', 'Passes in which the kernel refused a change')

  readonly #registers = { registers: [this.registry] }
  readonly #cniOperations = this.#counter(
    'weft_cni_operations_total',
    'CNI requests answered, by error code (0: none)',
    ['command', 'code'],
  )
  readonly #cniSeconds = new Histogram({
    name: 'weft_cni_operation_duration_seconds',
    help: 'Time from a CNI request to its answer',
    labelNames: ['command', 'result'],
    buckets: CNI_BUCKETS,
    ...this.#registers,
  })
  readonly #applySeconds = new Histogram({
    name: 'weft_apply_duration_seconds',
    help: 'Time of one pass of changes to the kernel',
    buckets: APPLY_BUCKETS,
    ...this.#registers,
  })
  readonly #felixSeconds = new Summary({
    name: 'felix_int_dataplane_apply_time_seconds',
    help: 'Time of one pass of changes to the kernel',
    percentiles: [0.5, 0.9, 0.99],
    maxAgeSeconds: 600,
    ageBuckets: 5,
    ...this.#registers,
  })

  constructor(version: string) {
    this.process = new ProcessMetrics(this.registry, version)
    this.felixState.set(1)
  }

  /** A CNI request was answered. Command and code may be whatever a caller made up. */
  observeCni(command: string, code: number, milliseconds: number): void {
    const known = COMMANDS.has(command) ? command : 'other'
    this.#cniOperations.inc({ command: known, code: CODES.has(code) ? String(code) : 'other' })
    this.#cniSeconds.observe({ command: known, result: code === 0 ? 'success' : 'error' }, milliseconds / 1000)
  }

  observeApply({ ops, failures, durationMs }: ApplyReport): void {
    const failed = new Set(failures.map(({ key }) => key))
    for (const { verb, object } of ops)
      if (failed.size === 0 || !failed.has(keyOf(object))) this.#operations.inc({ kind: object.kind, verb })
    for (const { key, error } of failures) this.#failures.inc({ kind: key.split(' ', 1)[0]!, code: error.code })
    this.#applySeconds.observe(durationMs / 1000)
    this.#felixSeconds.observe(durationMs / 1000)
    if (failures.length > 0) this.#felixFailures.inc()
  }

  countList(resource: string, reason: ListReason): void {
    this.#lists.inc({ resource, reason })
  }

  countWatchEnd(resource: string, reason: WatchEnd): void {
    this.#watchEnds.inc({ resource, reason })
  }

  #counter<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> {
    return new Counter({ name, help, labelNames: [...labelNames], registers: [this.registry] })
  }

  #gauge<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> {
    return new Gauge({ name, help, labelNames: [...labelNames], registers: [this.registry] })
  }
}
