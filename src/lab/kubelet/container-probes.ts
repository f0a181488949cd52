/**
 * The three probes of one run of a container and how they hang together: readiness and liveness begin when the startup
 * probe is content; readiness decides about traffic, the others about a restart.
 * Sources: Kubernetes documentation, "Configure Liveness, Readiness and Startup Probes".
 */
import type { ContainerSpec, ProbeSpec } from './pod-spec.ts'
import { Prober, type ProbeTarget } from './probe.ts'

/** What the pod does about it. */
export interface ProbeListener {
  started(): void
  ready(ready: boolean): void
  event(type: 'Normal' | 'Warning', reason: string, message: string): void
  restart(): void
}

export class ContainerProbes {
  readonly #container: ContainerSpec
  readonly #target: ProbeTarget
  readonly #listener: ProbeListener
  readonly #running = new Set<Prober>()

  /** `serves`: false for init containers, which are never ready. */
  constructor(container: ContainerSpec, target: ProbeTarget, serves: boolean, listener: ProbeListener) {
    this.#container = container
    this.#target = target
    this.#listener = listener
    const { startupProbe } = container
    if (startupProbe) this.#awaitStart(startupProbe, serves)
    else this.#begin(serves)
  }

  close(): void {
    for (const prober of this.#running) prober.close()
    this.#running.clear()
  }

  #awaitStart(probe: ProbeSpec, serves: boolean): void {
    const startup = this.#start(probe, true, (good, why) => {
      startup.close()
      this.#running.delete(startup)
      if (good) this.#begin(serves)
      else this.#failed('Startup', why)
    })
  }

  #begin(serves: boolean): void {
    const { readinessProbe, livenessProbe } = this.#container
    if (serves && readinessProbe)
      this.#start(readinessProbe, true, (good, why) => {
        if (!good) this.#listener.event('Warning', 'Unhealthy', `Readiness probe failed: ${why}`)
        this.#listener.ready(good)
      })
    else if (serves) this.#listener.ready(true)
    if (livenessProbe) this.#start(livenessProbe, false, (good, why) => good || this.#failed('Liveness', why))
    this.#listener.started()
  }

  #failed(kind: 'Startup' | 'Liveness', why: string): void {
    const { name } = this.#container
    this.#listener.event('Warning', 'Unhealthy', `${kind} probe failed: ${why}`)
    const message = `Container ${name} failed ${kind.toLowerCase()} probe, will be restarted`
    this.#listener.event('Normal', 'Killing', message)
    this.#listener.restart()
  }

  #start(probe: ProbeSpec, eager: boolean, tell: (good: boolean, why: string) => void): Prober {
    const prober = new Prober(probe, this.#target, eager, tell)
    this.#running.add(prober)
    return prober
  }
}
