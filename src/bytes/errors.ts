/**
 * What every decoder throws on bytes that it cannot accept: where (offset in the whole buffer), in which field
 * (path from the outermost structure), and what was wrong.
 */
export class DecodeError extends Error {
  override readonly name = 'DecodeError'
  /** Offset of the offending byte in the buffer that the outermost Reader was made of. */
  readonly offset: number
  /** Field names from the outside in, such as `['link', 'linkInfo', 'data', 'vni']`. */
  readonly path: readonly string[]
  readonly problem: string

  constructor(problem: string, offset: number, path: readonly string[] = [], options?: ErrorOptions) {
    super(`${path.length ? `${path.join('.')}: ` : ''}${problem} at offset ${offset}`, options)
    this.problem = problem
    this.offset = offset
    this.path = path
  }

  /** The same error seen from the structure that holds the failing field. */
  within(field: string): DecodeError {
    return new DecodeError(this.problem, this.offset, [field, ...this.path], { cause: this.cause })
  }
}

/** A value that a format cannot carry (too long, out of range, host bits set, …). */
export class EncodeError extends Error {
  override readonly name = 'EncodeError'
}

/** Runs a decoder of one field; a DecodeError that leaves it gains the field's name. */
export function inField<T>(field: string, decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    throw error instanceof DecodeError ? error.within(field) : error
  }
}
