/**
 * The sides of the bench `datapath`: two nodes of a test topology as weft's agent sets them up, and the same by hand.
 */
import { planFirewall, planPeerFirewall, tunnelsOf } from '../../src/agent/peer-firewall.ts'
import { Applier } from '../../src/apply/applier.ts'
import { datapathOf } from '../../src/datapath/datapath.ts'
import type { BackendConfig } from '../../src/model/backend.ts'
import { Cidr } from '../../src/net/cidr.ts'
import type { TestTopology } from '../netns/node-topology.ts'

const clusterCidrs = ['10.244.0.0/16', 'fd00:10:244::/48'].map(Cidr.parse)
/** The agent's settings where nothing is said. */
const settings = { masquerade: true, fullyRandom: true }

/** Nodes as weft sets them up; the result takes it all down. */
export async function byWeft(topology: TestTopology, config: BackendConfig): Promise<() => Promise<void>> {
  const path = datapathOf(config)
  const appliers: Applier[] = []
  for (const node of topology.nodes) {
    const applier = new Applier(node.namespace.kernel)
    appliers.push(applier)
    const tunnels = tunnelsOf([config], node.context)
    const fragments = [path.local(config, node.context), planFirewall(clusterCidrs, node.context, tunnels, settings)]
    for (const peer of topology.nodes) {
      if (peer === node) continue
      const { data, v6Data } = path.endpoint(config, peer.context)
      const info = peer.info({ backendType: config.type, backendData: data, backendV6Data: v6Data })
      const { fragment } = path.toward(config, node.context, info, { direct: true })
      fragments.push(path.from(config, node.context, info), fragment)
      if (tunnels.length > 0) fragments.push(planPeerFirewall(info))
    }
    applier.set(...fragments)
    await applier.start()
    await applier.settle()
    if (applier.failures().length > 0) throw applier.failures()[0]!.error
    applier.markComplete()
  }
  return async () => {
    for (const applier of appliers) {
      applier.change([], [...applier.desired.sources()])
      await applier.settle()
      await applier.close()
    }
  }
}

/** The same by hand. Connection tracking works in a namespace from the first rule on that translates. */
export function byHand(topology: TestTopology, config: BackendConfig, tracked: boolean): void {
  const isPlain = config.type === 'host-gw' || (config.type === 'vxlan' && config.directRouting)
  const mac = (n: number, family: 4 | 6) => `0e:00:00:00:0${family}:0${n}`
  const device = (family: 4 | 6) => (family === 4 ? 'flannel.1' : 'flannel-v6.1')
  for (const node of topology.nodes) {
    const n = node.number
    const commands = [
      'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.eth0.rp_filter=2',
      ...(isPlain
        ? []
        : ([4, 6] as const).flatMap((family) => [
            `ip link add ${device(family)} address ${mac(n, family)} mtu ${family === 4 ? 1450 : 1430} type vxlan id 1 dev eth0 local ${family === 4 ? node.publicIp : node.publicIpv6} dstport 8472 nolearning`,
            `ip link set ${device(family)} up`,
          ])),
    ]
    if (!isPlain)
      commands.push(
        `ip addr add 10.244.${n}.0/32 dev flannel.1`,
        `ip addr add fd00:10:244:${n}::/128 dev flannel-v6.1 nodad`,
        'sysctl -qw net.ipv4.conf.flannel/1.rp_filter=2',
      )
    for (const peer of topology.nodes) {
      if (peer === node) continue
      const m = peer.number
      if (isPlain)
        commands.push(
          `ip route add 10.244.${m}.0/24 via ${peer.publicIp} dev eth0`,
          `ip route add fd00:10:244:${m}::/64 via ${peer.publicIpv6} dev eth0`,
        )
      else
        commands.push(
          `ip route add 10.244.${m}.0/24 via 10.244.${m}.0 dev flannel.1 onlink`,
          `ip neigh add 10.244.${m}.0 lladdr ${mac(m, 4)} dev flannel.1 nud permanent`,
          `bridge fdb append ${mac(m, 4)} dev flannel.1 dst ${peer.publicIp} self permanent`,
          `ip route add fd00:10:244:${m}::/64 via fe80::${m} dev flannel-v6.1`,
          `ip neigh add fe80::${m} lladdr ${mac(m, 6)} dev flannel-v6.1 nud permanent`,
          `bridge fdb append ${mac(m, 6)} dev flannel-v6.1 dst ${peer.publicIpv6} self permanent`,
        )
    }
    if (tracked)
      commands.push(
        'nft add table inet hand',
        "nft 'add chain inet hand out { type nat hook postrouting priority srcnat; }'",
        "nft 'add rule inet hand out ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade'",
      )
    node.namespace.run(commands.join(' && '))
  }
}
