/**
 * The checked settings of each data path, as dialects read them and data paths plan by them.
 */

export interface HostGwConfig {
  readonly type: 'host-gw'
}

export interface VxlanConfig {
  readonly type: 'vxlan'
  /** 0..16777215. */
  readonly vni: number
  /** UDP destination port. */
  readonly port: number
  /** MTU of the packets on the underlay, where it is less than the external interface's. */
  readonly mtuBytes?: number
  readonly gbp: boolean
  readonly learning: boolean
  /** Plain routes to peers whose address is on a subnet of the external interface. */
  readonly directRouting: boolean
}

export interface UdpConfig {
  readonly type: 'udp'
  readonly port: number
}

/** flannel's `ipip`. */
export interface IpipConfig {
  readonly type: 'ipip'
  /** Plain routes to peers whose address is on a subnet of the external interface. */
  readonly directRouting: boolean
}

/** kube-router's overlay: a tunnel for each peer. */
export interface KubeRouterConfig {
  readonly type: 'kube-router'
  /** `subnet`: plain routes to peers whose address is on a subnet of the external interface; `full`: tunnels to all. */
  readonly overlay: 'subnet' | 'full'
  /** IP in IP as it is, or inside Generic UDP Encapsulation. */
  readonly encap: 'ipip' | 'fou'
  /** UDP port of `fou`, 1024..65535. */
  readonly port: number
  /** Pods are told what fits into the tunnel; else what the external interface takes. */
  readonly autoMtu: boolean
}

export type BackendConfig = HostGwConfig | VxlanConfig | UdpConfig | IpipConfig | KubeRouterConfig
export type BackendType = BackendConfig['type']
export type BackendConfigOf<T extends BackendType> = Extract<BackendConfig, { type: T }>

/** Whether peers on the link get plain routes. */
export function routesDirectly(config: BackendConfig): boolean {
  switch (config.type) {
    case 'vxlan':
    case 'ipip':
      return config.directRouting
    case 'kube-router':
      return config.overlay === 'subnet'
    default:
      return false
  }
}
