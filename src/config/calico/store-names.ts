/**
 * Where Calico keeps what: names of objects in Kubernetes, keys in etcd v3.
 *
 * Sources: Calico libcalico-go/lib/names/cidr.go, lib/backend/k8s/resources/{ipam_block,ipam_affinity_v1,ipam_handle}.go
 * (names), lib/backend/model/{block,block_affinity,ipam_handle,ipam_config,resource}.go (keys),
 * api/pkg/apis/projectcalico/v3/constants.go (labels).
 */
import type { BlockOwner } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'

/** `172-26-40-128-26`, `fd00-10-244--40-122`. */
export const cidrName = (cidr: Cidr): string => `${cidr}`.replaceAll(/[.:/]/g, '-')

/** Digests that names and labels of affinities are made of; the pure rooms have none of their own. */
export interface Digests {
  /** SHA-256 of UTF-8, lower-case hexadecimal. */
  sha256Hex(text: string): string
  /** SHA3-256 of UTF-8, base 32 of RFC 4648 without padding. */
  sha3Base32(text: string): string
}

const MAX_NAME = 252

/** Name of a BlockAffinity object; one that would be too long is cut and told apart by a digest. */
export function affinityName(owner: BlockOwner, cidr: Cidr, { sha256Hex }: Pick<Digests, 'sha256Hex'>): string {
  const block = cidrName(cidr)
  const name = `${owner.name}-${block}`
  if (name.length <= MAX_NAME) return name
  const digest = sha256Hex(`${owner.name}+${block}`).slice(0, 11)
  return `${owner.name.slice(0, MAX_NAME - block.length - 13)}-${block}-${digest}`
}

/** Labels by which Calico lists the affinities of one node. */
export const affinityLabels = (
  owner: BlockOwner,
  cidr: Cidr,
  { sha3Base32 }: Pick<Digests, 'sha3Base32'>,
): Readonly<Record<string, string>> => ({
  'projectcalico.org/hostname-hash': sha3Base32(owner.name),
  'projectcalico.org/affinity-type': owner.type,
  'projectcalico.org/ip-version': `${cidr.family}`,
})

/** Name of an IPAMHandle object. */
export const handleName = (handleId: string): string => handleId.toLowerCase()

const IPAM = '/calico/ipam/v2'
const RESOURCES = '/calico/resources/v3/projectcalico.org'

const keyedCidr = (cidr: Cidr): string => `ipv${cidr.family}/block/${`${cidr}`.replace('/', '-')}`

export const etcdPrefixes = {
  blocks: `${IPAM}/assignment/`,
  hostAffinities: `${IPAM}/host/`,
  virtualAffinities: `${IPAM}/virtual/`,
  handles: `${IPAM}/handle/`,
  pools: `${RESOURCES}/ippools/`,
  reservations: `${RESOURCES}/ipreservations/`,
  felix: `${RESOURCES}/felixconfigurations/`,
  nodes: `${RESOURCES}/nodes/`,
  BGPConfiguration: `${RESOURCES}/bgpconfigurations/`,
  BGPPeer: `${RESOURCES}/bgppeers/`,
  BGPFilter: `${RESOURCES}/bgpfilters/`,
} as const

export const etcdKeys = {
  ipamConfig: `${IPAM}/config`,
  block: (cidr: Cidr): string => `${etcdPrefixes.blocks}${keyedCidr(cidr)}`,
  affinity: (owner: BlockOwner, cidr: Cidr): string => `${IPAM}/${owner.type}/${owner.name}/${keyedCidr(cidr)}`,
  handle: (handleId: string): string => `${etcdPrefixes.handles}${handleId}`,
  node: (name: string): string => `${etcdPrefixes.nodes}${name}`,
} as const

/** undefined for a key that is no block's. */
export function parseBlockKey(key: string): Cidr | undefined {
  const [, family, text] = /^\/calico\/ipam\/v2\/assignment\/ipv([46])\/block\/([^/]+)$/.exec(key) ?? []
  return family && text ? keyCidr(family, text) : undefined
}

/** undefined for a key that is no affinity's. */
export function parseAffinityKey(key: string): { readonly owner: BlockOwner; readonly cidr: Cidr } | undefined {
  const parts = /^\/calico\/ipam\/v2\/(host|virtual)\/([^/]+)\/ipv([46])\/block\/([^/]+)$/.exec(key)
  if (!parts) return undefined
  const [, type, name, family, text] = parts
  const cidr = keyCidr(family!, text!)
  return cidr && { owner: { type: type as BlockOwner['type'], name: name! }, cidr }
}

/** undefined for a key that is no handle's. */
export const parseHandleKey = (key: string): string | undefined =>
  /^\/calico\/ipam\/v2\/handle\/([^/]+)$/.exec(key)?.[1]

function keyCidr(family: string, text: string): Cidr | undefined {
  const dash = text.lastIndexOf('-')
  const cidr = Cidr.tryParse(`${text.slice(0, dash)}/${text.slice(dash + 1)}`)
  return cidr?.family === Number(family) ? cidr : undefined
}
