/**
 * What the agent counts, in Prometheus' words. Names begin with `weft_`.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'

export class AgentMetrics {
  readonly registry = new Registry()
  readonly ops = this.#counter('weft_kernel_ops_total', 'Kernel operations that were done')
  readonly failedOps = this.#counter('weft_kernel_ops_failed_total', 'Kernel operations that the kernel refused')
  readonly failing = this.#gauge('weft_kernel_ops_failing', 'Refused operations that wait for another try')
  readonly drift = this.#counter(
    'weft_drift_healed_total',
    'Wanted objects that somebody else changed, put right again',
  )
  readonly peers = this.#gauge('weft_peers', 'Other nodes, by what they are to this one', ['state'])
  readonly connected = this.#gauge('weft_cluster_connected', '1 while the cluster store can be reached')
  readonly synced = this.#gauge('weft_cluster_synced', '1 after the first complete list')
  readonly remembered = this.#gauge(
    'weft_cluster_from_cache',
    '1 while this node works from what it remembers of the cluster',
  )
  readonly configErrors = this.#counter('weft_config_errors_total', 'Configurations that were refused')
  readonly reports = this.#counter('weft_peer_problems_total', 'Words of other nodes that were refused')
  readonly ruleCounters = this.#gauge(
    'weft_rule_packets',
    'Named counters of the table inet weft; forged-… were dropped',
    ['counter'],
  )
  readonly tunnelCounters = this.#gauge('weft_tunnel_counter', 'Counters of the user-space tunnel', [
    'device',
    'counter',
  ])
  readonly wanted = this.#gauge('weft_wanted_objects', 'Kernel objects that this node should have')
  readonly cniSeconds = new Histogram({
    name: 'weft_cni_seconds',
    help: 'Time from a CNI request to its answer',
    labelNames: ['command', 'code'],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1, 5],
    registers: [this.registry],
  })
  readonly attachments = this.#gauge('weft_cni_attachments', 'Pod interfaces alive')
  readonly draining = this.#gauge('weft_cni_draining_addresses', 'Pod addresses that are being given back')

  constructor() {
    const resident: Gauge = new Gauge({
      name: 'process_resident_memory_bytes',
      help: 'Resident memory of the agent',
      registers: [this.registry],
      collect: () => resident.set(process.memoryUsage.rss()),
    })
    const started = new Gauge({
      name: 'process_start_time_seconds',
      help: 'Unix time at which the agent began',
      registers: [this.registry],
    })
    started.set(Math.round(Date.now() / 1000 - process.uptime()))
  }

  #counter<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> {
    return new Counter({ name, help, labelNames: [...labelNames], registers: [this.registry] })
  }

  #gauge<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> {
    return new Gauge({ name, help, labelNames: [...labelNames], registers: [this.registry] })
  }
}
