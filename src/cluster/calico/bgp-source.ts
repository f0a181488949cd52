/**
 * What BGP needs of Calico's objects: settings, peers and filters, checked, and the Secrets that they name; followed like the
 * rest of the cluster. Apart from the other objects (calico-source.ts), because a node that speaks no BGP asks for none of it.
 *
 *        start ──► object, object, …, synced ──► object | object-gone | secret | …
 *
 * After `synced` a source never forgets what it knows while the store is away. A cluster without Calico's definitions has none
 * of these objects: it is synced with nothing, and notices when they come. Secrets are read by name, those alone that `want`
 * has named, and no list of others is ever asked for.
 */
import type { BgpConfiguration, BgpFilter, BgpPeer } from '../../model/calico-bgp.ts'
import type { ConfigError } from '../../model/errors.ts'

interface Told<K extends string, T> {
  readonly type: 'object'
  readonly kind: K
  readonly name: string
  /** Left out when the object cannot be read: the last good one of that name stands. */
  readonly value?: T
  readonly problem?: ConfigError
}

export type BgpObjectKind = 'BGPConfiguration' | 'BGPPeer' | 'BGPFilter'

export type BgpObjectEvent =
  | Told<'BGPConfiguration', BgpConfiguration>
  | Told<'BGPPeer', BgpPeer>
  | Told<'BGPFilter', BgpFilter>
  | { readonly type: 'object-gone'; readonly kind: BgpObjectKind; readonly name: string }
  /** Texts of a Secret by key; undefined: there is none, or it may not be read, and `problem` says so. */
  | {
      readonly type: 'secret'
      readonly name: string
      readonly values: Readonly<Record<string, string>> | undefined
      readonly problem?: string
    }
  | { readonly type: 'synced' }
  /** The store became reachable or unreachable; what was announced before still holds. */
  | { readonly type: 'connection'; readonly up: boolean; readonly problem?: string }

export type BgpObjectListener = (event: BgpObjectEvent) => void

export interface BgpSource {
  /** Begins to watch; once. The listener is called from the event loop, never from within a call of this object. */
  start(listener: BgpObjectListener): void
  /** Secrets to follow from here on, by name; what is not named any more is forgotten. */
  want(secrets: ReadonlySet<string>): void
  /** This node's addresses changed: connections from an old one are dead without a word. */
  reconnect(): void
  close(): Promise<void>
}
