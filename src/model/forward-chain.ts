/**
 * Chains of other owners that forwarded packets pass, and may be lost in: Docker sets the policy of iptables' FORWARD to DROP,
 * many a host's firewall ends in a drop. A packet must get through all of them: an accept in one table overrules no other.
 *
 * Sources: nft(8) ("an accept … may still be dropped by a chain of a later priority"); flannel pkg/trafficmngr/iptables.
 */
import type { Cidr } from '../net/cidr.ts'

/** Which end of a packet is looked at. */
export interface ForwardMatch {
  readonly end: 'source' | 'destination'
  readonly block: Cidr
}

export interface ForwardRule {
  /** nftables' number of the rule; legacy rules have none. */
  readonly handle?: bigint
  /** What the rule accepts, where that is all that it says. */
  readonly accepts?: ForwardMatch
  /** Whether it carries weft's comment. */
  readonly isOurs: boolean
}

export interface ForwardChain {
  /** By whom packets are filtered: nf_tables, which iptables-nft writes too, or the x_tables of iptables-legacy. */
  readonly backend: 'nft' | 'legacy'
  readonly family: 'ip' | 'ip6' | 'inet'
  readonly table: string
  readonly name: string
  /** How a packet is lost that no rule accepts; undefined where it passes. */
  readonly drops: 'policy' | 'last rule' | undefined
  readonly rules: readonly ForwardRule[]
}

export interface ForwardChange {
  readonly verb: 'add' | 'delete'
  readonly chain: ForwardChain
  readonly rule: ForwardRule
}

/** The comment by which weft knows its rules in chains of others. */
export const FORWARD_COMMENT = 'weft forward'

/** True for the chain that iptables, of either backend, filters forwarded packets by. */
export const isIptables = ({ family, table, name }: ForwardChain): boolean =>
  family !== 'inet' && table === 'filter' && name === 'FORWARD'

/** How people call the chain. */
export function formatForwardChain(chain: ForwardChain): string {
  const how = chain.drops === 'policy' ? 'policy drop' : 'its last rule drops'
  if (isIptables(chain)) return `chain FORWARD of ${iptablesProgram(chain)} (${how})`
  return `chain ${chain.name} of table ${chain.family} ${chain.table} (hook forward, ${how})`
}

/** The program that edits the chain. */
export const iptablesProgram = ({ backend, family }: ForwardChain): string =>
  `${family === 'ip6' ? 'ip6tables' : 'iptables'}${backend === 'legacy' ? '-legacy' : ''}`

/** The rule as iptables' arguments behind `-A FORWARD` or `-D FORWARD`. */
export const iptablesRule = ({ end, block }: ForwardMatch): string[] => [
  ...[end === 'source' ? '-s' : '-d', `${block}`],
  ...['-m', 'comment', '--comment', FORWARD_COMMENT, '-j', 'ACCEPT'],
]

/** The change as the command that an operator would type. */
export function formatForwardChange({ verb, chain, rule }: ForwardChange): string {
  const program = iptablesProgram(chain)
  if (!rule.accepts) return `nft delete rule ${chain.family} ${chain.table} ${chain.name} handle ${rule.handle}`
  const place = verb === 'delete' ? ['-D', 'FORWARD'] : insertion(chain)
  return [program, ...place, ...iptablesRule(rule.accepts)]
    .map((word) => (word.includes(' ') ? `"${word}"` : word))
    .join(' ')
}

/** Behind all rules, or before the last one where that drops what is left. */
export const insertion = ({ drops, rules }: ForwardChain): string[] =>
  drops === 'last rule' ? ['-I', 'FORWARD', `${rules.length}`] : ['-A', 'FORWARD']
