/**
 * Reads a JSON object key by key as Go's encoding/json does: names match without regard to case. What Go passes over in
 * silence is refused here by name: keys that nobody knows, and one key written twice.
 *
 * Sources: Go encoding/json Unmarshal ("preferring exact matches but also accepting case-insensitive matches").
 */
import { ConfigError } from '../../model/errors.ts'

const MAX_KEYS = 64
const MAX_SHOWN = 60

export class JsonObject {
  readonly #object: string
  readonly #path: string
  readonly #values = new Map<string, { readonly written: string; readonly value: unknown }>()
  readonly #warnings: string[]

  /** `object` names the place for messages, `path` the key that led here (`Backend.`, or nothing at the top). */
  constructor(value: unknown, object: string, path: string, warnings: string[]) {
    this.#object = object
    this.#path = path
    this.#warnings = warnings
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new ConfigError(
        object,
        path === '' ? '(whole)' : path.slice(0, -1),
        `must be a JSON object, not ${shown(value)}`,
      )
    const entries = Object.entries(value)
    if (entries.length > MAX_KEYS) throw this.#error(entries[MAX_KEYS]![0], `more than ${MAX_KEYS} keys`)
    for (const [written, field] of entries) {
      const other = this.#values.get(written.toLowerCase())
      if (other) throw this.#error(written, `is the same key as ${other.written}: write it once`)
      this.#values.set(written.toLowerCase(), { written, value: field })
    }
  }

  /** Throws ConfigError naming the first key that is none of these. */
  refuseOthers(known: readonly string[], holder: string): void {
    const names = new Set(known.map((name) => name.toLowerCase()))
    for (const [name, { written }] of this.#values)
      if (!names.has(name)) throw this.#error(written, `is not a key of ${holder}; it has ${known.join(', ')}`)
  }

  /** The value as parsed; undefined when the key is missing or null (Go leaves a field alone at null). */
  get(name: string): unknown {
    return this.#values.get(name.toLowerCase())?.value ?? undefined
  }

  text(name: string): string | undefined {
    const value = this.get(name)
    if (value === undefined) return undefined
    if (typeof value !== 'string') throw this.#error(name, `must be text, not ${shown(value)}`)
    if (value.length > 256) throw this.#error(name, `is longer than 256 characters`)
    return value
  }

  integer(name: string, least: number, most: number): number | undefined {
    const value = this.get(name)
    if (value === undefined) return undefined
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most)
      throw this.#error(name, `must be a whole number from ${least} to ${most}, not ${shown(value)}`)
    return value
  }

  /** A flag. Text is none, whatever it says: published guides write `"true"` in quotes, on which flannel does not start. */
  flag(name: string): boolean | undefined {
    const value = this.get(name)
    if (value === undefined || typeof value === 'boolean') return value
    const quoted = typeof value === 'string' && /^(true|false)$/i.test(value)
    const hint = quoted ? `; write ${value.toLowerCase()} without quotes` : ''
    throw this.#error(name, `must be true or false, not ${shown(value)}${hint}`)
  }

  warn(name: string, problem: string): void {
    this.#warnings.push(`${this.#object}: ${this.#path}${name}: ${problem}`)
  }

  error(name: string, problem: string, cause?: unknown): ConfigError {
    return this.#error(name, problem, cause)
  }

  #error(name: string, problem: string, cause?: unknown): ConfigError {
    const key = `${this.#path}${name.length > MAX_SHOWN ? `${name.slice(0, MAX_SHOWN)}…` : name}`
    return new ConfigError(this.#object, key, problem, cause === undefined ? undefined : { cause })
  }
}

/** A value for a message, cut short. */
function shown(value: unknown): string {
  const text = value === undefined ? 'nothing' : JSON.stringify(value)
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text
}
