/**
 * What a lab's data paths need of the kernel that not every kernel has: said before the lab is made, not by each of its nodes
 * when it is up and cannot reach the others.
 */
import { release } from 'node:os'
import { probeLinkKinds } from '../kernel/probe.ts'
import { ConfigError } from '../model/errors.ts'
import type { LinkKind } from '../model/link.ts'
import { type NetworkWords, wantedOf } from './spec.ts'

/** Kinds of devices, by what ids of paths begin with. */
const kinds: readonly (readonly [prefix: string, kind: LinkKind])[] = [
  ['ipip', 'ipip'],
  ['tun/', 'ipip'],
  ['calico/ipip', 'ipip'],
  ['calico/geneve', 'geneve'],
]

/** Kinds of devices that the words need, beyond those of every kernel that weft runs on. */
export function kindsNeeded(words: NetworkWords): LinkKind[] {
  const { flannel, calico = [] } = wantedOf(words)
  const paths = [...(flannel?.paths ?? []), ...calico]
  return [...new Set(kinds.filter(([prefix]) => paths.some((path) => path.startsWith(prefix))).map(([, kind]) => kind))]
}

/** Throws ConfigError when this kernel cannot make one of them. `asked`: the command line, for another kernel. */
export async function checkKernel(words: NetworkWords, asked: string): Promise<void> {
  const needed = kindsNeeded(words)
  if (needed.length === 0) return
  const found = await probeLinkKinds(needed)
  const missing = needed.filter((kind) => !found.has(kind))
  if (missing.length === 0) return
  const why = `needs devices of the kind ${missing.join(' and ')}, which this kernel (${release()}) cannot make`
  throw new ConfigError('weft lab up', 'data path', `${why}. In a guest that has them: npm run lab:guest -- ${asked}`)
}
