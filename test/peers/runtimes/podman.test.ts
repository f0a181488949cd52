/**
 * Debian's podman with its CNI backend: containers on weft's network, as on a machine without a cluster. Everything of
 * podman's is in the test's folder and in the network of a node.
 *
 * The machine may refuse to raise limits (no CAP_SYS_RESOURCE): the containers' own are low ones.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { CniNode, cannotRun } from '../../netns/cni-node.ts'
import { type Ended, PLUGINS, removeCgroups, Stage } from './stage.ts'

const missing = ['podman', 'runc', 'conmon', 'findmnt'].find(
  (command) => spawnSync('sh', ['-c', `command -v ${command} || test -e /usr/libexec/podman/${command}`]).status !== 0,
)
const skip = cannotRun || (missing ? `there is no ${missing} (package podman)` : false)

const program = fileURLToPath(new URL('../../../dist/native/weft-pod', import.meta.url))
const image = 'weft-pod'
const parent = `weft-test-${process.pid}`
const weft = { type: 'weft', capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true } }

interface Address {
  readonly IPAddress: string
  readonly GlobalIPv6Address: string
  readonly MacAddress: string
  readonly Gateway: string
}

describe('podman', { skip }, () => {
  let node: CniNode
  let stage: Stage

  before(async () => {
    node = new CniNode()
    await node.start()
    stage = await Stage.open(node.namespace, node.folder)
    const { folder } = node
    for (const part of ['net', 'root']) mkdirSync(join(folder, part))
    copyFileSync(program, join(folder, 'root/weft-pod'))
    execFileSync('tar', ['-C', join(folder, 'root'), '-cf', join(folder, 'image.tar'), '.'])
    const conflist = { cniVersion: '1.0.0', name: 'weft', plugins: [weft] }
    writeFileSync(join(folder, 'net/10-weft.conflist'), JSON.stringify(conflist))
    const words = (...list: string[]) => JSON.stringify(list)
    const configuration = `[network]
network_backend = "cni"
cni_plugin_dirs = ${words(join(folder, 'bin'), PLUGINS)}
network_config_dir = "${folder}/net"
default_network = "weft"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
static_dir = "${folder}/static"
tmp_dir = "${folder}/tmp"
volume_path = "${folder}/volumes"
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`
    writeFileSync(join(folder, 'containers.conf'), configuration)
    const storage = `[storage]\ndriver = "vfs"\ngraphroot = "${folder}/graph"\nrunroot = "${folder}/runroot"\n`
    writeFileSync(join(folder, 'storage.conf'), storage)
    await good('import', join(folder, 'image.tar'), image)
  })
  after(async () => {
    await podman('rm', '--force', '--all', '--time', '0').catch(() => {})
    stage?.close()
    await node?.delete()
    removeCgroups(parent)
  })

  function podman(...words: string[]): Promise<Ended> {
    const { folder } = node
    const env = {
      HOME: folder,
      CONTAINERS_CONF: join(folder, 'containers.conf'),
      CONTAINERS_STORAGE_CONF: join(folder, 'storage.conf'),
    }
    return stage.run(['podman', ...words], { env })
  }

  async function good(...words: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await podman(...words)
    assert.equal(exitCode, 0, `podman ${words.join(' ')}: ${stderr}`)
    return stdout.trim()
  }

  const run = (name: string, ...flags: string[]) =>
    good('run', '-d', '--name', name, '--cgroup-parent', parent, ...flags, image, '/weft-pod', 'serve')

  async function addressOf(name: string): Promise<Address> {
    const networks = await good('inspect', name, '--format', '{{json .NetworkSettings.Networks}}')
    return (JSON.parse(networks) as Record<string, Address>).weft!
  }

  /** Messages from a container to an address: none lost. */
  async function pings(from: string, to: string): Promise<void> {
    const words = ['exec', from, '/weft-pod', 'ping1k', '--to', to, '--duration-ms', '100', '--wait-ms', '10000']
    const { sent, lost } = JSON.parse(await good(...words)) as { sent: number; lost: number }
    assert.ok(sent > 0)
    assert.equal(lost, 0, `${from} to ${to}`)
  }

  const cached = () => readdirSync(join(stage.varLib, 'cni/results'))

  test('the network is listed', async () => {
    assert.match(await good('network', 'ls'), /^\w+ +weft +weft$/m)
    const [network] = JSON.parse(await good('network', 'inspect', 'weft'))
    assert.equal(network.name, 'weft')
  })

  test('two containers talk; a published port; reload keeps addresses; nothing is left', async () => {
    await run('a', '-p', '18090:8080')
    await run('b')
    const [a, b] = [await addressOf('a'), await addressOf('b')]
    assert.equal(a.Gateway, '10.77.0.1')
    for (const each of [b.IPAddress, b.GlobalIPv6Address]) await pings('a', each)
    const fetch = () => node.namespace.run('curl -sS -m 5 http://10.77.0.1:18090/hostname')
    assert.notEqual(fetch(), '')

    await good('network', 'reload', '--all')
    assert.deepEqual(await addressOf('a'), a)
    assert.deepEqual(await addressOf('b'), b)
    for (const each of [a.IPAddress, a.GlobalIPv6Address]) await pings('b', each)
    assert.notEqual(fetch(), '')

    await good('network', 'disconnect', 'weft', 'b')
    await good('network', 'connect', 'weft', 'b')
    await pings('a', (await addressOf('b')).IPAddress)
    await good('restart', '--time', '0', 'b')
    await pings('a', (await addressOf('b')).IPAddress)

    await good('stop', '--time', '0', 'a')
    assert.equal(node.devices().length, 1)
    await good('rm', '--force', '--time', '0', 'a', 'b')
    await node.drained()
    assert.deepEqual(cached(), [])
    assert.doesNotMatch(node.namespace.run('nft list table inet weft'), /18090/)
  })

  test('an address and a MAC asked for; taken ones are refused and leave nothing', async () => {
    await run('fixed', '--network', 'weft:ip=10.77.0.99,mac=02:00:00:00:00:99')
    const fixed = await addressOf('fixed')
    assert.deepEqual([fixed.IPAddress, fixed.MacAddress], ['10.77.0.99', '02:00:00:00:00:99'])
    const words = ['run', '-d', '--name', 'second', '--cgroup-parent', parent, '--ip', '10.77.0.99', image, '/weft-pod']
    const refused = await podman(...words, 'serve')
    assert.notEqual(refused.exitCode, 0)
    assert.match(refused.stderr, /10\.77\.0\.99/)
    assert.equal(node.devices().length, 1)
    await good('rm', '--force', '--time', '0', '--all')
    await node.drained()
    assert.deepEqual(cached(), [])
  })

  test('containers of one pod share its address', async () => {
    const infra = ['--infra-image', image, '--infra-command', '/weft-pod pause']
    await good('pod', 'create', '--name', 'p', '--cgroup-parent', parent, ...infra)
    await good('run', '-d', '--pod', 'p', '--name', 'one', image, '/weft-pod', 'serve')
    await good('run', '-d', '--pod', 'p', '--name', 'two', image, '/weft-pod', 'pause')
    assert.equal(node.devices().length, 1)
    await pings('two', '127.0.0.1')
    await pings('two', '10.77.0.1')
    await good('pod', 'rm', '--force', '--time', '0', 'p')
    await node.drained()
    assert.deepEqual(cached(), [])
  })

  test('a container that is killed hard is cleaned up by podman; the agent may be away meanwhile', async () => {
    await run('a')
    await node.stop('SIGKILL')
    const away = await podman('run', '-d', '--name', 'b', '--cgroup-parent', parent, image, '/weft-pod', 'serve')
    assert.notEqual(away.exitCode, 0)
    assert.match(away.stderr, /weft/)
    await node.start()
    await good('rm', '--force', '--time', '0', '--all')
    await node.drained()
    assert.deepEqual(cached(), [])
  })
})
