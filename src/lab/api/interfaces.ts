/**
 * What the lab's API server and the rest of the lab know of each other: the in-process client that controllers
 * use, the runtime that the server asks for logs, exec and port-forward, and the server's own options.
 * Resources are named as kubectl names them: `pods`, `deployments.apps`, `endpointslices.discovery.k8s.io`.
 */
import type { Duplex, Readable, Writable } from 'node:stream'
import type { Logger } from 'pino'
import type { ObjectStore } from '../../cluster/embedded/store.ts'

export interface OwnerReference {
  apiVersion: string
  kind: string
  name: string
  uid: string
  controller?: boolean
  blockOwnerDeletion?: boolean
}

export interface ObjectMeta {
  name?: string
  generateName?: string
  namespace?: string
  uid?: string
  /** Opaque to clients; here a decimal number that grows over the whole store, also over restarts. */
  resourceVersion?: string
  generation?: number
  /** RFC 3339, whole seconds, UTC. */
  creationTimestamp?: string
  deletionTimestamp?: string
  deletionGracePeriodSeconds?: number
  labels?: Record<string, string>
  annotations?: Record<string, string>
  ownerReferences?: OwnerReference[]
  finalizers?: string[]
  managedFields?: unknown[]
}

/** Any object of the Kubernetes API, as JSON. What the store hands out is shared: clone before changing. */
export interface KubeObject {
  apiVersion?: string
  kind?: string
  metadata: ObjectMeta
  // biome-ignore lint/suspicious/noExplicitAny: the JSON of any kind; the registry checks it against its schema
  [key: string]: any
}

/** Where one object lives. `namespace` is left out for cluster-wide kinds. */
export interface ObjectName {
  readonly namespace?: string
  readonly name: string
}

export interface ListOptions {
  /** Left out: all namespaces. */
  readonly namespace?: string
  /** As in `kubectl -l`: `app=web,tier!=db,env in (a,b),!old`. */
  readonly labelSelector?: string
  /** As in `kubectl --field-selector`: `spec.nodeName=n1,status.phase!=Failed`. */
  readonly fieldSelector?: string
}

export interface PatchOptions {
  /** `merge` (RFC 7386) is the default; `json` is RFC 6902; `apply` is server-side apply. */
  readonly type?: 'merge' | 'json' | 'strategic' | 'apply'
  readonly subresource?: string
  readonly fieldManager?: string
  /** Server-side apply: take fields over from other managers. */
  readonly force?: boolean
}

export interface DeleteOptions {
  /** Pods: seconds until the runtime must be done; 0 removes the object at once. */
  readonly gracePeriodSeconds?: number
  readonly propagationPolicy?: 'Background' | 'Foreground' | 'Orphan'
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string }
}

/** One change. `SYNCED` comes once, after the ADDED events of everything that existed at the start. */
export type ObjectEvent<T extends KubeObject = KubeObject> =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: T }
  | { readonly type: 'SYNCED'; readonly resourceVersion: string }

export interface Watch {
  close(): void
}

/**
 * The API without HTTP, with an administrator's rights: same defaulting, validation, admission and conflict rules.
 * Every call rejects with ApiError (`code` 404, 409, 410, 422, …, `reason` as in Status).
 * A write resolves when it is committed to the store. Returned objects are shared: do not change them.
 */
export interface LocalClient {
  get<T extends KubeObject = KubeObject>(resource: string, name: ObjectName): Promise<T>
  list<T extends KubeObject = KubeObject>(
    resource: string,
    options?: ListOptions,
  ): Promise<{ readonly items: readonly T[]; readonly resourceVersion: string }>
  /**
   * What exists now as ADDED, then SYNCED, then every change in order; never ends on its own and never misses one
   * (in process there is nothing to cut). The listener is called synchronously, outside of any write.
   */
  watch<T extends KubeObject = KubeObject>(
    resource: string,
    options: ListOptions,
    listener: (event: ObjectEvent<T>) => void,
  ): Watch
  create<T extends KubeObject = KubeObject>(
    resource: string,
    object: T,
    options?: { readonly subresource?: string; readonly name?: string; readonly fieldManager?: string },
  ): Promise<T>
  /** Replaces. With `metadata.resourceVersion` set, only that version (409 otherwise). `subresource: 'status'` writes status alone. */
  update<T extends KubeObject = KubeObject>(
    resource: string,
    object: T,
    options?: { readonly subresource?: string; readonly fieldManager?: string },
  ): Promise<T>
  patch<T extends KubeObject = KubeObject>(
    resource: string,
    name: ObjectName,
    patch: unknown,
    options?: PatchOptions,
  ): Promise<T>
  delete(resource: string, name: ObjectName, options?: DeleteOptions): Promise<void>
}

export interface LogOptions {
  readonly follow: boolean
  readonly previous: boolean
  readonly timestamps: boolean
  readonly sinceSeconds?: number
  readonly sinceTime?: string
  readonly tailLines?: number
  readonly limitBytes?: number
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal
}

/** A process' ends. A stream that the client did not ask for is absent. With `tty`, stderr is absent. */
export interface ExecStreams {
  readonly stdin?: Readable
  readonly stdout?: Writable
  readonly stderr?: Writable
  readonly tty: boolean
  /** Called with each new terminal size; only with `tty`. */
  onResize(listener: (size: { readonly columns: number; readonly rows: number }) => void): void
  /** Aborted when the client goes away: the process is to be ended. */
  readonly signal: AbortSignal
}

/** What the server needs of whoever runs the pods. Errors thrown become the client's error message. */
export interface PodRuntime {
  /** Lines as written, newline included. With `timestamps`, the runtime prefixes RFC 3339 nanoseconds and a space. */
  logs(pod: KubeObject, container: string, options: LogOptions): AsyncIterable<Buffer>
  /** Resolves when the process ended and all its output was written. */
  exec(
    pod: KubeObject,
    container: string,
    argv: readonly string[],
    streams: ExecStreams,
  ): Promise<{ readonly exitCode: number }>
  attach(pod: KubeObject, container: string, streams: ExecStreams): Promise<{ readonly exitCode: number }>
  /** A connection to 127.0.0.1:port inside the pod's network namespace. */
  portForward(pod: KubeObject, port: number): Promise<Duplex>
}

/** Who a bearer token stands for. Group `system:masters` may do anything; `system:nodes` its own objects; all what RBAC says. */
export interface TokenUser {
  readonly user: string
  readonly uid?: string
  readonly groups: readonly string[]
  /** With `authentication.kubernetes.io/node-name`, the user may change no other Node than that one. */
  readonly extra?: Readonly<Record<string, readonly string[]>>
}

export interface ApiServerOptions {
  /** Opened by the caller, closed by the caller after `close()`. */
  readonly store: ObjectStore
  /** PEM. Left out: plain HTTP (tests). */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
  /** Token → user. Kept by reference: later entries hold at once. */
  readonly tokens: ReadonlyMap<string, TokenUser>
  /** PEM of the EC key (P-256) that signs tokens of service accounts. Left out: one that ends with the server. */
  readonly serviceAccountKey?: string
  readonly podRuntime?: PodRuntime
  readonly log?: Logger
  /** Service addresses, IPv4 first: default 10.96.0.0/16 and none of IPv6. */
  readonly serviceCidrs?: readonly string[]
  /** Default 30000-32767. */
  readonly nodePortRange?: readonly [from: number, to: number]
}

/** The server's own face. `new ApiServer(options)` is in server.ts. */
export interface ApiServerHandle {
  readonly client: LocalClient
  /** Several listeners at once are fine. Port 0: any. */
  listen(address: { readonly host: string; readonly port: number }): Promise<{ readonly port: number }>
  /** A bound and listening TCP socket made elsewhere, perhaps in another network namespace. */
  listenOn(fd: number): Promise<void>
  /** Stops listening, ends the watches cleanly, waits for writes under way. Clients may resume on a new server. */
  close(): Promise<void>
}
