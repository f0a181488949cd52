/**
 * CRI-O as a caller of weft's plugin: pods by the container runtime interface, as a kubelet asks for them. CRI-O and its
 * `pinns` are those in PATH: Debian 12 has no package of them. Everything of CRI-O's is in the test's folder and in the
 * network of a node, but the network namespaces that it pins in /run/netns.
 *
 * Pods have no infra container (CRI-O's default unless they share processes), so nothing here needs a container to run.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { conflist, conflistName } from '../../../src/cni/install.ts'
import { LineProgram } from '../../bench/line-program.ts'
import { CniNode, cannotRun, ok } from '../../netns/cni-node.ts'
import { buildGoProgram } from '../go-program.ts'
import { removeCgroups, Stage } from './stage.ts'

const missing = ['crio', 'pinns', 'conmon', 'runc', 'podman'].find(
  (command) => spawnSync('sh', ['-c', `command -v ${command}`]).status !== 0,
)
const clientFolder = fileURLToPath(new URL('../../bench/sandboxes', import.meta.url))
const client = cannotRun || missing ? undefined : buildGoProgram(clientFolder, 'sandboxes', '.', { CGO_ENABLED: '0' })
const skip =
  cannotRun ||
  (missing ? `there is no ${missing} on this machine` : false) ||
  (client && 'missing' in client ? client.missing : false)

const weftPod = fileURLToPath(new URL('../../../dist/native/weft-pod', import.meta.url))
const image = 'localhost/weft-pod:latest'
const parent = `weft-test-${process.pid}`

interface Pod {
  readonly name: string
  readonly ip: string
  readonly furtherIps: readonly string[]
  readonly state: string
}

describe('CRI-O', { skip }, () => {
  let node: CniNode
  let stage: Stage
  let crio: ChildProcess | undefined
  let sandboxes: LineProgram
  const servers: ChildProcess[] = []
  const log: string[] = []
  /** Lines of CRI-O's log that somebody waits for. */
  const awaited = new Map<RegExp, () => void>()

  const logged = (line: RegExp) => new Promise<void>((resolve) => awaited.set(line, resolve))

  before(async () => {
    node = new CniNode()
    await node.start()
    stage = await Stage.open(node.namespace, node.folder)
    const { folder } = node
    for (const part of ['net', 'root', 'conf.d']) mkdirSync(join(folder, part))
    copyFileSync(weftPod, join(folder, 'root/weft-pod'))
    execFileSync('tar', ['-C', join(folder, 'root'), '-cf', join(folder, 'image.tar'), '.'])
    const storage = `[storage]\ndriver = "vfs"\ngraphroot = "${folder}/graph"\nrunroot = "${folder}/runroot"\n`
    writeFileSync(join(folder, 'storage.conf'), storage)
    const env = { HOME: folder, CONTAINERS_STORAGE_CONF: join(folder, 'storage.conf') }
    const imported = await stage.run(['podman', 'import', join(folder, 'image.tar'), image], { env })
    assert.equal(imported.exitCode, 0, imported.stderr)

    offer(conflist.cniVersion)
    const configuration = `[crio]
root = "${folder}/graph"
runroot = "${folder}/runroot"
storage_driver = "vfs"
log_dir = "${folder}/log"
version_file = "${folder}/version"
clean_shutdown_file = "${folder}/clean"
[crio.api]
listen = "${folder}/crio.sock"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
container_exits_dir = "${folder}/exits"
container_attach_socket_dir = "${folder}/attach"
hooks_dir = []
cdi_spec_dirs = []
default_runtime = "runc"
[crio.runtime.runtimes.runc]
runtime_root = "${folder}/runc"
monitor_path = ""
monitor_cgroup = "pod"
[crio.image]
pause_image = "${image}"
pause_command = "/weft-pod pause"
signature_policy_dir = "${folder}/policies"
namespaced_auth_dir = "${folder}/auth"
[crio.network]
network_dir = "${folder}/net"
plugin_dirs = ["${folder}/bin"]
[crio.nri]
enable_nri = false
`
    writeFileSync(join(folder, 'crio.conf'), configuration)
    await startCrio()
    sandboxes = new LineProgram((client as { program: string }).program, [join(folder, 'crio.sock')])
  })
  after(async () => {
    for (const server of servers) server.kill('SIGKILL')
    if (sandboxes && asked.size > 0) {
      // A test that failed may have left no agent, and without one no pod goes.
      await node.stop()
      await node.start()
      await ask(`remove ${[...asked].join(',')}`).catch(() => {})
    }
    await sandboxes?.end()
    await stopCrio('SIGTERM')
    stage?.close()
    await node?.delete()
    removeCgroups(parent)
  })

  /** The agent's own list, in that version. */
  function offer(cniVersion: string): void {
    writeFileSync(join(node.folder, 'net', conflistName), JSON.stringify({ ...conflist, cniVersion }))
  }

  async function startCrio(): Promise<void> {
    const { folder } = node
    const words = ['--config', join(folder, 'crio.conf'), '--config-dir', join(folder, 'conf.d')]
    const child = stage.start(['crio', ...words], { HOME: folder })
    crio = child
    const healthy = logged(/CNI plugin is now healthy/)
    createInterface({ input: child.stderr }).on('line', (line) => {
      log.push(line)
      if (process.env.WEFT_TEST_LOG) console.error(line)
      for (const [pattern, resolve] of awaited) if (pattern.test(line) && awaited.delete(pattern)) resolve()
    })
    const ended = new Promise<never>((_, reject) =>
      child.once('exit', (code) => reject(new Error(`CRI-O ended with ${code}: ${log.slice(-5).join('\n')}`))),
    )
    ended.catch(() => {})
    await Promise.race([healthy, ended])
  }

  async function stopCrio(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = crio
    crio = undefined
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await ended
  }

  /** Every pod that was ever asked for and not removed. */
  const asked = new Set<string>()

  async function ask<T>(line: string): Promise<T> {
    sandboxes.write(line)
    const answer = JSON.parse(await sandboxes.line()) as T & { readonly error?: string }
    if (answer.error !== undefined) throw new Error(`${line}: ${answer.error}`)
    return answer
  }

  /** Starts pods at once; `more` is of a PodSandboxConfig. */
  async function start(names: readonly string[], more: object = {}): Promise<Pod[]> {
    for (const name of names) asked.add(name)
    const options = { pid: 1 } // their own processes: no infra container
    const linux = { cgroup_parent: `/${parent}`, security_context: { namespace_options: options } }
    const { pods } = await ask<{ pods: Pod[] }>(`start ${names.join(',')} - ${JSON.stringify({ linux, ...more })}`)
    return names.map((name) => pods.find((pod) => pod.name === name)!)
  }

  async function remove(...names: string[]): Promise<void> {
    await ask(`remove ${names.join(',')}`)
    for (const name of names) asked.delete(name)
  }

  /** The namespace that CRI-O made for a pod, as libcni noted it. */
  function netnsOf(name: string): string {
    for (const file of cached()) {
      const note = JSON.parse(readFileSync(join(stage.varLib, 'cni/results', file), 'utf8'))
      if (note.cniArgs.some(([key, value]: string[]) => key === 'K8S_POD_NAME' && value === name)) return note.netns
    }
    throw new Error(`No result of ${name}`)
  }

  const inPod = (name: string, words: readonly string[]) =>
    execFileSync('nsenter', [`--net=${netnsOf(name)}`, ...words], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })

  /** Messages from a pod to addresses: none lost. */
  function pings(from: string, ...to: readonly string[]): void {
    for (const address of to) {
      const words = ['ping1k', '--to', address, '--icmp', '--duration-ms', '100', '--wait-ms', '10000']
      const { sent, lost } = JSON.parse(inPod(from, [weftPod, ...words])) as { sent: number; lost: number }
      assert.ok(sent > 0)
      assert.equal(lost, 0, `${from} to ${address}`)
    }
  }

  /** Answers HTTP in a pod. */
  function serve(name: string): void {
    servers.push(spawn('nsenter', [`--net=${netnsOf(name)}`, weftPod, 'serve'], { stdio: 'ignore' }))
  }

  const cached = () => readdirSync(join(stage.varLib, 'cni/results'))

  test("pods talk on both families; a host port is CRI-O's; nothing is left", async () => {
    const port = { protocol: 0, container_port: 8080, host_port: 18090 } // TCP
    const [a] = await start(['a'], { port_mappings: [port] })
    const [b] = await start(['b'])
    for (const pod of [a!, b!]) {
      assert.match(pod.ip, /^10\.77\.0\.\d+$/)
      assert.match(pod.furtherIps[0]!, /^fd00:77::/)
      for (const address of [pod.ip, pod.furtherIps[0]!]) node.namespace.run(`ping -c 1 -W 5 ${address}`)
    }
    pings('b', a!.ip, a!.furtherIps[0]!, '10.77.0.1')
    serve('a')
    const page = ['curl', '-sS', '-m', '5', '--retry', '10', '--retry-delay', '1', '--retry-connrefused']
    for (const gateway of ['10.77.0.1', '[fd00:77::1]']) {
      const words = [...page, `http://${gateway}:18090/clientip`]
      assert.notEqual(node.namespace.run(words.join(' ')), '')
      assert.match(inPod('b', words), gateway.startsWith('[') ? /fd00:77::/ : /^10\.77\.0\./)
    }
    await remove('a', 'b')
    await node.drained()
    assert.deepEqual(cached(), [])
    assert.doesNotMatch(node.namespace.run('nft list ruleset'), /18090/)
  })

  test('ten pods at once have ten addresses', async () => {
    const pods = await start(Array.from({ length: 10 }, (_, n) => `p${n}`))
    assert.equal(new Set(pods.flatMap((pod) => [pod.ip, ...pod.furtherIps])).size, 20)
    pings('p0', ...pods.map((pod) => pod.ip))
    await remove(...pods.map((pod) => pod.name))
    await node.drained()
    assert.deepEqual(cached(), [])
  })

  test('bandwidth of the annotations, with the burst that CRI-O asks for', async () => {
    const rates = { 'kubernetes.io/ingress-bandwidth': '10M', 'kubernetes.io/egress-bandwidth': '20M' }
    await start(['slow'], { annotations: rates })
    const buckets = node.namespace
      .run('tc qdisc')
      .split('\n')
      .filter((line) => line.includes(' tbf '))
    assert.deepEqual(buckets.map((line) => /rate (\w+)/.exec(line)![1]).sort(), ['10Mbit', '20Mbit'])
    await remove('slow')
    await node.drained()
  })

  test('without an agent no pod starts, living ones talk, and one that is to go goes when CRI-O asks again', async () => {
    await start(['stays'])
    await node.stop('SIGKILL')
    const unanswered = /the weft agent of this node does not answer/
    await assert.rejects(start(['refused']), unanswered)
    pings('stays', '10.77.0.1')
    await assert.rejects(remove('stays'), unanswered)
    await node.start()
    await remove('stays')
    await node.drained()
    assert.deepEqual(cached(), [])
  })

  test('CRI-O killed: pods keep their network, and what it does not know is collected at its start', async () => {
    const [kept] = await start(['kept'])
    ok(await node.call('ADD', { containerId: 'leaked', netns: netnsOf('kept'), ifname: 'eth7' }))
    assert.equal(node.devices().length, 2)
    await stopCrio('SIGKILL')
    offer('1.1.0') // GC, and STATUS, came with it
    pings('kept', '10.77.0.1', 'fd00:77::1')
    await startCrio()
    await node.drained(1)
    const { pods } = await ask<{ pods: Pod[] }>('status kept')
    assert.deepEqual([pods[0]!.state, pods[0]!.ip], ['SANDBOX_READY', kept!.ip])
    pings('kept', '10.77.0.1', 'fd00:77::1')
    const [next] = await start(['next'])
    assert.notEqual(next!.ip, kept!.ip)
    await remove('kept', 'next')
    await node.drained()
    assert.deepEqual(cached(), [])
  })

  test('CRI-O started before the agent: STATUS holds pods back until the agent serves', async () => {
    await node.stop()
    await stopCrio('SIGTERM')
    const waits = logged(/CNI plugin not ready\. Waiting/)
    const serving = startCrio()
    const pod = start(['early'])
    await waits
    await node.start()
    await serving
    assert.match((await pod)[0]!.ip, /^10\.77\.0\./)
    await remove('early')
    await node.drained()
  })
})
