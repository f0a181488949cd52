/**
 * Policies, compiled. A peer names policies; their rules become one program for a direction of one session, in which
 * everything that is known beforehand (family, kind of peer) is decided already. What remains looks at a route's attributes,
 * its source, and its prefix, and prefixes only by their class (./prefix-classes.ts): the RIB asks once for each attribute
 * set and class, or once for each attribute set where no rule looks at prefixes.
 *
 *   PolicyConfig[] + prefix sets + ownership ──► PolicyLibrary ──policyFor(names, family, kind)──► RoutePolicy
 *
 * Programs that say the same are the same object with the same key: after a change of configuration the RIB sees by the key
 * which sessions have something to evaluate again.
 */
import type { PolicyConfig, PolicyVerdict, PrefixOwner, PrefixRange, PrefixSetConfig } from '../model/bgp.ts'
import { ConfigError } from '../model/errors.ts'
import { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family, Ip } from '../net/ip.ts'
import type { Attributes } from '../wire/bgp/attributes.ts'
import { type Change, compileChange } from './filter-change.ts'
import { type Condition, compileConditions } from './filter-match.ts'
import { type ClassRange, PrefixClasses } from './prefix-classes.ts'
import type { PolicySource, Refusal, RoutePolicy } from './rib/policy.ts'

/** What a speaker's configuration says of policies. */
export interface PolicyDefinitions {
  readonly policies: readonly PolicyConfig[]
  readonly prefixSets: readonly PrefixSetConfig[]
  readonly ownership: readonly PrefixOwner[]
}

/** Which policies, at which session. */
export interface PolicyUse {
  readonly names: readonly string[]
  readonly family: Family
  readonly peerType: 'ebgp' | 'ibgp'
  /** Of routes that no rule accepts or rejects. */
  readonly otherwise: PolicyVerdict
}

/** A rule whose prefix set, next hops and communities have been looked up. */
interface Rule {
  readonly name: string
  /** Condition of the prefix classes, or -1. */
  readonly prefixCondition: number
  readonly prefixNegated: boolean
  readonly misplaced: boolean
  readonly conditions: readonly Condition[]
  readonly changes: readonly Change[]
  readonly verdict: PolicyVerdict | 'next'
}

const noRule: Refusal = { refused: 'no rule accepts it' }
const tooManyClasses: Refusal = { refused: 'more kinds of prefixes than a policy tells apart' }

/** Policies of one speaker. Throws ConfigError, naming policy and rule, when a definition cannot be used. */
export class PolicyLibrary {
  #definitions: PolicyDefinitions = { policies: [], prefixSets: [], ownership: [] }
  /** By everything that a program depends on. */
  #programs = new Map<string, RoutePolicy>()
  #former = new Map<string, RoutePolicy>()
  #serial = 0
  /** Text of what programs may have in common, made once for each load. */
  #texts = new Map<object, string>()

  /** From here on programs are made of these; those that come out the same stay the same object. */
  load(definitions: PolicyDefinitions): void {
    this.#definitions = definitions
    this.#former = this.#programs
    this.#programs = new Map()
    this.#texts = new Map()
  }

  policyFor(use: PolicyUse): RoutePolicy {
    const policies = use.names.map((name) => this.#policyNamed(name))
    const text = this.#textOf(policies, use)
    const known = this.#programs.get(text) ?? this.#former.get(text)
    const program = known ?? compileProgram(`${++this.#serial}`, policies, use, this.#definitions)
    this.#programs.set(text, program)
    return program
  }

  #policyNamed(name: string): PolicyConfig {
    const policy = this.#definitions.policies.find((each) => each.name === name)
    if (!policy) throw new ConfigError('BGP', 'policies', `there is none with the name ${name}, which a peer uses`)
    return policy
  }

  #textOf(policies: readonly PolicyConfig[], { family, peerType, otherwise }: PolicyUse): string {
    const text = (value: object) => {
      const known = this.#texts.get(value) ?? JSON.stringify(value)
      this.#texts.set(value, known)
      return known
    }
    const rules = policies.flatMap((policy) => policy.rules)
    const sets = new Set(rules.map(({ match }) => match.prefixes?.set).filter((set) => typeof set === 'string'))
    return [
      `${family} ${peerType} ${otherwise}`,
      ...policies.map(text),
      ...this.#definitions.prefixSets.filter(({ name }) => sets.has(name)).map(text),
      ...(rules.some(({ match }) => match.misplaced) ? [text(this.#definitions.ownership)] : []),
    ].join('\n')
  }
}

function compileProgram(
  key: string,
  policies: readonly PolicyConfig[],
  use: PolicyUse,
  definitions: PolicyDefinitions,
): RoutePolicy {
  const ranges: ClassRange[] = []
  const rules = compileRules(policies, use, definitions, ranges)
  const guards = rules.some(({ misplaced }) => misplaced)
  const owners = guards ? ownersOf(definitions.ownership, use.family) : []
  const classes =
    guards || rules.some(({ prefixCondition }) => prefixCondition >= 0)
      ? new PrefixClasses(
          use.family,
          ranges,
          owners.map(({ cidr }, owner) => ({ cidr, owner })),
        )
      : undefined
  return {
    key,
    ...(classes && { classOf: (length, w0, w1, w2, w3) => classes.classOf(length, w0, w1, w2, w3) }),
    looksAtSource: rules.some(({ conditions }) => conditions.some(({ looksAtSource }) => looksAtSource)),
    evaluate(attributes, prefixClass, source) {
      const found = classes?.describe(prefixClass)
      if (classes && !found) return tooManyClasses
      const owner = found?.owner === undefined ? undefined : owners[found.owner]
      return run(rules, use.otherwise, attributes, found?.holds, owner?.nextHops, source)
    },
  }
}

function run(
  rules: readonly Rule[],
  otherwise: PolicyVerdict,
  given: Attributes,
  holds: ReadonlySet<number> | undefined,
  rightNextHops: readonly Ip[] | undefined,
  source: PolicySource,
): Attributes | Refusal {
  let attributes = given
  for (const rule of rules) {
    if (rule.prefixCondition >= 0 && holds!.has(rule.prefixCondition) === rule.prefixNegated) continue
    if (rule.misplaced && !isMisplaced(attributes, rightNextHops)) continue
    if (!rule.conditions.every((condition) => condition.test(attributes, source))) continue
    if (rule.verdict === 'reject') return { refused: rule.name }
    for (const change of rule.changes) attributes = change(attributes)
    if (rule.verdict === 'accept') return attributes
  }
  return otherwise === 'accept' ? attributes : noRule
}

/** A prefix that is nobody's is nowhere out of place. */
const isMisplaced = ({ nextHop }: Attributes, right: readonly Ip[] | undefined): boolean =>
  right !== undefined && !right.some((address) => nextHop?.address.equals(address))

/** Rules that can match at this session, up to the first that decides every route. */
function compileRules(
  policies: readonly PolicyConfig[],
  { family, peerType }: PolicyUse,
  definitions: PolicyDefinitions,
  ranges: ClassRange[],
): readonly Rule[] {
  const conditionOfSet = new Map<string, number>()
  const rules: Rule[] = []
  for (const policy of policies)
    for (const [index, { name, match, changes, verdict }] of policy.rules.entries()) {
      const object = `policy ${policy.name}`
      const place = `rules[${index}]`
      if (match.family !== undefined && match.family !== `ipv${family}`) continue
      if (match.peerType !== undefined && match.peerType !== peerType) continue
      const set = match.prefixes && rangesOf(match.prefixes.set, definitions, object, `${place}.match.prefixes`)
      const rule: Rule = {
        name: name ?? `${policy.name} ${place}`,
        prefixCondition: set ? conditionOf(set, family, ranges, conditionOfSet, object, place) : -1,
        prefixNegated: match.prefixes?.negated ?? false,
        misplaced: match.misplaced ?? false,
        conditions: compileConditions(match, object, `${place}.match`),
        changes: changes.map((change, at) => compileChange(change, object, `${place}.changes[${at}]`)),
        verdict,
      }
      rules.push(rule)
      const isCertain = rule.prefixCondition < 0 && !rule.misplaced && rule.conditions.length === 0
      if (isCertain && verdict !== 'next') return rules
    }
  return rules
}

function rangesOf(
  set: string | readonly PrefixRange[],
  { prefixSets }: PolicyDefinitions,
  object: string,
  key: string,
): readonly PrefixRange[] {
  if (typeof set !== 'string') return set
  const found = prefixSets.find(({ name }) => name === set)
  if (!found) throw new ConfigError(object, key, `there is no prefix set with the name ${set}`)
  return found.ranges
}

/** One condition for each set; a prefix of the other family is in none. */
function conditionOf(
  set: readonly PrefixRange[],
  family: Family,
  ranges: ClassRange[],
  conditionOfSet: Map<string, number>,
  object: string,
  place: string,
): number {
  const text = JSON.stringify(set)
  const known = conditionOfSet.get(text)
  if (known !== undefined) return known
  const condition = conditionOfSet.size
  conditionOfSet.set(text, condition)
  for (const [index, { prefix, minLength, maxLength }] of set.entries()) {
    const cidr = Cidr.tryParse(prefix)
    if (!cidr) throw new ConfigError(object, `${place}.match.prefixes[${index}]`, `${prefix} is no prefix`)
    if (cidr.family !== family) continue
    ranges.push({
      cidr,
      minLength: Math.max(minLength ?? cidr.length, cidr.length),
      maxLength: maxLength ?? bitsOf(family),
      condition,
    })
  }
  return condition
}

function ownersOf(ownership: readonly PrefixOwner[], family: Family) {
  return ownership
    .map(({ prefix, nextHops, owner }) => {
      const cidr = Cidr.tryParse(prefix)
      if (!cidr) throw new ConfigError('BGP', 'ownership', `${prefix} of ${owner} is no prefix`)
      return { cidr, nextHops: nextHops.map((text) => Ip.parse(text)), owner }
    })
    .filter(({ cidr }) => cidr.family === family)
}
