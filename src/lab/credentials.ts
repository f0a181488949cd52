/**
 * Who may speak to a lab's API server: bearer tokens of the administrator, of each node and of each node's agent, and
 * the key that signs tokens of service accounts. Kept in the lab's directory of certificates; made at the first asking.
 *
 * An agent is the service account of deploy/agent-rbac.yaml, bound to its node as tokens of pods are.
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { nodeNameExtra, nodesGroup } from './api/access/node.ts'
import { serviceAccountGroups, serviceAccountUser } from './api/access/rbac.ts'
import type { KubeObject, TokenUser } from './api/interfaces.ts'
import { projectRoot } from './layout.ts'

export type Holder = 'admin' | `node/${string}` | `agent/${string}`

const agentAccount = ['kube-flannel', 'weft-agent'] as const

function userOf(holder: Holder): TokenUser {
  if (holder === 'admin') return { user: 'kubernetes-admin', groups: ['system:masters'] }
  const [role, node = ''] = holder.split('/')
  if (role === 'node') return { user: `system:node:${node}`, groups: [nodesGroup] }
  return {
    user: serviceAccountUser(...agentAccount),
    groups: serviceAccountGroups(agentAccount[0]),
    extra: { [nodeNameExtra]: [node] },
  }
}

export class Credentials {
  /** Token → user; grows with each new holder. */
  readonly users = new Map<string, TokenUser>()
  readonly #folder: string
  readonly #texts: Record<string, string>

  constructor(folder: string) {
    this.#folder = folder
    const path = this.#path
    this.#texts = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Record<string, string>) : {}
    for (const [holder, text] of Object.entries(this.#texts)) this.users.set(text, userOf(holder as Holder))
  }

  get #path(): string {
    return join(this.#folder, 'tokens.json')
  }

  /** The bearer token of a holder. */
  token(holder: Holder): string {
    const known = this.#texts[holder]
    if (known) return known
    const text = randomBytes(24).toString('base64url')
    this.#texts[holder] = text
    this.users.set(text, userOf(holder))
    this.#save()
    return text
  }

  /** The tokens of a node that is gone hold no more. */
  forget(node: string): void {
    for (const holder of [`node/${node}`, `agent/${node}`]) {
      const text = this.#texts[holder]
      if (text) this.users.delete(text)
      delete this.#texts[holder]
    }
    this.#save()
  }

  #save(): void {
    writeFileSync(this.#path, JSON.stringify(this.#texts), { mode: 0o600 })
  }

  /** PEM of the EC key for tokens of service accounts. */
  serviceAccountKey(): string {
    const path = join(this.#folder, 'service-accounts.key')
    if (existsSync(path)) return readFileSync(path, 'utf8')
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    const text = String(privateKey.export({ type: 'pkcs8', format: 'pem' }))
    writeFileSync(path, text, { mode: 0o600 })
    return text
  }
}

/** The objects of deploy/agent-rbac.yaml. */
export function agentRights(): KubeObject[] {
  const text = readFileSync(join(projectRoot(), 'deploy', 'agent-rbac.yaml'), 'utf8')
  return parseAllDocuments(text).map((document) => document.toJS() as KubeObject)
}
