/**
 * Who a request comes from, and what they may do: administrators everything; a node reads all and writes its own
 * Node, its pods' status, its lease, and events; everybody else reads.
 * Sources: Kubernetes documentation, "Authenticating" (static tokens), "Using Node Authorization",
 * NodeRestriction admission.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { KubeObject, TokenUser } from './interfaces.ts'

export const administrators = 'system:masters'
export const nodes = 'system:nodes'
export const anonymous: TokenUser = { user: 'system:anonymous', groups: ['system:unauthenticated'] }

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/** The user of an Authorization header, or undefined. Compares every token in constant time. */
export function authenticate(
  header: string | undefined,
  tokens: ReadonlyMap<string, TokenUser>,
): TokenUser | undefined {
  const token = /^Bearer\s+(\S{1,4096})$/i.exec(header ?? '')?.[1]
  if (token === undefined) return undefined
  return userOfToken(token, tokens)
}

export function userOfToken(token: string, tokens: ReadonlyMap<string, TokenUser>): TokenUser | undefined {
  const wanted = digest(token)
  let found: TokenUser | undefined
  for (const [candidate, user] of tokens) if (timingSafeEqual(digest(candidate), wanted)) found = user
  return found && { ...found, groups: [...new Set([...found.groups, 'system:authenticated'])] }
}

export interface Attempt {
  readonly verb: string
  readonly group: string
  readonly plural: string
  readonly subresource?: string | undefined
  readonly namespace?: string | undefined
  readonly name?: string | undefined
}

export interface Decision {
  readonly allowed: boolean
  readonly reason: string
}

const reading = new Set(['get', 'list', 'watch'])
const yes = (reason: string): Decision => ({ allowed: true, reason })
const no = (reason: string): Decision => ({ allowed: false, reason })

/** `pod`: the stored pod when a pod is meant, for the node's own check. */
export function authorize(user: TokenUser, attempt: Attempt, pod?: KubeObject): Decision {
  if (user.groups.includes(administrators)) return yes('administrator')
  if (attempt.group === 'authorization.k8s.io' && attempt.plural.startsWith('selfsubject')) return yes('about oneself')
  if (attempt.group === 'authentication.k8s.io' && attempt.plural === 'selfsubjectreviews') return yes('about oneself')
  const node = user.groups.includes(nodes) ? /^system:node:(.+)$/.exec(user.user)?.[1] : undefined
  if (node !== undefined) return authorizeNode(node, attempt, pod)
  if (!user.groups.includes('system:authenticated')) return no('')
  if (attempt.plural === 'secrets') return no('')
  return reading.has(attempt.verb) && !attempt.subresource ? yes('reader') : no('')
}

function authorizeNode(node: string, attempt: Attempt, pod: KubeObject | undefined): Decision {
  const { verb, group, plural, subresource, namespace, name } = attempt
  if (reading.has(verb) && (!subresource || subresource === 'status')) return yes('nodes read')
  const writes = verb === 'create' || verb === 'update' || verb === 'patch'
  if (plural === 'events' && (group === '' || group === 'events.k8s.io') && writes) return yes('nodes report events')
  if (group === 'coordination.k8s.io' && plural === 'leases') {
    // A node's own heartbeat, or the locks that agents elect a leader by.
    if (writes && (namespace === 'kube-node-lease' ? name === node || verb === 'create' : true)) return yes('own lease')
    return no(`node ${node} may only write its own lease`)
  }
  if (group === '' && plural === 'nodes') {
    if (writes && (verb === 'create' || name === node) && (!subresource || subresource === 'status'))
      return yes('own node')
    return no(`node ${node} is not allowed to modify node ${name ?? ''}`.trim())
  }
  if (group === '' && plural === 'pods') {
    if (verb === 'create' && !subresource) return no('nodes do not create pods')
    if (pod?.spec?.nodeName === node && (subresource === 'status' ? writes : verb === 'delete' && !subresource))
      return yes('own pod')
    return no(`node ${node} can only update pods of its own`)
  }
  // Objects of custom kinds are how agents of several nodes agree (address blocks, for one).
  if (group.includes('.') && !group.endsWith('.k8s.io') && !subresource) return yes('custom objects')
  return no('')
}
