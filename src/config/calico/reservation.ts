/**
 * Calico's IPReservation: addresses that no pool gives out. Addresses that are in use already stay so.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/ipreservation.go, libcalico-go/lib/ipam (an address without a length is
 * one address, host bits are masked).
 */
import type { IpReservation } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
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
  const cidrs = (spec.texts('reservedCIDRs', MAX_RESERVED) ?? []).map((text, index) => {
    const one = Ip.tryParse(text)
    return one ? Cidr.host(one) : spec.cidrOf(`reservedCIDRs[${index}]`, text)
  })
  return { reservation: { name, cidrs }, warnings: spec.unknown(['reservedCIDRs']) }
}
