/**
 * What runs on a node of a real cluster: containerd, kubelet and kube-proxy on a machine of its own, and the weft agent as a
 * plain process where no DaemonSet brings it. Files are where kubeadm puts them.
 *
 * Sources: KubeletConfiguration v1beta1, KubeProxyConfiguration v1alpha1, containerd's docs/cri/config.md (1.6).
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { kubeconfigText } from '../kubeconfig.ts'
import { netnsExists } from '../kubelet/netns.ts'
import { type LabSpec, type NodeSpec, nodeAddress, POD_CIDRS } from '../layout.ts'
import { buildNode, deleteNamespaces, unplugNode } from '../underlay.ts'
import { apiServerUrl, type ControlPlane, dnsAddress } from './control-plane.ts'
import { Machine } from './machine.ts'
import type { Program } from './process.ts'
import type { Programs } from './programs.ts'

export const PAUSE_IMAGE = 'weft.test/pause:1'
export const TEST_IMAGE = 'weft.test/agnhost:1'

const CONTAINERD_SOCKET = '/run/containerd/containerd.sock'
const KUBERNETES = '/opt/kubernetes/kubernetes'
const PROXY_CONFIG = '/var/lib/kube-proxy/config.conf'

/** The agent's flags of Node, those of the `weft` script. */
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning', '--enable-source-maps', '--max-semi-space-size=2']

const containerdConfig = (snapshotter: string): string => `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "${CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter}"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
`

const kubeletConfig = (ipv6: boolean) => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  address: ipv6 ? '::' : '0.0.0.0',
  authentication: {
    anonymous: { enabled: false },
    webhook: { enabled: true },
    x509: { clientCAFile: '/etc/kubernetes/pki/ca.crt' },
  },
  authorization: { mode: 'Webhook' },
  cgroupDriver: 'cgroupfs',
  cgroupsPerQOS: false,
  enforceNodeAllocatable: [],
  failSwapOn: false,
  failCgroupV1: false,
  evictionHard: {
    'memory.available': '0%',
    'nodefs.available': '0%',
    'nodefs.inodesFree': '0%',
    'imagefs.available': '0%',
  },
  imageGCHighThresholdPercent: 100,
  clusterDNS: [String(dnsAddress())],
  clusterDomain: 'cluster.local',
  containerRuntimeEndpoint: `unix://${CONTAINERD_SOCKET}`,
  resolvConf: '/etc/resolv.conf',
  maxPods: 250,
})

/** How kube-proxy writes its rules. */
export type ProxyMode = 'nftables' | 'iptables'

const proxyConfig = (ipv6: boolean, mode: ProxyMode) => ({
  apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
  kind: 'KubeProxyConfiguration',
  mode,
  clusterCIDR: ipv6 ? `${POD_CIDRS.v4},${POD_CIDRS.v6}` : String(POD_CIDRS.v4),
  clientConnection: { kubeconfig: '/etc/kubernetes/kube-proxy.conf' },
  healthzBindAddress: '127.0.0.1:10256',
  metricsBindAddress: '127.0.0.1:10249',
  // The table is the whole machine's.
  conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
})

export class ClusterNode {
  readonly spec: NodeSpec
  readonly machine: Machine
  readonly containerd: Program
  readonly kubelet: Program
  readonly proxy: Program
  /** The weft agent as a plain process; started by `startAgent` alone. */
  readonly agent: Program
  readonly #lab: LabSpec
  readonly #programs: Programs
  readonly #plane: ControlPlane
  readonly #snapshotter: string

  constructor(lab: LabSpec, spec: NodeSpec, programs: Programs, plane: ControlPlane, snapshotter: string) {
    this.spec = spec
    this.#lab = lab
    this.#programs = programs
    this.#plane = plane
    this.#snapshotter = snapshotter
    this.machine = new Machine(lab.name, spec, programs.folder)
    const addresses = (lab.ipv6 ? ([4, 6] as const) : ([4] as const)).map((family) => nodeAddress(spec, family))
    const program = (name: string, ...argv: string[]) => this.machine.program(name, argv)
    this.containerd = program('containerd', programs.containerd, '--config=/etc/containerd/config.toml')
    this.kubelet = program(
      'kubelet',
      KUBERNETES,
      'kubelet',
      '--config=/var/lib/kubelet/config.yaml',
      '--kubeconfig=/etc/kubernetes/kubelet.conf',
      `--hostname-override=${spec.name}`,
      `--node-ip=${addresses.join(',')}`,
    )
    this.proxy = program(
      'kube-proxy',
      KUBERNETES,
      'kube-proxy',
      `--config=${PROXY_CONFIG}`,
      `--hostname-override=${spec.name}`,
    )
    this.agent = program(
      'agent',
      process.execPath,
      ...NODE_FLAGS,
      '/opt/weft/dist/weft.js',
      'agent',
      '--kubeconfig=/etc/weft/kubeconfig',
      `--node-name=${spec.name}`,
    )
  }

  get name(): string {
    return this.spec.name
  }

  get all(): readonly Program[] {
    return [this.containerd, this.kubelet, this.proxy, this.agent]
  }

  /** Makes the node what it was or, at its first time, new: cable, disk, power, containerd with its images, kubelet. */
  async start(images: readonly string[]): Promise<void> {
    await buildNode(this.#lab, this.spec)
    const { machine } = this
    const fresh = !existsSync(machine.disk)
    machine.format()
    if (fresh) this.#install()
    await machine.power()
    await this.containerd.start()
    await this.containerdServes()
    if (fresh) for (const image of images) this.loadImage(image)
    await Promise.all([this.kubelet.start(), this.proxy.start()])
  }

  /** What a machine's administrator puts onto a new disk. */
  #install(): void {
    const { machine } = this
    const plane = this.#plane
    const { ipv6 } = this.#lab
    for (const plugin of readdirSync(this.#programs.cniPlugins))
      symlinkSync(join(this.#programs.cniPlugins, plugin), machine.outside(`/opt/cni/bin/${plugin}`))
    machine.writeFile('/etc/containerd/config.toml', containerdConfig(this.#snapshotter))
    machine.writeFile('/var/lib/kubelet/config.yaml', JSON.stringify(kubeletConfig(ipv6)))
    machine.writeFile(PROXY_CONFIG, JSON.stringify(proxyConfig(ipv6, 'nftables')))
    machine.writeFile('/etc/kubernetes/pki/ca.crt', plane.authority.cert)
    const client = (commonName: string, ...organizations: string[]) =>
      plane.issueKubeconfig({ commonName, organizations, usages: ['client'] })
    machine.writeFile('/etc/kubernetes/kubelet.conf', client(`system:node:${this.name}`, 'system:nodes'), 0o600)
    machine.writeFile('/etc/kubernetes/kube-proxy.conf', client('system:kube-proxy'), 0o600)
  }

  /** Resolves when containerd answers; rejects with the end of its log when it does not in time. */
  async containerdServes(): Promise<void> {
    const deadline = performance.now() + 30_000
    for (;;) {
      try {
        this.ctr('version')
        return
      } catch (error) {
        if (performance.now() > deadline)
          throw new Error(`containerd of ${this.name} does not serve: ${this.containerd.logTail()}`, { cause: error })
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  }

  /** Starts kube-proxy anew in a mode; it takes away what it wrote in the other. */
  async setProxyMode(mode: ProxyMode): Promise<void> {
    this.machine.writeFile(PROXY_CONFIG, JSON.stringify(proxyConfig(this.#lab.ipv6, mode)))
    await this.proxy.restart()
  }

  /** Containerd's own client, in the namespace of the kubelet. */
  ctr(...argv: readonly string[]): string {
    return this.machine.run(this.#programs.ctr, '--address', CONTAINERD_SOCKET, '--namespace', 'k8s.io', ...argv)
  }

  /** Gives the node the images of an archive (docker or OCI); nothing is pulled from anywhere. */
  loadImage(archive: string): void {
    const inside = `/run/image-${process.pid}.tar`
    const at = this.machine.outside(inside)
    execFileSync('cp', ['--reflink=auto', archive, at])
    try {
      this.ctr('images', 'import', '--all-platforms', '--snapshotter', this.#snapshotter, inside)
    } finally {
      rmSync(at, { force: true })
    }
  }

  /** Starts the weft agent as a plain process that has the service account's token and nothing else. */
  async startAgent(token: string): Promise<void> {
    const cluster = `weft-${this.#lab.name}`
    const { cert: ca } = this.#plane.authority
    const text = kubeconfigText({ cluster, server: apiServerUrl, user: 'weft-agent', ca, token })
    this.machine.writeFile('/etc/weft/kubeconfig', text, 0o600)
    await this.agent.start()
  }

  /** The path of a pod's network namespace, good on this machine while the node is on. */
  podNetns(namespace: string, pod: string): string {
    const labels = { 'io.cri-containerd.kind': 'sandbox', 'io.kubernetes.pod.namespace': namespace }
    const wanted = Object.entries({ ...labels, 'io.kubernetes.pod.name': pod })
    const filter = wanted.map(([label, value]) => `labels."${label}"==${value}`).join(',')
    // The sandboxes of before a restart may not be collected yet: their namespaces are gone.
    for (const id of this.ctr('containers', 'list', '--quiet', filter).trim().split('\n').filter(Boolean)) {
      const info = JSON.parse(this.ctr('containers', 'info', id)) as {
        Spec: { linux: { namespaces: { type: string; path?: string }[] } }
      }
      const path = info.Spec.linux.namespaces.find(({ type }) => type === 'network')?.path
      // /var/run is a symbolic link whose absolute target would be read on this machine.
      const outside = `/proc/${this.machine.initPid}/root${path?.replace('/var/run/', '/run/')}`
      if (path !== undefined && netnsExists(outside)) return outside
    }
    throw new Error(`${this.name} has no sandbox of pod ${namespace}/${pod}`)
  }

  /** Power failure: of what its kernel had, devices and rules, nothing is left either. */
  async cut(): Promise<void> {
    this.close()
    await this.machine.cut()
    await unplugNode(this.#lab, this.spec)
    deleteNamespaces(this.#lab.name, (place) => place === this.name)
  }

  /** Looks after its programs no longer; they go on. */
  close(): void {
    for (const program of this.all) program.close()
  }
}
