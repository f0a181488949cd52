/**
 * What lets pods' packets through the forward chains of others, with flannel's meaning: in iptables' FORWARD, where that drops
 * what nobody accepts, one accepting rule for packets from the pod network and one for packets to it, behind all rules of
 * others, so that what they refuse stays refused. Chains of other tables belong to whoever wrote them: about those an operator
 * is told. A chain that drops nothing by itself is left alone.
 *
 * Sources: flannel pkg/trafficmngr/iptables/iptables.go (forward rules), its flag --iptables-forward-rules.
 */
import {
  type ForwardChain,
  type ForwardChange,
  type ForwardMatch,
  formatForwardChain,
  insertion,
  iptablesProgram,
  isIptables,
} from '../../model/forward-chain.ts'
import type { Cidr } from '../../net/cidr.ts'

export interface ForwardPlan {
  readonly changes: readonly ForwardChange[]
  /** A sentence for each chain that loses packets of pods, with what to do. */
  readonly problems: readonly string[]
}

/** `blocks` are the pod networks; `enabled` is flannel's --iptables-forward-rules. */
export function planForward(chains: readonly ForwardChain[], blocks: readonly Cidr[], enabled: boolean): ForwardPlan {
  const changes: ForwardChange[] = []
  const problems: string[] = []
  for (const chain of chains) {
    const wanted = chain.drops ? matchesFor(chain, blocks) : []
    const isWritten = isIptables(chain) && enabled
    if (isIptables(chain)) changes.push(...rewrite(chain, isWritten ? wanted : []))
    if (isWritten) continue
    const missing = wanted.filter((match) => !chain.rules.some((rule) => !rule.isOurs && covers(rule.accepts, match)))
    if (missing.length > 0) problems.push(adviceFor(chain, missing))
  }
  return { changes, problems }
}

/** Takes every rule of weft's away. */
export const planForwardRemoval = (chains: readonly ForwardChain[]): readonly ForwardChange[] =>
  chains.filter(isIptables).flatMap((chain) => rewrite(chain, []))

const matchesFor = ({ family }: ForwardChain, blocks: readonly Cidr[]): ForwardMatch[] =>
  blocks
    .filter((block) => family === 'inet' || (family === 'ip') === (block.family === 4))
    .flatMap((block) => [
      { end: 'source', block },
      { end: 'destination', block },
    ])

const textOf = ({ end, block }: ForwardMatch): string => `${end} ${block}`

const covers = (have: ForwardMatch | undefined, want: ForwardMatch): boolean =>
  have?.end === want.end && have.block.covers(want.block)

/** Each wanted rule once; what carries our comment and is not wanted goes, also what another program has put in other words. */
function rewrite(chain: ForwardChain, wanted: readonly ForwardMatch[]): ForwardChange[] {
  const missing = new Map(wanted.map((match) => [textOf(match), match]))
  const gone = chain.rules.filter(({ isOurs, accepts }) => isOurs && !(accepts && missing.delete(textOf(accepts))))
  return [
    ...[...missing.values()].map((accepts) => ({ verb: 'add' as const, chain, rule: { accepts, isOurs: true } })),
    ...gone.map((rule) => ({ verb: 'delete' as const, chain, rule })),
  ]
}

function adviceFor(chain: ForwardChain, missing: readonly ForwardMatch[]): string {
  const commands = missing.map(({ end, block }) => {
    const isSource = end === 'source'
    if (isIptables(chain))
      return [iptablesProgram(chain), ...insertion(chain), isSource ? '-s' : '-d', block, '-j ACCEPT'].join(' ')
    const address = `${block.family === 4 ? 'ip' : 'ip6'} ${isSource ? 'saddr' : 'daddr'}`
    return `nft insert rule ${chain.family} ${chain.table} ${chain.name} ${address} ${block} accept`
  })
  const why = isIptables(chain) ? ' and --iptables-forward-rules is off' : ''
  return `${formatForwardChain(chain)} loses what its rules do not accept of pods' packets${why}; accept the pod network there: ${commands.join('; ')}`
}
