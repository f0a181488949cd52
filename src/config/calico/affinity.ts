/**
 * Block affinities and handles, in both stores. In Kubernetes the spec says everything and the name follows from it; in
 * etcd the key says whose and which, and the value the rest.
 *
 *   BlockAffinity  spec {state, node, type, cidr, deleted: "false"}
 *                  /calico/ipam/v2/host/NODE/ipv4/block/172.26.40.128-26   {"state":"confirmed","deleted":false}
 *   IPAMHandle     spec {handleID, block: {CIDR: count}, deleted}
 *                  /calico/ipam/v2/handle/ID                               {"block":{CIDR: count},"deleted":false}
 *
 * Sources: Calico libcalico-go/lib/backend/model/block_affinity.go and ipam_handle.go, lib/backend/k8s/resources/
 * ipam_affinity_v1.go (`deleted` is text in the CRD; without `type` it is a host) and ipam_handle.go.
 */
import type { AffinityState, BlockAffinity, BlockOwner, IpamHandle } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { Fields, isObject, shown } from './fields.ts'

const STATES = ['pending', 'confirmed', 'pendingDeletion'] as const
const MAX_BLOCKS = 4096

/** Decodes the spec of a BlockAffinity. Throws ConfigError naming object and key. */
export function decodeAffinitySpec(spec: unknown, object: string): BlockAffinity {
  const fields = new Fields(spec, object)
  const cidr = fields.cidr('cidr')
  if (!cidr) throw fields.error('cidr', 'is missing')
  const name = fields.text('node', 253)
  if (name === undefined) throw fields.error('node', 'is missing')
  const type = fields.oneOf('type', ['host', 'virtual']) ?? 'host'
  const deleted = fields.get('deleted')
  const isDeleted = deleted === true || deleted === 'true'
  if (!isDeleted && deleted !== undefined && deleted !== false && deleted !== 'false' && deleted !== '')
    throw fields.error('deleted', `must be "true" or "false", not ${shown(deleted)}`)
  return { owner: { type, name }, cidr, state: readState(fields), deleted: isDeleted }
}

/** Decodes etcd's value; whose and which the key says. A value that is missing or empty is a claim without a state. */
export function decodeAffinityValue(
  value: unknown,
  key: { readonly owner: BlockOwner; readonly cidr: Cidr },
  object: string,
): BlockAffinity {
  const fields = new Fields(value ?? {}, object)
  return { ...key, state: readState(fields), deleted: fields.flag('deleted') ?? false }
}

/** Releases before 3.0 had no state: what stands was claimed then. */
const readState = (fields: Fields): AffinityState => fields.oneOf('state', STATES) ?? 'confirmed'

export const encodeAffinitySpec = ({ owner, cidr, state, deleted }: BlockAffinity): Record<string, string> => ({
  state,
  node: owner.name,
  type: owner.type,
  cidr: `${cidr}`,
  deleted: `${deleted}`,
})

export const encodeAffinityValue = ({ state, deleted }: BlockAffinity): Record<string, unknown> => ({ state, deleted })

/** Decodes the spec of an IPAMHandle. Throws ConfigError naming object and key. */
export function decodeHandleSpec(spec: unknown, object: string): IpamHandle {
  const fields = new Fields(spec, object)
  const handleId = fields.text('handleID')
  if (handleId === undefined) throw fields.error('handleID', 'is missing')
  return readHandle(fields, handleId)
}

/** Decodes etcd's value; the key says which handle it is. */
export const decodeHandleValue = (value: unknown, handleId: string, object: string): IpamHandle =>
  readHandle(new Fields(value, object), handleId)

function readHandle(fields: Fields, handleId: string): IpamHandle {
  const value = fields.get('block') ?? {}
  if (!isObject(value)) throw fields.error('block', `must be an object, not ${shown(value)}`)
  const entries = Object.entries(value)
  if (entries.length > MAX_BLOCKS) throw fields.error('block', `has more than ${MAX_BLOCKS} blocks`)
  const blocks = entries.map(([text, count]) => {
    const cidr = Cidr.tryParse(text)
    if (!cidr) throw fields.error('block', `${shown(text)} is no block`)
    if (typeof count !== 'number' || !Number.isInteger(count) || count < 0 || count > 65536)
      throw fields.error(`block.${cidr}`, `must be a count of addresses, not ${shown(count)}`)
    return [`${cidr}`, count] as const
  })
  return { handleId, blocks: Object.fromEntries(blocks), deleted: fields.flag('deleted') ?? false }
}

export const encodeHandleSpec = (handle: IpamHandle): Record<string, unknown> => ({
  handleID: handle.handleId,
  block: handle.blocks,
  deleted: handle.deleted,
})

export const encodeHandleValue = ({ blocks, deleted }: IpamHandle): Record<string, unknown> => ({
  block: blocks,
  deleted,
})
