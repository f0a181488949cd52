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

export type BackendConfig = HostGwConfig | VxlanConfig | UdpConfig
export type BackendType = BackendConfig['type']
export type BackendConfigOf<T extends BackendType> = Extract<BackendConfig, { type: T }>
