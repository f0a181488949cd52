/**
 * What a data path is: a pure plan in three parts.
 *
 *   local    this node's own devices, addresses and kernel settings: what it takes to accept packets by this path
 *   from     what it costs to accept packets of one peer (the user-space tunnel must know whom to believe)
 *   toward   what it costs to send to one peer: routes, neighbours, forwarding entries
 *
 * local and from of an old path stay while toward already goes by the new one: that is how a switch loses nothing
 * (transition.ts). Settings are read by the dialects of src/config, so a plan never sees an unchecked one; what a peer
 * says about itself is checked here, and a bad word costs that peer alone.
 */
import type { BackendConfig, BackendConfigOf, BackendType } from '../model/backend.ts'
import type { NodeContext, NodeInfo, PeerProblem } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import { hostGw } from './host-gw/host-gw.ts'
import { ipip } from './ipip/ipip.ts'
import { kubeRouter } from './kube-router/kube-router.ts'
import { udp } from './udp/udp.ts'
import { vxlan } from './vxlan/vxlan.ts'

/** How to send to one peer. */
export interface TowardOptions {
  /** Plain routes are allowed where the peer is on the link: DirectRouting is on and the peer accepts `host-gw`. */
  readonly direct?: boolean
  /** Asks for a device's name on behalf of a peer; false when another peer has it. Every name may be had when left out. */
  readonly ownsName?: (device: string, peer: string) => boolean
}

/** A peer's fragment (source `node/<name>`), and why it is smaller than it could be. */
export interface PeerPlan {
  readonly fragment: Fragment
  readonly problems: readonly PeerProblem[]
}

/** What a node tells others so that they can send to it: flannel's backend-data per family. */
export interface Endpoint {
  /** JSON value of backend-data; null when the backend has none. */
  readonly data: unknown
  /** JSON value of backend-v6-data; left out when the node has no such family. */
  readonly v6Data?: unknown
}

export interface Datapath<C extends BackendConfig> {
  readonly type: C['type']
  /** Source is `path/<path id>`. */
  local(config: C, node: NodeContext): Fragment
  /** Source is `node/<peer>/from/<path id>`. */
  from(config: C, node: NodeContext, peer: NodeInfo): Fragment
  /** Source is `node/<peer>`. */
  toward(config: C, node: NodeContext, peer: NodeInfo, options?: TowardOptions): PeerPlan
  endpoint(config: C, node: NodeContext): Endpoint
  /** The largest packet a pod may send by this path. */
  mtuBytes(config: C, node: NodeContext): number
  /** Devices of `local` that this path's packets alone go by; two paths that share one cannot stand side by side. */
  devices(config: C, node: NodeContext): readonly string[]
}

const datapaths: { readonly [T in BackendType]: Datapath<BackendConfigOf<T>> } = {
  'host-gw': hostGw,
  vxlan,
  udp,
  ipip,
  'kube-router': kubeRouter,
}

/** The data path that plans by these settings. */
export function datapathOf<C extends BackendConfig>(config: C): Datapath<C> {
  return datapaths[config.type] as unknown as Datapath<C>
}
