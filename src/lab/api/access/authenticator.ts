/**
 * Who a request comes from: a token of the lab's own list, or one that was made for a service account; and whom the
 * requester wants to stand for, when they may.
 * Sources: Kubernetes documentation, "Authenticating" (static tokens, service account tokens, user impersonation).
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { badRequest, forbidden } from '../api-error.ts'
import type { TokenUser } from '../interfaces.ts'
import type { Authorizer } from './authorizer.ts'
import { serviceAccountGroups } from './rbac.ts'
import type { ServiceAccountTokens } from './service-account-tokens.ts'

export const authenticated = 'system:authenticated'
export const anonymous: TokenUser = { user: 'system:anonymous', groups: ['system:unauthenticated'] }

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

export class Authenticator {
  readonly #known: ReadonlyMap<string, TokenUser>
  readonly #issued: ServiceAccountTokens

  constructor(known: ReadonlyMap<string, TokenUser>, issued: ServiceAccountTokens) {
    this.#known = known
    this.#issued = issued
  }

  /** The user of an Authorization header, or undefined. */
  user(header: string | undefined): TokenUser | undefined {
    const token = /^Bearer\s+(\S{1,16384})$/i.exec(header ?? '')?.[1]
    return token === undefined ? undefined : this.userOfToken(token)
  }

  /** Compares with every known token in constant time. */
  userOfToken(token: string, audiences?: readonly string[]): TokenUser | undefined {
    const wanted = digest(token)
    let found: TokenUser | undefined
    for (const [candidate, user] of this.#known) if (timingSafeEqual(digest(candidate), wanted)) found = user
    found ??= this.#issued.verify(token, audiences)
    return found && { ...found, groups: [...new Set([...found.groups, authenticated])] }
  }
}

const listOf = (value: string | string[] | undefined): string[] =>
  [value ?? []].flat().flatMap((text) => text.split(',').map((part) => part.trim()))

/** `kubectl --as`: the user that the request's headers ask for. Throws 403 when the requester may not stand for them. */
export function impersonate(requester: TokenUser, headers: IncomingHttpHeaders, authorizer: Authorizer): TokenUser {
  const user = headers['impersonate-user']
  const groups = listOf(headers['impersonate-group'])
  const uid = headers['impersonate-uid']
  if (typeof user !== 'string' || user === '') {
    if (groups.length > 0 || uid !== undefined)
      throw badRequest('requested groups or uid to impersonate without impersonating a user')
    return requester
  }
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(user)
  const need = (group: string, plural: string, name: string, namespace?: string): void => {
    const { allowed, reason } = authorizer.decide(requester, { verb: 'impersonate', group, plural, name, namespace })
    if (!allowed) throw forbidden({ plural, group, name }, requester.user, 'impersonate', reason, namespace)
  }
  if (account) need('', 'serviceaccounts', account[2]!, account[1])
  else need('', 'users', user)
  for (const group of groups) need('', 'groups', group)
  if (typeof uid === 'string') need('authentication.k8s.io', 'uids', uid)
  const own = groups.length === 0 && account ? serviceAccountGroups(account[1]!) : groups
  const known = user === anonymous.user ? anonymous.groups : [authenticated]
  return { user, groups: [...new Set([...own, ...known])], ...(typeof uid === 'string' && { uid }) }
}
