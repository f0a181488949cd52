/**
 * A new MTU for living pods: a pod made with another one would lose large packets, or be slower than it could be, for life.
 * Both ends of each pair change, then the bridge where there is one; the event loop breathes between pods.
 */
import { setImmediate as breathe } from 'node:timers/promises'
import type { Kernel } from '../kernel/kernel.ts'
import type { Attachment } from './journal.ts'
import type { Log } from './network.ts'
import { openPod, set } from './wiring.ts'

/** Without a bridge: routed pods alone. */
export async function pushMtu(
  kernel: Kernel,
  bridge: string | undefined,
  living: readonly Attachment[],
  mtuBytes: number,
  log: Log,
): Promise<void> {
  for (const { hostDevice, netnsPath, ifname, containerId } of living) {
    const results = [...(await kernel.execute([set({ kind: 'link', name: hostDevice, type: 'veth', mtuBytes })]))]
    try {
      const pod = openPod(kernel, { netnsPath })
      try {
        results.push(...(await pod.execute([set({ kind: 'link', name: ifname, type: 'veth', mtuBytes })])))
      } finally {
        pod.close()
      }
    } catch (err) {
      log.warn({ err, container: containerId }, 'Cannot change the MTU inside a container')
    }
    for (const err of results) if (err) log.warn({ err, container: containerId }, 'Cannot change the MTU of a pod')
    await breathe()
  }
  if (bridge === undefined) return
  const [error] = await kernel.execute([set({ kind: 'link', name: bridge, type: 'bridge', mtuBytes })])
  if (error) log.warn({ err: error, bridge }, 'Cannot change the MTU of the bridge')
}
