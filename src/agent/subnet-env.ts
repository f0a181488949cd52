/**
 * flannel's `subnet.env`: what other programs (docker, the flannel CNI plugin) read about this node's subnet. Replaced
 * atomically; also where a restarted node finds the subnet that it had.
 *
 *   FLANNEL_NETWORK=10.244.0.0/16
 *   FLANNEL_SUBNET=10.244.1.1/24          the first usable address
 *   FLANNEL_IPV6_NETWORK=…  FLANNEL_IPV6_SUBNET=…
 *   FLANNEL_MTU=1450
 *   FLANNEL_IPMASQ=true
 *
 * Sources: flannel Documentation/running.md, pkg/subnet/subnet.go (keys and order).
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { Cidr, parsePrefixed } from '../net/cidr.ts'

export interface SubnetEnv {
  readonly networks: readonly Cidr[]
  readonly subnets: readonly Cidr[]
  readonly mtuBytes: number
  readonly masquerade: boolean
}

export function formatSubnetEnv({ networks, subnets, mtuBytes, masquerade }: SubnetEnv): string {
  const lines: string[] = []
  for (const [family, infix] of [
    [4, ''],
    [6, 'IPV6_'],
  ] as const) {
    const network = networks.find((cidr) => cidr.family === family)
    const subnet = subnets.find((cidr) => cidr.family === family)
    if (network) lines.push(`FLANNEL_${infix}NETWORK=${network}`)
    if (subnet) lines.push(`FLANNEL_${infix}SUBNET=${subnet.base.plus(1)}/${subnet.length}`)
  }
  lines.push(`FLANNEL_MTU=${mtuBytes}`, `FLANNEL_IPMASQ=${masquerade}`)
  return `${lines.join('\n')}\n`
}

/** Subnets that the file names; none when it is missing or not understood. */
export function readPreviousSubnets(path: string): Cidr[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8').slice(0, 65_536)
  } catch {
    return []
  }
  const subnets: Cidr[] = []
  for (const line of text.split('\n')) {
    const value = /^FLANNEL_(?:IPV6_)?SUBNET=(\S+)$/.exec(line.trim())?.[1]
    if (!value) continue
    try {
      const { ip, length } = parsePrefixed(value)
      subnets.push(Cidr.of(ip, length))
    } catch {
      return []
    }
  }
  return subnets
}

/** Writes the file when it differs; readers see the old text or the new, never a part. Mode 0644. */
export function writeSubnetEnv(path: string, env: SubnetEnv): void {
  writeAtomically(path, formatSubnetEnv(env))
}

/** Replaces a file by renaming; keeps it untouched when it holds the text already. */
export function writeAtomically(path: string, text: string, mode = 0o644): void {
  try {
    if (readFileSync(path, 'utf8') === text) return
  } catch {
    // Not there yet.
  }
  mkdirSync(dirname(path), { recursive: true })
  const next = `${path}.${process.pid}.tmp`
  writeFileSync(next, text, { mode })
  renameSync(next, path)
}
