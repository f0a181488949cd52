/**
 * Routed pods whose addresses do not come out of pools on the API server: out of the node's podCIDRs, by flannel's backends, and
 * out of pools that an etcd v3 has under Calico's keys.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { etcdKeys, etcdPrefixes } from '../../src/config/calico/store-names.ts'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { EtcdServer } from './etcd-server.ts'

async function talk(cluster: AgentCluster, one: TestPod, other: TestPod): Promise<void> {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const)
    for (const address of to.addresses)
      await cluster.until(`${from.address} reaches ${address}`, () =>
        from.namespace.succeeds(`ping -c 1 -W 1 ${address}`)
          ? undefined
          : [from, to].map(({ node }) => node.namespace.run('ip route; ip -6 route')).join('\n'),
      )
}

async function restart(cluster: AgentCluster, node: TestNode, flags: readonly string[]): Promise<void> {
  await cluster.stopAgent(node, 'SIGKILL')
  cluster.startAgent(node, flags)
  await cluster.ready(node)
}

/** A cluster of two nodes that closes itself. */
async function withTwoNodes(
  netConfig: object | undefined,
  work: (cluster: AgentCluster, nodes: readonly [TestNode, TestNode]) => Promise<void>,
): Promise<void> {
  const cluster = await AgentCluster.open(netConfig)
  try {
    const options = { dualStack: true, podCidrs: netConfig !== undefined }
    await work(cluster, [await cluster.addNode('n1', options), await cluster.addNode('n2', options)])
  } finally {
    await cluster.close()
  }
}

const NETWORKS = { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:10:244::/48' }

for (const [type, ways] of [
  ['host-gw', [/10\.244\.2\.0\/24 via 172\.30\.0\.12 dev eth0/, /fd00:10:244:2::\/64 via fd00:172:30::12 dev eth0/]],
  ['vxlan', [/10\.244\.2\.0\/24 via \S+ dev flannel\.1 /, /fd00:10:244:2::\/64 via \S+ dev flannel-v6\.1 /]],
] as const)
  test(`--wiring routed without pools, ${type}: addresses of the podCIDRs, and nodes reach each other`, () =>
    withTwoNodes({ ...NETWORKS, Backend: { Type: type } }, async (cluster, [n1, n2]) => {
      const flags = ['--wiring', 'routed']
      for (const node of [n1, n2]) cluster.startAgent(node, flags)
      await Promise.all([cluster.ready(n1), cluster.ready(n2)])
      const [one, beside, far] = [await cluster.joinPod(n1), await cluster.joinPod(n1), await cluster.joinPod(n2)]
      assert.match(one.addresses.join(), /^10\.244\.1\.\d+,fd00:10:244:1:/)
      assert.match(far.addresses.join(), /^10\.244\.2\.\d+,fd00:10:244:2:/)
      assert.match(one.namespace.run('ip -4 address show eth0'), new RegExp(`inet ${one.address}/32 `))
      assert.match(one.namespace.run('ip -4 route'), /^default via 169\.254\.1\.1 dev eth0/)
      assert.equal(n1.namespace.run('ip -br link show type bridge').trim(), '')
      for (const other of [beside, far]) await talk(cluster, one, other)
      const routes = () => n1.namespace.run('ip route; ip -6 route')
      for (const way of ways) assert.match(routes(), way)
      await restart(cluster, n1, flags)
      await talk(cluster, one, far)
      const next = await cluster.joinPod(n1)
      assert.ok(![one, beside].some(({ address }) => address === next.address))
      await talk(cluster, next, far)
      await cluster.leavePod(one)
      assert.ok(!routes().includes(`${one.address} dev`), routes())
      await talk(cluster, beside, far)
    }))

const POOLS = {
  blue: { cidr: '172.26.0.0/24', blockSize: 29, vxlanMode: 'Always', natOutgoing: true },
  six: { cidr: 'fd00:26::/64', blockSize: 122, vxlanMode: 'Never' },
}

for (const [where, nodesIn] of [
  ['pools in etcd, nodes in Kubernetes', 'kubernetes'],
  ['pools and nodes in etcd', 'etcd'],
] as const)
  test(`${where}: agents claim blocks under Calico's keys, pods talk, and stay when etcd is away`, async () => {
    const etcd = await EtcdServer.start()
    try {
      for (const [name, spec] of Object.entries(POOLS)) {
        const pool = { apiVersion: 'projectcalico.org/v3', kind: 'IPPool', metadata: { name }, spec }
        etcd.ctl('put', `${etcdPrefixes.pools}${name}`, JSON.stringify(pool))
      }
      await withTwoNodes(undefined, async (cluster, [n1, n2]) => {
        // The server listens on this machine's loopback; nodes reach it by their gateway.
        const line = await etcd.openLineIn(cluster.fabric.path, '172.30.0.1')
        const flags = ['--calico-datastore', 'etcd', '--calico-etcd-endpoints', line]
        if (nodesIn === 'etcd') flags.push('--etcd-endpoints', line)
        for (const node of [n1, n2]) cluster.startAgent(node, flags)
        await Promise.all([cluster.ready(n1), cluster.ready(n2)])
        const [one, beside, far] = [await cluster.joinPod(n1), await cluster.joinPod(n1), await cluster.joinPod(n2)]
        assert.match(one.addresses.join(), /^172\.26\.0\.\d+,fd00:26::/)
        for (const other of [beside, far]) await talk(cluster, one, other)
        assert.match(n1.namespace.run('ip route'), /172\.26\.0\.\d+\/29 via 172\.26\.0\.\d+ dev vxlan\.calico/)

        const read = (prefix: string) => etcd.ctl('get', '--prefix', prefix)
        const affinity = read('/calico/ipam/v2/host/n1/ipv4/block/')
        assert.match(affinity, /^\/calico\/ipam\/v2\/host\/n1\/ipv4\/block\/172\.26\.0\.\d+-29\n.*"state":"confirmed"/)
        const handle = `k8s-pod-network.${one.containerId}`
        assert.ok(read(etcdPrefixes.blocks).includes(handle))
        const { spec } = JSON.parse(etcd.ctl('get', '--print-value-only', etcdKeys.node('n1')))
        assert.equal(spec.bgp.ipv4Address, '172.30.0.11/24')
        assert.match(spec.ipv4VXLANTunnelAddr, /^172\.26\.0\./)

        const theirs = [...read('/calico/ipam/v2/host/n2/').matchAll(/block\/(\S+)-(\d+)\n/g)].map(
          (key) => `${key[1]}/${key[2]}`,
        )
        assert.equal(theirs.length, 2)
        await cluster.until('n1 remembers', () => {
          const views = ['cluster-view', 'calico-view'].map((name) => readFileSync(`${n1.folder}/run/${name}`, 'utf8'))
          const isRight = views[0]!.includes('"written":[]') && theirs.every((cidr) => views[1]!.includes(cidr))
          return isRight ? undefined : `${theirs} of ${views.join('\n')}`
        })
        etcd.cutLine()
        await restart(cluster, n1, flags)
        await talk(cluster, one, far)
        await assert.rejects(cluster.joinPod(n1), /"code": 11/)
        await cluster.leavePod(one)
        await etcd.openLineIn(cluster.fabric.path, '172.30.0.1')
        await cluster.until('a pod joins again', async () => {
          const pod = await cluster.joinPod(n1).catch((error: Error) => error)
          if (pod instanceof Error) return pod.message
          await talk(cluster, pod, far)
          return undefined
        })
        await cluster.until('its addresses are given back', () =>
          read(etcdPrefixes.blocks).includes(handle) ? read(etcdPrefixes.blocks) : undefined,
        )
      })
    } finally {
      await etcd.stop()
    }
  })
