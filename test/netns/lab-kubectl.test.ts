import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { TestLab } from './test-lab.ts'

const lab = new TestLab()
before(() => lab.up('--nodes', '2'))
after(() => lab.down())

const labels = { app: 'web' }
const deployment = (replicas: number, version: string) => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', labels },
  spec: {
    replicas,
    selector: { matchLabels: labels },
    template: {
      metadata: { labels, annotations: { version } },
      spec: {
        containers: [
          {
            name: 'server',
            image: 'weft/server',
            ports: [{ containerPort: 8080, name: 'http' }],
            readinessProbe: { httpGet: { path: '/healthz', port: 'http' }, periodSeconds: 1 },
          },
        ],
      },
    },
  },
})

const json = (...argv: readonly string[]) => JSON.parse(lab.kubectl(...argv, '-o', 'json'))

test('a Deployment comes up, rolls over, scales, and its Service has the ready pods as endpoints', async () => {
  lab.apply(deployment(3, '1'))
  lab.apply({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { selector: labels, ports: [{ port: 80, targetPort: 'http' }] },
  })
  lab.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s')
  const first = json('get', 'pods', '-l', 'app=web').items.map(
    (pod: { metadata: { name: string } }) => pod.metadata.name,
  )
  assert.equal(first.length, 3)
  lab.apply(deployment(3, '2'))
  lab.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s')
  lab.gone(...first.map((name: string) => `pod/${name}`))
  const second = json('get', 'pods', '-l', 'app=web').items
  assert.equal(second.length, 3)
  assert.ok(second.every((pod: { metadata: { name: string } }) => !first.includes(pod.metadata.name)))
  await lab.reaches('endpointslice/web-ipv4', '.endpoints[2].conditions.ready', 'true')
  const slice = json('get', 'endpointslice', 'web-ipv4')
  assert.deepEqual(
    slice.endpoints.map((each: { addresses: string[] }) => each.addresses[0]).sort(),
    second.map((pod: { status: { podIP: string } }) => pod.status.podIP).sort(),
  )
  lab.kubectl('scale', 'deployment/web', '--replicas=1')
  await lab.reaches('deployment/web', '.status.replicas', '1')
})

test('a DaemonSet runs once on every node; deleting an owner deletes what it owns', async () => {
  const template = {
    metadata: { labels: { app: 'each' } },
    spec: { containers: [{ name: 'main', image: 'pause', command: ['sleep', 'infinity'] }] },
  }
  lab.apply({
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name: 'each' },
    spec: { selector: { matchLabels: { app: 'each' } }, template },
  })
  lab.kubectl('rollout', 'status', 'daemonset/each', '--timeout=60s')
  const nodes = json('get', 'pods', '-l', 'app=each').items.map(
    (pod: { spec: { nodeName: string } }) => pod.spec.nodeName,
  )
  assert.deepEqual(nodes.sort(), ['n1', 'n2'])
  lab.kubectl('delete', 'daemonset', 'each')
  lab.gone('pod', '-l', 'app=each')
})

test('exec with input and exit code, logs, port-forward', async () => {
  await lab.server('tools', 'n1')
  const out = execFileSync(
    'kubectl',
    ['--kubeconfig', lab.kubeconfig, 'exec', '-i', 'tools', '--', 'sh', '-c', 'cat; hostname'],
    {
      input: 'hello\n',
      encoding: 'utf8',
    },
  )
  assert.equal(out, 'hello\ntools\n')
  assert.throws(
    () => lab.kubectl('exec', 'tools', '--', 'sh', '-c', 'exit 3'),
    (error: { status?: number }) => error.status === 3,
  )

  lab.kubectl(
    'run',
    'talker',
    '--image=none',
    '--restart=Never',
    '--command',
    '--',
    'sh',
    '-c',
    'echo one; echo two; exit 4',
  )
  await lab.reaches('pod/talker', '.status.phase', 'Failed')
  assert.equal(lab.kubectl('logs', 'talker'), 'one\ntwo\n')
  assert.equal(lab.kubectl('logs', 'talker', '--tail=1'), 'two\n')
  assert.equal(json('get', 'pod', 'talker').status.containerStatuses[0].state.terminated.exitCode, 4)

  const forward = spawn('kubectl', ['--kubeconfig', lab.kubeconfig, 'port-forward', 'pod/tools', ':8080'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [line] = (await once(forward.stdout, 'data')) as [Buffer]
    const port = /127\.0\.0\.1:(\d+)/.exec(line.toString())?.[1]
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/hostname`)).text(), 'tools')
  } finally {
    forward.kill()
  }
})

test('probes and restarts: a pod that never answers is not ready, one that fails its liveness probe starts again', async () => {
  const pod = (name: string, command: string[], extra: object) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'main', image: 'none', command, ...extra }] },
  })
  lab.apply(pod('deaf', ['sleep', 'infinity'], { readinessProbe: { tcpSocket: { port: 9 }, periodSeconds: 1 } }))
  lab.apply(
    pod('sick', ['sleep', 'infinity'], {
      livenessProbe: { exec: { command: ['false'] }, periodSeconds: 1, failureThreshold: 1 },
    }),
  )
  await lab.reaches('pod/sick', '.status.containerStatuses[0].restartCount', '1')
  await lab.reaches('pod/deaf', '.status.phase', 'Running')
  assert.equal(json('get', 'pod', 'deaf').status.containerStatuses[0].ready, false)
  lab.kubectl('delete', 'pod', 'deaf', 'sick')
})

test('a pod that fits no node stays pending and says why; a node selector is honoured', async () => {
  const pod = (name: string, nodeSelector: object) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { nodeSelector, containers: [{ name: 'main', image: 'weft/server' }] },
  })
  lab.apply(pod('nowhere', { zone: 'mars' }))
  lab.kubectl('wait', '--for=condition=PodScheduled=False', 'pod/nowhere', '--timeout=30s')
  assert.match(lab.kubectl('describe', 'pod', 'nowhere'), /Pending/)
  lab.apply(pod('there', { 'kubernetes.io/hostname': 'n2' }))
  lab.kubectl('wait', '--for=condition=Ready', 'pod/there', '--timeout=30s')
  assert.equal(json('get', 'pod', 'there').spec.nodeName, 'n2')
})
