/**
 * weft's own nftables table as pure plans: a skeleton that the settings decide, elements for each other node, elements
 * for each port mapping. See skeleton.ts for what the rules mean.
 */
export { type HostPort, type HostPortOptions, planHostPorts } from './hostport.ts'
export { firewallTable, planPodDevice } from './names.ts'
export { type FirewallPeer, planPeerElements } from './peer.ts'
export {
  type FirewallOptions,
  loopbackCounter,
  ownSourceCounter,
  planFirewallSkeleton,
  planHostPortRules,
} from './skeleton.ts'
export { type FirewallTunnel, innerCounter, strangerCounter } from './tunnel.ts'
