/**
 * How one kind of device's settings stand in IFLA_INFO_DATA, both ways. One file per kind, listed in registry.ts.
 */

import type { LinkKind, LinkSettings } from '../../../model/link.ts'
import type { Ip } from '../../../net/ip.ts'

/** What settings may refer to. */
export interface LinkKindContext {
  /** Index of a lower device. Throws KernelError ENODEV. */
  index(device: string): number
  /** Opens a namespace until the message is sent. Throws KernelError. */
  netnsFd(path: string): number
}

export interface LinkKindRow<K extends LinkKind> {
  readonly kind: K
  /** The wire table's object, or ready bytes; undefined for none. `was` is what the device has, when that is known. */
  encode(
    settings: Partial<LinkSettings[K]> | undefined,
    context: LinkKindContext,
    was?: LinkSettings[K],
  ): object | Uint8Array | undefined
  /**
   * What a change may say of an existing device, when what the device has is not known; everything when left out. Fields
   * beyond are refused by the kernel even when they stay as they are.
   */
  readonly changeable?: readonly (keyof LinkSettings[K])[]
  /** The kernel takes a change as the whole: what it does not say goes back to the default. */
  readonly changesWhole?: boolean
  /** IFLA_LINK of a new device, for kinds that say their lower device there. */
  lower?(settings: LinkSettings[K] | undefined): string | undefined
  /** What the kernel says. `name` turns an index into a device's name. */
  decode(data: object, name: (index: number) => string, link: number | undefined): LinkSettings[K]
}

/** The IPv4 one of two attributes that hold an address of either family, or the IPv6 one; never the zero address. */
export function eitherAddress(v4: Ip | undefined, v6: Ip | undefined): Ip | undefined {
  if (v4 && !v4.isAny) return v4
  return v6 && !v6.isAny ? v6 : undefined
}
