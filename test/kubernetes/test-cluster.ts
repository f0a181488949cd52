/**
 * Real clusters for tests: named `t<pid>x<n>`, ended with the test's process, or by the next test when it was killed.
 *
 *     const { cluster } = await TestCluster.start({ nodes: 2 })   nodes registered, NotReady: no network yet
 *     await cluster.prepareAgents(); await cluster.startAgents(); await cluster.waitReady()
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { KubernetesCluster } from '../../src/lab/kubernetes/cluster.ts'
import { TEST_IMAGE } from '../../src/lab/kubernetes/node.ts'
import { removeLab } from '../../src/lab/lifecycle.ts'
import { findLabProcesses, signalProcess } from '../../src/lab/process.ts'
import { labNames, makeSpec, netConfigFor } from '../../src/lab/spec.ts'

export interface TestClusterWish {
  readonly nodes?: number
  /** Nodes take turns on them. */
  readonly subnets?: number
  readonly ipv6?: boolean
  readonly backend?: string
  readonly mtuBytes?: number
  /** False to leave pod CIDRs to another controller than kube-controller-manager. */
  readonly allocateNodeCidrs?: boolean
}

let made = 0

async function sweep(): Promise<void> {
  for (const name of labNames()) {
    const pid = /^t(\d+)x\d+$/.exec(name)?.[1]
    if (pid && !existsSync(`/proc/${pid}`)) await removeLab(name)
  }
}

export interface TestPod {
  readonly name: string
  readonly node: string
  readonly ip: string
  readonly ip6: string | undefined
  /** For use on this machine. */
  readonly netnsPath: string
}

interface PodObject {
  readonly metadata: { readonly name: string; readonly namespace: string }
  readonly spec: { readonly nodeName: string }
  readonly status: { readonly podIPs: readonly { readonly ip: string }[] }
}

export class TestCluster {
  readonly cluster: KubernetesCluster

  private constructor(cluster: KubernetesCluster) {
    this.cluster = cluster
  }

  static async start(wish: TestClusterWish = {}): Promise<TestCluster> {
    if (made === 0) await sweep()
    const { nodes = 2, subnets = 1, ipv6 = true, backend = 'vxlan', mtuBytes, allocateNodeCidrs } = wish
    const name = `t${process.pid}x${++made}`
    // What a test that dies leaves running must at least stop; its files go with the next sweep.
    process.once('exit', () => {
      for (const each of findLabProcesses(name)) signalProcess(each, 'SIGKILL')
    })
    const spec = makeSpec({
      name,
      nodes,
      subnets,
      ipv6,
      netConfig: netConfigFor(backend, ipv6),
      kubernetes: true,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
    })
    const own = allocateNodeCidrs === undefined ? spec : { ...spec, allocateNodeCidrs }
    try {
      return new TestCluster(await KubernetesCluster.start(own, (line) => console.log(line)))
    } catch (error) {
      await removeLab(name)
      throw error
    }
  }

  /** Ends the cluster and everything of it. */
  async down(): Promise<void> {
    this.cluster.close()
    await removeLab(this.cluster.name)
  }

  /** A pod of the test server on a node, ready; it answers HTTP on 8080. */
  async server(name: string, node: string): Promise<TestPod> {
    await this.cluster.apply({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'default', labels: { app: name } },
      spec: { nodeName: node, terminationGracePeriodSeconds: 0, containers: [serverContainer] },
    })
    await this.cluster.kubectl('wait', '--for=condition=Ready', `pod/${name}`, '--timeout=60s')
    return this.podOf(await this.cluster.get<PodObject>('pod', name))
  }

  /** Ready pods of a label. */
  async pods(selector: string): Promise<TestPod[]> {
    const { items } = await this.cluster.get<{ items: PodObject[] }>('pods', '--selector', selector)
    return items.map((pod) => this.podOf(pod))
  }

  podOf({ metadata, spec, status }: PodObject): TestPod {
    const netnsPath = this.cluster.node(spec.nodeName).podNetns(metadata.namespace, metadata.name)
    const [first, second] = status.podIPs
    return { name: metadata.name, node: spec.nodeName, ip: first!.ip, ip6: second?.ip, netnsPath }
  }

  /** A command of this machine in a pod's network; rejects with its complaint when it fails. */
  async runIn(pod: TestPod, ...argv: readonly string[]): Promise<string> {
    return (await promisify(execFile)('nsenter', [`--net=${pod.netnsPath}`, ...argv])).stdout
  }

  /** Two pods ping each other, in every family that they have. */
  async ping(one: TestPod, other: TestPod): Promise<void> {
    const ways = [
      [one, other.ip],
      [other, one.ip],
      [one, other.ip6],
      [other, one.ip6],
    ] as const
    await Promise.all(ways.map(([from, to]) => to && this.runIn(from, 'ping', '-c1', '-W10', to)))
  }

  /** A command inside a pod by `kubectl exec`; resolves with what it printed. */
  exec(pod: string, ...argv: readonly string[]): Promise<string> {
    return this.cluster.kubectl('exec', pod, '--', ...argv)
  }
}

/** Resolves once it holds; rejects with `what` when it never does, and with what the last try threw. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, timeoutSeconds = 60): Promise<void> {
  const deadline = performance.now() + timeoutSeconds * 1000
  for (;;) {
    let cause: unknown
    try {
      if (await holds()) return
    } catch (error) {
      cause = error
    }
    if (performance.now() > deadline) throw new Error(`in ${timeoutSeconds} s: not ${what}`, { cause })
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** The container of the test server. */
export const serverContainer = {
  name: 'server',
  image: TEST_IMAGE,
  imagePullPolicy: 'Never',
  args: ['netexec', '--http-port=8080'],
  readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 1 },
} as const
