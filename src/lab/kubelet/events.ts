/**
 * Events about pods, as `kubectl describe` shows them.
 */
import type { KubeObject, LocalClient } from '../api/interfaces.ts'

/** Records one; a failure changes nothing and is not told: events are for people. */
export async function recordPodEvent(
  client: LocalClient,
  pod: KubeObject,
  source: { readonly component: string; readonly host?: string },
  type: 'Normal' | 'Warning',
  reason: string,
  message: string,
): Promise<void> {
  const now = `${new Date().toISOString().slice(0, 19)}Z`
  const { name, namespace = 'default', uid } = pod.metadata
  try {
    await client.create('events', {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { generateName: `${name}.`, namespace },
      involvedObject: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid },
      type,
      reason,
      message: message.slice(0, 1024),
      source,
      firstTimestamp: now,
      lastTimestamp: now,
      count: 1,
    })
  } catch {
    // The pod's namespace may be going.
  }
}
