/**
 * Nodes for data path tests: each a namespace with an external interface and one pod, joined by an underlay of two subnets
 * and a router that knows no pod route.
 *
 *   pod 10.244.n.2 ─ cni0 [node n] eth0 172.30.k.n ─ bridge k ─ router .254
 */
import type { NodeContext, NodeInfo } from '../../src/model/cluster.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

export class TestNode {
  readonly number: number
  readonly subnet: number
  /** Last part of its underlay addresses; a test may change it together with the interface. */
  host: number
  readonly namespace = new TestNamespace()
  readonly pod = new TestNamespace()

  constructor(number: number, subnet: number) {
    this.number = number
    this.subnet = subnet
    this.host = number
  }

  get name(): string {
    return `n${this.number}`
  }

  get publicIp(): Ip {
    return Ip.parse(`172.30.${this.subnet}.${this.host}`)
  }

  get publicIpv6(): Ip {
    return Ip.parse(`fd00:172:30:${this.subnet}::${this.host}`)
  }

  get podIp(): string {
    return `10.244.${this.number}.2`
  }

  get podIpv6(): string {
    return `fd00:10:244:${this.number}::2`
  }

  get context(): NodeContext {
    return {
      name: this.name,
      uid: `uid-${this.number}`,
      podCidrs: [Cidr.parse(`10.244.${this.number}.0/24`), Cidr.parse(`fd00:10:244:${this.number}::/64`)],
      external: {
        device: 'eth0',
        mtuBytes: 1500,
        addresses: [
          { ip: this.publicIp, prefixLength: 24 },
          { ip: this.publicIpv6, prefixLength: 64 },
        ],
      },
      publicIp: this.publicIp,
      publicIpv6: this.publicIpv6,
    }
  }

  /** What the others see of it. */
  info(lease: { backendType: string; backendData?: unknown; backendV6Data?: unknown }): NodeInfo {
    return {
      name: this.name,
      uid: `uid-${this.number}`,
      addresses: [this.publicIp, this.publicIpv6],
      podCidrs: this.context.podCidrs,
      lease: { publicIp: this.publicIp, publicIpv6: this.publicIpv6, ...lease },
    }
  }
}

export class TestTopology {
  readonly router = new TestNamespace()
  readonly nodes: readonly TestNode[]

  /** One node per entry, on the subnet that the entry names. */
  constructor(subnets: readonly number[]) {
    this.nodes = subnets.map((subnet, i) => new TestNode(i + 1, subnet))
    const { router } = this
    router.run('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0')
    for (const k of new Set(subnets))
      router.run(
        `ip link add br${k} type bridge && ip link set br${k} up && ip addr add 172.30.${k}.254/24 dev br${k} && ip addr add fd00:172:30:${k}::254/64 dev br${k} nodad`,
      )
    for (const node of this.nodes) this.#join(node)
  }

  #join(node: TestNode): void {
    const { number: n, subnet: k, namespace, pod } = node
    // No waiting for duplicate address detection: it is not what is tested.
    for (const place of [namespace, pod])
      place.run('sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0')
    this.router.run(
      `ip link add p${n} type veth peer name eth0 netns ${namespace.name} && ip link set p${n} master br${k} up`,
    )
    namespace.run(
      [
        'ip link set eth0 up',
        `ip addr add ${node.publicIp}/24 dev eth0`,
        `ip addr add ${node.publicIpv6}/64 dev eth0 nodad`,
        `ip route add default via 172.30.${k}.254`,
        `ip route add default via fd00:172:30:${k}::254`,
        `ip link add cni0 type veth peer name eth0 netns ${pod.name}`,
        'ip link set cni0 up',
        `ip addr add 10.244.${n}.1/24 dev cni0`,
        `ip addr add fd00:10:244:${n}::1/64 dev cni0 nodad`,
        // As strict as a distribution may have it: the plans must loosen what they need.
        'sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1',
      ].join(' && '),
    )
    pod.run(
      [
        'ip link set eth0 up',
        `ip addr add ${node.podIp}/24 dev eth0`,
        `ip addr add ${node.podIpv6}/64 dev eth0 nodad`,
        `ip route add default via 10.244.${n}.1`,
        `ip route add default via fd00:10:244:${n}::1`,
      ].join(' && '),
    )
  }

  delete(): void {
    for (const { namespace, pod } of this.nodes) {
      pod.delete()
      namespace.delete()
    }
    this.router.delete()
  }
}
