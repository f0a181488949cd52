/**
 * What is made of files that others replace while we run: certificates that kubeadm renews, tokens that a kubelet rotates, a
 * kubeconfig that an administrator rewrites. Looked at when the value is asked for, by stat alone; made anew when a file is
 * another one than the one that was read.
 *
 * Writers may be half done, or wrong: a value that cannot be made leaves the last good one in use.
 */
import { readFileSync, statSync } from 'node:fs'

/** What tells one content of a path from the next, also behind a symbolic link that is turned to another file. */
function signatureOf(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
    return [dev, ino, size, mtimeNs, ctimeNs].join()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}

/** Reads a file as text and remembers which one it was. Throws the file system's errors. */
export type ReadFile = (path: string) => string

export class FollowedFiles<T> {
  readonly #make: (read: ReadFile) => T
  readonly #onChange: (problem: Error | undefined) => void
  #seen = new Map<string, string>()
  #value: T

  /**
   * `onChange` is told of every later making: without a problem when the new value is in use, with one when the old value
   * stays. Throws when the first value cannot be made.
   */
  constructor(make: (read: ReadFile) => T, onChange: (problem: Error | undefined) => void = () => {}) {
    this.#make = make
    this.#onChange = onChange
    this.#value = this.#again()
  }

  /** Of the files as they are now. */
  get value(): T {
    if ([...this.#seen].every(([path, signature]) => signatureOf(path) === signature)) return this.#value
    let problem: Error | undefined
    try {
      this.#value = this.#again()
    } catch (error) {
      problem = error as Error
    }
    this.#onChange(problem)
    return this.#value
  }

  #again(): T {
    const seen = new Map<string, string>()
    try {
      const value = this.#make((path) => {
        // Before the reading: what is written during it is seen the next time.
        seen.set(path, signatureOf(path))
        return readFileSync(path, 'utf8')
      })
      this.#seen = seen
      return value
    } catch (error) {
      // It may have failed before it came to files that the value in use was made of.
      this.#seen = new Map([...this.#seen, ...seen])
      throw error
    }
  }
}
