/**
 * Addresses that a node holds and that no pod has. What the runtime forgot to delete (its state was lost, a namespace is still
 * pinned) is nobody's any more and is never given out again.
 *
 *   for each agent that is ready:   GET /addresses  ─►  pods of that node  ─►  sandboxes none of whose addresses a pod has
 *                                   (of the agent)       (of the API)           twice in a row: told by log, Event, metric
 *
 * It is told and not freed: from here nothing can be seen of what still runs in such a sandbox, and an address that is given
 * twice is worse than one that is lost. Agents answer to anybody, so what they say is bounded, and believed of their own node only.
 */
import { get } from 'node:http'
import { sleep } from '../cluster/backoff.ts'
import { addressesOf } from '../cluster/calico/address-uses.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import type { HttpClient } from '../cluster/http-client.ts'
import type { RawObject } from '../cluster/kubernetes/informer.ts'
import type { NodeEvents } from '../cluster/kubernetes/node-events.ts'
import { Ip } from '../net/ip.ts'
import type { ControllerMetrics } from './metrics.ts'

/** Where an agent answers. */
export interface AgentPlace {
  readonly node: string
  readonly address: string
  readonly port: number
}

export interface LeakedAddressesOptions {
  readonly client: HttpClient
  /** Every agent is asked once in so many milliseconds. */
  readonly interval: number
  readonly events: NodeEvents
  readonly metrics: ControllerMetrics
  readonly log: ClusterLog
  readonly signal: AbortSignal
  agents(): readonly AgentPlace[]
}

const ANSWER_TIMEOUT_MS = 5000
const MAX_ANSWER_CHARS = 1 << 20
const MAX_TOLD = 10

export class LeakedAddresses {
  readonly #options: LeakedAddressesOptions
  /** Node → sandboxes without a pod when it was last asked, each by its addresses. */
  readonly #seen = new Map<string, readonly string[]>()
  /** Node → those of them that were so twice in a row. */
  readonly #leaked = new Map<string, readonly string[]>()

  constructor(options: LeakedAddressesOptions) {
    this.#options = options
  }

  /** Asks the agents one after the other, spread over the interval, until the signal. Never rejects. */
  async run(): Promise<void> {
    const { interval, signal, agents } = this.#options
    while (!signal.aborted) {
      const now = agents()
      this.#forget(new Set(now.map(({ node }) => node)))
      for (const agent of now) {
        await sleep(interval / (now.length + 1), signal)
        if (signal.aborted) return
        await this.#ask(agent)
      }
      await sleep(interval / (now.length + 1), signal)
    }
  }

  async #ask(agent: AgentPlace): Promise<void> {
    const { log, metrics, signal } = this.#options
    const { node } = agent
    try {
      // In this order: a pod that comes between the two is in the second answer.
      const held = parseHeld(await readAddresses(agent, signal))
      const leaked = findLeaks(held, await this.#addressesOfPods(node))
      const before = new Set(this.#seen.get(node))
      this.#seen.set(node, leaked)
      this.#tell(
        node,
        leaked.filter((sandbox) => before.has(sandbox)),
      )
      metrics.countLeakCheck('done')
    } catch (error) {
      if (signal.aborted) return
      metrics.countLeakCheck('failed')
      log.debug({ node, err: (error as Error).message }, 'the addresses of a node could not be compared')
    }
  }

  #tell(node: string, leaked: readonly string[]): void {
    const { log, events } = this.#options
    const before = this.#leaked.get(node) ?? []
    this.#leaked.set(node, leaked)
    this.#count()
    if (leaked.length === 0 || leaked.join() === before.join()) return
    const more = leaked.length > MAX_TOLD ? ` and ${leaked.length - MAX_TOLD} more` : ''
    const message = `addresses are held that no pod has: ${leaked.slice(0, MAX_TOLD).join('; ')}${more}`
    log.warn({ node, sandboxes: leaked.length }, 'a node holds addresses that no pod has')
    events.report({ node, severity: 'Warning', reason: 'AddressesLeaked', message })
  }

  #forget(present: ReadonlySet<string>): void {
    for (const known of [this.#seen, this.#leaked])
      for (const node of [...known.keys()]) if (!present.has(node)) known.delete(node)
    this.#count()
  }

  #count(): void {
    const sandboxes = [...this.#leaked.values()].flat()
    this.#options.metrics.setLeaked(sandboxes.reduce((sum, sandbox) => sum + sandbox.split(' ').length, 0))
  }

  async #addressesOfPods(node: string): Promise<Set<string>> {
    const { client, signal } = this.#options
    const selector = encodeURIComponent(`spec.nodeName=${node}`)
    // What the API server has in memory is new enough, and spares its store.
    const path = `/api/v1/pods?fieldSelector=${selector}&resourceVersion=0`
    const { items } = (await client.request({ method: 'GET', path, signal })) as { items?: readonly RawObject[] }
    return new Set((items ?? []).flatMap(addressesOf))
  }
}

/** The lines of an agent's answer: one for each sandbox, its addresses apart by spaces. Throws for anything else. */
export function parseHeld(text: string): string[][] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split(' ').map((word) => String(Ip.parse(word))))
}

/** Sandboxes none of whose addresses a pod has, each by its addresses, in order. */
export const findLeaks = (held: readonly (readonly string[])[], owned: ReadonlySet<string>): string[] =>
  held
    .filter((addresses) => !addresses.some((address) => owned.has(address)))
    .map((addresses) => addresses.join(' '))
    .sort()

/** What an agent's journal holds, as text. Rejects for a status other than 200, for more than a mebibyte, and when it takes too long. */
export function readAddresses({ address, port }: AgentPlace, signal: AbortSignal): Promise<string> {
  const host = address.includes(':') ? `[${address}]` : address
  return new Promise((resolve, reject) => {
    const either = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)])
    const request = get(`http://${host}:${port}/addresses`, { signal: either, agent: false }, (response) => {
      let text = ''
      if (response.statusCode !== 200) response.destroy(new Error(`the agent answers ${response.statusCode}`))
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
        if (text.length > MAX_ANSWER_CHARS) response.destroy(new Error('the agent answers more than a mebibyte'))
      })
      response.on('error', reject)
      response.on('end', () => resolve(text))
    })
    request.on('error', reject)
  })
}
