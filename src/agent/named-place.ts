/**
 * Errors of the file system as an operator needs them: a full disk says nothing of which file it was, nor which flag would
 * put that file elsewhere.
 */

/** Does the work; when the file system fails it, the message begins with the place: `--run-dir /run/weft`. */
export function at<T>(place: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw named(place, error)
  }
}

/** The same for work that takes time. */
export async function atAsync<T>(place: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw named(place, error)
  }
}

/** Errors of system calls alone are put in other words. */
function named(place: string, error: unknown): unknown {
  const { syscall, message } = error as NodeJS.ErrnoException
  return syscall === undefined ? error : new Error(`${place}: ${message}`, { cause: error })
}
