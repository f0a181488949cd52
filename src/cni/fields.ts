/**
 * A reader over parsed JSON from a stranger: every read names its key in the error and bounds what it takes. JSON's
 * null counts as absent, as Go's encoder writes it for empty slices and pointers. Keys are matched exactly.
 */
import { CniCode, CniError } from './error.ts'

export class FieldReader {
  readonly path: string
  /** The object itself, unchecked. */
  readonly raw: Readonly<Record<string, unknown>>

  private constructor(path: string, object: Readonly<Record<string, unknown>>) {
    this.path = path
    this.raw = object
  }

  /** `path` is how errors call the object; empty for the root. Throws CniError 6 when the value is no object. */
  static of(value: unknown, path: string): FieldReader {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new CniError(CniCode.undecodable, `${path || 'network configuration'}: must be an object`)
    return new FieldReader(path, value as Record<string, unknown>)
  }

  /** An error that names the key. */
  problem(key: string, problem: string, code: number = CniCode.invalidConfig): CniError {
    return new CniError(code, `${this.#name(key)}: ${problem}`)
  }

  has(key: string): boolean {
    return this.#value(key) !== undefined
  }

  keys(): readonly string[] {
    return Object.keys(this.raw)
  }

  optionalText(key: string, maxLength: number): string | undefined {
    const value = this.#value(key)
    if (value === undefined) return undefined
    if (typeof value !== 'string') throw this.problem(key, 'must be a string')
    if (value.length > maxLength) throw this.problem(key, `is longer than ${maxLength} characters`)
    if (value.includes('\0')) throw this.problem(key, 'has a NUL character')
    return value
  }

  text(key: string, maxLength: number): string {
    const value = this.optionalText(key, maxLength)
    if (value === undefined || value === '') throw this.problem(key, 'is missing')
    return value
  }

  optionalFlag(key: string): boolean | undefined {
    const value = this.#value(key)
    if (value === undefined || typeof value === 'boolean') return value
    throw this.problem(key, 'must be true or false')
  }

  flag(key: string, otherwise = false): boolean {
    return this.optionalFlag(key) ?? otherwise
  }

  optionalInteger(key: string, min: number, max: number): number | undefined {
    const value = this.#value(key)
    if (value === undefined) return undefined
    if (typeof value !== 'number' || !Number.isInteger(value)) throw this.problem(key, 'must be a whole number')
    if (value < min || value > max) throw this.problem(key, `must be ${min} to ${max}, not ${value}`)
    return value
  }

  /** A string turned into a value; the parser's message becomes the problem. */
  parsed<T>(key: string, parse: (text: string) => T): T {
    const text = this.text(key, 256)
    try {
      return parse(text)
    } catch (cause) {
      throw this.problem(key, (cause as Error).message)
    }
  }

  optionalParsed<T>(key: string, parse: (text: string) => T): T | undefined {
    const text = this.optionalText(key, 256)
    return text === undefined || text === '' ? undefined : this.parsed(key, parse)
  }

  optionalObject(key: string): FieldReader | undefined {
    const value = this.#value(key)
    return value === undefined ? undefined : FieldReader.of(value, this.#name(key))
  }

  /** The array under a key (empty when absent), each element through `read`. */
  list<T>(key: string, maxCount: number, read: (value: unknown, name: string) => T): T[] {
    const value = this.#value(key)
    if (value === undefined) return []
    if (!Array.isArray(value)) throw this.problem(key, 'must be an array')
    if (value.length > maxCount) throw this.problem(key, `has more than ${maxCount} entries`)
    return value.map((item, index) => read(item, `${this.#name(key)}[${index}]`))
  }

  objects(key: string, maxCount: number): FieldReader[] {
    return this.list(key, maxCount, FieldReader.of)
  }

  texts(key: string, maxCount: number, maxLength: number): string[] {
    return this.list(key, maxCount, (value, name) => {
      if (typeof value !== 'string') throw new CniError(CniCode.invalidConfig, `${name}: must be a string`)
      if (value.length > maxLength)
        throw new CniError(CniCode.invalidConfig, `${name}: is longer than ${maxLength} characters`)
      return value
    })
  }

  #name(key: string): string {
    return this.path === '' ? key : `${this.path}.${key}`
  }

  #value(key: string): unknown {
    return Object.hasOwn(this.raw, key) ? (this.raw[key] ?? undefined) : undefined
  }
}
