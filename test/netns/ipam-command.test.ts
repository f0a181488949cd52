/**
 * `weft ipam` as a user runs it, against the lab's API server: what it prints, that `check` finds what was put wrong, and that
 * `release` and `split` do what they say and nothing else.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { EtcdStore } from '../../src/cluster/calico/etcd-store.ts'
import { KubernetesStore } from '../../src/cluster/calico/kubernetes-store.ts'
import { EtcdClient } from '../../src/cluster/etcd/client.ts'
import { HttpClient } from '../../src/cluster/http-client.ts'
import { readKubeconfig } from '../../src/cluster/kubernetes/kubeconfig.ts'
import { calicoDefinitions } from '../../src/config/calico/definitions/index.ts'
import { BlockDraft, newBlock } from '../../src/ipam/block.ts'
import type { IpamBlock } from '../../src/model/calico.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { ApiUnderTest } from './api-under-test.ts'
import { define } from './calico-api.ts'
import { EtcdServer } from './etcd-server.ts'

const program = fileURLToPath(new URL('../../bin/weft.ts', import.meta.url))
const api = new ApiUnderTest()
let store: KubernetesStore

interface Output {
  readonly code: number
  readonly out: string
  readonly err: string
}

function weft(line: string, env: NodeJS.ProcessEnv = api.environment): Promise<Output> {
  return new Promise((done) => {
    const argv = ['--import', 'tsx', program, 'ipam', ...line.split(' ')]
    execFile(process.execPath, argv, { env, timeout: 120_000 }, (error, out, err) =>
      done({ code: error ? Number(error.code) : 0, out, err }),
    )
  })
}

/** The command's output; it must end with the code. */
async function ipam(line: string, code = 0): Promise<string> {
  const result = await weft(line)
  assert.equal(result.code, code, `weft ipam ${line}\n${result.out}${result.err}`)
  return result.out
}

const crd = 'crd.projectcalico.org/v1'
const poolObject = (name: string, cidr: string, further: object = {}) => ({
  apiVersion: crd,
  kind: 'IPPool',
  metadata: { name, annotations: { team: 'net' } },
  spec: { cidr, blockSize: 26, vxlanMode: 'CrossSubnet', natOutgoing: true, ...further },
})

const pod = (name: string, node: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default' },
  spec: { nodeName: node, containers: [{ name: 'c', image: 'x' }] },
})

async function runPod(name: string, node: string, ip: string): Promise<void> {
  await api.kubectl('apply -f -', pod(name, node))
  const status = { phase: 'Running', podIPs: [{ ip }] }
  await api.client.patch('pods', { namespace: 'default', name }, { status }, { subresource: 'status' })
}

const owner = (name: string) => ({ type: 'host', name }) as const

function blockOf(cidr: string, node: string, pods: readonly (readonly [name: string, node: string])[]): IpamBlock {
  const draft = new BlockDraft(
    newBlock({ cidr: Cidr.parse(cidr), owner: owner(node), at: '2026-11-21T09:00:00Z', sequenceNumber: 7n }),
  )
  for (const [ordinal, [name, on]] of pods.entries())
    draft.take(ordinal, `k8s-pod-network.${name}`, { node: on, namespace: 'default', pod: name })
  return draft.finish()
}

async function putBlock(block: IpamBlock, { affinity = true } = {}): Promise<void> {
  if (affinity && block.owner)
    await store.affinities.create({ owner: block.owner, cidr: block.cidr, state: 'confirmed', deleted: false })
  await store.blocks.create(block)
}

/** One pool, two nodes, two pods; of the block of the first node one address is borrowed. */
async function makeCluster(): Promise<void> {
  const client = new HttpClient(() => readKubeconfig(api.kubeconfig))
  await define(client)
  assert.ok(calicoDefinitions.length > 0)
  store = new KubernetesStore({ client })
  for (const name of ['n1', 'n2'])
    await api.kubectl('apply -f -', { apiVersion: 'v1', kind: 'Node', metadata: { name } })
  await api.kubectl('apply -f -', poolObject('main', '172.26.0.0/16'))
  await runPod('web-0', 'n1', '172.26.0.0')
  await runPod('web-1', 'n2', '172.26.0.1')
  const block = blockOf('172.26.0.0/26', 'n1', [
    ['web-0', 'n1'],
    ['web-1', 'n2'],
  ])
  await putBlock(block)
}

test('a cluster in order: nothing is found, and everything is shown', async () => {
  await makeCluster()
  const checked = await ipam('check --show-problem-ips')
  assert.match(checked, /IPAM blocks record 2 allocations\./)
  assert.match(checked, /Check complete; found 0 problems\.\n$/)
  assert.match(
    await ipam('show'),
    /\| IP Pool {2}\| 172\.26\.0\.0\/16 \| {5}65536 \| +2 \(0%\) \| +0 \(0%\) \| +65534 \(100%\) \|/,
  )
  assert.match(await ipam('show --show-blocks'), /\| Block {4}\| 172\.26\.0\.0\/26 \| {8}64 \| +2 \(3%\) \|/)
  assert.match(
    await ipam('show --show-borrowed'),
    /\| 172\.26\.0\.1 \| n2 +\| 172\.26\.0\.0\/26 \| n1 +\| pod +\| default\/web-1 \|/,
  )
  assert.match(await ipam('show --ip 172.26.0.1'), /^IP 172\.26\.0\.1 is in use\nHandle ID: k8s-pod-network\.web-1\n/)
  assert.equal(await ipam('show --ip=172.26.9.9'), '172.26.9.9 is not assigned\n')
  assert.match(await ipam('show --show-configuration'), /\| StrictAffinity +\| false +\|/)
})

test('words that make no sense are named, and change nothing', async () => {
  for (const [line, said] of [
    ['show --ip 1.2.3', /--ip: value: "1\.2\.3" is not an address/],
    ['release', /one of the two is needed/],
    ['split 3 --name main', /3 is not a power of two/],
    ['split 4096 --name main', /172\.26\.0\.0\/16 has no room for 4096 pools with blocks of \/26/],
    ['split 2 --name other', /there is no such pool/],
    ['show --calico-datastore none', /there are no address pools to look at/],
  ] as const) {
    const { code, err } = await weft(line)
    assert.equal(code, 2, line)
    assert.match(err, said)
  }
  const report = join(api.folder, 'no-report.json')
  await api.kubectl('get nodes')
  const { code, err } = await weft(`release --from-report ${report}`)
  assert.equal(code, 1)
  assert.match(err, /no-report\.json/)
})

test('what leaks is found, reported, and given back only while it is what the report saw', async () => {
  const block = blockOf('172.26.1.0/26', 'n1', [
    ['gone-0', 'n1'],
    ['gone-1', 'n1'],
  ])
  await putBlock(block)
  await store.handles.create({
    handleId: 'k8s-pod-network.old',
    blocks: { '172.26.1.0/26': 1 },
    deleted: false,
  })
  const file = join(api.folder, 'report.json')
  const checked = await ipam(`check --show-problem-ips -o ${file}`, 1)
  assert.match(checked, /Found 2 IPs that are allocated in IPAM but not actually in use\./)
  assert.match(checked, /Found 1 handles whose IPs are not as they say\./)
  const report = JSON.parse(readFileSync(file, 'utf8'))
  assert.equal(report.allocations['172.26.1.0'][0].sequenceNumber, '7')
  assert.equal(report.allocations['172.26.0.1'][0].borrowed, true)
  // The second address goes to a new pod under the same handle before anybody releases.
  const held = (await store.blocks.read(block.cidr))!
  const draft = new BlockDraft(held.value)
  draft.release([1], { nowMilliseconds: Date.now(), seconds: 0 })
  const between = await store.blocks.replace(held, draft.finish())
  const again = new BlockDraft(between.value)
  again.take(1, 'k8s-pod-network.gone-1', { node: 'n1', namespace: 'default', pod: 'gone-1' })
  await store.blocks.replace(between, again.finish())
  await runPod('gone-1', 'n1', '172.26.1.1')
  const released = await ipam(`release --from-report ${file}`)
  assert.match(
    released,
    /Releasing 2 old IPs\.\.\.\nReleased 1 IPs successfully\n1 addresses of the report had been given back/,
  )
  assert.match(released, /Released 1 handles; 0 skipped\./)
  assert.equal(await ipam('show --ip 172.26.1.0'), '172.26.1.0 is not assigned\n')
  assert.match(await ipam('show --ip 172.26.1.1'), /is in use/)
  assert.match(await ipam('check'), /found 0 problems/)
  await api.kubectl('delete pod gone-1 --force --grace-period=0')
  assert.equal(await ipam('release --ip 172.26.1.1'), 'Successfully released IP address 172.26.1.1\n')
  assert.equal(await ipam('release --ip 172.26.1.1'), 'IP address 172.26.1.1 is not assigned\n')
})

test('every inconsistency that is put in is found', async () => {
  await putBlock(blockOf('172.26.2.0/26', 'n9', []))
  await putBlock(blockOf('172.26.3.0/26', 'n2', []), { affinity: false })
  await putBlock(blockOf('10.99.0.0/26', 'n2', []))
  await putBlock(blockOf('172.26.2.32/27', 'n2', []))
  await store.affinities.create({
    owner: owner('n2'),
    cidr: Cidr.parse('172.26.4.0/26'),
    state: 'confirmed',
    deleted: false,
  })
  await store.affinities.create({
    owner: owner('n2'),
    cidr: Cidr.parse('172.26.0.0/26'),
    state: 'pending',
    deleted: false,
  })
  await putBlock(blockOf('172.26.5.0/26', 'n2', []))
  await api.kubectl('patch ipamblock 172-26-5-0-26 --type=merge -p {"spec":{"allocations":[null]}}')
  await runPod('stray', 'n2', '172.26.6.6')
  await runPod('twin', 'n2', '172.26.0.0')
  const out = await ipam('check --show-problem-ips', 1)
  for (const line of [
    /node n9 does not exist and has 172\.26\.2\.0\/26/,
    /block 172\.26\.3\.0\/26 is of n2, which has no affinity to it/,
    /block 10\.99\.0\.0\/26 is in no pool/,
    /blocks 172\.26\.2\.0\/26 and 172\.26\.2\.32\/27 overlap/,
    /n2 has an affinity to 172\.26\.4\.0\/26, which is no block/,
    /n2 (has an affinity to|to) 172\.26\.0\.0\/26/,
    /IPAMBlock 172-26-5-0-26: \S*allocations/,
    /Found 1 unreadable objects\./,
    /172\.26\.6\.6 is used by Workload\(default\/stray\) and not allocated/,
    /172\.26\.0\.0 is used by Workload\(default\/\w+-?\d?\) and by Workload\(default\/\w+-?\d?\)/,
  ])
    assert.match(out, line)
})

test('a pool is split: blocks stay, settings are kept, and there is a pool for every address', async () => {
  const lines = await ipam('split 2 --cidr 172.26.0.0/16')
  assert.match(lines, /IP Pool main was successfully split into 2 smaller pools\./)
  const names = (await api.kubectl("get ippools -o jsonpath='{.items[*].metadata.name}'")).trim()
  assert.equal(names, 'split-main-0 split-main-1')
  const { metadata, spec } = JSON.parse(await api.kubectl('get ippool split-main-1 -o json'))
  const { cidr, blockSize, vxlanMode, natOutgoing, disabled } = spec
  assert.deepEqual(
    { cidr, blockSize, vxlanMode, natOutgoing, disabled: disabled ?? false, team: metadata.annotations.team },
    {
      cidr: '172.26.128.0/17',
      blockSize: 26,
      vxlanMode: 'CrossSubnet',
      natOutgoing: true,
      disabled: false,
      team: 'net',
    },
  )
  assert.match(await ipam('show --ip 172.26.0.0'), /is in use/)
  assert.equal((await weft('split 2 --name main')).code, 2)
})

test('pools in etcd are shown and given back without an API server; only check asks one for the pods', async () => {
  const etcd = await EtcdServer.start()
  const client = new EtcdClient({ endpoints: [etcd.url] })
  const there = new EtcdStore({ client })
  try {
    const { apiVersion: _, ...pool } = poolObject('main', '172.26.0.0/16')
    etcd.ctl('put', '/calico/resources/v3/projectcalico.org/ippools/main', JSON.stringify(pool))
    await there.blocks.create(blockOf('172.26.0.0/26', 'n1', [['web-0', 'n1']]))
    const env = { PATH: process.env.PATH, HOME: etcd.folder }
    const place = `--calico-datastore etcd --calico-etcd-endpoints ${etcd.url}`
    const show = await weft(`show ${place}`, env)
    assert.match(show.out, /\| 172\.26\.0\.0\/16 \| {5}65536 \| +1 \(0%\) \|/, show.err)
    const check = await weft(`check ${place}`, env)
    assert.equal(check.code, 2)
    assert.match(check.err, /--kubeconfig/)
    assert.match(
      (await weft(`release --ip 172.26.0.0 ${place}`, env)).out,
      /^Successfully released IP address 172\.26\.0\.0$/m,
    )
    assert.match((await weft(`show --ip 172.26.0.0 ${place}`, env)).out, /is not assigned/)
  } finally {
    await there.close()
    client.close()
    await etcd.stop()
  }
})
