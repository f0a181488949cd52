/** Prints whether a datagram to an address is answered; run inside a namespace. */
import { isAnswered } from '../../src/agent/checksum-repair.ts'
import { Ip } from '../../src/net/ip.ts'

console.log(await isAnswered(Ip.parse(process.argv[2]!)))
