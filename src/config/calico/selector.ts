/**
 * Calico's selector language over labels:
 *
 *   expression := and ('||' and)*          and := term ('&&' term)*
 *   term       := '!'* ( 'all()' | 'has(' label ')' | 'global()' | '(' expression ')' | label operation )
 *   operation  := ('==' | '!=' | 'contains' | 'starts with' | 'ends with') text | ('in' | 'not in') '{' [text (',' text)*] '}'
 *   text       := '"' … '"' | "'" … "'"    without escapes;    label := [A-Za-z0-9_./-]+
 *
 * Nothing at all selects everything. Words of an operator may stand without a blank between them (`notin`), and words are
 * operators only behind a label: a label may be called `in` or `all`. A label that is missing fails `==`, `in`, `contains`,
 * `starts with` and `ends with`, and passes `!=` and `not in`.
 *
 * Sources: Calico libcalico-go lib/selector (tokenizer and parser; labels up to 512 characters, `global()` is true).
 */

export type Labels = Readonly<Record<string, string>>
export type Selector = (labels: Labels) => boolean

/** The message says what is wrong and where (characters from 0). */
export class SelectorSyntaxError extends Error {
  override readonly name = 'SelectorSyntaxError'
}

const MAX_CHARACTERS = 4096
const MAX_LABEL = 512
const MAX_DEPTH = 64

interface Parsed {
  readonly matches: Selector
  readonly usesGlobal: boolean
}

const remembered = new Map<string, Parsed>()
const MAX_REMEMBERED = 256

/** Throws SelectorSyntaxError. Parsing the same text again costs nothing. */
export const parseSelector = (text: string): Selector => parsed(text).matches

/** True when `global()` stands in it, which selectors of pools may not have. Throws SelectorSyntaxError. */
export const usesGlobal = (text: string): boolean => parsed(text).usesGlobal

function parsed(text: string): Parsed {
  const known = remembered.get(text)
  if (known) return known
  const parser = new Parser(text)
  const result = { matches: parser.whole(), usesGlobal: parser.usesGlobal }
  if (remembered.size >= MAX_REMEMBERED) remembered.clear()
  remembered.set(text, result)
  return result
}

/** What an operation over a label's value says when the label is missing, and otherwise. */
interface Operation {
  readonly pattern: RegExp
  readonly missing: boolean
  test(value: string, operand: string): boolean
}

const textOperations: readonly Operation[] = [
  { pattern: /==/y, missing: false, test: (value, operand) => value === operand },
  { pattern: /!=/y, missing: true, test: (value, operand) => value !== operand },
  { pattern: /contains(?![\w./-])/y, missing: false, test: (value, operand) => value.includes(operand) },
  {
    pattern: /starts[ \t]*with[ \t]*(?![\w./-])/y,
    missing: false,
    test: (value, operand) => value.startsWith(operand),
  },
  { pattern: /ends[ \t]*with[ \t]*(?![\w./-])/y, missing: false, test: (value, operand) => value.endsWith(operand) },
]
const notIn = /not[ \t]*in[ \t]*(?![\w./-])/y
const isIn = /in(?![\w./-])/y
const blanks = /[ \t]*/y
const label = /[A-Za-z0-9_./-]+/y

class Parser {
  usesGlobal = false
  readonly #text: string
  #at = 0
  #depth = 0

  constructor(text: string) {
    if (text.length > MAX_CHARACTERS) throw new SelectorSyntaxError(`longer than ${MAX_CHARACTERS} characters`)
    this.#text = text
  }

  whole(): Selector {
    if (this.#ended()) return () => true
    const selector = this.#expression()
    if (!this.#ended()) throw this.#error('expected && or || or the end')
    return selector
  }

  #expression(): Selector {
    return this.#joined('||', () => this.#joined('&&', () => this.#term(), every), some)
  }

  #joined(operator: string, parse: () => Selector, join: (parts: readonly Selector[]) => Selector): Selector {
    const parts = [parse()]
    while (this.#takeText(operator)) parts.push(parse())
    return parts.length === 1 ? parts[0]! : join(parts)
  }

  #term(): Selector {
    let negated = false
    while (this.#takeText('!')) negated = !negated
    const selector = this.#plainTerm()
    return negated ? (labels) => !selector(labels) : selector
  }

  #plainTerm(): Selector {
    if (this.#takeText('(')) return this.#parenthesised()
    if (this.#takeText('all(')) {
      this.#closing('all(')
      return () => true
    }
    if (this.#takeText('global(')) {
      this.#closing('global(')
      this.usesGlobal = true
      return () => true
    }
    if (this.#takeText('has(')) {
      const name = this.#label()
      this.#closing('has(')
      return (labels) => Object.hasOwn(labels, name)
    }
    return this.#operation(this.#label())
  }

  #parenthesised(): Selector {
    if (++this.#depth > MAX_DEPTH) throw this.#error(`more than ${MAX_DEPTH} parentheses within each other`)
    const selector = this.#expression()
    if (!this.#takeText(')')) throw this.#error('expected )')
    this.#depth--
    return selector
  }

  #operation(name: string): Selector {
    for (const { pattern, missing, test } of textOperations) {
      if (this.#take(pattern) === undefined) continue
      const operand = this.#string()
      return (labels) => (Object.hasOwn(labels, name) ? test(labels[name]!, operand) : missing)
    }
    if (this.#take(notIn) !== undefined) {
      const set = this.#set()
      return (labels) => !Object.hasOwn(labels, name) || !set.has(labels[name]!)
    }
    if (this.#take(isIn) !== undefined) {
      const set = this.#set()
      return (labels) => Object.hasOwn(labels, name) && set.has(labels[name]!)
    }
    throw this.#error(`expected an operator after the label ${JSON.stringify(name)}`)
  }

  #set(): ReadonlySet<string> {
    if (!this.#takeText('{')) throw this.#error('expected {')
    const values = new Set<string>()
    while (!this.#takeText('}')) {
      values.add(this.#string())
      if (!this.#takeText(',') && !this.#peekText('}')) throw this.#error('expected }')
    }
    return values
  }

  #string(): string {
    this.#take(blanks)
    const quote = this.#text[this.#at]
    if (quote !== '"' && quote !== "'") throw this.#error('expected a text in quotes')
    const end = this.#text.indexOf(quote, this.#at + 1)
    if (end < 0) throw this.#error('the text has no closing quote')
    const value = this.#text.slice(this.#at + 1, end)
    this.#at = end + 1
    return value
  }

  #label(): string {
    const name = this.#take(label)
    if (name === undefined) throw this.#error('expected a label, has(), all() or (')
    if (name.length > MAX_LABEL) throw this.#error(`the label is longer than ${MAX_LABEL} characters`)
    return name
  }

  #closing(opening: string): void {
    if (!this.#takeText(')')) throw this.#error(`expected ) after ${opening}`)
  }

  /** Takes what the pattern matches behind blanks. */
  #take(pattern: RegExp): string | undefined {
    if (pattern !== blanks) this.#take(blanks)
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)
    if (!found) return undefined
    this.#at = pattern.lastIndex
    return found[0]
  }

  #peekText(text: string): boolean {
    this.#take(blanks)
    return this.#text.startsWith(text, this.#at)
  }

  #takeText(text: string): boolean {
    const found = this.#peekText(text)
    if (found) this.#at += text.length
    return found
  }

  #ended(): boolean {
    return this.#peekText('') && this.#at === this.#text.length
  }

  #error(problem: string): SelectorSyntaxError {
    const rest = this.#text.slice(this.#at, this.#at + 20)
    return new SelectorSyntaxError(
      `${problem} at character ${this.#at}${rest === '' ? '' : `, before ${JSON.stringify(rest)}`}`,
    )
  }
}

const every =
  (parts: readonly Selector[]): Selector =>
  (labels) =>
    parts.every((part) => part(labels))

const some =
  (parts: readonly Selector[]): Selector =>
  (labels) =>
    parts.some((part) => part(labels))
