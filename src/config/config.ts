/**
 * The one checked configuration that every dialect is read into. Nothing here is a default any more: a dialect has
 * decided each value, or refused with a ConfigError.
 */
import type { BackendConfig } from '../model/backend.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'

/** The pod network of one address family. */
export interface FamilyNetwork {
  readonly network: Cidr
  /** Prefix length of one node's subnet. */
  readonly subnetLength: number
  /** First and last subnet that may be given out, by base address; both inclusive. */
  readonly subnetMin: Ip
  readonly subnetMax: Ip
}

export interface NetworkConfig {
  /** At least one family is present. */
  readonly v4?: FamilyNetwork
  readonly v6?: FamilyNetwork
  readonly backend: BackendConfig
  /** flannel's EnableNFTables, kept for `subnet.env`'s neighbours; weft's own rules are nftables either way. */
  readonly enableNftables: boolean
}

/** A checked value and what the user should know about it, each a sentence that names its key. */
export interface Checked<T> {
  readonly config: T
  readonly warnings: readonly string[]
}
