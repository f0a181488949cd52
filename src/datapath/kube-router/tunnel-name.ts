/**
 * What kube-router calls the tunnel to a node: `tun-` and eleven digits of the SHA-256 of its address without dots and colons,
 * which leaves some addresses alike (10.1.11.5 and 10.11.1.5). Where that happens on one node, the second goes by the digest
 * of the whole address.
 *
 * Sources: kube-router pkg/tunnels/linux_tunnels.go (GenerateTunnelName).
 */
import { sha256 } from '../../bytes/sha256.ts'
import { encodeUtf8 } from '../../bytes/text.ts'
import type { Ip } from '../../net/ip.ts'

const PREFIX = 'tun-'
const DIGITS = 11

function nameOf(text: string): string {
  const bytes = sha256(encodeUtf8(text))
  let digits = ''
  for (const byte of bytes.subarray(0, 6)) digits += byte.toString(16).padStart(2, '0')
  return PREFIX + digits.slice(0, DIGITS)
}

/** kube-router's name. */
export const tunnelName = (node: Ip): string => nameOf(`${node}`.replaceAll(/[.:]/g, ''))

/** A name for a node whose usual one is taken. */
export const otherTunnelName = (node: Ip): string => nameOf(`${node}`)
