/**
 * `weft ipam split`: one pool becomes several smaller ones with the same settings. Blocks and addresses stay as they are, each in
 * the child that covers it. The old pool is disabled first, so that nobody takes addresses of it, and goes last, so that every
 * address is in a pool at every moment.
 *
 * Sources: Calico calicoctl/commands/ipam/split.go (names of the children; a power of two).
 */
import { collectionPath, readGroup } from '../../cluster/calico/api-group.ts'
import type { EtcdClient } from '../../cluster/etcd/client.ts'
import { type HttpClient, HttpError } from '../../cluster/http-client.ts'
import { etcdPrefixes } from '../../config/calico/store-names.ts'
import type { IpPool } from '../../model/calico.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { bitsOf } from '../../net/ip.ts'

/** A pool as its store keeps it. */
interface RawPool {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata: { readonly name: string; readonly [key: string]: unknown }
  readonly spec: Readonly<Record<string, unknown>>
}

/** Pools as objects, in either store. */
export interface PoolShelf {
  read(name: string): Promise<{ readonly object: RawPool; readonly revision: string }>
  /** Fine when an equal one is there already. */
  create(object: RawPool): Promise<void>
  replace(object: RawPool, revision: string): Promise<void>
  remove(name: string): Promise<void>
}

/** The parts of a pool in order. Throws ConfigError when there cannot be so many. */
export function splitCidr({ cidr, blockSize, name }: IpPool, parts: number): Cidr[] {
  const bits = Math.log2(parts)
  if (!Number.isInteger(bits) || bits < 1)
    throw new ConfigError('weft ipam split', 'number', `${parts} is not a power of two from 2 on`)
  const length = cidr.length + bits
  if (length > blockSize || length > bitsOf(cidr.family))
    throw new ConfigError(
      `IPPool ${name}`,
      'cidr',
      `${cidr} has no room for ${parts} pools with blocks of /${blockSize}`,
    )
  const size = 2n ** BigInt(bitsOf(cidr.family) - length)
  return Array.from({ length: parts }, (_, at) => Cidr.of(cidr.base.plus(size * BigInt(at)), length))
}

/** The lines that say what was done. Interrupted, it can be called again. */
export async function splitPool(shelf: PoolShelf, pool: IpPool, parts: number): Promise<string[]> {
  const cidrs = splitCidr(pool, parts)
  const { object, revision } = await shelf.read(pool.name)
  const { name } = object.metadata
  if (object.spec.disabled !== true)
    await shelf.replace({ ...object, spec: { ...object.spec, disabled: true } }, revision)
  const lines = [`IP Pool ${name} was successfully split into ${parts} smaller pools.`]
  for (const [at, cidr] of cidrs.entries()) {
    const child = `split-${name.slice(0, 240)}-${at}`
    const { labels, annotations } = object.metadata
    await shelf.create({
      ...(object.apiVersion ? { apiVersion: object.apiVersion } : {}),
      ...(object.kind ? { kind: object.kind } : {}),
      metadata: { name: child, ...(labels ? { labels } : {}), ...(annotations ? { annotations } : {}) },
      // The old one may have been disabled by a split that was interrupted.
      spec: { ...object.spec, cidr: `${cidr}`, disabled: false },
    })
    lines.push(`Created ${child} with CIDR ${cidr}.`)
  }
  await shelf.remove(name)
  return lines
}

export async function kubernetesShelf(client: HttpClient): Promise<PoolShelf> {
  const signal = AbortSignal.timeout(60_000)
  const group = await readGroup(client, signal)
  if (!group) throw new Error('this cluster has no IPPools')
  const path = collectionPath(group, 'ippools')
  return {
    async read(name) {
      const object = (await client.request({ method: 'GET', path: `${path}/${name}`, signal })) as RawPool
      return { object, revision: String(object.metadata.resourceVersion) }
    },
    async create(body) {
      try {
        await client.request({ method: 'POST', path, body, signal })
      } catch (error) {
        if (!(error instanceof HttpError) || error.status !== 409) throw error
        const { spec } = (await client.request({
          method: 'GET',
          path: `${path}/${body.metadata.name}`,
          signal,
        })) as RawPool
        if (spec.cidr !== body.spec.cidr) throw error
      }
    },
    async replace(body) {
      await client.request({ method: 'PUT', path: `${path}/${body.metadata.name}`, body, signal })
    },
    async remove(name) {
      await client.request({ method: 'DELETE', path: `${path}/${name}`, signal })
    },
  }
}

export function etcdShelf(client: EtcdClient): PoolShelf {
  const find = async (name: string) => {
    const { pairs } = await client.range(`${etcdPrefixes.pools}${name}`, { exact: true })
    const [pair] = pairs
    return pair && { object: JSON.parse(pair.value) as RawPool, revision: pair.modRevision }
  }
  const write = async (object: RawPool, revision: string) => {
    const { name } = object.metadata
    if ((await client.replaceIf(`${etcdPrefixes.pools}${name}`, revision, JSON.stringify(object))) === undefined)
      throw new Error(`IPPool ${name} was changed meanwhile; look again`)
  }
  return {
    async read(name) {
      const found = await find(name)
      if (!found) throw new Error(`there is no IPPool ${name}`)
      return found
    },
    async create(object) {
      const found = await find(object.metadata.name)
      if (found?.object.spec.cidr === object.spec.cidr) return
      await write(object, '0')
    },
    replace: write,
    async remove(name) {
      const found = await find(name)
      if (found) await client.deleteIf(`${etcdPrefixes.pools}${name}`, found.revision)
    },
  }
}
