/**
 * Nodes of Calico's kind for data path tests: each a namespace with an external interface and one routed pod, the planner
 * and the applier of an agent, and a store in memory between them whose changes reach everyone in one order, a turn of the
 * event loop later.
 *
 *   pod 172.26.n.5/32 ─ cali<n> [node n] eth0 172.30.k.n ─ bridge k ─ router .254, which knows no pod's route
 */
import assert from 'node:assert/strict'
import { Drain } from '../../src/agent/drain.ts'
import { type PoolAnnouncement, PoolPlanner } from '../../src/agent/pool-planner.ts'
import { trafficReader } from '../../src/agent/traffic.ts'
import { Applier } from '../../src/apply/applier.ts'
import { defaultFelixSettings } from '../../src/config/calico/felix.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { BlockRoutes, CalicoNode, FelixSettings, IpPool } from '../../src/model/calico.ts'
import type { NodeInfo } from '../../src/model/cluster.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'
import { SteadyPing } from './steady-ping.ts'

/** The MAC of every pod's neighbour, as Calico has it, and the link-local address that belongs to it. */
const GATEWAY_MAC = 'ee:ee:ee:ee:ee:ee'
const GATEWAY_V6 = 'fe80::ecee:eeff:feee:eeee'

export const testPool = (name: string, cidr: string, rest: Partial<IpPool> = {}): IpPool => ({
  name,
  cidr: Cidr.parse(cidr),
  blockSize: cidr.includes(':') ? 122 : 26,
  ipipMode: 'Never',
  vxlanMode: 'Never',
  geneveMode: 'Never',
  natOutgoing: false,
  disabled: false,
  disableBgpExport: false,
  nodeSelector: 'all()',
  allowedUses: ['Workload', 'Tunnel'],
  assignmentMode: 'Automatic',
  ...rest,
})

export class PoolNode {
  readonly number: number
  readonly subnet: number
  readonly namespace = new TestNamespace()
  readonly pod = new TestNamespace()
  readonly applier: Applier
  readonly planner: PoolPlanner
  readonly #cluster: PoolCluster
  readonly #leaving: Drain
  readonly #arriving: Drain
  #turning: Promise<void> | undefined
  #closed = false
  #again = false
  #written = ''

  constructor(number: number, subnet: number, cluster: PoolCluster) {
    this.number = number
    this.subnet = subnet
    this.#cluster = cluster
    this.applier = new Applier(this.namespace.kernel, {
      onReport: () => void this.turn(),
      onFound: () => setImmediate(() => void this.turn()),
    })
    const readTraffic = trafficReader((call) => inNetns(this.namespace.path, call))
    this.#leaving = new Drain('sent', readTraffic)
    this.#arriving = new Drain('received', readTraffic)
    const settings = { nodeName: this.name, fullyRandom: true }
    this.planner = new PoolPlanner(settings, (source) => this.applier.inPlace(source))
  }

  get name(): string {
    return `n${this.number}`
  }

  get ip(): string {
    return `172.30.${this.subnet}.${this.number}`
  }

  get ipv6(): string {
    return `fd00:172:30:${this.subnet}::${this.number}`
  }

  get podIp(): string {
    return `172.26.${this.number}.5`
  }

  get podIpv6(): string {
    return `fd00:26:0:${this.number}::5`
  }

  get blocks(): readonly BlockRoutes[] {
    return [`172.26.${this.number}.0/26`, `fd00:26:0:${this.number}::/122`].map((cidr) => ({
      cidr: Cidr.parse(cidr),
      node: this.name,
      borrowed: [],
    }))
  }

  get words(): CalicoNode {
    return {
      ipv4: { ip: Ip.parse(this.ip), prefixLength: 24 },
      ipv6: { ip: Ip.parse(this.ipv6), prefixLength: 64 },
      ipv4IpipTunnelAddr: Ip.parse(`172.26.${this.number}.1`),
      ipv4VxlanTunnelAddr: Ip.parse(`172.26.${this.number}.0`),
      ipv6VxlanTunnelAddr: Ip.parse(`fd00:26:0:${this.number}::`),
    }
  }

  join(router: TestNamespace): void {
    const { number: n, subnet: k, namespace, pod } = this
    for (const place of [namespace, pod])
      place.run('sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0')
    router.run(
      `ip link add p${n} type veth peer name eth0 netns ${namespace.name} && ip link set p${n} master br${k} up`,
    )
    namespace.run(
      [
        `ip link set lo up && ip link set eth0 up && ip addr add ${this.ip}/24 dev eth0`,
        `ip addr add ${this.ipv6}/64 dev eth0 nodad`,
        `ip route add default via 172.30.${k}.254 && ip route add default via fd00:172:30:${k}::254`,
        `ip link add cali${n} address ${GATEWAY_MAC} type veth peer name eth0 netns ${pod.name}`,
        `ip link set cali${n} up`,
        `ip route add ${this.podIp} dev cali${n} scope link && ip route add ${this.podIpv6} dev cali${n}`,
        // As strict as a distribution may have it: the plans must loosen what they need.
        'sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1',
      ].join(' && '),
    )
    pod.run(
      [
        `ip link set lo up && ip link set eth0 up && ip addr add ${this.podIp}/32 dev eth0`,
        `ip addr add ${this.podIpv6}/128 dev eth0 nodad`,
        'ip route add 169.254.1.1 dev eth0 scope link && ip route add default via 169.254.1.1',
        `ip neigh add 169.254.1.1 lladdr ${GATEWAY_MAC} dev eth0 nud permanent`,
        `ip route add default via ${GATEWAY_V6} dev eth0`,
        `ip neigh add ${GATEWAY_V6} lladdr ${GATEWAY_MAC} dev eth0 nud permanent`,
      ].join(' && '),
    )
  }

  place(): void {
    this.planner.setNode({
      name: this.name,
      podCidrs: [],
      external: {
        device: 'eth0',
        mtuBytes: 1500,
        addresses: [
          { ip: Ip.parse(this.ip), prefixLength: 24 },
          { ip: Ip.parse(this.ipv6), prefixLength: 64 },
        ],
      },
      calico: this.words,
    })
  }

  hear(info: NodeInfo): void {
    if (info.name === this.name) this.planner.setAnnounced(info.weft)
    else this.planner.setPeer(info)
    void this.turn()
  }

  turn(): Promise<void> {
    this.#again = true
    this.#turning ??= this.#work()
    return this.#turning
  }

  async #work(): Promise<void> {
    while (this.#again && !this.#closed) {
      this.#again = false
      const { set, removed } = this.planner.plan()
      if (set.length + removed.length > 0) this.applier.change(set, removed)
      if (this.planner.isComplete) this.applier.markComplete()
      await this.applier.settle()
      this.#drain()
      await this.#tellPods()
      this.#announce()
    }
    this.#turning = undefined
  }

  /** As the agent does: a path is sent by, and taken in, until its last packets are out of every queue. */
  #drain(): void {
    const { planner } = this
    const { draining, waning } = planner
    if (draining.length === 0) planner.noteSettled()
    this.#leaving.wait(draining, planner.devicesOf(draining), (paths) => {
      if (planner.draining.join() === paths.join()) planner.noteSettled()
      void this.turn()
    })
    this.#arriving.wait(waning, planner.devicesOf(waning), (paths) => {
      planner.noteDry(paths)
      void this.turn()
    })
  }

  async #tellPods(): Promise<void> {
    const { mtuBytes } = this.planner
    if (mtuBytes === undefined) return
    const link = { kind: 'link', name: 'eth0', type: 'foreign', mtuBytes } as const
    await this.pod.kernel.execute([{ verb: 'set', object: link }])
    this.planner.setPodMtu(mtuBytes)
  }

  #announce(): void {
    const announcement = this.planner.announcement()
    if (!announcement || JSON.stringify(announcement) === this.#written) return
    this.#written = JSON.stringify(announcement)
    this.planner.addPending(announcement.weft)
    this.#cluster.write(this, announcement)
  }

  get isTurning(): boolean {
    return this.#turning !== undefined
  }

  get isSettled(): boolean {
    return this.planner.transition?.settled === true && !this.#turning && this.applier.failures().length === 0
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#turning
    this.#leaving.close()
    this.#arriving.close()
    this.applier.change([], [...this.applier.desired.sources()])
    await this.applier.settle()
    await this.applier.close()
  }
}

export class PoolCluster {
  readonly router = new TestNamespace()
  readonly nodes: readonly PoolNode[]
  #felix: FelixSettings = defaultFelixSettings

  /** One node per entry, on the subnet that the entry names. */
  constructor(subnets: readonly number[]) {
    const { router } = this
    router.run('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0')
    for (const k of new Set(subnets))
      router.run(
        `ip link add br${k} type bridge && ip link set br${k} up && ip addr add 172.30.${k}.254/24 dev br${k} && ip addr add fd00:172:30:${k}::254/64 dev br${k} nodad`,
      )
    this.nodes = subnets.map((subnet, i) => new PoolNode(i + 1, subnet, this))
    for (const node of this.nodes) node.join(router)
  }

  /** All of them before the first announcement: what one announces, the others hear at once. */
  async start(pools: readonly IpPool[]): Promise<void> {
    for (const node of this.nodes) await node.applier.start()
    for (const { planner } of this.nodes) {
      planner.setFelix(this.#felix)
      for (const { blocks } of this.nodes) for (const block of blocks) planner.setRoutes(block)
    }
    for (const node of this.nodes) node.place()
    this.setPools(pools)
  }

  setPools(pools: readonly IpPool[]): void {
    for (const node of this.nodes) {
      for (const pool of pools) node.planner.setPool(pool)
      void node.turn()
    }
  }

  setFelix(settings: Partial<FelixSettings>): void {
    this.#felix = { ...defaultFelixSettings, ...settings }
    for (const node of this.nodes) {
      node.planner.setFelix(this.#felix)
      void node.turn()
    }
  }

  /** What the planners know is in the kernels. */
  async programmed(): Promise<void> {
    for (const node of this.nodes) {
      void node.turn()
      while (node.isTurning) await new Promise((resolve) => setTimeout(resolve, 2))
      await node.applier.settle()
    }
  }

  write(node: PoolNode, { weft, calico }: PoolAnnouncement): void {
    setImmediate(() => {
      const info = { name: node.name, addresses: [Ip.parse(node.ip)], podCidrs: [], weft, calico }
      for (const other of this.nodes) setImmediate(() => other.hear(info))
    })
  }

  /** Until every node goes by `path` to every other, in each pool. */
  async settled(
    pathOf: (from: PoolNode, to: PoolNode, pool: string) => string,
    pools: readonly string[],
  ): Promise<void> {
    const end = performance.now() + 120_000
    const isDone = () =>
      this.nodes.every(
        (node) =>
          node.isSettled &&
          this.nodes.every((other) =>
            pools.every(
              (pool) => other === node || node.planner.pathToward(other.name, pool) === pathOf(node, other, pool),
            ),
          ),
      )
    while (!isDone()) {
      const state = () =>
        this.nodes.map(({ planner, applier, isTurning }) => ({
          ...planner.transition,
          toward: [...(planner.transition?.toward ?? [])],
          failures: applier.failures(),
          isTurning,
        }))
      assert.ok(performance.now() < end, JSON.stringify(state(), undefined, 1))
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  async close(): Promise<void> {
    for (const ping of pings) ping.kill()
    for (const node of this.nodes) await node.close()
    for (const { namespace, pod } of this.nodes) {
      pod.delete()
      namespace.delete()
    }
    this.router.delete()
  }
}

const pings = new Set<SteadyPing>()

/** Pings of so many a second; resolves when the first one is answered. */
export async function startPing(from: PoolNode, to: string, perSecond = 1000): Promise<SteadyPing> {
  const ping = await SteadyPing.start(from.pod, to, '--icmp', '--rate', `${perSecond}`)
  pings.add(ping)
  return ping
}
