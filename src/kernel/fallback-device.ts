/**
 * Whether a tunnel module's fallback device may be taken: it may be in somebody's use, with an alias of theirs, or be no
 * fallback at all but a device that somebody made by that name where the kernel has none. Theirs it stays.
 *
 * Sources: Documentation/admin-guide/sysctl/net.rst (fb_tunnels_only_for_init_net).
 */
import { type ForeignLink, isFallbackDevice, type Link } from '../model/link.ts'

type AnyLink = Link | ForeignLink

/** Why `was` cannot become `want`, in words; undefined when it can, and for every other device. */
export function otherUseOf(want: AnyLink, was: AnyLink): string | undefined {
  if (!isFallbackDevice(want) || !want.alias) return undefined
  const use = useOf(want, was)
  return use && `${want.name} is there and another's: it ${use}; take it away or rename it`
}

function useOf(want: AnyLink, was: AnyLink): string | undefined {
  if (was.type !== want.type) return `is of kind ${was.type === 'foreign' ? (was.infoKind ?? 'unknown') : was.type}`
  if (was.alias && !was.alias.startsWith('weft:')) return `has the alias ${JSON.stringify(was.alias)}`
  if (was.type !== 'ipip' && was.type !== 'ip6tnl') return undefined
  const { local, remote, external, encapsulation } = was.settings ?? {}
  if (local || remote) return `goes from ${local ?? 'any'} to ${remote ?? 'any'}`
  if (external) return 'takes its ends from routes (external)'
  return encapsulation ? `sends by ${encapsulation.type} to port ${encapsulation.destinationPort}` : undefined
}
