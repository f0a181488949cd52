/**
 * Several watches, one connection: down when the first fails, told again for each other reason, up when all work.
 */
export class ConnectionState {
  readonly #onChange: (up: boolean, problem?: string) => void
  /** What fails, and why. */
  readonly #failing = new Map<string, string>()

  constructor(onChange: (up: boolean, problem?: string) => void) {
    this.#onChange = onChange
  }

  note(part: string, problem: Error | undefined): void {
    const before = [...this.#failing.values()]
    if (problem) this.#failing.set(part, problem.message)
    else this.#failing.delete(part)
    if (problem && !before.includes(problem.message)) this.#onChange(false, problem.message)
    if (!problem && before.length > 0 && this.#failing.size === 0) this.#onChange(true)
  }
}
