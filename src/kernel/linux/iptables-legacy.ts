/**
 * iptables' FORWARD in x_tables, by the tool iptables-legacy: the kernel has no netlink for it. Looked at only where the filter
 * table is there already, because looking makes it.
 *
 * Sources: iptables-legacy(8); /proc/net/ip_tables_names.
 */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import {
  FORWARD_COMMENT,
  type ForwardChain,
  type ForwardChange,
  type ForwardMatch,
  insertion,
  iptablesProgram,
  iptablesRule,
} from '../../model/forward-chain.ts'
import { Cidr } from '../../net/cidr.ts'

const run = promisify(execFile)
const TIMEOUT_MS = 10_000
/** Seconds to wait for another holder of the lock of x_tables. */
const WAIT = ['-w', '5']

/** How the tool and the lists of tables are reached; the process's own network namespace unless told. */
export interface LegacyAccess {
  /** Runs a program and resolves with what it prints. */
  run(program: string, args: readonly string[]): Promise<string>
  /** Names of the tables of a family that x_tables has, a line each. */
  tableNames(family: 'ip' | 'ip6'): Promise<string>
}

export const ownLegacyAccess: LegacyAccess = {
  run: async (program, args) => (await run(program, args, { timeout: TIMEOUT_MS, maxBuffer: 64 << 20 })).stdout,
  // Without the module there is no such file.
  tableNames: (family) => readFile(`/proc/net/${family}_tables_names`, 'utf8').catch(() => ''),
}

/** The FORWARD chains that x_tables has. Throws Error when there is one and the tool cannot show it. */
export async function readLegacyForwardChains(access: LegacyAccess): Promise<readonly ForwardChain[]> {
  const chains: ForwardChain[] = []
  for (const family of ['ip', 'ip6'] as const) {
    const names = await access.tableNames(family)
    if (!names.split('\n').includes('filter')) continue
    const head = { backend: 'legacy', family, table: 'filter', name: 'FORWARD' } as const
    const program = iptablesProgram({ ...head, drops: undefined, rules: [] })
    chains.push({ ...head, ...parseForward(await access.run(program, [...WAIT, '-S', 'FORWARD'])) })
  }
  return chains
}

/** What `iptables -S FORWARD` prints. */
export function parseForward(text: string): Pick<ForwardChain, 'drops' | 'rules'> {
  const lines = text.split('\n').filter((line) => line !== '')
  const rules = lines.flatMap((line) => {
    const rule = /^-A FORWARD(?<words>.*)$/.exec(line)?.groups?.words
    if (rule === undefined) return []
    const isOurs = rule.includes(` --comment "${FORWARD_COMMENT}" `)
    const accepts = parseAccept(rule)
    return {
      isOurs,
      ...(accepts && { accepts }),
      dropsAll: /^(?: -m comment --comment (?:"[^"]*"|\S+))? -j (?:DROP|REJECT.*)$/.test(rule),
    }
  })
  const drops = rules.at(-1)?.dropsAll ? 'last rule' : lines.includes('-P FORWARD DROP') ? 'policy' : undefined
  return { drops, rules: rules.map(({ dropsAll: _, ...rule }) => rule) }
}

function parseAccept(rule: string): ForwardMatch | undefined {
  const [, flag, block] = /^ -([sd]) (\S+)(?: -m comment --comment (?:"[^"]*"|\S+))? -j ACCEPT$/.exec(rule) ?? []
  const cidr = block === undefined ? undefined : Cidr.tryParse(block)
  return cidr && { end: flag === 's' ? 'source' : 'destination', block: cidr }
}

/** Runs the tool once for each change. Throws Error. */
export async function changeLegacyForwardRules(access: LegacyAccess, changes: readonly ForwardChange[]): Promise<void> {
  for (const { verb, chain, rule } of changes) {
    if (!rule.accepts) continue
    const place = verb === 'delete' ? ['-D', 'FORWARD'] : insertion(chain)
    await access.run(iptablesProgram(chain), [...WAIT, ...place, ...iptablesRule(rule.accepts)])
  }
}
