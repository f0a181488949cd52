/**
 * A weft node beside nodes of flannel: those are built here by hand, with the devices, routes and entries that flannel
 * makes, and with its annotations alone.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { TestNamespace } from './namespace.ts'

const prefix = 'flannel.alpha.coreos.com'
let cluster: AgentCluster
let n1: TestNode
let pod: TestPod
const flannel = new TestNamespace()

before(async () => {
  cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } })
  n1 = await cluster.addNode('n1')
  cluster.fabric.run(`ip link add fl type veth peer name eth0 netns ${flannel.name} && ip link set fl master br0 up`)
  flannel.run('ip address add 172.30.0.50/24 dev eth0 && ip link set eth0 up && sysctl -qw net.ipv4.ip_forward=1')
  // Its pods: an address on the bridge that flannel's CNI plugin would make.
  flannel.run('ip link add cni0 type bridge && ip address add 10.244.50.1/24 dev cni0 && ip link set cni0 up')
  cluster.startAgent(n1)
  await cluster.ready(n1)
  pod = cluster.addPod(n1)
})
after(async () => {
  flannel.delete()
  await cluster.close()
})

/** What flannel writes about its own node. */
async function announceFlannel(annotations: Record<string, string>): Promise<void> {
  const written = { 'kube-subnet-manager': 'true', 'public-ip': '172.30.0.50', ...annotations }
  const metadata = {
    name: 'flannel-node',
    annotations: Object.fromEntries(Object.entries(written).map(([key, value]) => [`${prefix}/${key}`, value])),
  }
  const spec = { podCIDR: '10.244.50.0/24', podCIDRs: ['10.244.50.0/24'] }
  await cluster.client.delete('nodes', { name: 'flannel-node' }).catch(() => {})
  await cluster.client.create('nodes', { metadata, spec })
}

async function bothWays(): Promise<void> {
  await cluster.until('the weft pod reaches the flannel node', () =>
    pod.namespace.succeeds('ping -c 1 -W 1 10.244.50.1') ? undefined : n1.namespace.run('ip route; bridge fdb'),
  )
  assert.ok(flannel.succeeds(`ping -c 1 -W 2 -I 10.244.50.1 ${pod.address}`))
}

test('vxlan: packets pass both ways with what flannel reads from the annotations', async () => {
  let annotations: Record<string, string> = {}
  await cluster.until('n1 is announced', async () => {
    annotations = (await cluster.getNode('n1')).metadata.annotations ?? {}
    return annotations[`${prefix}/backend-data`] ? undefined : JSON.stringify(annotations)
  })
  const { VNI, VtepMAC } = JSON.parse(annotations[`${prefix}/backend-data`]!) as { VNI: number; VtepMAC: string }
  const publicIp = annotations[`${prefix}/public-ip`]
  flannel.run(
    `ip link add flannel.${VNI} address 0e:50:00:00:00:50 type vxlan id ${VNI} local 172.30.0.50 dev eth0 dstport 8472 nolearning`,
  )
  flannel.run('ip address add 10.244.50.0/32 dev flannel.1 && ip link set flannel.1 mtu 1450 up')
  flannel.run('ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink')
  flannel.run(`ip neigh add 10.244.1.0 lladdr ${VtepMAC} dev flannel.1 nud permanent`)
  flannel.run(`bridge fdb add ${VtepMAC} dev flannel.1 dst ${publicIp} self permanent`)
  await announceFlannel({ 'backend-type': 'vxlan', 'backend-data': '{"VNI":1,"VtepMAC":"0e:50:00:00:00:50"}' })
  await bothWays()
})

test('host-gw: the same with plain routes, after both sides were given the other configuration', async () => {
  await cluster.putNetConfig({ Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } })
  flannel.run('ip link del flannel.1 && ip route add 10.244.1.0/24 via 172.30.0.11 dev eth0')
  await announceFlannel({ 'backend-type': 'host-gw', 'backend-data': 'null' })
  await bothWays()
  const [route] = n1.namespace.json('ip -j route show 10.244.50.0/24')
  assert.equal(route!.gateway, '172.30.0.50')
})
