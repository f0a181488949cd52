/** What running one test file gave, wherever it ran. */
export interface FileReport {
  passed: number
  failed: number
  /** Each with its reason. */
  readonly skips: { readonly name: string; readonly reason: string }[]
  /** Names of the tests that passed. */
  readonly passes: string[]
  /** Name and error of each test that failed. */
  readonly failures: string[]
  /** What the file printed, the last part of it. */
  output: string
}

export const emptyReport = (): FileReport => ({
  passed: 0,
  failed: 0,
  skips: [],
  passes: [],
  failures: [],
  output: '',
})
