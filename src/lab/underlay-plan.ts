/**
 * The underlay of a lab as kernel objects, namespace by namespace: what cables, switches and a router would be.
 * Pure: the effects are in underlay.ts.
 *
 *   fabric    bridge net<k> per subnet; one port per node, named as the node; port r<k> towards the router
 *   router    eth<k> in every subnet, out0 towards the outside; forwards, and knows nothing of pods
 *   node      eth0 with its addresses, default route to the router; forwards for its pods
 *   outside   eth0 behind the router: where masqueraded traffic goes and host ports are called from
 */
import type { KernelObject } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import {
  apiAddress,
  type LabSpec,
  type NodeSpec,
  nodeAddress,
  OUTSIDE,
  routerAddress,
  underlaySubnet,
} from './layout.ts'

/** Paths of the namespaces by place: `fabric`, `router`, `outside` and node names. */
export type Places = (place: string) => string

/** Ops to be executed inside one namespace, in order. */
export interface PlacePlan {
  readonly place: string
  readonly ops: readonly KernelOp[]
}

export const DEFAULT_MTU_BYTES = 1500

const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })
const set = (object: KernelObject): KernelOp => ({ verb: 'set', object })

const sysctl = (path: string, value: string): KernelOp => set({ kind: 'sysctl', path, value })
const loopbackUp = set({ kind: 'link', name: 'lo', type: 'foreign', up: true })

const families = (spec: LabSpec): readonly Family[] => (spec.ipv6 ? [4, 6] : [4])

const address = (device: string, ip: Ip, prefixLength: number): KernelOp =>
  add({ kind: 'address', device, ip, prefixLength, ...(ip.family === 6 ? { noDad: true } : {}) })

const route = (destination: Cidr, via: Ip): KernelOp => add({ kind: 'route', destination, hops: [{ via }] })

/** A locally administered address that tells where the device is: 02:57:<what>:<subnet>:<index>. */
const underlayMac = (what: number, subnet: number, index: number): Mac =>
  new Mac(Uint8Array.of(0x02, 0x57, what, subnet, index >>> 8, index & 255))

/** Settings that every namespace of the underlay starts with. */
function base(spec: LabSpec, forwards: boolean): KernelOp[] {
  const ops = [loopbackUp]
  if (spec.ipv6) {
    ops.push(sysctl('net/ipv6/conf/all/accept_ra', '0'), sysctl('net/ipv6/conf/default/accept_ra', '0'))
    ops.push(sysctl('net/ipv6/conf/default/accept_dad', '0'))
  } else {
    ops.push(sysctl('net/ipv6/conf/all/disable_ipv6', '1'), sysctl('net/ipv6/conf/default/disable_ipv6', '1'))
  }
  if (forwards) {
    ops.push(sysctl('net/ipv4/ip_forward', '1'))
    if (spec.ipv6) ops.push(sysctl('net/ipv6/conf/all/forwarding', '1'))
  }
  return ops
}

function cable(
  spec: LabSpec,
  near: { name: string; master?: string },
  far: { name: string; netnsPath: string; mac: Mac },
): KernelOp {
  const mtuBytes = spec.mtuBytes ?? DEFAULT_MTU_BYTES
  return add({
    kind: 'link',
    name: near.name,
    type: 'veth',
    mtuBytes,
    up: true,
    ...(near.master ? { master: near.master } : {}),
    settings: { peer: { name: far.name, netnsPath: far.netnsPath, mac: far.mac, mtuBytes } },
  })
}

/** Bridges, the router and the outside: what stands before the first node. */
export function planFabric(spec: LabSpec, places: Places): PlacePlan[] {
  const subnets = Array.from({ length: spec.subnets }, (_, k) => k)
  const fabric = [...base(spec, false)]
  const router: KernelOp[] = []
  for (const k of subnets) {
    fabric.push(
      add({
        kind: 'link',
        name: `net${k}`,
        type: 'bridge',
        up: true,
        mtuBytes: spec.mtuBytes ?? DEFAULT_MTU_BYTES,
        mac: underlayMac(0, k, 0),
        settings: { stp: false, multicastSnooping: false },
      }),
      cable(
        spec,
        { name: `r${k}`, master: `net${k}` },
        { name: `eth${k}`, netnsPath: places('router'), mac: underlayMac(1, k, 0) },
      ),
    )
    router.push(set({ kind: 'link', name: `eth${k}`, type: 'veth', up: true }))
    for (const family of families(spec))
      router.push(address(`eth${k}`, routerAddress(k, family), underlaySubnet(k, family).length))
  }
  for (const family of families(spec)) {
    fabric.push(address('net0', apiAddress(family), underlaySubnet(0, family).length))
    for (const k of subnets.slice(1)) fabric.push(route(underlaySubnet(k, family), routerAddress(0, family)))
  }
  router.push(cable(spec, { name: 'out0' }, { name: 'eth0', netnsPath: places('outside'), mac: underlayMac(2, 0, 0) }))
  const outside = [set({ kind: 'link', name: 'eth0', type: 'veth', up: true })]
  for (const family of families(spec)) {
    const key = family === 4 ? 'v4' : 'v6'
    router.push(address('out0', OUTSIDE.router[key], OUTSIDE.lengths[key]))
    outside.push(address('eth0', OUTSIDE.host[key], OUTSIDE.lengths[key]))
    outside.push(route(Cidr.all(family), OUTSIDE.router[key]))
  }
  // The settings of a namespace come before its first device, which takes over their defaults.
  return [
    { place: 'router', ops: base(spec, true) },
    { place: 'outside', ops: base(spec, false) },
    { place: 'fabric', ops: fabric },
    { place: 'router', ops: router },
    { place: 'outside', ops: outside },
  ]
}

/** What one node costs: its port on the fabric, then its own side. */
export function planNode(spec: LabSpec, node: NodeSpec, places: Places): PlacePlan[] {
  const port = cable(
    spec,
    { name: node.name, master: `net${node.subnet}` },
    { name: 'eth0', netnsPath: places(node.name), mac: underlayMac(3, node.subnet, node.index) },
  )
  const own = [set({ kind: 'link', name: 'eth0', type: 'veth', up: true })]
  for (const family of families(spec)) {
    own.push(address('eth0', nodeAddress(node, family), underlaySubnet(node.subnet, family).length))
    own.push(route(Cidr.all(family), routerAddress(node.subnet, family)))
  }
  return [
    { place: node.name, ops: base(spec, true) },
    { place: 'fabric', ops: [port] },
    { place: node.name, ops: own },
  ]
}
