/**
 * What the server knows of one kind at one version: names, schema, defaults, rules and printer columns. The
 * generic machinery (resources.ts) does the rest; a kind is data and a few pure functions.
 */
import type { FieldProblem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Schema } from '../schema/schema.ts'

export type Verb = 'create' | 'delete' | 'deletecollection' | 'get' | 'list' | 'patch' | 'update' | 'watch'

export const allVerbs: readonly Verb[] = [
  'create',
  'delete',
  'deletecollection',
  'get',
  'list',
  'patch',
  'update',
  'watch',
]

export type Cell = string | number | boolean | null

/** A printer column. Priority 1 shows with `-o wide` only. */
export interface Column {
  readonly name: string
  readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'date'
  readonly format?: string
  readonly description: string
  readonly priority: 0 | 1
  cell(object: KubeObject, now: number): Cell
}

export interface ScalePaths {
  readonly specReplicas: string
  readonly statusReplicas: string
  /** Path of a LabelSelector object or of selector text. */
  readonly selector?: string
}

export interface Kind {
  /** Empty for the core group. */
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly singular: string
  readonly shortNames: readonly string[]
  readonly categories: readonly string[]
  readonly namespaced: boolean
  readonly verbs: readonly Verb[]
  readonly schema: Schema
  /** Name in the store: kinds that are two views of the same objects share it. */
  readonly storage: string
  readonly status: boolean
  readonly scale?: ScalePaths
  /** Field selectors beyond metadata.name and metadata.namespace. */
  readonly selectable: readonly string[]
  /** Without Name, which always comes first. */
  readonly columns: readonly Column[]
  /** Fills the defaults of a new or changed object, in place. They belong to whoever wrote the object. */
  prepare?(object: KubeObject, old: KubeObject | undefined): void
  /** Fills what the cluster decides, in place. It belongs to nobody. */
  admit?(object: KubeObject, old: KubeObject | undefined): void
  validate?(object: KubeObject, old: KubeObject | undefined): FieldProblem[]
  /** What the author should know of an object that is taken nevertheless: texts of the Warning header. */
  warnings?(object: KubeObject): string[]
  /** Object of this kind ↔ object as stored, where kinds share storage. */
  toStorage?(object: KubeObject): KubeObject
  fromStorage?(object: KubeObject): KubeObject
  /** Objects of these kinds are too many and too short-lived for managedFields. */
  readonly unmanaged?: boolean
  /** Set on custom kinds: they are checked by the constraints of their own schema. */
  readonly custom?: boolean
  /** Names are DNS labels instead of subdomains. */
  readonly nameForm?: 'label' | 'path'
}

export type KindSpec = Pick<Kind, 'group' | 'version' | 'kind' | 'plural' | 'schema'> & Partial<Kind>

/** Storage name: `pods`, `deployments.apps`. */
export const resourceName = (plural: string, group: string): string => (group ? `${plural}.${group}` : plural)

export function defineKind(spec: KindSpec): Kind {
  return {
    singular: spec.kind.toLowerCase(),
    shortNames: [],
    categories: [],
    namespaced: true,
    verbs: allVerbs,
    storage: resourceName(spec.plural, spec.group),
    status: false,
    selectable: [],
    columns: [ageColumn],
    ...spec,
  }
}

export const apiVersionOf = (kind: Pick<Kind, 'group' | 'version'>): string =>
  kind.group ? `${kind.group}/${kind.version}` : kind.version

/** Elapsed time as kubectl shows it: `45s`, `3m20s`, `5h`, `2d3h`. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000)
  if (seconds < 0) return seconds < -2 ? '<invalid>' : '0s'
  if (seconds < 120) return `${seconds}s`
  const minutes = Math.floor(seconds / 60)
  const pair = (major: number, majorUnit: string, minor: number, minorUnit: string) =>
    minor === 0 ? `${major}${majorUnit}` : `${major}${majorUnit}${minor}${minorUnit}`
  if (minutes < 10) return pair(minutes, 'm', seconds % 60, 's')
  if (minutes < 180) return `${minutes}m`
  const hours = Math.floor(minutes / 60)
  if (hours < 8) return pair(hours, 'h', minutes % 60, 'm')
  if (hours < 48) return `${hours}h`
  const days = Math.floor(hours / 24)
  if (days < 8) return pair(days, 'd', hours % 24, 'h')
  if (days < 730) return `${days}d`
  const years = Math.floor(days / 365)
  return years < 8 ? pair(years, 'y', days % 365, 'd') : `${years}y`
}

/** Age of an RFC 3339 time. */
export function ageOf(time: unknown, now: number): string {
  if (typeof time !== 'string') return '<unknown>'
  const at = Date.parse(time)
  return Number.isNaN(at) ? '<unknown>' : formatAge(now - at)
}

const make =
  (priority: 0 | 1, type: Column['type']) =>
  (name: string, description: string, cell: Column['cell']): Column => ({ name, type, description, priority, cell })

export const text = make(0, 'string')
export const count = make(0, 'integer')
export const wide = make(1, 'string')

export const ageColumn: Column = text('Age', 'Time since the object was created.', (object, now) =>
  ageOf(object.metadata.creationTimestamp, now),
)
export const createdColumn: Column = text(
  'Created At',
  'When the object was created.',
  (object) => object.metadata.creationTimestamp ?? '<unknown>',
)

/** Sets a field that is absent. */
export function fill(object: Record<string, unknown> | undefined, defaults: Record<string, unknown>): void {
  if (!object) return
  for (const [key, value] of Object.entries(defaults))
    if (object[key] === undefined) object[key] = typeof value === 'object' ? structuredClone(value) : value
}
