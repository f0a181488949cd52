/**
 * The part of kubectl's JSONPath that printer columns and scale paths use: `.a.b`, `['a.b']`, `[0]`, `[*]`,
 * `[?(@.type=="Ready")]`.
 * Sources: Kubernetes documentation, "JSONPath Support"; CustomResourceColumnDefinition.jsonPath.
 */

type Step =
  | { readonly kind: 'key'; readonly key: string }
  | { readonly kind: 'index'; readonly index: number }
  | { readonly kind: 'all' }
  | { readonly kind: 'filter'; readonly path: JsonPath; readonly operator: string; readonly value: unknown }

export type JsonPath = readonly Step[]

const pieces =
  /^(?:\.([\w-]+(?:\\\.[\w-]+)*)|\[['"]((?:[^'"\\]|\\.)*)['"]\]|\[(-?\d+)\]|(\[\*\]|\.\*)|\[\?\(\s*@([^=!<>]*?)\s*(==|!=)\s*("[^"]*"|'[^']*'|-?[\d.]+|true|false)\s*\)\])/

/** Throws a SyntaxError naming the text. */
export function parseJsonPath(text: string): JsonPath {
  const steps: Step[] = []
  let rest = text
    .trim()
    .replace(/^\{(.*)\}$/, '$1')
    .replace(/^\$/, '')
  if (rest !== '' && rest !== '.' && !rest.startsWith('.') && !rest.startsWith('[')) rest = `.${rest}`
  if (rest === '.') return steps
  while (rest !== '') {
    const match = pieces.exec(rest)
    if (!match) throw new SyntaxError(`Cannot read the JSONPath ${JSON.stringify(text)} at ${JSON.stringify(rest)}`)
    const [whole, dotted, quoted, index, all, filterPath, operator, literal] = match
    if (dotted !== undefined) steps.push({ kind: 'key', key: dotted.replace(/\\\./g, '.') })
    else if (quoted !== undefined) steps.push({ kind: 'key', key: quoted.replace(/\\(.)/g, '$1') })
    else if (index !== undefined) steps.push({ kind: 'index', index: Number(index) })
    else if (all !== undefined) steps.push({ kind: 'all' })
    else {
      const value = literal!.startsWith("'") ? literal!.slice(1, -1) : JSON.parse(literal!)
      steps.push({ kind: 'filter', path: parseJsonPath(filterPath!), operator: operator!, value })
    }
    rest = rest.slice(whole.length)
  }
  return steps
}

/** Every value that the path leads to. */
export function evaluateJsonPath(path: JsonPath, root: unknown): unknown[] {
  let found: unknown[] = [root]
  for (const step of path) {
    const next: unknown[] = []
    for (const value of found) {
      if (typeof value !== 'object' || value === null) continue
      if (step.kind === 'key') {
        if (Object.hasOwn(value, step.key)) next.push((value as Record<string, unknown>)[step.key])
      } else if (step.kind === 'all') next.push(...Object.values(value))
      else if (!Array.isArray(value)) continue
      else if (step.kind === 'index') {
        const item = value.at(step.index)
        if (item !== undefined) next.push(item)
      } else
        for (const item of value) {
          const equal = evaluateJsonPath(step.path, item).some((candidate) => candidate === step.value)
          if (equal === (step.operator === '==')) next.push(item)
        }
    }
    found = next
  }
  return found
}
