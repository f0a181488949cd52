/**
 * `weft ipam release`: gives back addresses that nobody uses: one by name, or those of a report. An address that a report names
 * is given back only in the life in which it was looked at: its sequence number and its handle must be the same still.
 */
import type { FoundAddress } from '../../ipam/audit.ts'
import { allocationsOf, type Cooldown } from '../../ipam/block.ts'
import { ConflictError, type IpamStore } from '../../ipam/stores/ipam-store.ts'
import { freeAddresses } from '../../ipam/stores/mend.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { type IpamReport, leaksOf } from './check.ts'

const context = (store: IpamStore) => ({ store, counts: { reads: 0, writes: 0, conflicts: 0 } })

/** Gives an address back whoever has it. The line says whether there was something to give back. */
export async function releaseIp(store: IpamStore, ip: Ip, cooldown: Cooldown): Promise<string> {
  const { objects } = await store.blocks.list()
  const block = objects.find(({ value }) => value.cidr.contains(ip))?.value
  const allocation = block && [...allocationsOf(block)].find((each) => each.ip.equals(ip))
  if (!block || !allocation || allocation.attribute?.releasedAt !== undefined) return `IP address ${ip} is not assigned`
  const { handleId, sequenceNumber, attribute } = allocation
  const found: FoundAddress = {
    ip,
    block: block.cidr,
    ...(handleId === undefined ? {} : { handleId }),
    ...(sequenceNumber === undefined ? {} : { sequenceNumber }),
    attributes: attribute?.secondary ?? {},
  }
  const freed = await freeAddresses(context(store), block.cidr, [found], cooldown)
  if (freed.length === 0) throw new Error(`IP address ${ip} changed hands meanwhile; look again`)
  return `Successfully released IP address ${ip}`
}

/** Gives back what every one of the reports calls leaked. Lines as they come. Throws for what is no report. */
export async function releaseReported(
  store: IpamStore,
  reports: readonly { readonly file: string; readonly text: string }[],
  cooldown: Cooldown,
  tell: (line: string) => void,
): Promise<void> {
  const leaks = reports.map(({ file, text }) => {
    try {
      return leaksOf(text)
    } catch (cause) {
      throw new Error(`${file} is no report of weft ipam check: ${(cause as Error).message}`, { cause })
    }
  })
  const keyOf = ({ ip, handle, sequenceNumber }: (typeof leaks)[number]['addresses'][number]) =>
    `${ip} ${handle} ${sequenceNumber}`
  const [first, ...others] = leaks
  const sets = others.map(({ addresses }) => new Set(addresses.map(keyOf)))
  const addresses = (first?.addresses ?? []).filter((each) => sets.every((set) => set.has(keyOf(each))))
  tell(`Releasing ${addresses.length} old IPs...`)
  const byBlock = new Map<string, FoundAddress[]>()
  for (const { ip, block, handle, sequenceNumber } of addresses)
    byBlock.set(block, [
      ...(byBlock.get(block) ?? []),
      {
        ip: Ip.parse(ip),
        block: Cidr.parse(block),
        ...(handle === undefined ? {} : { handleId: handle }),
        ...(sequenceNumber === undefined ? {} : { sequenceNumber: BigInt(sequenceNumber) }),
        attributes: {},
      },
    ])
  let freed = 0
  for (const [block, found] of byBlock)
    freed += (await freeAddresses(context(store), Cidr.parse(block), found, cooldown)).length
  tell(`Released ${freed} IPs successfully`)
  if (freed < addresses.length)
    tell(`${addresses.length - freed} addresses of the report had been given back already, or have another holder now`)
  await removeHandles(
    store,
    leaks.flatMap(({ handles }) => handles),
    tell,
  )
}

async function removeHandles(
  store: IpamStore,
  handles: IpamReport['leakedHandles'],
  tell: (line: string) => void,
): Promise<void> {
  const wanted = new Map(handles.map(({ id, revision }) => [id, revision]))
  let removed = 0
  for (const [id, revision] of wanted) {
    const held = await store.handles.read(id)
    if (held?.revision !== revision) continue
    try {
      await store.handles.remove(held)
      removed++
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error
    }
  }
  tell(`Released ${removed} handles; ${wanted.size - removed} skipped.`)
}
