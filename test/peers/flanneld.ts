/**
 * Real flanneld, built from its Go module, and a node that runs it: flanneld beside the reference plugins `bridge` and
 * `host-local`, which is what flannel's own CNI plugin delegates to. The first build downloads about a gigabyte of modules.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { TestNode } from '../netns/agent-cluster.ts'
import { TestNamespace } from '../netns/namespace.ts'
import { type BuiltPeer, buildGoProgram } from './go-program.ts'

const folder = fileURLToPath(new URL('.', import.meta.url))
const PLUGINS = '/usr/lib/cni'

/** The binary, or why there is none on this machine. Throws when it should build and does not. */
export function buildFlanneld(): BuiltPeer | { readonly missing: string } {
  if (!existsSync(`${PLUGINS}/bridge`))
    return { missing: `there is no ${PLUGINS}/bridge (package containernetworking-plugins)` }
  return buildGoProgram(folder, 'flanneld', 'github.com/flannel-io/flannel')
}

export interface FlannelPod {
  readonly namespace: TestNamespace
  readonly addresses: readonly string[]
}

/** A node whose agent is flanneld. */
export class FlannelNode {
  readonly #peer: BuiltPeer
  readonly #node: TestNode
  readonly #pods: FlannelPod[] = []
  #child: ChildProcess | undefined
  #log = ''

  constructor(peer: BuiltPeer, node: TestNode) {
    this.#peer = peer
    this.#node = node
    process.once('exit', () => this.#child?.kill('SIGKILL'))
  }

  get log(): string {
    return this.#log
  }

  /** Starts flanneld with a net-conf.json; resolves when it has written subnet.env. */
  async start(netConfig: object): Promise<void> {
    const { folder, name, namespace } = this.#node
    writeFileSync(join(folder, 'net-conf.json'), JSON.stringify(netConfig))
    rmSync(this.#subnetFile, { force: true })
    const flags = ['--kube-subnet-mgr', '--kubeconfig-file', `${folder}/kubeconfig`, '--ip-masq', '--iface', 'eth0']
    flags.push('--net-config-path', `${folder}/net-conf.json`, '--subnet-file', this.#subnetFile)
    this.#log = ''
    const child = inNetns(namespace.path, () =>
      spawn(this.#peer.program, flags, {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH, NODE_NAME: name },
      }),
    )
    this.#child = child
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk) => {
        this.#log = (this.#log + chunk).slice(-20_000)
      })
    const deadline = performance.now() + 60_000
    while (!existsSync(this.#subnetFile)) {
      if (child.exitCode !== null || performance.now() > deadline)
        throw new Error(`flanneld is not ready: ${this.#log}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  async stop(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }

  /** A pod by the reference plugins, as flannel's would have them called. */
  addPod(): FlannelPod {
    const namespace = new TestNamespace()
    const { ips } = JSON.parse(this.#cni('ADD', namespace)) as { ips: { address: string }[] }
    const pod = { namespace, addresses: ips.map(({ address }) => address.split('/')[0]!) }
    this.#pods.push(pod)
    return pod
  }

  removePods(): void {
    for (const { namespace } of this.#pods.splice(0)) {
      this.#cni('DEL', namespace)
      namespace.delete()
    }
  }

  close(): void {
    this.#child?.kill('SIGKILL')
    for (const { namespace } of this.#pods) namespace.delete()
  }

  get #subnetFile(): string {
    return join(this.#node.folder, 'flannel-subnet.env')
  }

  #cni(command: string, pod: TestNamespace): string {
    const env = Object.fromEntries(
      readFileSync(this.#subnetFile, 'utf8')
        .trim()
        .split('\n')
        .map((line) => line.split('=') as [string, string]),
    )
    const subnets = [env.FLANNEL_SUBNET, env.FLANNEL_IPV6_SUBNET].filter((subnet) => subnet !== undefined)
    const networks = [env.FLANNEL_NETWORK, env.FLANNEL_IPV6_NETWORK].filter((network) => network !== undefined)
    const config = {
      cniVersion: '0.3.1',
      name: 'cbr0',
      type: 'bridge',
      bridge: 'cni0',
      mtu: Number(env.FLANNEL_MTU),
      isDefaultGateway: true,
      hairpinMode: true,
      ipMasq: false,
      ipam: {
        type: 'host-local',
        dataDir: join(this.#node.folder, 'host-local'),
        ranges: subnets.map((subnet) => [{ subnet: networkOf(subnet) }]),
        routes: networks.map((dst) => ({ dst })),
      },
    }
    const { status, stdout, stderr } = inNetns(this.#node.namespace.path, () =>
      spawnSync(`${PLUGINS}/bridge`, {
        input: JSON.stringify(config),
        encoding: 'utf8',
        env: {
          PATH: process.env.PATH,
          CNI_COMMAND: command,
          CNI_CONTAINERID: pod.name,
          CNI_NETNS: pod.path,
          CNI_IFNAME: 'eth0',
          CNI_PATH: PLUGINS,
        },
      }),
    )
    if (status !== 0) throw new Error(`bridge ${command}: ${stdout}${stderr}`)
    return stdout
  }
}

/** `10.244.2.1/24`, as subnet.env has it, to `10.244.2.0/24`. */
const networkOf = (subnet: string): string =>
  subnet.includes(':') ? subnet.replace(/::1\//, '::/') : subnet.replace(/\.1\//, '.0/')
