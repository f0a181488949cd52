/**
 * A tunnel that takes in packets from anybody takes them from whatever device took them until then as soon as it is up, and drops
 * them while it has neither its address nor its variables. So it is made down, and comes up after those:
 *
 *   add tun-in (down) ─ sysctl rp_filter ─ address ─┬─ set tun-in up ─┬─ route …
 *          └ head                                   └ ups             └ tail
 *
 * Pure. Sources: net/ipv4/ip_tunnel.c (ip_tunnel_lookup), net/ipv4/fib_frontend.c (__fib_validate_source).
 */
import type { KernelOp } from '../model/kernel-state.ts'
import type { Link } from '../model/link.ts'

export interface LateUps {
  readonly head: readonly KernelOp[]
  /** Each with the index of the op that makes the device; to be left out when that failed, for its failure is this one's. */
  readonly ups: readonly { readonly madeBy: number; readonly op: KernelOp }[]
  readonly tail: readonly KernelOp[]
}

/** A list of ops in three parts, to be performed in turn; undefined when it makes no such tunnel. */
export function withLateUps(ops: readonly KernelOp[]): LateUps | undefined {
  const late = new Map<number, Link>()
  for (const [i, op] of ops.entries()) {
    const link = takesAnybody(op)
    if (link) late.set(i, link)
  }
  if (late.size === 0) return undefined
  const names = new Set([...late.values()].map(({ name }) => name))
  const end =
    1 +
    Math.max(
      ...late.keys(),
      ops.findLastIndex((op) => [...names].some((name) => isNeededBy(name, op))),
    )
  return {
    head: ops.slice(0, end).map((op, i) => {
      const link = late.get(i)
      return link ? { verb: 'add', object: { ...link, up: false } } : op
    }),
    ups: [...late].map(([madeBy, link]) => ({
      madeBy,
      op: { verb: 'set', object: link, was: { ...link, up: false } },
    })),
    tail: ops.slice(end),
  }
}

/** The tunnel that an op makes to come up at once, if it is one without a far end. */
function takesAnybody({ verb, object }: KernelOp): Link | undefined {
  if (verb !== 'add' || object.kind !== 'link' || object.up !== true) return undefined
  return (object.type === 'ipip' || object.type === 'ip6tnl') && !object.settings?.remote ? object : undefined
}

function isNeededBy(device: string, { verb, object }: KernelOp): boolean {
  if (verb === 'delete') return false
  if (object.kind === 'address') return object.device === device
  return object.kind === 'sysctl' && object.path.split('/').includes(device)
}
