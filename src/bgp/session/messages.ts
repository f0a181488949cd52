/**
 * What the speaker's thread and its owner say to each other. Plain data: it crosses by structured clone.
 */
import type { BgpEvent, LocalRoute, SpeakerConfig, SpeakerStatus } from '../../model/bgp.ts'
import type { LogFields, LogLevel } from '../peering.ts'

/** What the thread is started with. */
export interface SpeakerThreadStart {
  readonly config: SpeakerConfig
  readonly routes: readonly LocalRoute[]
  /** The kernel still has the routes of the speaker that ran here before. */
  readonly restarted: boolean
  /** Unix socket for the eyes; none when undefined. */
  readonly controlPath?: string | undefined
  /** False: the owner has no use for `routes` events, of which a full table makes a million. */
  readonly ownerTakesRoutes?: boolean
}

export type ToSpeaker =
  /** Answered with `done`. */
  | {
      readonly type: 'configure'
      readonly id: number
      readonly config: SpeakerConfig
      /** All local routes; undefined leaves them as they are. */
      readonly routes: readonly LocalRoute[] | undefined
    }
  /** Answered with `status`. */
  | { readonly type: 'status'; readonly id: number }
  /** Answered with `done`; the thread ends then. */
  | { readonly type: 'stop'; readonly id: number; readonly keepRoutes: boolean }

export type FromSpeaker =
  /** Listens, and calls its peers. */
  | { readonly type: 'started' }
  /** Could not start; the thread ends. */
  | { readonly type: 'failed'; readonly error: ErrorWords }
  | { readonly type: 'event'; readonly event: BgpEvent }
  | { readonly type: 'log'; readonly entry: LogEntry }
  | { readonly type: 'done'; readonly id: number; readonly error?: ErrorWords }
  | { readonly type: 'status'; readonly id: number; readonly status: SpeakerStatus }

export interface LogEntry {
  readonly atMs: number
  readonly level: LogLevel
  readonly message: string
  readonly fields: LogFields
}

/** An error that crossed: `ConfigError` with its parts. */
export interface ErrorWords {
  readonly message: string
  readonly config?: { readonly object: string; readonly key: string; readonly problem: string }
}
