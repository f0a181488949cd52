/**
 * The promises of pod CIDRs, in one ConfigMap, and with it the fence against a second writer.
 *
 * A write to a Node can be made conditional on that Node, but not on nobody having given the same block to another one. So a
 * block is first promised here and then written to its Node, and every write here names the version that this process wrote
 * or read last:
 *
 *    open (read, version v) ──► list all nodes ──► promise: write if still v ──► v' ──► write to the nodes ──► promise: write if still v' …
 *                                                     └── refused: somebody else wrote. All that is known is void: open again.
 *
 * Whoever promises thus knows of every earlier promise: it stood here, or had been taken away because its node had the blocks
 * already, and the nodes were listed after that. A replica that was stopped for an hour and goes on finds its version gone; what
 * it had promised before is kept by its successor. Clocks and leases play no part in this: two replicas without any election
 * would only get in each other's way.
 *
 * Sources: Kubernetes API Concepts, "Resource versions", "Updates to existing resources".
 */
import { type HttpClient, HttpError } from '../cluster/http-client.ts'
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import type { Promised } from '../ipam/node-cidrs.ts'
import { Cidr } from '../net/cidr.ts'
import { versionOf } from './objects.ts'

/** No more promises are open at a time: they are a few hundred bytes each, and an object may have a mebibyte. */
export const MAX_PROMISES = 200

export interface LedgerEntries {
  /** By node. */
  readonly promises: ReadonlyMap<string, Promised>
  /** The block of each family that was given last: where the search goes on. */
  readonly last: readonly Cidr[]
}

export interface LedgerOptions {
  readonly client: HttpClient
  readonly namespace: string
  readonly name: string
  readonly signal: AbortSignal
}

const PROMISES_KEY = 'promises'
const LAST_KEY = 'last'
const MAX_TEXT = 1 << 20

export class Ledger {
  readonly #options: LedgerOptions
  readonly #collection: string
  #version = ''

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#collection = `/api/v1/namespaces/${encodeURIComponent(options.namespace)}/configmaps`
  }

  /** Reads it, or makes it. Its writes are conditional on what was read here. */
  async open(): Promise<LedgerEntries> {
    const { client, namespace, name, signal } = this.#options
    let object: unknown
    try {
      object = await client.request({ method: 'GET', path: this.#path, signal })
    } catch (error) {
      if (!(error instanceof HttpError && error.status === 404)) throw error
      const metadata = { name, namespace, labels: ownLabels }
      const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: format(empty) }
      object = await client.request({ method: 'POST', path: this.#collection, body, signal })
    }
    this.#version = versionOf(object)
    return parse(((object as { data?: unknown }).data ?? {}) as Record<string, unknown>, `${namespace}/${name}`)
  }

  /** Replaces all entries. Rejects when anybody has written since; then nothing that is known holds any more. */
  async write(entries: LedgerEntries): Promise<void> {
    const { client, signal } = this.#options
    const object = await client.request({
      method: 'PATCH',
      path: this.#path,
      body: { metadata: { resourceVersion: this.#version }, data: format(entries) },
      contentType: 'application/merge-patch+json',
      signal,
    })
    this.#version = versionOf(object)
  }

  get #path(): string {
    return `${this.#collection}/${encodeURIComponent(this.#options.name)}`
  }
}

const empty: LedgerEntries = { promises: new Map(), last: [] }

function format({ promises, last }: LedgerEntries): Record<string, string> {
  const listed = [...promises].map(([node, { uid, cidrs }]) => [node, { uid, cidrs: cidrs.map(String) }] as const)
  return {
    [PROMISES_KEY]: JSON.stringify(Object.fromEntries(listed)),
    [LAST_KEY]: JSON.stringify(last.map(String)),
  }
}

/** Throws when a promise cannot be read: to forget one could give its blocks twice. */
function parse(data: Record<string, unknown>, object: string): LedgerEntries {
  const read = (key: string, otherwise: string): unknown => {
    const text = data[key] ?? otherwise
    if (typeof text !== 'string' || text.length > MAX_TEXT) throw new Error(`is not text of at most ${MAX_TEXT} bytes`)
    return JSON.parse(text)
  }
  try {
    const promises = new Map<string, Promised>()
    for (const [node, value] of Object.entries(read(PROMISES_KEY, '{}') as Record<string, unknown>)) {
      const { uid, cidrs } = (value ?? {}) as { uid?: unknown; cidrs?: unknown }
      if (typeof uid !== 'string' || !Array.isArray(cidrs)) throw new Error(`the promise to ${node} is not one`)
      promises.set(node, { uid, cidrs: cidrs.map((text) => Cidr.parse(String(text))) })
    }
    const last = read(LAST_KEY, '[]')
    return { promises, last: (Array.isArray(last) ? last : []).flatMap((text) => Cidr.tryParse(String(text)) ?? []) }
  } catch (cause) {
    throw new Error(
      `ConfigMap ${object} cannot be read (${(cause as Error).message}); delete it when no node waits for its pod CIDR`,
      { cause },
    )
  }
}
