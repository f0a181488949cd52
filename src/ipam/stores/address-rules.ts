/** Which free addresses nobody is given, and for how long a released one stays so. */
import type { IpamSettings, IpReservation } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import { AddressSet } from '../address-set.ts'
import { addressAt, type Cooldown } from '../block.ts'

export interface AddressRulesOptions {
  reservations(): readonly IpReservation[]
  settings(): IpamSettings
  /** Unix time in milliseconds. */
  now(): number
  /** True for an address that is in use here whatever its block says: it is not given. */
  heldElsewhere?(ip: Ip): boolean
}

export class AddressRules {
  readonly #options: AddressRulesOptions
  #reserved: { readonly from: readonly IpReservation[]; readonly set: AddressSet } | undefined

  constructor(options: AddressRulesOptions) {
    this.#options = options
  }

  /** For ordinals of a block: true for one that is not given to who does not name it. */
  refusals(cidr: Cidr): (ordinal: number) => boolean {
    const { heldElsewhere } = this.#options
    const reserved = this.reserved()
    const mayBeReserved = reserved.overlaps(cidr)
    return (ordinal) => {
      if (!mayBeReserved && !heldElsewhere) return false
      const ip = addressAt(cidr, ordinal)
      return (mayBeReserved && reserved.has(ip)) || (heldElsewhere?.(ip) ?? false)
    }
  }

  reserved(): AddressSet {
    const from = this.#options.reservations()
    if (this.#reserved?.from !== from) this.#reserved = { from, set: AddressSet.of(from.flatMap(({ cidrs }) => cidrs)) }
    return this.#reserved.set
  }

  cooldown(): Cooldown {
    return { nowMilliseconds: this.#options.now(), seconds: this.#options.settings().ipCooldownSeconds }
  }
}
