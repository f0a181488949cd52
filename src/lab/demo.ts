/**
 * The proof: a lab with a few pods, shown by kubectl, ping and captures. Everything on the screen was read from what runs.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { inNetns } from '../kernel/linux/netns.ts'
import type { KubeObject } from './api/interfaces.ts'
import { askControl } from './control.ts'
import type { LabStatus } from './daemon-commands.ts'
import { labPaths } from './layout.ts'
import { followPacket, formatHops, type WalkEnd } from './walk.ts'

const run = promisify(execFile)

interface DemoPod {
  readonly name: string
  readonly node: string
  readonly ips: readonly string[]
}

const LABELS = { app: 'hello' }
const READINESS = { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 2 }

/** A Deployment of the built-in server, one pod more than there are nodes, so that two share a node; and a Service. */
export const demoObjects = (nodes: number): KubeObject[] => [
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'hello', namespace: 'default', labels: LABELS },
    spec: {
      replicas: nodes + 1,
      selector: { matchLabels: LABELS },
      template: {
        metadata: { labels: LABELS },
        spec: {
          containers: [
            {
              name: 'server',
              image: 'weft/server',
              ports: [{ containerPort: 8080, name: 'http' }],
              readinessProbe: READINESS,
            },
          ],
        },
      },
    },
  },
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'hello', namespace: 'default', labels: LABELS },
    spec: { selector: LABELS, ports: [{ port: 80, targetPort: 'http', protocol: 'TCP', name: 'http' }] },
  },
]

/** Deploys the demo's pods and waits until they answer. */
async function deploy(lab: string, nodes: number): Promise<DemoPod[]> {
  const { control } = labPaths(lab)
  await askControl(control, { command: 'apply', objects: demoObjects(nodes) })
  await waitForCount(lab, nodes + 1)
  return askControl<DemoPod[]>(control, { command: 'wait-pods', namespace: 'default', selector: 'app=hello' })
}

/** The Deployment's own count, so that pods of an earlier size are not taken for the whole. */
async function waitForCount(lab: string, count: number): Promise<void> {
  await run('kubectl', [
    '--kubeconfig',
    labPaths(lab).kubeconfig,
    'wait',
    `--for=jsonpath={.status.readyReplicas}=${count}`,
    '--timeout=60s',
    'deployment/hello',
  ]).catch(async () => {
    // An older kubectl waits for conditions only.
    await run('kubectl', [
      '--kubeconfig',
      labPaths(lab).kubeconfig,
      'rollout',
      'status',
      '--timeout=60s',
      'deployment/hello',
    ])
  })
}

async function kubectl(lab: string, argv: readonly string[]): Promise<string> {
  const { stdout } = await run('kubectl', ['--kubeconfig', labPaths(lab).kubeconfig, ...argv])
  return stdout.trimEnd()
}

function ping(netns: string, ip: string): Promise<string> {
  return new Promise((resolve) => {
    inNetns(netns, () =>
      execFile('ping', ['-n', '-c', '2', '-i', '0.2', '-W', '2', ip], (_error, stdout) => resolve(stdout.trimEnd())),
    )
  })
}

/** The lines of a ping that carry replies and the summary. */
const pingLines = (text: string): string[] =>
  text.split('\n').filter((line) => /ttl=|hop limit|packet loss|[Uu]nreachable/.test(line))

export async function showProof(status: LabStatus, print: (line: string) => void): Promise<void> {
  const lab = status.name
  const pods = await deploy(lab, status.nodes.length)
  const title = (text: string) => print(`\n── ${text}`)
  title('nodes and pods (kubectl)')
  print(await kubectl(lab, ['get', 'nodes', '-o', 'wide']))
  print('')
  print(await kubectl(lab, ['get', 'pods', '-o', 'wide']))

  const ends: WalkEnd[] = []
  for (const pod of pods) {
    const { netnsPath } = await askControl<{ netnsPath: string }>(labPaths(lab).control, {
      command: 'locate',
      target: `default/${pod.name}`,
    })
    ends.push({ pod: pod.name, node: pod.node, netnsPath, ip: pod.ips[0]! })
  }
  const from = ends.find((a) => ends.some((b) => a !== b && a.node === b.node)) ?? ends[0]!
  const same = ends.find((end) => end !== from && end.node === from.node)
  if (same) {
    const lines = pingLines(await ping(from.netnsPath, same.ip))
    const how = lines.some((line) => line.includes('ttl=64'))
      ? '; TTL 64: bridged, never routed'
      : '; routed by the node'
    title(`same node: ${from.pod} → ${same.pod}, both on ${from.node} (ping${how})`)
    for (const line of lines) print(line)
  }
  for (const far of farEnds(status, from, ends)) {
    const across = subnetOf(status, far.node) !== subnetOf(status, from.node)
    const way = across ? ', through the router' : ''
    title(
      `across nodes: ${from.pod} on ${from.node} → ${far.pod} on ${far.node}${way} (ping, data path ${status.backend})`,
    )
    for (const line of pingLines(await ping(from.netnsPath, far.ip))) print(line)
    const farV6 = pods.find((pod) => pod.name === far.pod)?.ips[1]
    if (farV6) for (const line of pingLines(await ping(from.netnsPath, farV6))) print(line)
    await showWalk(lab, from, far, print)
  }
  title('next')
  const other = otherThan(status.backend)
  const flag = lab === 'lab' ? '' : ` --name ${lab}`
  print(
    `./weft lab switch ${other}${flag}          the same packet, another way: run ./weft lab demo${flag} again after it`,
  )
  print(`./weft lab exec${flag} ${from.pod} -- ip route`)
  print(`export KUBECONFIG=${status.kubeconfig}; kubectl get pods -A -o wide`)
  print(`\nThe lab goes on running. End it with: ./weft lab down${flag}`)
}

/** A data path of the same dialect. */
function otherThan(backend: string): string {
  if (backend.startsWith('calico')) return backend === 'calico-plain' ? 'calico-vxlan' : 'calico-plain'
  return backend === 'host-gw' ? 'vxlan' : 'host-gw'
}

const subnetOf = (status: LabStatus, node: string): number =>
  status.nodes.find(({ name }) => name === node)?.subnet ?? 0

/** One pod on another node of the same subnet and one behind the router, as far as there are such. */
function farEnds(status: LabStatus, from: WalkEnd, ends: readonly WalkEnd[]): WalkEnd[] {
  const others = ends.filter((end) => end.node !== from.node)
  const near = subnetOf(status, from.node)
  return [true, false].flatMap((same) => others.find((end) => (subnetOf(status, end.node) === near) === same) ?? [])
}

async function showWalk(lab: string, from: WalkEnd, to: WalkEnd, print: (line: string) => void): Promise<void> {
  const { hops, answered } = await followPacket(lab, from, to)
  print(`\n── one packet, hop by hop: captured on every device on its way (${answered ? 'answered' : 'NOT answered'})`)
  for (const line of formatHops(hops)) print(line)
  if (!answered)
    print(
      'The packet ends where the list ends. host-gw and calico-plain need all nodes on one subnet: the router has no route to pods.',
    )
}
