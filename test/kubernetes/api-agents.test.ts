import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { missingForKubernetes } from '../../src/lab/kubernetes/programs.ts'
import { askStatus } from '../../src/status/status-client.ts'
import type { TestNamespace } from '../netns/namespace.ts'
import { ApiNetwork } from './api-network.ts'

const skip = missingForKubernetes() ?? false
const root = fileURLToPath(new URL('../..', import.meta.url))

/** The account that the manifests give to agents. */
const ACCOUNT = 'system:serviceaccount:kube-flannel:weft-agent'
const prefix = 'flannel.alpha.coreos.com'

let network: ApiNetwork
const agents = new Map<
  string,
  { readonly machine: TestNamespace; readonly child: ChildProcess; readonly run: string }
>()

interface Node {
  readonly metadata: { readonly uid: string; readonly annotations: Readonly<Record<string, string>> }
  readonly status: {
    readonly conditions: readonly {
      readonly type: string
      readonly status: string
      readonly reason: string
      readonly lastTransitionTime: string
    }[]
  }
}

const send = (method: 'GET' | 'POST' | 'PATCH' | 'DELETE', path: string, body?: object): Promise<unknown> =>
  network.api.client.request({
    method,
    path,
    ...(body ? { body } : {}),
    ...(method === 'PATCH' ? { contentType: 'application/strategic-merge-patch+json' } : {}),
  })

const addressOf = (n: number): string => `172.30.1.${n}`

const makeNode = (n: number, conditions: readonly object[] = []): Promise<unknown> =>
  send('POST', '/api/v1/nodes', {
    metadata: { name: `n${n}` },
    spec: { podCIDR: `10.244.${n}.0/24`, podCIDRs: [`10.244.${n}.0/24`] },
    status: { addresses: [{ type: 'InternalIP', address: addressOf(n) }], conditions },
  })

const nodeNow = (name: string): Promise<Node> => send('GET', `/api/v1/nodes/${name}`) as Promise<Node>
const conditionOf = ({ status }: Node) => status.conditions?.find(({ type }) => type === 'NetworkUnavailable')

async function until<T>(what: string, ask: () => Promise<T | undefined> | T | undefined, seconds = 60): Promise<T> {
  const deadline = performance.now() + seconds * 1000
  for (;;) {
    const found = await ask()
    if (found !== undefined) return found
    assert.ok(performance.now() < deadline, `${what}: not within ${seconds} s`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Starts the agent of a node on a machine of its own, with the manifests' rights alone. */
function startAgent(n: number): void {
  const name = `n${n}`
  const machine = network.addMachine(addressOf(n))
  const run = join(network.api.folder, name)
  mkdirSync(run)
  const groups = ['system:serviceaccounts', 'system:serviceaccounts:kube-flannel']
  const kubeconfig = network.api.kubeconfig({ commonName: ACCOUNT, organizations: groups, usages: ['client'] })
  const flags = ['--kubeconfig', kubeconfig, '--node-name', name, '--run-dir', run, '--iface', 'eth0']
  flags.push('--cni-bin-dir', '', '--cni-conf-dir', '')
  const child = inNetns(machine.path, () =>
    spawn(process.execPath, ['--import', 'tsx', 'bin/weft.ts', 'agent', ...flags], {
      cwd: root,
      stdio: 'ignore',
    }),
  )
  process.once('exit', () => child.kill('SIGKILL'))
  agents.set(name, { machine, child, run })
}

const metricOf = async (name: string, pattern: RegExp): Promise<number> => {
  const text = await askStatus(join(agents.get(name)!.run, 'agent.sock'), '/metrics')
  const lines = text.split('\n').filter((line) => !line.startsWith('#') && pattern.test(line))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

before(async () => {
  if (skip) return
  network = await ApiNetwork.start({ audited: [ACCOUNT] })
  for (const document of parseAllDocuments(readFileSync(join(root, 'deploy/agent-rbac.yaml'), 'utf8'))) {
    const object = document.toJS() as { apiVersion: string; kind: string; metadata: { namespace?: string } }
    const group = object.apiVersion.includes('/') ? `/apis/${object.apiVersion}` : `/api/${object.apiVersion}`
    const place = object.metadata.namespace ? `/namespaces/${object.metadata.namespace}` : ''
    await send('POST', `${group}${place}/${object.kind.toLowerCase()}s`, object)
  }
  await send('POST', '/api/v1/namespaces/kube-flannel/configmaps', {
    metadata: { name: 'kube-flannel-cfg' },
    data: { 'net-conf.json': JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }) },
  })
  // As the controller of a cloud leaves it on a new node.
  await makeNode(1, [{ type: 'NetworkUnavailable', status: 'True', reason: 'NoRouteCreated' }])
  await makeNode(2)
  for (const n of [1, 2]) startAgent(n)
})
after(async () => {
  for (const { child } of agents.values()) child.kill('SIGKILL')
  await network?.close()
})

test('with the rights of the manifests alone: announced, routed to, and NetworkUnavailable is False', {
  skip,
}, async () => {
  for (const name of ['n1', 'n2']) {
    await until(
      `${name} is announced`,
      async () => (await nodeNow(name)).metadata.annotations?.[`${prefix}/backend-type`],
    )
    const condition = await until(`${name} has its network`, async () => {
      const found = conditionOf(await nodeNow(name))
      return found?.status === 'False' ? found : undefined
    })
    assert.equal(condition.reason, 'WeftIsUp')
  }
  const { machine } = agents.get('n1')!
  await until('n1 routes to n2', () => (machine.run('ip route').includes('10.244.2.0/24') ? true : undefined))
  const refused = network.api.requests(ACCOUNT).filter(({ code }) => code === 403)
  assert.deepEqual(
    refused.filter(({ verb }) => verb !== 'list' && verb !== 'watch'),
    [],
  )
})

test('a Node that is made anew is announced and has its condition again', { skip }, async () => {
  const before = await nodeNow('n2')
  await send('DELETE', '/api/v1/nodes/n2')
  await makeNode(2)
  const now = await until('the new n2 has its network', async () => {
    const node = await nodeNow('n2')
    return conditionOf(node)?.status === 'False' && node.metadata.annotations?.[`${prefix}/public-ip`]
      ? node
      : undefined
  })
  assert.notEqual(now.metadata.uid, before.metadata.uid)
})

test('a thousand bad words of one peer are a handful of Events, each written once by whoever sees it first', {
  skip,
}, async () => {
  const { metadata } = (await makeNode(3)) as { metadata: { uid: string } }
  await send('PATCH', '/api/v1/nodes/n3', {
    metadata: { annotations: { [`${prefix}/kube-subnet-manager`]: 'true', [`${prefix}/backend-type`]: 'vxlan' } },
  })
  for (let n = 0; n < 1000; n++)
    await send('PATCH', '/api/v1/nodes/n3', { metadata: { annotations: { [`${prefix}/public-ip`]: `999.0.0.${n}` } } })
  await send('PATCH', '/api/v1/nodes/n3', { metadata: { annotations: { [`${prefix}/public-ip`]: addressOf(3) } } })
  const { machine } = agents.get('n1')!
  await send('PATCH', '/api/v1/nodes/n3', {
    metadata: { annotations: { [`${prefix}/backend-data`]: '{"VNI":1,"VtepMAC":"0e:00:00:00:00:03"}' } },
  })
  // Both have seen all of it when the last, good word is acted upon.
  for (const each of [machine, agents.get('n2')!.machine])
    await until('the good word counts', () => (each.run('ip route').includes('10.244.3.0/24') ? true : undefined))
  const about = async () => {
    const { items } = (await send(
      'GET',
      `/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=n3,reason=PeerRefused`,
    )) as { items: { message: string; involvedObject: { uid: string }; source: { host: string } }[] }
    return items
  }
  const events = await until('an Event about n3', async () => {
    const items = await about()
    return items.length > 0 ? items : undefined
  })
  assert.ok(events.length < 10, `${events.length} Events`)
  assert.equal(new Set(events.map(({ message }) => message)).size, events.length, 'the same words twice')
  for (const { message, involvedObject, source } of events) {
    assert.match(message, /public-ip/)
    assert.equal(involvedObject.uid, metadata.uid)
    assert.match(source.host, /^n[12]$/)
  }
  const writes = network.api.requests(ACCOUNT).filter(({ verb, uri }) => verb === 'create' && uri.includes('/events'))
  assert.ok(writes.length <= 12, `${writes.length} Events were written`)
})

test('packets that vanish without a word: the kernel gives the connection up, the agent says so, and resumes', {
  skip,
}, async () => {
  const { machine } = agents.get('n1')!
  const failed = /weft_cluster_watch_restarts_total\{.*reason="failed"/
  const before = await metricOf('n1', failed)
  machine.run('nft add table inet partition')
  for (const [chain, hook] of [
    ['in', 'input'],
    ['out', 'output'],
  ])
    machine.run(
      `nft 'add chain inet partition ${chain} { type filter hook ${hook} priority -300; policy accept; }' && nft add rule inet partition ${chain} tcp ${chain === 'in' ? 'sport' : 'dport'} 6443 drop`,
    )
  // 15 s of silence, ten probes a second apart: TCP keepalive, and no message of any kind tells earlier.
  await until(
    'both watches are given up',
    async () => ((await metricOf('n1', failed)) >= before + 2 ? true : undefined),
    60,
  )
  assert.equal(await metricOf('n1', /^weft_cluster_connected /), 0)
  assert.ok(machine.run('ip route').includes('10.244.2.0/24'), 'what is programmed stays')
  await send('DELETE', '/api/v1/nodes/n3')
  machine.run('nft delete table inet partition')
  await until('n3 is gone from n1', () => (machine.run('ip route').includes('10.244.3.0/24') ? undefined : true))
  await until('it is connected', async () =>
    (await metricOf('n1', /^weft_cluster_connected /)) === 1 ? true : undefined,
  )
  assert.equal(await metricOf('n1', /weft_cluster_lists_total\{.*reason="expired"/), 0)
})
