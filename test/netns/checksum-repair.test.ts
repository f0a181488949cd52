/**
 * Two nodes with a VXLAN between them, and a wire that carries frames as they leave the sender's memory, but for the checksum of
 * the outer UDP header: like a network card that claims to compute checksums inside tunnels and does not.
 *
 *   n1 eth0 172.30.0.1 ── w1 ─ frames copied by a program ─ w2 ── eth0 172.30.0.2 n2
 */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ChecksumRepair } from '../../src/agent/checksum-repair.ts'
import { Applier } from '../../src/apply/applier.ts'
import { datapathOf } from '../../src/datapath/datapath.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { VxlanConfig } from '../../src/model/backend.ts'
import type { NodeContext } from '../../src/model/cluster.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

const vxlan: VxlanConfig = { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: false }

/**
 * Copies frames between two devices by packet sockets, which do not say that a checksum is still to be computed. That of an outer
 * UDP header becomes none, which IPv4 allows.
 */
const copyFrames = `
  sub opened {
    open(my $f, '<', "/sys/class/net/$_[0]/ifindex") or die $!;
    socket(my $s, 17, 3, 0x0300) or die $!;
    bind($s, pack('S n i S C C a8', 17, 3, <$f>, 0, 0, 0, '')) or die $!;
    return $s;
  }
  my ($a, $b) = (opened('w1'), opened('w2'));
  while (1) {
    my $in = ''; vec($in, fileno($_), 1) = 1 for $a, $b;
    select($in, undef, undef, undef);
    for ([$a, $b], [$b, $a]) {
      my ($from, $to) = @$_;
      next unless vec($in, fileno($from), 1);
      my $sender = recv($from, my $frame, 65536, 0);
      my ($type, $protocol, $port) = unpack('x12 n x9 C x12 n', $frame);
      substr($frame, 40, 2) = "\\0\\0" if $type == 0x800 && $protocol == 17 && $port == 8472;
      send($to, $frame, 0) if unpack('x10 C', $sender) != 4;
    }
  }`

const contextOf = (n: number): NodeContext => ({
  name: `n${n}`,
  uid: `uid-${n}`,
  podCidrs: [Cidr.parse(`10.244.${n}.0/24`)],
  external: { device: 'eth0', mtuBytes: 1500, addresses: [{ ip: Ip.parse(`172.30.0.${n}`), prefixLength: 24 }] },
  publicIp: Ip.parse(`172.30.0.${n}`),
})

class Pair {
  readonly nodes = [new TestNamespace(), new TestNamespace()] as const
  readonly wire = new TestNamespace()
  readonly appliers: Applier[] = []
  readonly said: string[] = []
  readonly #copier
  readonly repair: ChecksumRepair

  private constructor(broken: boolean, override?: boolean) {
    for (const [i, node] of this.nodes.entries()) {
      this.wire.run(`ip link add w${i + 1} type veth peer name eth0 netns ${node.name} && ip link set w${i + 1} up`)
      node.run(`ip link set eth0 up && ip addr add 172.30.0.${i + 1}/24 dev eth0`)
      this.appliers.push(new Applier(node.kernel))
    }
    if (!broken)
      this.wire.run(
        'ip link add br0 type bridge && ip link set br0 up && ip link set w1 master br0 && ip link set w2 master br0',
      )
    this.#copier = broken
      ? spawn('ip', ['netns', 'exec', this.wire.name, 'perl', '-e', copyFrames], {
          stdio: ['ignore', 'ignore', 'inherit'],
        })
      : undefined
    const [node] = this.nodes
    this.repair = new ChecksumRepair({
      kernel: node.kernel,
      applier: this.appliers[0]!,
      log: { info() {}, warn() {} },
      isOff: () => this.isOff(),
      override: () => override,
      onBroken: (message) => this.said.push(message),
      ask: (target) => this.ask(target),
    })
  }

  static async make(options: { broken: boolean; override?: boolean }): Promise<Pair> {
    const pair = new Pair(options.broken, options.override)
    const path = datapathOf(vxlan)
    for (const [i, applier] of pair.appliers.entries()) {
      const [own, other] = [contextOf(i + 1), contextOf(2 - i)]
      const { data } = path.endpoint(vxlan, other)
      const lease = { publicIp: other.publicIp!, backendType: 'vxlan', backendData: data }
      const peer = { name: other.name, addresses: [], podCidrs: other.podCidrs, lease }
      await applier.start()
      applier.set(path.local(vxlan, own), path.toward(vxlan, own, peer).fragment)
      await applier.settle()
      assert.deepEqual(applier.failures(), [])
    }
    // The wire carries, and the neighbours are known: what is tried is checksums.
    pair.nodes[0].run('ping -c 5 -i 0.2 -W 5 10.244.2.0')
    return pair
  }

  isOff(): boolean | undefined {
    const [node] = this.nodes
    if (!node.succeeds('ip link show flannel.1')) return undefined
    return /tx-checksum-ip-generic: off/.test(node.run('ethtool -k flannel.1'))
  }

  ask(target: Ip): Promise<boolean> {
    const program = fileURLToPath(new URL('answered-datagram.ts', import.meta.url))
    return new Promise((resolve, reject) => {
      inNetns(this.nodes[0].path, () =>
        execFile(process.execPath, ['--import', 'tsx', program, `${target}`], (error, stdout) =>
          error ? reject(error) : resolve(stdout.trim() === 'true'),
        ),
      )
    })
  }

  async close(): Promise<void> {
    await this.repair.close()
    for (const applier of this.appliers) await applier.close()
    this.#copier?.kill('SIGKILL')
    for (const space of [...this.nodes, this.wire]) space.delete()
  }
}

async function withPair(options: { broken: boolean; override?: boolean }, body: (pair: Pair) => Promise<void>) {
  const pair = await Pair.make(options)
  try {
    await body(pair)
  } finally {
    await pair.close()
  }
}

test('a device that computes wrong checksums has them computed for it, also when it is made anew', () =>
  withPair({ broken: true }, async (pair) => {
    const target = Ip.parse('10.244.2.0')
    assert.equal(await pair.ask(target), false, 'the wire damages nothing')
    await pair.repair.look()
    assert.deepEqual([pair.repair.broken, pair.isOff()], [['flannel.1'], true])
    assert.match(pair.said.join(), /^packets by flannel\.1 had wrong checksums/)
    assert.equal(await pair.ask(target), true)
    pair.nodes[0].run('ip link del flannel.1')
    const end = performance.now() + 20_000
    while (pair.isOff() !== true) {
      assert.ok(performance.now() < end, 'the new device has the offload of a new one')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await pair.repair.look()
    assert.equal(pair.said.length, 1)
  }))

test('a device that computes them right is left alone', () =>
  withPair({ broken: false }, async (pair) => {
    await pair.repair.look()
    assert.deepEqual([pair.repair.broken, pair.isOff(), pair.said], [[], false, []])
  }))

test('a peer that answers nothing proves nothing', () =>
  withPair({ broken: false }, async (pair) => {
    pair.nodes[1].run(
      "nft 'add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c udp dport 9 drop'",
    )
    await pair.repair.look()
    assert.deepEqual([pair.repair.broken, pair.isOff(), pair.said], [[], false, []])
    // Off when it was found: somebody had reason.
    pair.nodes[0].run('ethtool -K flannel.1 tx-checksum-ip-generic off')
    await pair.repair.look()
    assert.deepEqual([pair.repair.broken, pair.isOff(), pair.said], [['flannel.1'], true, []])
  }))

test('who knows better says so', async () => {
  await withPair({ broken: false, override: true }, async (pair) => {
    await pair.repair.look()
    assert.equal(pair.isOff(), true)
  })
  await withPair({ broken: true, override: false }, async (pair) => {
    await pair.repair.look()
    assert.equal(pair.isOff(), false)
  })
})
