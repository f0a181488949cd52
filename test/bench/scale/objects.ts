/**
 * Fills an API server with the objects of a large cluster and changes some of them: a process of its own beside the bench, inside the
 * API server's namespace.
 *
 *   tsx objects.ts CONNECTION-FILE        then one request a line on standard input, one answer a line:
 *
 *   fill NODES PODS SILENT                  makes them; SILENT nodes have no agent yet
 *   churn PODS BEATS SECONDS NODES ALLPODS  changes so many pods, and lets so many kubelets report, every second
 *
 * Nodes are created by requests, many at a time. Pods are scenery here: they are written to etcd as the API server would have
 * stored them, a hundred at once, and it takes them up by its own watch.
 *
 * Sources: etcd v3 JSON gateway (`/v3/kv/txn`); Kubernetes' keys in etcd (`/registry/pods/<namespace>/<name>`).
 */

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { createInterface } from 'node:readline'

export interface ObjectsConnection {
  readonly host: string
  readonly port: number
  /** Of the API server's etcd. */
  readonly etcd: string
  /** PEM. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** The network of all pods, and what of it a node has. */
export const POD_NETWORK = '10.128.0.0/9'
export const podCidrOf = (index: number): string => `10.${128 + (index >> 8)}.${index & 255}.0/24`
/** On one underlay of 65,000 addresses; `.0.1` is the API server's. */
export const addressOf = (index: number): string => `172.30.${1 + (index >> 8)}.${index & 255}`
export const nodeNameOf = (index: number): string => `node-${index}`

const PARALLEL = 24
const PODS_AT_ONCE = 100

/** The annotations of a node whose agent is weft, with VXLAN. */
function announcedBy(index: number): Record<string, string> {
  const hex = (value: number) => value.toString(16).padStart(2, '0')
  const data = { VNI: 1, VtepMAC: `0e:00:00:00:${hex(index >> 8)}:${hex(index & 255)}` }
  const path = 'vxlan/1/8472'
  return {
    'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
    'flannel.alpha.coreos.com/backend-type': 'vxlan',
    'flannel.alpha.coreos.com/backend-data': JSON.stringify(data),
    'flannel.alpha.coreos.com/public-ip': addressOf(index),
    'weft.dev/node-status': JSON.stringify({ accepts: [path], sends: [path], endpoints: { [path]: { data } } }),
  }
}

/** A Node as a kubelet fills it; the first `silent` of them have no agent yet. */
function nodeOf(index: number, silent: number): object {
  const time = '2026-01-01T00:00:00Z'
  const condition = (type: string, status: string, reason: string) => ({
    type,
    status,
    reason,
    message: `kubelet says that ${reason}`,
    lastHeartbeatTime: time,
    lastTransitionTime: time,
  })
  const podCIDR = podCidrOf(index)
  const quantities = { cpu: '8', memory: '32Gi', pods: '110', 'ephemeral-storage': '100Gi' }
  return {
    metadata: {
      name: nodeNameOf(index),
      labels: {
        'kubernetes.io/hostname': nodeNameOf(index),
        'kubernetes.io/os': 'linux',
        'kubernetes.io/arch': 'amd64',
      },
      annotations: {
        'volumes.kubernetes.io/controller-managed-attach-detach': 'true',
        ...(index < silent ? {} : announcedBy(index)),
      },
    },
    spec: { podCIDR, podCIDRs: [podCIDR] },
    status: {
      addresses: [
        { type: 'InternalIP', address: addressOf(index) },
        { type: 'Hostname', address: nodeNameOf(index) },
      ],
      capacity: quantities,
      allocatable: quantities,
      conditions: [
        condition('MemoryPressure', 'False', 'KubeletHasSufficientMemory'),
        condition('DiskPressure', 'False', 'KubeletHasNoDiskPressure'),
        condition('PIDPressure', 'False', 'KubeletHasSufficientPID'),
        condition('Ready', 'True', 'KubeletReady'),
      ],
      // The bulk of a real Node object, which a client must not keep.
      images: Array.from({ length: 30 }, (_, n) => ({
        names: [
          `registry.example/team/image-${n}@sha256:${'0'.repeat(64)}`,
          `registry.example/team/image-${n}:v1.${n}`,
        ],
        sizeBytes: 50_000_000 + n,
      })),
    },
  }
}

const podOf = (index: number, nodes: number): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name: `pod-${index}`,
    namespace: 'default',
    uid: randomUUID(),
    creationTimestamp: '2026-01-01T00:00:00Z',
    labels: { app: `app-${index % 100}` },
  },
  status: {
    phase: 'Running',
    podIP: `10.${128 + ((index % nodes) >> 8)}.${(index % nodes) & 255}.${2 + Math.floor(index / nodes)}`,
  },
  spec: {
    nodeName: nodeNameOf(index % nodes),
    automountServiceAccountToken: false,
    containers: [{ name: 'main', image: 'registry.example/team/image:v1', env: [{ name: 'ONE', value: 'two' }] }],
  },
})

class Filler {
  readonly #options: ObjectsConnection & { readonly agent: Agent }

  constructor(connection: ObjectsConnection) {
    this.#options = { ...connection, agent: new Agent({ keepAlive: true, maxSockets: PARALLEL }) }
  }

  send(method: string, path: string, body: object, contentType = 'application/json'): Promise<void> {
    const text = JSON.stringify(body)
    return new Promise((resolve, reject) => {
      const headers = { 'content-type': contentType, 'content-length': Buffer.byteLength(text) }
      const outgoing = request({ ...this.#options, method, path, headers }, (response) => {
        if (response.statusCode! >= 300) reject(new Error(`${method} ${path}: ${response.statusCode}`))
        response.resume().once('end', () => resolve())
      })
      outgoing.once('error', reject).end(text)
    })
  }

  async fill(nodes: number, pods: number, silent: number): Promise<void> {
    await this.#all(nodes, (n) => this.send('POST', '/api/v1/nodes', nodeOf(n, silent)))
    for (let from = 0; from < pods; from += PODS_AT_ONCE) {
      const count = Math.min(PODS_AT_ONCE, pods - from)
      await this.#store(Array.from({ length: count }, (_, n) => podOf(from + n, nodes)))
    }
  }

  async #store(objects: readonly object[]): Promise<void> {
    const encode = (text: string) => Buffer.from(text).toString('base64')
    const success = (objects as { metadata: { name: string } }[]).map((object) => ({
      requestPut: {
        key: encode(`/registry/pods/default/${object.metadata.name}`),
        value: encode(JSON.stringify(object)),
      },
    }))
    const response = await fetch(`${this.#options.etcd}/v3/kv/txn`, {
      method: 'POST',
      body: JSON.stringify({ success }),
    })
    if (!response.ok) throw new Error(`etcd: ${response.status} ${await response.text()}`)
  }

  /** Spread evenly over the time. */
  async churn(
    podsASecond: number,
    beatsASecond: number,
    seconds: number,
    nodes: number,
    pods: number,
  ): Promise<number> {
    const rate = podsASecond + beatsASecond
    const total = Math.round(rate * seconds)
    const startedAt = performance.now()
    const under: Promise<void>[] = []
    for (let n = 0; n < total; n++) {
      const wait = startedAt + (n * 1000) / rate - performance.now()
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait))
      // Heartbeats among the pods' changes, as often as their share.
      const isBeat = Math.floor(((n + 1) * beatsASecond) / rate) > Math.floor((n * beatsASecond) / rate)
      under.push(isBeat ? this.#beat(2 + (n % (nodes - 2))) : this.#change(n % pods, n))
    }
    await Promise.all(under)
    return total
  }

  #change(pod: number, n: number): Promise<void> {
    const path = `/api/v1/namespaces/default/pods/pod-${pod}/status`
    const body = { status: { phase: 'Running', podIP: `10.200.${(n >> 8) & 255}.${n & 255}`, message: `change ${n}` } }
    return this.send('PATCH', path, body, 'application/merge-patch+json')
  }

  #beat(node: number): Promise<void> {
    const conditions = [{ type: 'Ready', lastHeartbeatTime: new Date().toISOString().replace(/\.\d+/, '') }]
    const body = { status: { conditions } }
    return this.send(
      'PATCH',
      `/api/v1/nodes/${nodeNameOf(node)}/status`,
      body,
      'application/strategic-merge-patch+json',
    )
  }

  async #all(count: number, make: (n: number) => Promise<void>): Promise<void> {
    let next = 0
    const worker = async () => {
      while (next < count) await make(next++)
    }
    await Promise.all(Array.from({ length: PARALLEL }, worker))
  }
}

if (process.argv[1]?.endsWith('objects.ts')) {
  const filler = new Filler(JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as ObjectsConnection)
  for await (const line of createInterface({ input: process.stdin })) {
    const [verb, ...rest] = line.split(' ')
    const numbers = rest.map(Number) as [number, number, number, number, number]
    const startedAt = performance.now()
    const [nodes, pods, silent] = numbers
    const done = verb === 'fill' ? await filler.fill(nodes, pods, silent) : await filler.churn(...numbers)
    console.log(JSON.stringify({ seconds: (performance.now() - startedAt) / 1000, done }))
  }
  process.exit(0)
}
