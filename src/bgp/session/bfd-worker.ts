/**
 * BFD in a thread of its own: while the speaker takes in a full table, and while its heap is swept, packets still go out in
 * time. The same module is the thread's program and what its owner imports for the address to start it at.
 */
import { setPriority } from 'node:os'
import { isMainThread, type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { Ip } from '../../net/ip.ts'
import type { BfdSettings } from '../bfd.ts'
import { type BfdChange, BfdHost, type BfdReport } from './bfd-host.ts'
import { realClock } from './real-clock.ts'

export const workerUrl = new URL(import.meta.url)
/** In the worker's data, so that nothing begins where this module is only imported. */
export const WORKER_MARK = 'weft-bfd'
/** Before everything that is not as urgent; nothing is lost where this is not allowed. */
const NICE = -15

/** A session as it crosses between threads: addresses in text. */
export interface BfdPeerText {
  readonly key: string
  readonly remote: string
  readonly device: string | undefined
  readonly localAddress: string | undefined
  readonly multihop: boolean
  readonly port: number | undefined
  readonly settings: BfdSettings
}

export type ToBfd =
  | { readonly type: 'peers'; readonly peers: readonly BfdPeerText[] }
  /** Answered with `reports`. */
  | { readonly type: 'ask'; readonly id: number }
  /** The thread ends when its peers are told. */
  | { readonly type: 'stop' }

export type FromBfd =
  | { readonly type: 'changed'; readonly change: BfdChange }
  | { readonly type: 'problem'; readonly key: string; readonly problem: string }
  | { readonly type: 'reports'; readonly id: number; readonly reports: readonly BfdReport[] }

function run(port: MessagePort): void {
  const tell = (message: FromBfd): void => port.postMessage(message)
  try {
    // 0 is the calling thread (setpriority(2)).
    setPriority(0, NICE)
  } catch {
    // Not allowed: as urgent as the others, then.
  }
  const host = new BfdHost(
    realClock,
    (change) => tell({ type: 'changed', change }),
    (key, { message }) => tell({ type: 'problem', key, problem: message }),
  )
  port.on('message', (message: ToBfd) => {
    switch (message.type) {
      case 'peers':
        return host.setPeers(
          message.peers.map((peer) => ({
            ...peer,
            remote: Ip.parse(peer.remote),
            localAddress: peer.localAddress === undefined ? undefined : Ip.parse(peer.localAddress),
          })),
        )
      case 'ask':
        return tell({ type: 'reports', id: message.id, reports: host.reports() })
      case 'stop':
        host.close()
        port.close()
    }
  })
}

if (!isMainThread && parentPort && (workerData as { mark?: string } | null)?.mark === WORKER_MARK) run(parentPort)
