/**
 * Named health checks and their answer in the words of Kubernetes' components: `ok`, or with `?verbose` (and whenever one
 * fails) a line for each check.
 *
 *   [+]net-conf ok
 *   [-]lease failed: this node has no pod subnet yet
 *   readyz check failed
 *
 * Sources: Kubernetes "API health endpoints" (`verbose`, `exclude`, individual checks).
 */

/** One check's result: what is wrong, or undefined when nothing is. Names are lower case with dashes, and few. */
export interface Check {
  readonly name: string
  readonly problem: string | undefined
}

export interface CheckAnswer {
  readonly ok: boolean
  readonly text: string
}

/**
 * The answer of `/<path>`. `only` is one check asked for by name (undefined: all of them); the answer is undefined when there
 * is no such check. `remark` is said instead of `ok` when all is well.
 */
export function answerChecks(
  path: string,
  checks: readonly Check[],
  query: URLSearchParams,
  { only, remark = 'ok' }: { readonly only?: string | undefined; readonly remark?: string | undefined } = {},
): CheckAnswer | undefined {
  const asked = only === undefined ? checks : checks.filter(({ name }) => name === only)
  if (asked.length === 0 && only !== undefined) return undefined
  const excluded = new Set(query.getAll('exclude').flatMap((names) => names.split(',')))
  const failed = asked.filter(({ name, problem }) => problem !== undefined && !excluded.has(name))
  if (failed.length === 0 && !query.has('verbose')) return { ok: true, text: `${remark}\n` }
  const lines = asked.map(({ name, problem }) => {
    if (excluded.has(name)) return `[+]${name} excluded: ok`
    return problem === undefined ? `[+]${name} ok` : `[-]${name} failed: ${problem}`
  })
  const unknown = [...excluded].filter((name) => !asked.some((check) => check.name === name))
  if (unknown.length > 0)
    lines.push(`warn: there is no check ${unknown.map((name) => JSON.stringify(name)).join(', ')}`)
  if (remark !== 'ok') lines.push(remark)
  lines.push(`${path} check ${failed.length === 0 ? 'passed' : 'failed'}`)
  return { ok: failed.length === 0, text: `${lines.join('\n')}\n` }
}
