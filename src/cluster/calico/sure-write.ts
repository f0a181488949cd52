/**
 * A conditional write whose answer may be lost on the way back: nobody knows then whether it was done. Asked for once more, the
 * condition itself tells: it holds, and the first was not done; or it does not, and what stands there is either ours or
 * somebody else's.
 *
 *        write ──answer──► done
 *          └─lost──► write again ──answer──► done         the first never arrived
 *                         ├─conflict──► read ──ours──► done, by the first   ──another's──► ConflictError
 *                         └─lost──► StoreAwayError
 */
import { ConflictError, StoreAwayError } from '../../ipam/stores/ipam-store.ts'

export interface SureWrite<R> {
  /** Rejects with ConflictError, or with StoreAwayError (`isLost` when it may have been done). */
  write(): Promise<R>
  /** What stands there when it is exactly what was to be written; undefined otherwise. */
  findWritten(): Promise<R | undefined>
}

/** The store may have done what it was asked for. */
export class LostAnswerError extends StoreAwayError {}

export async function writeSurely<R>({ write, findWritten }: SureWrite<R>): Promise<R> {
  try {
    return await write()
  } catch (error) {
    if (!(error instanceof LostAnswerError)) throw error
  }
  try {
    return await write()
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
    const written = await findWritten()
    if (written === undefined) throw error
    return written
  }
}
