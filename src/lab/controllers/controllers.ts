/**
 * Everything that a control plane's controllers do for the lab, started together over the API's own client.
 */
import type { Logger } from 'pino'
import type { LocalClient } from '../api/interfaces.ts'
import type { LabSpec } from '../layout.ts'
import { startDaemonSets } from './daemon-sets.ts'
import { startDeployments } from './deployments.ts'
import { startEndpoints } from './endpoints.ts'
import { startNodeLifecycle, startPodCidrs } from './nodes.ts'
import { startReplicaSets } from './replica-sets.ts'
import { startScheduler } from './scheduler.ts'
import { Shared } from './shared.ts'

/** Starts all controllers; they stop with `close`. */
export function startControllers(client: LocalClient, spec: LabSpec, log: Logger): { close(): void } {
  const shared = new Shared(client, log)
  startPodCidrs(shared, spec)
  startNodeLifecycle(shared)
  startScheduler(shared)
  startDeployments(shared, startReplicaSets(shared))
  startDaemonSets(shared)
  startEndpoints(shared)
  return shared
}
