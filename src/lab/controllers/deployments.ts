/**
 * Deployment → ReplicaSets: one per pod template; a change of the template moves pods from the old set to the new one
 * within maxSurge and maxUnavailable, or all at once for the Recreate strategy.
 *
 * Sources: Kubernetes documentation, "Deployments" (rolling update, rounding of percentages).
 */
import type { KubeObject } from '../api/interfaces.ts'
import { type Informer, keyOfObject, nameOf } from '../informer.ts'
import { templateHash } from './replica-sets.ts'
import {
  controllerOf,
  controllerReference,
  isTerminating,
  nowText,
  remove,
  type Shared,
  writeStatus,
} from './shared.ts'

const HASH_LABEL = 'pod-template-hash'
const REVISION = 'deployment.kubernetes.io/revision'

/** A count given as a number or as a percentage of `total`. */
function share(
  value: number | string | undefined,
  fallback: string,
  total: number,
  round: (n: number) => number,
): number {
  const text = String(value ?? fallback)
  return text.endsWith('%') ? round((Number(text.slice(0, -1)) * total) / 100) : Number(text)
}

const replicasOf = (set: KubeObject): number => Number(set.spec?.replicas ?? 0)
const readyOf = (set: KubeObject): number => Number(set.status?.readyReplicas ?? 0)
const revisionOf = (set: KubeObject): number => Number(set.metadata.annotations?.[REVISION] ?? 0)

export function startDeployments(shared: Shared, sets: Informer): void {
  const { client } = shared
  const deployments = shared.informer('deployments.apps')

  const queue = shared.queue(
    'deployments',
    async (key) => {
      const deployment = deployments.get(key)
      if (!deployment || isTerminating(deployment)) return
      const own = [...sets.values()].filter(
        (set) => controllerOf(set)?.uid === deployment.metadata.uid && !isTerminating(set),
      )
      const hash = templateHash(deployment.spec.template)
      let current = own.find((set) => set.metadata.labels?.[HASH_LABEL] === hash)
      const old = own.filter((set) => set !== current)
      if (!current) {
        const revision = Math.max(0, ...own.map(revisionOf)) + 1
        current = await createSet(deployment, hash, revision, old.some((set) => replicasOf(set) > 0) ? 0 : undefined)
        await annotate(deployment, revision)
      }
      if (!deployment.spec?.paused) await roll(deployment, current, old)
      await report(deployment, current, old)
      await prune(deployment, old)
    },
    4,
  )

  async function createSet(
    deployment: KubeObject,
    hash: string,
    revision: number,
    replicas?: number,
  ): Promise<KubeObject> {
    const template = structuredClone(deployment.spec.template)
    template.metadata = { ...template.metadata, labels: { ...template.metadata?.labels, [HASH_LABEL]: hash } }
    return client.create('replicasets.apps', {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: {
        name: `${deployment.metadata.name}-${hash}`,
        namespace: deployment.metadata.namespace!,
        labels: template.metadata.labels,
        annotations: { [REVISION]: String(revision) },
        ownerReferences: [controllerReference(deployment, 'apps/v1', 'Deployment')],
      },
      spec: {
        replicas: replicas ?? deployment.spec.replicas ?? 1,
        selector: {
          ...deployment.spec.selector,
          matchLabels: { ...deployment.spec.selector?.matchLabels, [HASH_LABEL]: hash },
        },
        template,
      },
    })
  }

  const annotate = (deployment: KubeObject, revision: number) =>
    client.patch('deployments.apps', nameOf(deployment), {
      metadata: { annotations: { [REVISION]: String(revision) } },
    })

  async function scale(set: KubeObject, replicas: number): Promise<void> {
    if (replicasOf(set) !== replicas) await client.patch('replicasets.apps', nameOf(set), { spec: { replicas } })
  }

  async function roll(deployment: KubeObject, current: KubeObject, old: readonly KubeObject[]): Promise<void> {
    const wanted = Number(deployment.spec.replicas ?? 1)
    const oldTotal = old.reduce((sum, set) => sum + replicasOf(set), 0)
    if (oldTotal === 0) return scale(current, wanted)
    if (deployment.spec.strategy?.type === 'Recreate') {
      for (const set of old) await scale(set, 0)
      if (old.every((set) => Number(set.status?.replicas ?? 0) === 0)) await scale(current, wanted)
      return
    }
    const rolling = deployment.spec.strategy?.rollingUpdate
    const surge = share(rolling?.maxSurge, '25%', wanted, Math.ceil)
    let unavailable = share(rolling?.maxUnavailable, '25%', wanted, Math.floor)
    if (surge === 0 && unavailable === 0) unavailable = 1
    const room = wanted + surge - (oldTotal + replicasOf(current))
    const next = Math.min(wanted, replicasOf(current) + Math.max(0, room))
    if (next > replicasOf(current)) await scale(current, next)
    else if (replicasOf(current) > wanted) await scale(current, wanted)
    const readyTotal = readyOf(current) + old.reduce((sum, set) => sum + readyOf(set), 0)
    let spare = readyTotal - (wanted - unavailable)
    for (const set of [...old].sort((a, b) => revisionOf(a) - revisionOf(b))) {
      const unready = replicasOf(set) - readyOf(set)
      const cut = Math.min(replicasOf(set), unready + Math.max(0, spare))
      if (cut <= 0) continue
      spare -= Math.max(0, cut - unready)
      await scale(set, replicasOf(set) - cut)
    }
  }

  async function report(deployment: KubeObject, current: KubeObject, old: readonly KubeObject[]): Promise<void> {
    const fresh = sets.get(keyOfObject(current)) ?? current
    const all = [fresh, ...old]
    const sum = (read: (set: KubeObject) => number) => all.reduce((total, set) => total + read(set), 0)
    const wanted = Number(deployment.spec.replicas ?? 1)
    const ready = sum(readyOf)
    const updated = Number(fresh.status?.replicas ?? 0)
    const replicas = sum((set) => Number(set.status?.replicas ?? 0))
    const before = (deployment.status?.conditions ?? []) as {
      type: string
      status: string
      reason?: string
      lastTransitionTime?: string
    }[]
    const condition = (type: string, holds: boolean, reason: string, message: string) => {
      const old = before.find((each) => each.type === type)
      const status = holds ? 'True' : 'False'
      const same = old?.status === status && old.reason === reason
      const now = nowText()
      return {
        type,
        status,
        reason,
        message,
        lastUpdateTime: same ? (old as { lastUpdateTime?: string }).lastUpdateTime : now,
        lastTransitionTime: old?.status === status ? old.lastTransitionTime : now,
      }
    }
    const least = wanted - share(deployment.spec.strategy?.rollingUpdate?.maxUnavailable, '25%', wanted, Math.floor)
    const complete = updated >= wanted && replicas === updated && ready >= wanted
    await writeStatus(client, 'deployments.apps', deployment, {
      observedGeneration: deployment.metadata.generation ?? 1,
      replicas,
      updatedReplicas: updated,
      readyReplicas: ready,
      availableReplicas: ready,
      unavailableReplicas: Math.max(0, Math.max(wanted, replicas) - ready),
      conditions: [
        ready >= least
          ? condition('Available', true, 'MinimumReplicasAvailable', 'Deployment has minimum availability.')
          : condition(
              'Available',
              false,
              'MinimumReplicasUnavailable',
              'Deployment does not have minimum availability.',
            ),
        condition(
          'Progressing',
          true,
          complete ? 'NewReplicaSetAvailable' : 'ReplicaSetUpdated',
          `ReplicaSet "${fresh.metadata.name}" ${complete ? 'has successfully progressed' : 'is progressing'}.`,
        ),
      ],
    })
  }

  async function prune(deployment: KubeObject, old: readonly KubeObject[]): Promise<void> {
    const empty = old.filter((set) => replicasOf(set) === 0 && Number(set.status?.replicas ?? 0) === 0)
    const keep = Number(deployment.spec.revisionHistoryLimit ?? 10)
    const surplus = [...empty].sort((a, b) => revisionOf(a) - revisionOf(b)).slice(0, Math.max(0, empty.length - keep))
    for (const set of surplus) await remove(client, 'replicasets.apps', set)
  }

  deployments.onChange((deployment) => queue.add(keyOfObject(deployment)))
  sets.onChange((set) => {
    const owner = controllerOf(set)
    if (owner?.kind === 'Deployment') queue.add(`${set.metadata.namespace}/${owner.name}`)
  })
}
