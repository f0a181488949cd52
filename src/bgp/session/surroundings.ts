/**
 * Which addresses and networks are on the device that has one of our addresses, in the namespace of this thread.
 */
import { networkInterfaces } from 'node:os'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import type { Surroundings } from '../session-routes.ts'
import type { Endpoint } from '../transport.ts'

/** Of an address that no device has: nothing. A link-local address is looked for on its device. */
export function readSurroundings({ address, device }: Endpoint): Surroundings {
  for (const [name, entries = []] of Object.entries(networkInterfaces())) {
    if (device !== undefined && device !== name) continue
    const found = entries.flatMap(({ address: text, cidr }) => {
      const ip = Ip.tryParse(text)
      const length = Number(cidr?.split('/')[1])
      return ip && Number.isInteger(length) ? { ip, network: Cidr.of(ip, length) } : []
    })
    if (!found.some(({ ip }) => ip.equals(address))) continue
    const first = (test: (ip: Ip) => boolean): Ip | undefined => found.find(({ ip }) => test(ip))?.ip
    return {
      ipv4: first((ip) => ip.family === 4),
      ipv6: first((ip) => ip.family === 6 && !ip.isLinkLocal),
      linkLocal: first((ip) => ip.family === 6 && ip.isLinkLocal),
      networks: found.map(({ network }) => network).filter(({ base }) => !base.isLinkLocal),
    }
  }
  return { networks: [] }
}
