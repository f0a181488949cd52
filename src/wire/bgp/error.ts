/**
 * What is wrong with what a peer sent, and what is to be done about it. A `BgpError` ends the session: it is thrown, and
 * holds what the NOTIFICATION says. A `Fault` is milder (RFC 7606): the routes of the message count as withdrawn, or one
 * attribute as absent; it is a value, because the rest of the message still counts.
 *
 * Sources: RFC 4271 section 6, RFC 7606 section 2.
 */

/** From the mildest to the strongest. Of several faults in one message the strongest counts (RFC 7606 section 3.h). */
export type Reaction = 'discardAttribute' | 'treatAsWithdraw' | 'sessionReset'

export interface Fault {
  readonly reaction: Exclude<Reaction, 'sessionReset'>
  /** Attribute type. */
  readonly attribute: number
  /** UPDATE_MESSAGE's subcode that the fault would have under RFC 4271. */
  readonly subcode: number
  /** For the log: `ORIGIN: value 7`. */
  readonly problem: string
}

/** The session cannot go on. */
export class BgpError extends Error {
  override readonly name = 'BgpError'
  /** NOTIFICATION's error code. */
  readonly code: number
  readonly subcode: number
  /** NOTIFICATION's data. */
  readonly data: Uint8Array

  constructor(code: number, subcode: number, problem: string, data: Uint8Array = new Uint8Array(0)) {
    super(problem)
    this.code = code
    this.subcode = subcode
    this.data = data
  }
}

/** The strongest reaction among faults; undefined without any. */
export function strongestReaction(faults: readonly Fault[]): Fault['reaction'] | undefined {
  let strongest: Fault['reaction'] | undefined
  for (const { reaction } of faults) {
    if (reaction === 'treatAsWithdraw') return reaction
    strongest = reaction
  }
  return strongest
}
