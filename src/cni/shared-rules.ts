/**
 * What the node's shared nft table has of one attachment, as the kernel tells it: for CHECK, which of its wanted objects
 * are not there, and for an attachment whose journal is lost, which host ports lead to its addresses.
 */
import { covers } from '../apply/covering.ts'
import type { Kernel } from '../kernel/kernel.ts'
import { type KernelKey, type KernelObject, keyOf } from '../model/kernel-object.ts'
import type { NftElement } from '../model/nft.ts'
import { Ip } from '../net/ip.ts'
import { attachmentFragment } from './attachment-fragment.ts'
import { type PortMapping, type PortProtocol, protocols } from './config.ts'
import type { Attachment } from './journal.ts'

/** The first object of the attachment's fragment that the kernel has not, or has otherwise; undefined when all are as wanted. */
export async function missingRule(kernel: Kernel, attachment: Attachment): Promise<string | undefined> {
  const wanted = attachmentFragment(attachment)?.objects ?? []
  if (wanted.length === 0) return undefined
  const kinds = new Set(wanted.map(({ kind }) => kind))
  const has = new Map<KernelKey, KernelObject>()
  for (const kind of ['nft-element', 'nft-chain'] as const)
    if (kinds.has(kind)) for (const object of await kernel.read(kind)) has.set(keyOf(object), object)
  for (const object of wanted) {
    const found = has.get(keyOf(object))
    if (found && covers(found, object)) continue
    if (object.kind === 'nft-element')
      return found
        ? `the element ${object.key} of ${object.set} leads to ${(found as NftElement).value}, not to ${object.value}`
        : `the element ${object.key} of ${object.set} is missing in the table ${object.table}`
    if (object.kind === 'nft-chain') return `the chain ${object.name} of the table ${object.table} is not as wanted`
  }
  return undefined
}

/** Host ports whose elements lead to one of the addresses, each once, as a configuration would name them. */
export function hostPortsOf(elements: readonly NftElement[], ips: readonly Ip[]): PortMapping[] {
  const targets = new Set(ips.map(String))
  const found = new Map<string, PortMapping>()
  for (const { table, set, key, value } of elements) {
    if (table !== 'weft' || !/^hostport(s|-addresses)[46]$/.test(set)) continue
    const [target, containerPort] = parts(value ?? '')
    if (target === undefined || !targets.has(target)) continue
    const words = parts(key)
    const [protocol, hostPort] = words.slice(-2)
    const hostIp = words.length === 3 ? Ip.tryParse(words[0]!) : undefined
    if (!protocols.includes(protocol as PortProtocol) || (words.length === 3 && !hostIp)) continue
    const mapping = {
      protocol: protocol as PortProtocol,
      hostPort: Number(hostPort),
      containerPort: Number(containerPort),
      ...(hostIp ? { hostIp } : {}),
    }
    // A pod of both families has an element in each family's map for one mapping.
    found.set(`${hostIp ?? ''} ${protocol} ${hostPort} ${containerPort}`, mapping)
  }
  return [...found.values()]
}

/** The addresses that host ports lead to. */
export function targetsOf(elements: readonly NftElement[]): Ip[] {
  const found = new Map<string, Ip>()
  for (const { set, value } of elements) {
    const [target = ''] = parts(value ?? '')
    const ip = set.startsWith('hostport') ? Ip.tryParse(target) : undefined
    if (ip) found.set(target, ip)
  }
  return [...found.values()]
}

const parts = (text: string): string[] => text.split(' . ')
