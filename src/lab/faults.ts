/**
 * Faults of the underlay, made by packet rules in the fabric's bridges: partition, loss, and, where the kernel has netem, delay.
 * All active faults are one nftables table, replaced as a whole; the nodes' own namespaces are never touched.
 */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inNetns } from '../kernel/linux/netns.ts'
import { type LabSpec, labPaths, type NodeSpec, netnsPath, nodeAddress } from './layout.ts'

export interface ActiveFaults {
  /** Nodes cut off from everything. */
  isolated: string[]
  /** Pairs that cannot reach each other. */
  split: [string, string][]
  /** Share of packets lost to and from a node, in percent. */
  loss: Record<string, number>
  /** Added to every packet towards a node, in milliseconds. */
  delay: Record<string, number>
  /** The API server does not answer nodes. */
  apiDown: boolean
}

const none = (): ActiveFaults => ({ isolated: [], split: [], loss: {}, delay: {}, apiDown: false })

/** The bridge and the API rules for a set of faults, as nft text that replaces what was there. Pure. */
export function faultRules(spec: LabSpec, faults: ActiveFaults): string {
  const nodeOf = (name: string): NodeSpec => spec.nodes.find((node) => node.name === name)!
  const rules: string[] = []
  const from: string[] = []
  const to: string[] = []
  for (const name of faults.isolated) {
    from.push(`iifname "${name}" drop`)
    to.push(`oifname "${name}" drop`)
  }
  for (const [name, percent] of Object.entries(faults.loss)) {
    const parts = Math.round(percent * 100)
    const chance = parts < 10_000 ? `numgen random mod 10000 < ${parts} ` : ''
    from.push(`iifname "${name}" ${chance}drop`)
    to.push(`oifname "${name}" ${chance}drop`)
  }
  for (const pair of faults.split)
    for (const [a, b] of [pair, [...pair].reverse()] as [string, string][]) {
      // On one subnet by port, whatever the addresses; across the router by the nodes' own addresses.
      rules.push(`iifname "${a}" oifname "${b}" drop`)
      from.push(`ip saddr ${nodeAddress(nodeOf(a), 4)} ip daddr ${nodeAddress(nodeOf(b), 4)} drop`)
      from.push(`ip6 saddr ${nodeAddress(nodeOf(a), 6)} ip6 daddr ${nodeAddress(nodeOf(b), 6)} drop`)
    }
  const chain = (name: string, hook: string, lines: readonly string[]) =>
    `  chain ${name} {\n    type filter hook ${hook} priority 0; policy accept;\n${lines.map((line) => `    ${line}\n`).join('')}  }\n`
  const api = faults.apiDown ? ['iifname != "lo" tcp dport 6443 reject with tcp reset'] : []
  return [
    'table bridge weftlab {}\ndelete table bridge weftlab\n',
    `table bridge weftlab {\n${chain('from', 'prerouting', from)}${chain('between', 'forward', rules)}${chain('to', 'postrouting', to)}}\n`,
    'table inet weftlab {}\ndelete table inet weftlab\n',
    `table inet weftlab {\n${chain('api', 'input', api)}}\n`,
  ].join('')
}

export class Faults {
  readonly #lab: string
  readonly #path: string
  readonly active: ActiveFaults

  constructor(lab: string) {
    this.#lab = lab
    this.#path = join(labPaths(lab).run, 'faults.json')
    this.active = existsSync(this.#path) ? (JSON.parse(readFileSync(this.#path, 'utf8')) as ActiveFaults) : none()
  }

  /** One line a fault, for people. */
  describe(): string[] {
    const { isolated, split, loss, delay, apiDown } = this.active
    return [
      ...isolated.map((name) => `${name} cut off`),
      ...split.map(([a, b]) => `${a} and ${b} apart`),
      ...Object.entries(loss).map(([name, percent]) => `${name} loses ${percent}%`),
      ...Object.entries(delay).map(([name, ms]) => `${name} delayed ${ms} ms`),
      ...(apiDown ? ['API server down'] : []),
    ]
  }

  /** Changes the active faults and makes them so. What the kernel refuses changes nothing, and rejects with its words. */
  async change(spec: LabSpec, edit: (faults: ActiveFaults) => void): Promise<void> {
    const before = structuredClone(this.active)
    edit(this.active)
    try {
      await this.apply(spec)
    } catch (error) {
      Object.assign(this.active, before)
      await this.apply(spec)
      throw error
    }
  }

  /** No fault at all. */
  clear(spec: LabSpec): Promise<void> {
    return this.change(spec, (faults) => Object.assign(faults, none()))
  }

  /** Forgets a node that is gone. */
  forget(node: string): void {
    this.active.isolated = this.active.isolated.filter((name) => name !== node)
    this.active.split = this.active.split.filter((pair) => !pair.includes(node))
    delete this.active.loss[node]
    delete this.active.delay[node]
  }

  /** Puts the active faults into the fabric and on disk. Throws with nft's words when the kernel refuses. */
  async apply(spec: LabSpec): Promise<void> {
    await inFabric(this.#lab, ['nft', '-f', '-'], faultRules(spec, this.active))
    for (const node of spec.nodes) await this.#delay(node.name)
    writeFileSync(this.#path, JSON.stringify(this.active))
  }

  async #delay(node: string): Promise<void> {
    const ms = this.active.delay[node]
    if (ms !== undefined)
      await inFabric(this.#lab, ['tc', 'qdisc', 'replace', 'dev', node, 'root', 'netem', 'delay', `${ms}ms`])
    else if (this.#delayed.has(node)) await inFabric(this.#lab, ['tc', 'qdisc', 'del', 'dev', node, 'root'])
    if (ms === undefined) this.#delayed.delete(node)
    else this.#delayed.add(node)
  }

  readonly #delayed = new Set<string>()
}

/** Throws when this kernel has no netem: tried on the fabric's loopback device, as the kernel may load it on demand. */
export async function requireNetem(lab: string): Promise<void> {
  const onLoopback = ['dev', 'lo', 'root']
  try {
    await inFabric(lab, ['tc', 'qdisc', 'add', ...onLoopback, 'netem', 'delay', '1ms'])
  } catch (cause) {
    throw new Error('this kernel has no netem (CONFIG_NET_SCH_NETEM): delay cannot be made here', { cause })
  }
  await inFabric(lab, ['tc', 'qdisc', 'del', ...onLoopback])
}

/** Runs a program in the fabric's namespace. Rejects with what it printed when it fails. */
export function inFabric(lab: string, argv: readonly string[], stdin = ''): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = inNetns(netnsPath(lab, 'fabric'), () =>
      spawn(argv[0]!, argv.slice(1), { stdio: ['pipe', 'ignore', 'pipe'] }),
    )
    let text = ''
    child.stderr.on('data', (chunk: Buffer) => {
      text += chunk
    })
    child.once('error', (error) => reject(new Error(`Cannot run ${argv[0]}`, { cause: error })))
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${argv.join(' ')}: ${text.trim()}`))))
    child.stdin.on('error', () => {})
    child.stdin.end(stdin)
  })
}
