/**
 * Reads one of Calico's objects key by key. Keys are matched as they are written, as Kubernetes does. Text that is empty
 * counts as missing, as in Calico's own types; a key that nobody knows is a warning, because a newer Calico may know it.
 * Everything is bounded: what comes in was written by anybody who may write the object.
 */
import { formatJson } from '../../bytes/json.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'

const MAX_KEYS = 512
const MAX_TEXT = 1024
const MAX_SHOWN = 60

export type PlainObject = Readonly<Record<string, unknown>>

export const isObject = (value: unknown): value is PlainObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A value for a message, cut short. */
export function shown(value: unknown): string {
  const text = value === undefined ? 'nothing' : (formatJson(value) ?? typeof value)
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text
}

export class Fields {
  /** `IPPool default-ipv4-ippool`, for messages. */
  readonly object: string
  /** What led here, with its dot: `spec.`, or nothing at the top. */
  readonly path: string
  readonly #values: PlainObject

  constructor(value: unknown, object: string, path = '') {
    this.object = object
    this.path = path
    if (!isObject(value))
      throw new ConfigError(
        object,
        path === '' ? '(whole)' : path.slice(0, -1),
        `must be an object, not ${shown(value)}`,
      )
    if (Object.keys(value).length > MAX_KEYS)
      throw new ConfigError(object, path || '(whole)', `more than ${MAX_KEYS} keys`)
    this.#values = value
  }

  /** undefined when missing or null. */
  get(key: string): unknown {
    return Object.hasOwn(this.#values, key) ? (this.#values[key] ?? undefined) : undefined
  }

  keys(): readonly string[] {
    return Object.keys(this.#values)
  }

  /** The object under a key; one without keys when it is missing. */
  inner(key: string): Fields {
    return new Fields(this.get(key) ?? {}, this.object, `${this.path}${key}.`)
  }

  text(key: string, maxCharacters = MAX_TEXT): string | undefined {
    const value = this.get(key)
    if (value === undefined || value === '') return undefined
    if (typeof value !== 'string') throw this.error(key, `must be text, not ${shown(value)}`)
    if (value.length > maxCharacters) throw this.error(key, `is longer than ${maxCharacters} characters`)
    return value
  }

  oneOf<const T extends string>(key: string, choices: readonly T[]): T | undefined {
    const value = this.text(key)
    if (value === undefined) return undefined
    const choice = choices.find((each) => each === value)
    if (choice === undefined) throw this.error(key, `must be one of ${choices.join(', ')}, not ${shown(value)}`)
    return choice
  }

  integer(key: string, least: number, most: number): number | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most)
      throw this.error(key, `must be a whole number from ${least} to ${most}, not ${shown(value)}`)
    return value
  }

  flag(key: string): boolean | undefined {
    const value = this.get(key)
    if (value === undefined || typeof value === 'boolean') return value
    throw this.error(key, `must be true or false, not ${shown(value)}`)
  }

  list(key: string, maxItems: number): readonly unknown[] | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (!Array.isArray(value)) throw this.error(key, `must be a list, not ${shown(value)}`)
    if (value.length > maxItems) throw this.error(key, `has ${value.length} items; at most ${maxItems} are read`)
    return value
  }

  /** A list of texts, none of them empty. */
  texts(key: string, maxItems: number): readonly string[] | undefined {
    return this.list(key, maxItems)?.map((item, index) => {
      if (typeof item !== 'string' || item === '' || item.length > MAX_TEXT)
        throw this.error(`${key}[${index}]`, `must be text, not ${shown(item)}`)
      return item
    })
  }

  /** A block without host bits. */
  cidr(key: string): Cidr | undefined {
    const text = this.text(key)
    return text === undefined ? undefined : this.cidrOf(key, text)
  }

  cidrOf(key: string, text: string): Cidr {
    try {
      return Cidr.parse(text)
    } catch (cause) {
      throw this.error(key, (cause as Error).message, cause)
    }
  }

  /** Sentences for keys that are none of these. */
  unknown(known: readonly string[]): readonly string[] {
    return this.keys()
      .filter((key) => !known.includes(key))
      .map((key) => `${this.object}: ${this.path}${cut(key)}: is not known to weft and has no effect`)
  }

  error(key: string, problem: string, cause?: unknown): ConfigError {
    return new ConfigError(this.object, `${this.path}${cut(key)}`, problem, cause === undefined ? undefined : { cause })
  }
}

const cut = (key: string): string => (key.length > MAX_SHOWN ? `${key.slice(0, MAX_SHOWN)}…` : key)

/** `IPPool NAME` of an object with metadata, and its metadata. Throws ConfigError when it has no name. */
export function readHead(value: unknown, kind: string): { readonly root: Fields; readonly name: string } {
  const unnamed = new Fields(value, kind)
  const name = unnamed.inner('metadata').text('name', 253)
  if (name === undefined) throw new ConfigError(kind, 'metadata.name', 'is missing')
  return { root: new Fields(value, `${kind} ${name}`), name }
}

/** Unix seconds of `metadata.creationTimestamp`; undefined when there is none that can be read. */
export function createdAtSeconds(root: Fields): number | undefined {
  const text = root.inner('metadata').get('creationTimestamp')
  const milliseconds = typeof text === 'string' && text.length < 64 ? Date.parse(text) : Number.NaN
  return Number.isFinite(milliseconds) ? Math.floor(milliseconds / 1000) : undefined
}
