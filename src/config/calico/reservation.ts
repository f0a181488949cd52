/**
 * Calico's IPReservation: addresses that no pool gives out. Addresses that are in use already stay so.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/ipreservation.go, libcalico-go/lib/ipam (an address without a length is
 * one address, host bits are masked).
 */
import type { IpReservation } from '../../model/calico.ts'
import { Cidr, parsePrefixed } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { readHead } from './fields.ts'

const MAX_RESERVED = 10_000

/** Throws ConfigError naming the object and the key. */
export function parseReservation(object: unknown): {
  readonly reservation: IpReservation
  readonly warnings: readonly string[]
} {
  const { root, name } = readHead(object, 'IPReservation')
  const spec = root.inner('spec')
  const warnings = [...spec.unknown(['reservedCIDRs'])]
  const cidrs = (spec.texts('reservedCIDRs', MAX_RESERVED) ?? []).map((text, index) => {
    const key = `reservedCIDRs[${index}]`
    try {
      const { ip, length } = text.includes('/') ? parsePrefixed(text) : parsePrefixed(`${Cidr.host(Ip.parse(text))}`)
      const cidr = Cidr.of(ip, length)
      if (!cidr.base.equals(ip))
        warnings.push(`${root.object}: spec.${key}: ${text} has host bits set: ${cidr} is reserved`)
      return cidr
    } catch (cause) {
      throw spec.error(key, (cause as Error).message, cause)
    }
  })
  return { reservation: { name, cidrs }, warnings }
}
