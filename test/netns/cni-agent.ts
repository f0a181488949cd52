/**
 * A CNI server alone in a process of its own, in the namespace that it was started in: what the CNI tests and benches
 * talk to, and kill. Prints one line of JSON for each event: `ready`, `lag`.
 *
 *   node --import tsx test/netns/cni-agent.ts '{"runDir":"/tmp/x","binDir":"/tmp/x/bin","podCidrs":["10.1.0.0/24"],…}'
 */

import { Applier } from '../../src/apply/applier.ts'
import { KubernetesStore } from '../../src/cluster/calico/kubernetes-store.ts'
import { HttpClient } from '../../src/cluster/http-client.ts'
import { readKubeconfig } from '../../src/cluster/kubernetes/kubeconfig.ts'
import { applierSink } from '../../src/cni/applier-sink.ts'
import { installShim } from '../../src/cni/install.ts'
import type { Log, NodeNetwork } from '../../src/cni/network.ts'
import { CniServer } from '../../src/cni/server.ts'
import { planFirewallSkeleton } from '../../src/datapath/firewall/firewall.ts'
import { openLinuxKernel } from '../../src/kernel/linux/linux-kernel.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { PodCluster } from './pod-cluster.ts'

export interface CniAgentConfig {
  readonly runDir: string
  readonly binDir: string
  readonly shimPath: string
  readonly podCidrs: readonly string[]
  readonly clusterNetworks: readonly string[]
  readonly mtuBytes: number
  /** Leave the network unknown. */
  readonly unready?: boolean
  readonly bridge?: string
  readonly stateDir?: string
  /** Pods are routed. */
  readonly routed?: {
    readonly interfacePrefix?: string
    readonly sourceSpoofing?: 'Any' | 'Disabled'
    /** CIDRs of pools; without them the addresses are of podCidrs. */
    readonly pools?: readonly string[]
    /** Path of a kubeconfig: the API server that has the blocks of pools; in memory without. */
    readonly kubeconfig?: string
    /** How many addresses are kept ready. */
    readonly spareAddresses?: number
    /** What is written on pods, by `namespace/name`; without it there is no directory. */
    readonly pods?: Readonly<Record<string, Readonly<Record<string, string>>>>
  }
  /** The table of packet rules has what a flannel network wants of it. */
  readonly skeleton?: boolean
}

const config = JSON.parse(process.argv[2]!) as CniAgentConfig
const say = (event: object) => process.stdout.write(`${JSON.stringify(event)}\n`)
const print = (level: string) => (fields: object, message: string) => {
  if (process.env.WEFT_TEST_LOG) console.error(level, message, fields)
}
const log: Log = { debug: print('debug'), info: print('info'), warn: print('warn'), error: print('error') }

const kernel = openLinuxKernel()
const applier = new Applier(kernel)
await applier.start()
if (config.skeleton !== false)
  applier.set({
    source: 'firewall',
    objects: planFirewallSkeleton({
      clusterCidrs: config.clusterNetworks.map(Cidr.parse),
      localCidrs: config.podCidrs.map(Cidr.parse),
      masquerade: true,
      tunnels: [],
      ...(config.bridge ? { podDevices: [config.bridge] } : {}),
    }),
  })
await applier.settle()
const server = new CniServer({
  kernel,
  runDir: config.runDir,
  ...(config.stateDir ? { stateDir: config.stateDir } : {}),
  sink: applierSink(applier),
  log,
})
const report = await server.start()
const kubeconfig = config.routed?.kubeconfig
const store = kubeconfig && new KubernetesStore({ client: new HttpClient(readKubeconfig(kubeconfig)) })
const { spareAddresses = 0 } = config.routed ?? {}
const cluster = new PodCluster(config.routed?.pools ?? [], config.routed?.pods, store || undefined, { spareAddresses })
let network: NodeNetwork = {
  podCidrs: config.podCidrs.map(Cidr.parse),
  clusterNetworks: config.clusterNetworks.map(Cidr.parse),
  mtuBytes: config.mtuBytes,
  ...(config.bridge ? { bridge: config.bridge } : {}),
  ...(config.routed ? { routed: cluster.network(config.routed) } : {}),
}
if (!config.unready) await server.setNetwork(network)
applier.markComplete()
installShim(config.binDir, config.runDir, config.shimPath)
say({ event: 'ready', report })

process.on('SIGTERM', () => {
  void server.close().then(() => {
    kernel.close()
    process.exit(0)
  })
})
/** How long the event loop stood still at most, since the last `begin`. */
let lagMilliseconds = 0
let last = 0
let ticking = false
function tick(): void {
  if (!ticking) return
  const now = performance.now()
  lagMilliseconds = Math.max(lagMilliseconds, now - last - 1)
  last = now
  setTimeout(tick, 1)
}

interface AgentOrder {
  readonly mtuBytes?: number
  readonly lag?: 'begin' | 'end'
  /** The wiring of pods from now on; null: the bridge. */
  readonly routed?: CniAgentConfig['routed'] | null
  /** The cluster's store answers, or does not. */
  readonly store?: 'away' | 'back'
  /** Wait until the cluster's store knows all that was given. */
  readonly settle?: true
  /** Tell what the pools have given and what was written on pods. */
  readonly tell?: 'cluster'
}

async function obey(order: AgentOrder): Promise<object> {
  if (order.mtuBytes) await server.setMtu(order.mtuBytes)
  if (order.store) cluster.isAway = order.store === 'away'
  if (order.settle) {
    await cluster.idle()
    return { event: 'settled' }
  }
  if (order.tell) return { event: 'cluster', ...cluster.tell() }
  if (order.routed !== undefined) {
    const { routed: _, ...rest } = network
    network = order.routed === null ? rest : { ...rest, routed: cluster.network(order.routed) }
    await server.setNetwork(network)
  }
  ticking = order.lag === 'begin'
  if (!ticking) return { event: 'done', lagMilliseconds }
  lagMilliseconds = 0
  last = performance.now()
  setTimeout(tick, 1)
  return { event: 'done' }
}

// One line in: what to do. The end of the lines: the parent is gone.
process.stdin.on('data', (chunk: Buffer) => {
  for (const line of chunk.toString().split('\n').filter(Boolean)) void obey(JSON.parse(line)).then(say)
})
process.stdin.on('end', () => process.kill(process.pid, 'SIGTERM'))
