/**
 * Every driver of the Linux kernel. A new kind of kernel object is a driver file and a row here.
 */
import type { Driver } from '../driver.ts'
import { fouDriver } from './fou.ts'
import { nftDriver } from './nft.ts'
import { offloadDriver } from './offload.ts'
import { rtnetlinkDriver } from './rtnetlink.ts'
import { sysctlDriver } from './sysctl.ts'
import { tunnelDriver } from './tunnel.ts'

export const drivers: readonly Driver[] = [
  rtnetlinkDriver,
  sysctlDriver,
  nftDriver,
  offloadDriver,
  fouDriver,
  tunnelDriver,
]
