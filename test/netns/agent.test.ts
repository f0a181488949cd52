import assert from 'node:assert/strict'
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'

const netConfig = (backend: object): object => ({ Network: '10.244.0.0/16', Backend: backend })

let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
let pod1: TestPod
let pod2: TestPod

before(async () => {
  cluster = await AgentCluster.open(netConfig({ Type: 'host-gw' }))
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
  for (const node of [n1, n2]) cluster.startAgent(node, ['--healthz-ip', '127.0.0.1', '--healthz-port', '9099'])
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
})
after(() => cluster.close())

/** Waits until a pod reaches an address. */
const reaches = (pod: TestPod, address: string): Promise<void> =>
  cluster.until(`${pod.address} reaches ${address}`, () =>
    pod.namespace.succeeds(`ping -c 1 -W 1 ${address}`) ? undefined : pod.node.namespace.run('ip route; ip -d link'),
  )

test('host-gw: pods of two nodes reach each other by plain routes', async () => {
  pod1 = cluster.addPod(n1)
  pod2 = cluster.addPod(n2)
  await reaches(pod1, pod2.address)
  const routes = n1.namespace.json('ip -j route show proto 119')
  assert.deepEqual(
    routes.map(({ dst, gateway, dev }) => ({ dst, gateway, dev })),
    [{ dst: '10.244.2.0/24', gateway: '172.30.0.12', dev: 'eth0' }],
  )
  assert.match(readFileSync(`${n1.folder}/run/subnet.env`, 'utf8'), /^FLANNEL_SUBNET=10\.244\.1\.1\/24$/m)
  assert.ok(existsSync(`${n1.folder}/cni-conf/10-weft.conflist`))
})

test("announces flannel's annotations and the condition", async () => {
  const { metadata, status } = await cluster.getNode('n1')
  const annotations = metadata.annotations!
  assert.equal(annotations['flannel.alpha.coreos.com/backend-type'], 'host-gw')
  assert.equal(annotations['flannel.alpha.coreos.com/backend-data'], 'null')
  assert.equal(annotations['flannel.alpha.coreos.com/public-ip'], '172.30.0.11')
  assert.equal(annotations['flannel.alpha.coreos.com/kube-subnet-manager'], 'true')
  const condition = status.conditions.find(({ type }: { type: string }) => type === 'NetworkUnavailable')
  assert.equal(condition.status, 'False')
})

test('what is removed by hand is back', async () => {
  n1.namespace.run('ip route del 10.244.2.0/24')
  await cluster.until('the route is back', () =>
    n1.namespace.json('ip -j route show proto 119').length === 1 ? undefined : 'gone',
  )
})

test('a changed ConfigMap moves the cluster to vxlan', async () => {
  await cluster.putNetConfig(netConfig({ Type: 'vxlan' }))
  await cluster.until('n1 sends by vxlan alone', async () => {
    const state = JSON.parse((await cluster.ask(n1, '/state')).body)
    return state.settled && state.peers[0]?.by?.path === 'vxlan/1/8472' ? undefined : JSON.stringify(state)
  })
  await reaches(pod1, pod2.address)
  const [route] = n1.namespace.json('ip -j route show proto 119')
  assert.equal(route!.dev, 'flannel.1')
  const { metadata } = await cluster.getNode('n1')
  assert.match(
    metadata.annotations!['flannel.alpha.coreos.com/backend-data']!,
    /^\{"VNI":1,"VtepMAC":"[0-9a-f:]{17}"\}$/,
  )
})

test('a bad configuration changes nothing and is said on the Node', async () => {
  const before = n1.namespace.run('ip route; ip neigh show dev flannel.1; bridge fdb show dev flannel.1')
  await cluster.putNetConfig('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":"many"}}')
  await cluster.until('an Event names the key', async () => {
    const { items } = await cluster.client.list('events', { namespace: 'default' })
    const found = items.find((event) => event.reason === 'BadNetworkConfiguration' && /VNI/.test(event.message))
    return found ? undefined : JSON.stringify(items)
  })
  assert.equal(n1.namespace.run('ip route; ip neigh show dev flannel.1; bridge fdb show dev flannel.1'), before)
  await cluster.putNetConfig(netConfig({ Type: 'vxlan' }))
})

test('health and metrics by TCP; the state and the log level only by the socket', async () => {
  const get = (path: string) =>
    n1.namespace.run(`curl -s --noproxy '*' -w ' %{http_code}' 'http://127.0.0.1:9099${path}'`)
  assert.match(get('/healthz'), /^ok\s+200$/)
  assert.match(get('/livez/event-loop'), /^ok\s+200$/)
  assert.match(get('/readyz'), /^ok\s+200$/)
  const names = ['cluster', 'net-conf', 'node', 'lease', 'interface', 'kernel', 'cni-socket', 'conflist']
  assert.equal(get('/readyz?verbose'), `${names.map((name) => `[+]${name} ok\n`).join('')}readyz check passed\n 200`)
  const metrics = get('/metrics')
  assert.match(metrics, /^weft_apply_operations_total\{kind="route",verb="add"\} [1-9]/m)
  assert.match(metrics, /^weft_peers_by_path\{path="vxlan\/1\/8472"\} 1$/m)
  assert.match(metrics, /^weft_ipam_addresses_in_use\{range="10.244.1.0\/24"\} 1$/m)
  assert.match(metrics, /^weft_ipam_addresses_free\{range="10.244.1.0\/24"\} 252$/m)
  assert.match(metrics, /^weft_cni_operations_total\{command="ADD",code="0"\} 1$/m)
  assert.match(metrics, /^weft_cni_operation_duration_seconds_count\{command="ADD",result="success"\} 1$/m)
  assert.match(metrics, /^rest_client_requests_total\{code="200",method="GET",host="172.30.0.1:6443"\} [1-9]/m)
  assert.match(metrics, /^weft_cluster_lists_total\{resource="nodes",reason="first"\} 1$/m)
  assert.match(metrics, /^weft_config_errors_total 1$/m)
  assert.match(metrics, /^weft_drift_healed_total [1-9]/m)
  assert.match(metrics, /^kubernetes_healthcheck\{name="conflist",type="readyz"\} 1$/m)
  assert.match(metrics, /^felix_resync_state 3$/m)
  for (const path of ['/state', '/loglevel', '/debug/flags/v']) assert.match(get(path), / 404$/)
})

test('a readiness check fails by name when what it looks at is gone and cannot be put back', async () => {
  const confDir = `${n1.folder}/cni-conf`
  renameSync(confDir, `${confDir}.away`)
  writeFileSync(confDir, 'in the way')
  const failed = await cluster.ask(n1, '/readyz')
  assert.equal(failed.status, 503)
  assert.match(failed.body, /^\[-\]conflist failed: .*cni-conf/m)
  assert.match(failed.body, /^\[\+\]lease ok$/m)
  assert.equal((await cluster.ask(n1, '/readyz?exclude=conflist')).status, 200)
  assert.equal((await cluster.ask(n1, '/readyz/conflist')).status, 503)
  assert.equal((await cluster.ask(n1, '/readyz/nothing')).status, 404)
  rmSync(confDir)
  renameSync(`${confDir}.away`, confDir)
  await cluster.ready(n1)
  assert.equal((await cluster.ask(n1, '/readyz')).body, 'ok\n')
})

test('what the container runtime looks for is put back, and another network before it is told', async () => {
  const plugin = `${n1.folder}/cni-bin/weft`
  const conflist = `${n1.folder}/cni-conf/10-weft.conflist`
  rmSync(plugin)
  rmSync(conflist)
  await cluster.until('both are back', () => (existsSync(plugin) && existsSync(conflist) ? undefined : 'not yet'))
  writeFileSync(`${n1.folder}/cni-conf/05-other.conflist`, '{}')
  await cluster.until('the Event', async () => {
    const { items } = await cluster.client.list('events', { namespace: 'default' })
    const told = items.find(({ reason }) => reason === 'OtherNetworkFirst')
    return /05-other\.conflist/.test(String(told?.message)) ? undefined : items
  })
  rmSync(`${n1.folder}/cni-conf/05-other.conflist`)
})

test('the log level by command, socket and signal', async () => {
  const socket = `${n1.folder}/run/agent.sock`
  const put = (path: string, text: string) =>
    n1.namespace.run(`curl -s --noproxy '*' --unix-socket ${socket} -X PUT -d '${text}' http://agent${path}`)
  assert.equal(put('/loglevel', 'debug'), 'debug\n')
  assert.equal(put('/loglevel', 'loud'), 'the levels are error, warn, info, debug, trace\n')
  assert.equal((await cluster.ask(n1, '/debug/flags/v')).body, '4\n')
  assert.equal(put('/debug/flags/v', '6'), 'verbosity 6: the log level is trace\n')
  assert.equal(put('/debug/flags/v', 'many'), 'a verbosity is a number from 0 to 999\n')
  const command = (level: string) =>
    n1.namespace.run(`${process.execPath} --import tsx bin/weft.ts agent log-level --run-dir ${n1.folder}/run ${level}`)
  assert.equal(command('info'), 'info\n')
  assert.equal(command(''), 'info\n')
  const becomes = async (signal: NodeJS.Signals, level: string) => {
    cluster.signal(n1, signal)
    await cluster.until(`${signal} is heard`, async () => {
      const { body } = await cluster.ask(n1, '/loglevel')
      return body === `${level}\n` ? undefined : body
    })
  }
  await becomes('SIGHUP', 'debug')
  await becomes('SIGUSR1', 'trace')
  await becomes('SIGUSR2', 'debug')
  await becomes('SIGHUP', 'info')
  assert.match(cluster.log(n1), /"now":"trace","msg":"log level changed"/)
})

test('a second agent in the same place is refused, naming the first', async () => {
  const first = cluster.startAgent(n2, ['--log-level', 'info'])
  const code = await new Promise((resolve) => first.once('exit', resolve))
  assert.equal(code, 2)
  assert.match(cluster.log(n2), /another weft agent .*: process \d+/)
})
