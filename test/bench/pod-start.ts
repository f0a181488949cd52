/**
 * How fast pods start on a node of a real cluster: weft against the reference plugins bridge + host-local, on one node, under
 * one containerd that has a runtime for each. A client of the runtime interface asks for sandboxes as the kubelet does, which
 * is off meanwhile (it would remove pods that no API server knows): first one at a time, the networks in turns, then ten at once.
 *
 * The whole time ends when the pod's IP address is known. Its network part is what containerd itself counts: from its call
 * of the network until every interface is there, the loopback's too, which is the same reference plugin for both.
 *
 * Sources: containerd's docs/cri/config.md (`cni_conf_dir` of a runtime), pkg/cri/server/metrics.go.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ClusterNode } from '../../src/lab/kubernetes/node.ts'
import { goCompiler, missingForKubernetes } from '../../src/lab/kubernetes/programs.ts'
import { TestCluster } from '../kubernetes/test-cluster.ts'
import type { Bench, BenchResult } from './bench.ts'
import { quantile } from './cni.ts'
import { LineProgram } from './line-program.ts'

const AT_ONCE = 10
const METRICS = '127.0.0.1:1338'
const REFERENCE_CONF = '/etc/cni/reference.d'

const networks = ['weft', 'reference'] as const
type Network = (typeof networks)[number]

/** The reference's options give its pods what weft's have: bridge, gateway, routes, hairpin, MTU. */
const referenceConflist = (mtuBytes: number): object => ({
  cniVersion: '1.0.0',
  name: 'reference',
  plugins: [
    {
      type: 'bridge',
      bridge: 'reference0',
      isGateway: true,
      isDefaultGateway: true,
      hairpinMode: true,
      mtu: mtuBytes,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.66.0.0/16' }]], routes: [{ dst: '10.64.0.0/12' }] },
    },
  ],
})

const containerdAdditions = `
[metrics]
  address = "${METRICS}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.reference]
  runtime_type = "io.containerd.runc.v2"
  cni_conf_dir = "${REFERENCE_CONF}"
`

interface Started {
  readonly microseconds: number
  readonly pods: readonly { readonly name: string; readonly ip: string; readonly microseconds: number }[]
}

/** Milliseconds of each pod: the whole, and the part of the network. */
interface Times {
  readonly whole: number[]
  readonly network: number[]
}

class PodStarts {
  readonly #node: ClusterNode
  readonly #client: LineProgram
  #made = 0

  private constructor(node: ClusterNode, client: LineProgram) {
    this.#node = node
    this.#client = client
  }

  /** Gives the node a second network and its containerd a runtime for it. */
  static async open(node: ClusterNode, clientProgram: string): Promise<PodStarts> {
    const { machine } = node
    await node.kubelet.stop()
    const config = '/etc/containerd/config.toml'
    machine.writeFile(config, readFileSync(machine.outside(config), 'utf8') + containerdAdditions)
    const mtuBytes = Number(machine.run('cat', '/sys/class/net/flannel.1/mtu'))
    machine.writeFile(`${REFERENCE_CONF}/10-reference.conflist`, JSON.stringify(referenceConflist(mtuBytes)))
    await node.containerd.restart()
    await node.containerdServes()
    const socket = machine.outside('/run/containerd/containerd.sock')
    return new PodStarts(node, new LineProgram(clientProgram, [socket]))
  }

  async #ask<T>(...words: readonly string[]): Promise<T> {
    this.#client.write(words.join(' '))
    const answer = JSON.parse(await this.#client.line()) as T & { error?: string }
    if (answer.error !== undefined) throw new Error(`${words[0]}: ${answer.error}`)
    return answer
  }

  /** Seconds that containerd's calls of the network took since its start, and how many there were. */
  #networkClock(): { readonly seconds: number; readonly calls: number } {
    const text = this.#node.machine.run('curl', '-s', '--fail', `http://${METRICS}/v1/metrics`)
    const read = (suffix: string): number => {
      const name = `containerd_cri_network_plugin_operations_duration_seconds_${suffix}{operation_type="set_up_pod"}`
      const line = text.split('\n').find((each) => each.startsWith(name))
      return line === undefined ? 0 : Number(line.slice(name.length))
    }
    return { seconds: read('seconds_sum'), calls: read('seconds_count') }
  }

  /** Starts `count` pods at once and adds what each took; returns their names. */
  async start(network: Network, count: number, into: Times): Promise<string[]> {
    const names = Array.from({ length: count }, () => `${network}-${++this.#made}`)
    const before = this.#networkClock()
    const { pods } = await this.#ask<Started>('start', names.join(','), network === 'weft' ? '-' : network)
    const after = this.#networkClock()
    if (after.calls - before.calls !== count) throw new Error(`containerd counted ${after.calls - before.calls} pods`)
    const expected = network === 'weft' ? /^10\.244\./ : /^10\.66\./
    for (const { name, ip, microseconds } of pods) {
      if (!expected.test(ip)) throw new Error(`pod ${name} has address ${ip}, which is not of ${network}`)
      into.whole.push(microseconds / 1000)
    }
    into.network.push(((after.seconds - before.seconds) / count) * 1000)
    return names
  }

  remove(names: readonly string[]): Promise<object> {
    return this.#ask<object>('remove', names.join(','))
  }

  end(): Promise<void> {
    return this.#client.end()
  }
}

type Figures = Record<Network, Times>

const noFigures = (): Figures => ({ weft: { whole: [], network: [] }, reference: { whole: [], network: [] } })

/** `pods` of each network, `atOnce` at a time, the networks in turns; all of them stand until the last has started. */
async function measure(starts: PodStarts, pods: number, atOnce: number): Promise<Figures> {
  const figures = noFigures()
  const standing: string[] = []
  // The first of each network makes its bridge and warms caches.
  for (const network of networks) standing.push(...(await starts.start(network, 1, { whole: [], network: [] })))
  for (let made = 0; made < pods; made += atOnce)
    for (const network of (made / atOnce) % 2 ? networks : [...networks].reverse())
      standing.push(...(await starts.start(network, Math.min(atOnce, pods - made), figures[network])))
  await starts.remove(standing)
  return figures
}

const median = (values: readonly number[]): number => quantile(values, 0.5)

function table(title: string, figures: Figures): void {
  console.log(`\n${title}: milliseconds a pod (median, p90)`)
  for (const network of networks) {
    const cells = (['whole', 'network'] as const).map((part) => {
      const values = figures[network][part]
      const [m, p90] = [median(values), quantile(values, 0.9)].map((value) => value.toFixed(1).padStart(7))
      return `${part} ${m} ${p90}`
    })
    console.log(`  ${network.padEnd(10)} ${cells.join('   ')}`)
  }
}

const compare = ({ weft, reference }: Figures, part: keyof Times) => ({
  ours: median(weft[part]),
  peer: median(reference[part]),
  ratio: median(weft[part]) / median(reference[part]),
})

async function run(args: readonly string[]): Promise<BenchResult> {
  const pods = Number(args[0] ?? 100)
  const missing = missingForKubernetes()
  if (missing) throw new Error(missing)
  const folder = mkdtempSync(join(tmpdir(), 'weft-bench-'))
  const client = join(folder, 'sandboxes')
  execFileSync(goCompiler()!, ['build', '-mod=readonly', '-o', client, '.'], {
    cwd: fileURLToPath(new URL('sandboxes', import.meta.url)),
    env: { ...process.env, CGO_ENABLED: '0' },
    stdio: 'inherit',
  })
  const lab = await TestCluster.start({ nodes: 1, ipv6: false })
  try {
    await lab.cluster.prepareAgents()
    await lab.cluster.startAgents()
    await lab.cluster.waitReady()
    const starts = await PodStarts.open(lab.cluster.nodes[0]!, client)
    try {
      const oneByOne = await measure(starts, pods, 1)
      table('one by one', oneByOne)
      const tenAtOnce = await measure(starts, pods, AT_ONCE)
      table(`${AT_ONCE} at once`, tenAtOnce)
      return {
        bench: 'pod-start',
        unit: 'ms',
        ...compare(tenAtOnce, 'network'),
        pods,
        oneByOne: { whole: compare(oneByOne, 'whole'), network: compare(oneByOne, 'network') },
        tenAtOnce: { whole: compare(tenAtOnce, 'whole'), network: compare(tenAtOnce, 'network') },
      }
    } finally {
      await starts.end()
    }
  } finally {
    await lab.down()
    rmSync(folder, { recursive: true, force: true })
  }
}

export const bench: Bench = {
  name: 'pod-start',
  describe: 'pods on a real node, from sandbox request to IP, against the reference bridge + host-local [pods 100]',
  run,
}
