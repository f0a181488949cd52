/**
 * What every long-running program of weft counts: the process itself under the names that Prometheus' client libraries
 * share, how late the event loop is, how much it logs, its health checks and its requests to the API server under the
 * names that Kubernetes' components have.
 *
 * Sources: Prometheus "Writing client libraries", section "Process metrics"; Kubernetes metrics reference
 * (rest_client_requests_total, kubernetes_healthcheck); proc(5).
 */
import { readdirSync, readFileSync } from 'node:fs'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Check } from './checks.ts'
import { logLevels } from './log-level.ts'

export class ProcessMetrics {
  readonly #registry: Registry
  readonly #loopLag: Histogram
  readonly #messages: Counter<'level'>
  readonly #checks: Gauge<'name' | 'type'>
  readonly #requests: Counter<'code' | 'method' | 'host'>
  readonly #requestSeconds: Histogram<'verb' | 'host'>

  constructor(registry: Registry, version: string) {
    this.#registry = registry
    const registers = [registry]
    this.#describeProcess()
    const build = new Gauge({
      name: 'weft_build_info',
      help: 'Always 1; the labels say which weft and which Node this is',
      labelNames: ['version', 'node_version'],
      registers,
    })
    build.set({ version, node_version: process.versions.node }, 1)
    this.#loopLag = new Histogram({
      name: 'weft_event_loop_lag_seconds',
      help: 'How late the event loop came to a timer, sampled twice a second',
      buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
      registers,
    })
    this.#messages = new Counter({
      name: 'weft_log_messages_total',
      help: 'Log messages written, by level',
      labelNames: ['level'],
      registers,
    })
    for (const level of [...logLevels, 'fatal']) this.#messages.inc({ level }, 0)
    this.#checks = new Gauge({
      name: 'kubernetes_healthcheck',
      help: 'Result of each health check, by its name and the endpoint that it belongs to: 1 is ok',
      labelNames: ['name', 'type'],
      registers,
    })
    this.#requests = new Counter({
      name: 'rest_client_requests_total',
      help: 'HTTP requests to the cluster store, by status code, method and host; code <error> when there was no answer',
      labelNames: ['code', 'method', 'host'],
      registers,
    })
    this.#requestSeconds = new Histogram({
      name: 'rest_client_request_duration_seconds',
      help: 'Time to the head of an answer of the cluster store, by verb and host',
      labelNames: ['verb', 'host'],
      buckets: [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30],
      registers,
    })
  }

  /** One sample of the event loop's lag. */
  observeLag(seconds: number): void {
    this.#loopLag.observe(seconds)
  }

  countMessage(level: string): void {
    this.#messages.inc({ level })
  }

  setChecks(type: 'healthz' | 'readyz', checks: readonly Check[]): void {
    for (const { name, problem } of checks) this.#checks.set({ name, type }, problem === undefined ? 1 : 0)
  }

  /** One request to the cluster store was answered, or failed (status undefined). */
  observeRequest(method: string, host: string, status: number | undefined, seconds: number): void {
    this.#requests.inc({ code: status === undefined ? '<error>' : String(status), method, host })
    this.#requestSeconds.observe({ verb: method, host }, seconds)
  }

  #describeProcess(): void {
    const gauge = (name: string, help: string, read: () => number | undefined) => {
      const each: Gauge = new Gauge({
        name,
        help,
        registers: [this.#registry],
        collect: () => {
          const value = read()
          if (value !== undefined) each.set(value)
        },
      })
    }
    const cpu: Counter = new Counter({
      name: 'process_cpu_seconds_total',
      help: 'Processor time spent, in user and kernel mode',
      registers: [this.#registry],
      collect: () => {
        const { user, system } = process.cpuUsage()
        cpu.reset()
        cpu.inc((user + system) / 1e6)
      },
    })
    gauge('process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss())
    gauge('process_virtual_memory_bytes', 'Virtual memory', virtualMemoryBytes)
    gauge('process_open_fds', 'Open file descriptors', openDescriptors)
    gauge('process_max_fds', 'Most file descriptors that may be open', mostDescriptors)
    const started = Date.now() / 1000 - process.uptime()
    gauge('process_start_time_seconds', 'Unix time at which the process began', () => started)
    gauge('nodejs_heap_size_used_bytes', 'JavaScript heap in use', () => process.memoryUsage().heapUsed)
  }
}

function virtualMemoryBytes(): number | undefined {
  const size = /^VmSize:\s+(\d+) kB$/m.exec(readProc('status') ?? '')?.[1]
  return size === undefined ? undefined : Number(size) * 1024
}

function openDescriptors(): number | undefined {
  try {
    // One of them is the listing's own.
    return readdirSync('/proc/self/fd').length - 1
  } catch {
    return undefined
  }
}

function mostDescriptors(): number | undefined {
  const limit = /^Max open files\s+(\d+)/m.exec(readProc('limits') ?? '')?.[1]
  return limit === undefined ? undefined : Number(limit)
}

function readProc(file: string): string | undefined {
  try {
    return readFileSync(`/proc/self/${file}`, 'utf8')
  } catch {
    return undefined
  }
}
