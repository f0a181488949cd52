/**
 * What devices have carried, for seeing when a path is dry. The process of a user-space tunnel is asked to look into its
 * device and its socket first: what waits there while it waits for a processor has not been counted anywhere.
 *
 * Sources: proc(5) (/proc/net/dev); native/README.md (`look`).
 */
import { readFileSync, statSync } from 'node:fs'
import { listTunnelSockets, TunnelConnection, tunnelDirectory } from '../kernel/linux/tunnel-client.ts'

/** Packets by all of some devices since they were made. */
export interface Traffic {
  readonly sent: number
  readonly received: number
}
export type ReadTraffic = (devices: readonly string[]) => Promise<Traffic>

/** Time between two questions to a tunnel whether it has looked. */
const ASK_MS = 5
/** One that never is empty carries for somebody else. */
const LONGEST_MS = 2000

/** Reads counters of one namespace: `inside` runs a call in it. */
export function trafficReader(inside: <T>(call: () => T) => T): ReadTraffic {
  return async (devices) => {
    const directory = tunnelDirectory(inside(() => statSync('/proc/thread-self/ns/net').ino))
    const tunnels = listTunnelSockets(directory).filter((device) => devices.includes(device))
    await Promise.all(tunnels.map((device) => untilEmpty(directory, device)))
    return parseTraffic(
      inside(() => readFileSync('/proc/thread-self/net/dev', 'utf8')),
      devices,
    )
  }
}

/** Sums the lines of some devices of /proc/net/dev. */
export function parseTraffic(text: string, devices: readonly string[]): Traffic {
  let [sent, received] = [0, 0]
  for (const line of text.split('\n')) {
    const [name, numbers] = line.split(/:\s*/)
    if (numbers === undefined || !devices.includes(name!.trim())) continue
    const words = numbers.trim().split(/\s+/)
    received += Number(words[1])
    sent += Number(words[9])
  }
  return { sent, received }
}

/** Resolves when a tunnel has found nothing in its device and its socket since the call, or had its time; at once when it is gone. */
async function untilEmpty(directory: string, device: string): Promise<void> {
  const connection = await TunnelConnection.open(directory, device)
  if (!connection) return
  const end = performance.now() + LONGEST_MS
  try {
    const start = await connection.readCounters()
    for (const name of ['device-empty', 'socket-empty'] as const)
      while (performance.now() < end) {
        // Two, since the first may have begun before the question.
        await connection.request('look')
        const counters = await connection.readCounters()
        if (!((counters.get(name) ?? Number.POSITIVE_INFINITY) < (start.get(name) ?? 0) + 2)) break
        await new Promise((resolve) => setTimeout(resolve, ASK_MS))
      }
  } catch {
    // It ended, or is of a version that cannot look.
  } finally {
    connection.close()
  }
}
