/**
 * Moving a running lab from one data path to another, in either dialect or from one to the other, as a user of any cluster
 * would: by net-conf.json in flannel's ConfigMap, by Calico's IPPools, and by the wiring annotation of nodes.
 *
 *   flannel → flannel    net-conf.json is written
 *   pools → pools        the pools are written
 *   flannel → pools      the pools are written: pods made from now on are routed, those that run stay where they are
 *   pools → flannel      net-conf.json is written, the pools are disabled: likewise
 *
 * Between dialects one node may go first: it has an annotation of its own, and all others one that keeps them as they are.
 */
import { ConfigError } from '../model/errors.ts'
import type { KubeObject } from './api/interfaces.ts'
import { arrived } from './arrival.ts'
import type { ControlRequest } from './control.ts'
import { type NetworkWords, nameOfWords, wantedOf } from './spec.ts'

type Progress = (line: string) => void
type Wiring = 'bridge' | 'routed'

export const WIRING_ANNOTATION = 'weft.dev/wiring'
export const NET_CONFIG_MAP = { namespace: 'kube-flannel', name: 'kube-flannel-cfg' } as const

/** What a switch does to a cluster, whoever its API server is. */
export interface SwitchedCluster {
  readonly nodeNames: readonly string[]
  /** What the cluster is told now; a ConfigMap or pools that are not there are left out. */
  words(): Promise<NetworkWords>
  writeNetConfig(text: string): Promise<void>
  /** Makes a pool or changes it. */
  writePool(pool: KubeObject): Promise<void>
  /** Null takes it away. */
  annotateNode(name: string, key: string, value: string | null): Promise<void>
  nodes(): Promise<readonly KubeObject[]>
  /** Resolves when the test holds for all nodes; rejects with `late` of those for which it did not. */
  waitForNodes(test: (node: KubeObject) => boolean, late: (names: readonly string[]) => string): Promise<void>
}

export interface Switched {
  readonly from: string
  readonly to: string
  readonly milliseconds: number
}

/** Resolves when every node sends by what is asked for. `node`: only its new pods come under the other dialect. */
export async function switchNetwork(
  cluster: SwitchedCluster,
  target: NetworkWords,
  node: string | undefined,
  progress: Progress,
): Promise<Switched> {
  const before = await cluster.words()
  const wanted = wantedOf(target)
  const from = nameOfWords(before)
  const to = nameOfWords(target)
  if (node !== undefined && !cluster.nodeNames.includes(node))
    throw new ConfigError('weft lab switch', '--node', `there is no node ${JSON.stringify(node)}`)
  const startedAt = performance.now()
  const elapsed = () => Math.round(performance.now() - startedAt)
  await setWirings(cluster, target, node)
  if (target.netConfig !== undefined) {
    progress(`ConfigMap ${NET_CONFIG_MAP.namespace}/${NET_CONFIG_MAP.name}: ${from} → ${to}`)
    await cluster.writeNetConfig(target.netConfig)
  }
  for (const pool of target.pools ?? []) {
    progress(`IPPool ${pool.metadata.name}: ${from} → ${to}`)
    await cluster.writePool(pool)
  }
  if (target.pools === undefined && node === undefined) await disablePools(cluster, before, progress)
  const told = new Set<string>()
  await cluster.waitForNodes(
    (object) => {
      const name = object.metadata.name!
      if (!arrived(object, wanted)) return false
      if (!told.has(name)) progress(`node ${name} sends by ${to} after ${elapsed()} ms`)
      told.add(name)
      return true
    },
    (names) => `nodes ${names.join(', ')} did not report ${to} in time; the logs of their agents say why`,
  )
  return { from, to, milliseconds: elapsed() }
}

/** Target and node of a `switch` request from the control socket. */
export function targetOf(request: ControlRequest): [NetworkWords, string | undefined] {
  const { netConfig, pools, node } = request as { netConfig?: string; pools?: readonly KubeObject[]; node?: string }
  if (netConfig === undefined && pools === undefined) throw new Error('switch needs netConfig or pools')
  return [{ ...(netConfig === undefined ? {} : { netConfig }), ...(pools === undefined ? {} : { pools }) }, node]
}

/** Says which nodes' new pods come under the target's dialect, before the target is written. */
async function setWirings(cluster: SwitchedCluster, target: NetworkWords, node: string | undefined): Promise<void> {
  const [moved, kept]: readonly [Wiring, Wiring] = target.pools ? ['routed', 'bridge'] : ['bridge', 'routed']
  for (const { metadata } of await cluster.nodes()) {
    const name = metadata.name!
    const has = metadata.annotations?.[WIRING_ANNOTATION] ?? null
    const wiring = node === undefined ? null : name === node ? moved : (has ?? kept)
    if (wiring !== has) await cluster.annotateNode(name, WIRING_ANNOTATION, wiring)
  }
}

async function disablePools(cluster: SwitchedCluster, { pools = [] }: NetworkWords, progress: Progress): Promise<void> {
  for (const pool of pools) {
    if (pool.spec?.disabled) continue
    progress(`IPPool ${pool.metadata.name}: disabled; pods that have its addresses keep them`)
    await cluster.writePool({ ...pool, spec: { ...pool.spec, disabled: true } })
  }
}
