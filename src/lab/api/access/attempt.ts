/**
 * What a request tries to do, and the answer to it: the words that all authorizers share.
 * Sources: Kubernetes documentation, "Authorization", "Determine the request verb".
 */

/** An attempt on a resource. Names as in the path: plural and subresource apart; the core group is empty. */
export interface ResourceAttempt {
  readonly verb: string
  readonly group: string
  readonly plural: string
  readonly subresource?: string | undefined
  readonly namespace?: string | undefined
  /** Of a list or watch: the name that its field selector picks, when it picks one. */
  readonly name?: string | undefined
}

/** An attempt on a path that is no resource: `/healthz`, `/openapi/v2`. The verb is the method in small letters. */
export interface PathAttempt {
  readonly verb: string
  readonly path: string
}

export type Attempt = ResourceAttempt | PathAttempt

export interface Decision {
  readonly allowed: boolean
  /** Why, for people; empty when there is nothing to say. */
  readonly reason: string
}

export const yes = (reason: string): Decision => ({ allowed: true, reason })
export const no = (reason = ''): Decision => ({ allowed: false, reason })
