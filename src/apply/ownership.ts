/**
 * How a restarted agent knows its own. Every kind of kernel object states its mark here; what bears none is another's and
 * is never deleted, whatever it looks like.
 *
 *   route, rule          protocol 119
 *   link                 alias weft:<role>, for the roles that the applier keeps
 *   address, neighbour   on such a link: not link-local addresses, and permanent neighbours only (the kernel makes the rest)
 *   fdb                  on such a link, with a remote end and not learnt
 *   nft objects          in tables inet weft and bridge weft, but for what other writers of those keep to themselves
 *   fou                  the mark that ports weft opened bear (FouPort.marked)
 *   tunnel, tunnel-peer  always: only our processes answer on our control sockets
 *   sysctl, offload      never: nobody knows what they were before
 *   qdisc, class, filter, bridge-vlan   never: they go with their devices
 */
import type { KernelObject } from '../model/kernel-object.ts'
import type { NftFamily } from '../model/nft.ts'
import { WEFT_ROUTE_PROTOCOL } from '../model/route.ts'

export interface Ownership {
  /** True when the object is ours to delete. `isOurDevice` knows the links that are. */
  owns(object: KernelObject, isOurDevice: (name: string) => boolean): boolean
}

export interface OwnershipOptions {
  /** Roles (what follows `weft:` in an alias, up to a slash) of links that come and go with fragments. */
  readonly roles?: readonly string[]
  /** Objects that bear our mark and are another writer's, such as what the CNI server keeps in our table. */
  readonly spare?: (object: KernelObject) => boolean
}

/** Roles of the links that data paths plan. */
export const DATAPATH_ROLES: readonly string[] = ['vxlan', 'udp', 'ipip', 'tun', 'geneve']

/** The marks of the table above. */
export function weftOwnership({ roles = DATAPATH_ROLES, spare = () => false }: OwnershipOptions = {}): Ownership {
  const kept = new Set(roles)
  return {
    owns(object, isOurDevice) {
      return bearsMark(object, kept, isOurDevice) && !spare(object)
    },
  }
}

function bearsMark(object: KernelObject, roles: ReadonlySet<string>, isOurDevice: (name: string) => boolean): boolean {
  switch (object.kind) {
    case 'link': {
      const role = /^weft:([a-z0-9-]+)/.exec(object.alias ?? '')?.[1]
      return role !== undefined && roles.has(role)
    }
    case 'route':
    case 'rule':
      return object.protocol === WEFT_ROUTE_PROTOCOL
    case 'address':
      return isOurDevice(object.device) && !object.ip.isLinkLocal
    case 'neighbour':
      return (
        isOurDevice(object.device) && (object.state === 'permanent' || object.proxy === true) && !object.ip.isMulticast
      )
    case 'fdb':
      return isOurDevice(object.device) && object.remote !== undefined && object.state !== 'dynamic'
    case 'nft-table':
      return isOurs(object.family, object.name)
    case 'nft-set':
    case 'nft-counter':
    case 'nft-chain':
    case 'nft-element':
      return isOurs(object.family, object.table)
    case 'fou':
      return object.marked === true
    case 'tunnel':
    case 'tunnel-peer':
      return true
    case 'bridge-vlan':
    case 'sysctl':
    case 'offload':
    case 'qdisc':
    case 'class':
    case 'filter':
      return false
  }
}

const isOurs = (family: NftFamily, table: string): boolean =>
  (family === 'inet' || family === 'bridge') && table === 'weft'
