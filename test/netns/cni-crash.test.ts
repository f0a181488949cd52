/**
 * The CNI server killed at random moments under load. Afterwards nothing is leaked, nothing is given twice, and what a
 * runtime was told is true.
 */
import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { decodeLog } from '../../src/ipam/stores/record-log.ts'
import { CniNode, cannotRun, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun

interface Pod {
  readonly containerId: string
  readonly namespace: TestNamespace
  readonly config: object
  readonly hostPort: number | undefined
  /** What the runtime knows: `unknown` when the plugin failed, so that DEL is due. */
  state: 'up' | 'down' | 'unknown'
  address: string
  device: string
}

function makePod(n: number): Pod {
  const hostPort = n % 3 === 0 ? 9000 + n : undefined
  const runtimeConfig = {
    ...(hostPort ? { portMappings: [{ hostPort, containerPort: 80, protocol: n % 2 ? 'udp' : 'tcp' }] } : {}),
    ...(n % 4 === 1 ? { bandwidth: { ingressRate: 1e8, egressRate: 1e8 } } : {}),
  }
  return {
    containerId: `pod-${n}`,
    namespace: new TestNamespace(),
    config: weftConfig('1.1.0', { runtimeConfig }),
    hostPort,
    state: 'down',
    address: '',
    device: '',
  }
}

/** One step of a pod's life as a runtime takes it: after a failure DEL, otherwise the other of ADD and DEL. */
async function step(node: CniNode, pod: Pod): Promise<void> {
  const { containerId, config, namespace } = pod
  if (pod.state === 'down') {
    const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${containerId}`
    const { exitCode, json } = await node.call('ADD', { containerId, netns: namespace.path, config, args })
    pod.state = exitCode === 0 ? 'up' : 'unknown'
    if (exitCode === 0) {
      pod.address = json.ips[0].address
      pod.device = json.interfaces.find(({ name, sandbox }: Record<string, string>) => !sandbox && name !== 'cni0').name
    }
  } else {
    const { exitCode } = await node.call('DEL', { containerId, netns: namespace.path, config })
    pod.state = exitCode === 0 ? 'down' : 'unknown'
  }
}

const isVeth = (name: string): boolean => name.startsWith('veth')

/** Attachments that the journal's file says are there. */
function journaled(node: CniNode): string[] {
  const live = new Map<number, string>()
  for (const record of decodeLog(readFileSync(join(node.folder, 'cni/journal'))).records as {
    op: string
    id: number
    attachment: { id: number; containerId: string }
  }[]) {
    if (record.op === 'add') live.set(record.attachment.id, record.attachment.containerId)
    if (record.op === 'gone') live.delete(record.id)
  }
  return [...live.values()].sort()
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!holds()) {
    if (Date.now() > deadline) assert.fail(`Never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const mappedPorts = (node: CniNode): number[] => {
  const text = node.namespace.run('nft list map inet weft hostports4')
  return [...text.matchAll(/(?:tcp|udp) \. (\d+) :/g)].map((match) => Number(match[1])).sort()
}

/** Devices that routed pods' routes lead to, and those that the check of sources guards. */
const routedDevices = (node: CniNode): string[] =>
  node.namespace
    .run('ip -4 route show proto 119')
    .split('\n')
    .flatMap((line) => /^\S+ dev (cali\S+)/.exec(line)?.[1] ?? [])
    .sort()
const guardedDevices = (node: CniNode): string[] => {
  const text = node.namespace.run('nft list set inet weft calico-sources4 2>/dev/null || true')
  return [...text.matchAll(/"(cali[0-9a-f]+)" \. /g)].map((match) => match[1]!).sort()
}

/** Everything that is there belongs to a pod that is up, and all that belongs to those is there. */
async function checkWhole(node: CniNode, pods: readonly Pod[]): Promise<void> {
  const up = pods.filter(({ state }) => state === 'up')
  assert.equal(new Set(up.map(({ address }) => address)).size, up.length, 'an address was given twice')
  const devices = up
    .flatMap(({ device, containerId }) =>
      Number(containerId.slice(4)) % 4 === 1 ? [device, `ifb${device.slice(-8)}`] : [device],
    )
    .sort()
  await until(`devices ${devices}`, () => `${node.devices().sort()}` === `${devices}`)
  const containers = up.map(({ containerId }) => containerId).sort()
  await until(`journal ${containers}`, () => `${journaled(node)}` === `${containers}`)
  const routed = `${up.flatMap(({ device }) => (device.startsWith('cali') ? device : [])).sort()}`
  await until(`routes by ${routed}`, () => `${routedDevices(node)}` === routed)
  await until(`guards of ${routed}`, () => `${guardedDevices(node)}` === routed)
  const ports = up.flatMap(({ hostPort }) => hostPort ?? []).sort()
  assert.deepEqual(mappedPorts(node), ports)
  for (const { namespace, address } of up)
    assert.match(namespace.run('ip -o -4 addr show eth0'), new RegExp(`inet ${address.replaceAll('.', '\\.')} `))
}

for (const [wiring, rounds] of [
  ['bridged', 50],
  ['routed', 30],
] as const)
  test(`${wiring} pods: killed at ${rounds} random moments under ADD and DEL`, { skip, timeout: 300_000 }, async () => {
    const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31)
    console.log(`seed ${seed}`)
    let state = seed
    const random = (n: number) => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      return (state >>> 8) % n
    }
    // A small subnet: a leaked address would soon be missed.
    const cidrs = { podCidrs: ['10.77.0.0/27', 'fd00:77::/64'] }
    const node = new CniNode({ ...cidrs, ...(wiring === 'routed' ? { routed: {} } : {}) })
    const pods = Array.from({ length: 10 }, (_, n) => makePod(n))
    try {
      for (let round = 0; round < rounds; round++) {
        await node.start()
        let stopped = false
        const lives = pods.map(async (pod) => {
          while (!stopped) {
            await step(node, pod)
            if (pod.state === 'unknown') return
          }
        })
        await new Promise((resolve) => setTimeout(resolve, 5 + random(120)))
        await node.stop('SIGKILL')
        stopped = true
        await Promise.all(lives)
        if (round % 5 !== 4) continue
        await node.start()
        for (const pod of pods) if (pod.state === 'unknown') await step(node, pod)
        await checkWhole(node, pods)
        await node.stop('SIGKILL')
      }
      await node.start()
      for (const pod of pods) while (pod.state !== 'down') await step(node, pod)
      await checkWhole(node, pods)
    } finally {
      await node.delete()
      for (const { namespace } of pods) namespace.delete()
    }
  })

test('restart: what lives is kept, what died meanwhile is freed, also without a journal', { skip }, async () => {
  const node = new CniNode({ podCidrs: ['10.77.0.0/29'], clusterNetworks: [] })
  const pods = Array.from({ length: 4 }, (_, n) => ({ n, namespace: new TestNamespace() }))
  const config = weftConfig('1.1.0', { runtimeConfig: { bandwidth: { ingressRate: 1e8, egressRate: 1e8 } } })
  const add = async (n: number, containerId = `pod-${n}`) => {
    const { exitCode, stdout, json } = await node.call('ADD', { containerId, netns: pods[n]!.namespace.path, config })
    assert.equal(exitCode, 0, stdout)
    return json.ips[0].address as string
  }
  try {
    await node.start()
    assert.deepEqual([await add(0), await add(1), await add(2)], ['10.77.0.2/29', '10.77.0.3/29', '10.77.0.4/29'])
    await node.stop('SIGKILL')
    pods[1]!.namespace.delete()
    await until('the kernel has ended the namespace', () => node.devices().filter(isVeth).length === 2)
    assert.equal(node.devices().length, 5, 'two pairs, and three ifb devices, which end with no namespace')
    assert.deepEqual(await node.start(), { kept: 2, undone: 0, finished: 0, freed: 1, adopted: 0 })
    await until('the third ifb device is gone', () => node.devices().length === 4)
    assert.equal((await node.call('DEL', { containerId: 'pod-2' })).exitCode, 0)
    const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }]
    const ported = weftConfig('1.1.0', { runtimeConfig: { portMappings } })
    const answer = await node.call('ADD', { containerId: 'ported', netns: pods[3]!.namespace.path, config: ported })
    assert.equal(answer.exitCode, 0, answer.stdout)
    await node.stop('SIGKILL')
    rmSync(join(node.folder, 'cni/journal'))
    assert.equal((await node.start()).adopted, 2)
    assert.deepEqual(mappedPorts(node), [8080], 'the table tells which host ports an attachment without a journal has')
    assert.equal((await node.call('DEL', { containerId: 'ported' })).exitCode, 0)
    assert.deepEqual(mappedPorts(node), [])
    await until('its pair is gone', () => node.devices().filter(isVeth).length === 1)
    const given = [await add(2, 'again'), await add(3)]
    assert.ok(!given.includes('10.77.0.2/29'), 'the address of a living pod was given again')
    pods[0]!.namespace.run('ping -c1 -W5 10.77.0.1')
    for (const containerId of ['pod-0', 'again', 'pod-3'])
      assert.equal((await node.call('DEL', { containerId })).exitCode, 0)
    await node.drained()
    await until('the journal is empty', () => journaled(node).length === 0)
  } finally {
    await node.delete()
    for (const { namespace } of pods) namespace.delete()
  }
})
