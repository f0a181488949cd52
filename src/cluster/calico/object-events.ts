/**
 * Calico's objects as events: what a store says of one object, checked. The same for CRDs and for etcd's values.
 *
 * Calico's own tools keep annotations of an object of `crd.projectcalico.org/v1` inside one of them, as JSON.
 *
 * Sources: Calico libcalico-go/lib/backend/k8s/resources/resources.go (`projectcalico.org/metadata`).
 */
import { decodeBlock, decodeBlockHead } from '../../config/calico/block.ts'
import { parseIpamSettings } from '../../config/calico/ipam-settings.ts'
import { parsePool } from '../../config/calico/pool.ts'
import { parseReservation } from '../../config/calico/reservation.ts'
import type { BlockAffinity } from '../../model/calico.ts'
import { ConfigError } from '../../model/errors.ts'
import type { ClusterLog } from '../cluster.ts'
import type { CalicoEvent } from './calico-source.ts'

const METADATA = 'projectcalico.org/metadata'

type Json = Readonly<Record<string, unknown>>
const asJson = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {})

/** What of an object's metadata counts: its name, its age, whether it is being deleted, annotations of both places. */
export function keptMetadata(metadata: unknown): Json {
  const { name, creationTimestamp, deletionTimestamp, annotations } = asJson(metadata)
  const outer = asJson(annotations)
  let inner: Json = {}
  try {
    inner = asJson(asJson(JSON.parse(String(outer[METADATA] ?? '{}'))).annotations)
  } catch {}
  const { [METADATA]: _, ...others } = outer
  return {
    name,
    creationTimestamp,
    ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    annotations: { ...inner, ...others },
  }
}

const asProblem = (error: unknown, object: string): ConfigError =>
  error instanceof ConfigError ? error : new ConfigError(object, '(whole)', (error as Error).message, { cause: error })

/** `read` gives the object, or throws when it is no JSON. */
export function poolEvent(name: string, read: () => unknown, log: ClusterLog): CalicoEvent {
  try {
    const { pool, warnings } = parsePool(read())
    for (const warning of warnings) log.warn({ pool: name }, warning)
    return { type: 'pool', name, pool }
  } catch (error) {
    return { type: 'pool', name, problem: asProblem(error, `IPPool ${name}`) }
  }
}

export function reservationEvent(name: string, read: () => unknown, log: ClusterLog): CalicoEvent {
  try {
    const { reservation, warnings } = parseReservation(read())
    for (const warning of warnings) log.warn({ reservation: name }, warning)
    return { type: 'reservation', name, reservation }
  } catch (error) {
    return { type: 'reservation', name, problem: asProblem(error, `IPReservation ${name}`) }
  }
}

export function settingsEvent(read: () => unknown, log: ClusterLog): CalicoEvent {
  try {
    const { settings, warnings } = parseIpamSettings(read())
    for (const warning of warnings) log.warn({}, warning)
    return { type: 'ipam-settings', settings }
  } catch (error) {
    return { type: 'ipam-settings', settings: undefined, problem: asProblem(error, 'IPAMConfig default') }
  }
}

/** A FelixConfiguration under another name than those that are read: Calico has ones for nodes that a selector names. */
export function passFelix(name: string, log: ClusterLog): undefined {
  if (!name.startsWith('node.'))
    log.warn({ felix: name }, `FelixConfiguration ${name} has no effect: those named default and node.NAME are read`)
  return undefined
}

/** A block that is marked as deleted is gone. */
export function blockEvent(read: () => unknown, object: string, revision: string): CalicoEvent {
  try {
    const value = decodeBlock(read(), object)
    return value.deleted ? { type: 'block-gone', cidr: value.cidr } : { type: 'block', held: { value, revision } }
  } catch (error) {
    const problem = (error as Error).message
    try {
      return { type: 'corrupt', object, problem, head: decodeBlockHead(read(), object) }
    } catch {
      return { type: 'corrupt', object, problem }
    }
  }
}

/** An affinity that is marked as deleted is gone. */
export function affinityEvent(read: () => BlockAffinity, object: string, revision: string): CalicoEvent {
  try {
    const value = read()
    return value.deleted ? { type: 'affinity-gone', affinity: value } : { type: 'affinity', held: { value, revision } }
  } catch (error) {
    return { type: 'corrupt', object, problem: (error as Error).message }
  }
}
