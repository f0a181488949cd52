/**
 * What may be chosen when weft is put into a cluster. The chart's values.yaml has the same names and defaults; a test
 * holds them together.
 */
import type { ControllerDuties } from './rights.ts'

export interface InstallValues {
  readonly namespace: string
  readonly image: { readonly repository: string; readonly tag: string; readonly pullPolicy: string }
  /** flannel's net-conf.json. */
  readonly netConf: Readonly<Record<string, unknown>>
  readonly agent: {
    /** Further arguments of `weft agent`. */
    readonly args: readonly string[]
    readonly logLevel: string
    /** Port of /healthz, /readyz and /metrics on every node. */
    readonly healthPort: number
    readonly resources: Resources
    /** What the UDP backend needs: the device /dev/net/tun, and sight of the node's processes (hostPID). */
    readonly privileged: boolean
    /** How many nodes are upgraded at once; a number or a share. */
    readonly maxUnavailable: number | string
  }
  readonly controller: {
    readonly enabled: boolean
    /** It gives nodes their pod CIDRs. Only one in a cluster may: not where kube-controller-manager does. */
    readonly allocateNodeCidrs: boolean
    /** One leads; the others take over. */
    readonly replicas: number
    /** How often the addresses that a node holds are compared with those of its pods; `0s`: never, and without the right. */
    readonly leakCheckInterval: string
    /** Further arguments of `weft controller`. */
    readonly args: readonly string[]
    readonly logLevel: string
    /** Port of /healthz, /readyz and /metrics on the nodes where it runs. */
    readonly healthPort: number
    readonly resources: Resources
  }
  readonly cniBinDir: string
  readonly cniConfDir: string
  /** What RBAC cannot say of writes to nodes: an agent's are of its own node, neither's are of labels or taints (ValidatingAdmissionPolicy, Kubernetes 1.32 and later). */
  readonly nodeGuard: boolean
}

export interface Resources {
  readonly requests: Readonly<Record<string, string>>
  readonly limits?: Readonly<Record<string, string>>
}

/** What the controller is to do, as its account is told. */
export const controllerDuties = ({ controller }: InstallValues): ControllerDuties => ({
  allocates: controller.allocateNodeCidrs,
  findsLeaks: controller.leakCheckInterval !== '0s',
})

export const defaultValues = (version: string): InstallValues => ({
  namespace: 'kube-flannel',
  image: { repository: 'weft.dev/weft', tag: version, pullPolicy: 'IfNotPresent' },
  netConf: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } },
  agent: {
    args: [],
    logLevel: 'info',
    healthPort: 9180,
    resources: { requests: { cpu: '50m', memory: '100Mi' } },
    privileged: false,
    maxUnavailable: '10%',
  },
  controller: {
    enabled: true,
    allocateNodeCidrs: false,
    replicas: 2,
    leakCheckInterval: '10m',
    args: [],
    logLevel: 'info',
    healthPort: 9181,
    resources: { requests: { cpu: '10m', memory: '80Mi' } },
  },
  cniBinDir: '/opt/cni/bin',
  cniConfDir: '/etc/cni/net.d',
  nodeGuard: true,
})
