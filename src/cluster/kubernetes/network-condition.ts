/**
 * A Node's condition NetworkUnavailable: what it says, and what an agent whose network works makes of it.
 *
 *   absent, or True by a cloud provider, a kubelet, `NoWeftYet`   becomes False: the agent knows better
 *   True, `WeftAgentGone`                                         stays: the controller judges agents, and takes it back itself
 *   False                                                         stays; the reason becomes weft's
 *
 * Sources: Kubernetes API reference, NodeCondition (lastTransitionTime is the last change of the status).
 */
import type { RawObject } from './informer.ts'

/** Reasons of a Node's condition NetworkUnavailable that are weft's words: `weft uninstall` takes them back, and no others. */
export const conditionReasons = {
  /** False: the agent can serve pods. */
  up: 'WeftIsUp',
  /** True, of the controller: the agent has not been ready for long. */
  gone: 'WeftAgentGone',
  /** True, of the controller: no agent has spoken yet. */
  fresh: 'NoWeftYet',
} as const

export interface NetworkCondition {
  readonly status: string
  readonly reason: string
}

/** The condition of a Node object as it came. Never throws. */
export function networkConditionOf(object: RawObject): NetworkCondition | undefined {
  const status = (object.status ?? {}) as { conditions?: unknown }
  const conditions = (Array.isArray(status.conditions) ? status.conditions : []) as (Record<string, unknown> | null)[]
  const found = conditions.find((each) => each?.type === 'NetworkUnavailable')
  if (!found) return undefined
  return { status: String(found.status).slice(0, 16), reason: String(found.reason).slice(0, 256) }
}

/** What to write of the condition for a node whose network works; undefined when it stands. `now` is RFC 3339. */
export function availableCondition(held: NetworkCondition | undefined, now: string): object | undefined {
  const { up, gone } = conditionReasons
  if (held?.reason === gone || (held?.status === 'False' && held.reason === up)) return undefined
  return {
    type: 'NetworkUnavailable',
    status: 'False',
    reason: up,
    message: 'weft is running on this node',
    lastHeartbeatTime: now,
    ...(held?.status === 'False' ? {} : { lastTransitionTime: now }),
  }
}
