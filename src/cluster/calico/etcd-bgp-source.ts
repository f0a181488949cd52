/**
 * BGP's objects followed in etcd v3, under Calico's keys. Secrets are where a Kubernetes API server has them, or nowhere: then
 * none is ever there.
 *
 *   /calico/resources/v3/projectcalico.org/bgppeers/NAME   {"kind":"BGPPeer","metadata":{…},"spec":{…}}
 *
 * Sources: Calico libcalico-go/lib/backend/model/resource.go (keys), lib/backend/etcdv3 (values are JSON).
 */
import { etcdPrefixes } from '../../config/calico/store-names.ts'
import type { BackoffOptions } from '../backoff.ts'
import type { ClusterLog, ClusterObserver } from '../cluster.ts'
import type { EtcdClient } from '../etcd/client.ts'
import { EtcdFollower } from '../etcd/follower.ts'
import type { HttpClient } from '../http-client.ts'
import { NamedSecrets } from '../kubernetes/named-secrets.ts'
import { bgpObjectEvent, bgpObjectKinds } from './bgp-events.ts'
import type { BgpObjectEvent, BgpObjectListener, BgpSource } from './bgp-source.ts'
import { ConnectionState } from './connection-state.ts'
import { parseValue } from './etcd-store.ts'

export interface EtcdBgpOptions {
  readonly client: EtcdClient
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  /** The API server that has the Secrets, and the agents' namespace in it. */
  readonly secrets?: { readonly client: HttpClient; readonly namespace: string }
  readonly backoff?: BackoffOptions
}

export class EtcdBgpSource implements BgpSource {
  readonly #options: EtcdBgpOptions
  readonly #followers: readonly EtcdFollower[]
  readonly #awaited = new Set<string>()
  readonly #secrets: NamedSecrets | undefined
  #listener: BgpObjectListener = () => {}
  #closed = false

  constructor(options: EtcdBgpOptions) {
    this.#options = options
    const { client, log, observer, secrets, backoff } = options
    const connection = new ConnectionState((up, problem) =>
      this.#tell({ type: 'connection', up, ...(problem === undefined ? {} : { problem }) }),
    )
    this.#secrets =
      secrets &&
      new NamedSecrets({
        ...secrets,
        ...(observer ? { observer } : {}),
        onSecret: (name, values, problem) =>
          this.#tell({ type: 'secret', name, values, ...(problem === undefined ? {} : { problem }) }),
      })
    this.#followers = bgpObjectKinds.map((kind) => {
      const prefix = etcdPrefixes[kind]
      const nameIn = (key: string) => {
        const name = key.slice(prefix.length)
        return name !== '' && name.length <= 253 && !name.includes('/') ? name : undefined
      }
      this.#awaited.add(prefix)
      return new EtcdFollower({
        client,
        prefix,
        ...(observer ? { observer } : {}),
        ...(backoff ? { backoff } : {}),
        onSet: ({ key, value }) => {
          const name = nameIn(key)
          if (name !== undefined) this.#tell(bgpObjectEvent(kind, name, () => parseValue(value), log))
        },
        onDelete: (key) => {
          const name = nameIn(key)
          if (name !== undefined) this.#tell({ type: 'object-gone', kind, name })
        },
        onListed: () => {
          if (this.#awaited.delete(prefix) && this.#awaited.size === 0) this.#tell({ type: 'synced' })
        },
        onConnection: (problem) => connection.note(prefix, problem),
      })
    })
  }

  start(listener: BgpObjectListener): void {
    this.#listener = listener
    setImmediate(() => {
      if (!this.#closed) for (const follower of this.#followers) follower.start()
    })
  }

  want(secrets: ReadonlySet<string>): void {
    if (this.#secrets) this.#secrets.want(secrets)
  }

  reconnect(): void {
    this.#options.client.close()
    this.#options.secrets?.client.close()
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([this.#secrets?.close(), ...this.#followers.map((follower) => follower.close())])
  }

  #tell(event: BgpObjectEvent): void {
    if (!this.#closed) this.#listener(event)
  }
}
