/**
 * Which sets a rule names: it must go before they do and can only come after them.
 */
import type { NftRule } from './nft.ts'

/** Names of the sets and maps of the rule's own table that it refers to; anonymous ones are none. */
export function setsUsedBy(rule: NftRule): readonly string[] {
  return rule.statements.flatMap((statement) => {
    if ('match' in statement)
      return typeof statement.right === 'string' && statement.right.startsWith('@') ? [statement.right.slice(1)] : []
    if ('vmap' in statement) return [statement.map]
    if ('dnat' in statement && 'map' in statement.dnat) return [statement.dnat.map]
    return []
  })
}
