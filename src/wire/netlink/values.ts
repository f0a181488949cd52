/**
 * Codecs of address values as attributes carry them: an IP address is as long as its attribute (4 or 16 bytes,
 * network byte order), an Ethernet address is its first six bytes.
 */
import type { Codec } from '../../bytes/codec.ts'
import { Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'

/** 4 or 16 bytes up to the attribute's end. */
export const ip: Codec<Ip> = {
  name: 'ip',
  decode(reader) {
    const length = reader.remaining
    if (length !== 4 && length !== 16) reader.fail(`an IP address has 4 or 16 bytes, not ${length}`)
    if (length === 4) return Ip.v4(reader.u32be())
    return new Ip(6, reader.u32be(), reader.u32be(), reader.u32be(), reader.u32be())
  },
  encode(writer, value) {
    if (value.family === 4) {
      writer.u32be(value.w3)
      return
    }
    writer.u32be(value.w0)
    writer.u32be(value.w1)
    writer.u32be(value.w2)
    writer.u32be(value.w3)
  },
  size: (value) => (value.family === 4 ? 4 : 16),
}

export const mac: Codec<Mac> = {
  name: 'mac',
  decode: (reader) => new Mac(reader.bytes(6).slice()),
  encode: (writer, value) => writer.bytes(value.bytes),
  size: () => 6,
}
