/**
 * A 48-bit Ethernet address as a value.
 *
 * Sources: IEEE 802-2014 section 8.2 (bits of the first octet).
 */
import { AddressSyntaxError } from './ip.ts'

export class Mac {
  /** Six bytes in transmission order. Treat as frozen. */
  readonly bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    if (bytes.length !== 6) throw new AddressSyntaxError(`An Ethernet address has 6 bytes, not ${bytes.length}`)
    this.bytes = bytes
  }

  /** Parses `aa:bb:cc:dd:ee:ff` or the same with dashes. */
  static parse(text: string): Mac {
    if (!/^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/.test(text))
      throw new AddressSyntaxError(`Not an Ethernet address: ${JSON.stringify(text)}`)
    return new Mac(Uint8Array.from(text.split(/[:-]/), (octet) => Number.parseInt(octet, 16)))
  }

  static tryParse(text: string): Mac | undefined {
    try {
      return Mac.parse(text)
    } catch {
      return undefined
    }
  }

  static readonly zero = new Mac(new Uint8Array(6))

  /** Six bytes of a digest made into a locally administered unicast address. */
  static local(digest: Uint8Array): Mac {
    const bytes = Uint8Array.from(digest.subarray(0, 6))
    bytes[0] = (bytes[0]! & 0xfc) | 0x02
    return new Mac(bytes)
  }

  get isMulticast(): boolean {
    return (this.bytes[0]! & 1) === 1
  }

  get isZero(): boolean {
    return this.bytes.every((octet) => octet === 0)
  }

  equals(other: Mac): boolean {
    return this.bytes.every((octet, i) => octet === other.bytes[i])
  }

  toString(): string {
    return Array.from(this.bytes, (octet) => octet.toString(16).padStart(2, '0')).join(':')
  }

  toJSON(): string {
    return this.toString()
  }
}
