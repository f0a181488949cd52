import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { register as agent } from '../bin/agent.ts'
import { register as cleanup } from '../bin/cleanup.ts'
import { register as controller } from '../bin/controller.ts'
import { register as install } from '../bin/install.ts'
import { register as lab } from '../bin/lab.ts'
import { chinesePages, docPages, twinOf } from './docs.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (page: string) => readFileSync(join(root, page), 'utf8')
const readmes = ['README.md', 'README.zh.md']
const pages = [...readmes, ...docPages(root), ...chinesePages(root)]

const fence = /^```.*\n[\s\S]*?^```$/gm
/** What both languages must have alike: levels of headings, kinds of blocks, captured blocks to the letter, rows of tables. */
function shape(text: string) {
  const prose = text.replace(fence, '')
  return {
    headings: (prose.match(/^#+ /gm) ?? []).map((heading) => heading.length - 1),
    fences: (text.match(fence) ?? []).map((block) => block.slice(0, block.indexOf('\n'))),
    captured: text.match(/<!-- .+? -->(\n```text\n[\s\S]*?```)?/g) ?? [],
    tableRows: prose.match(/^\|/gm)?.length ?? 0,
    listItems: prose.match(/^(\d+\.|-) /gm)?.length ?? 0,
  }
}

describe('the documentation', () => {
  test('every 中文 page has an English one, of the same shape, with the same captures, and links lead both ways', () => {
    const translated = chinesePages(root)
    assert.ok(translated.length > 0)
    for (const page of docPages(root).filter((each) => existsSync(join(root, twinOf(each))))) {
      assert.deepEqual(shape(read(twinOf(page))), shape(read(page)), page)
      assert.match(read(page), /^\[中文\]\(/m, page)
      assert.match(read(twinOf(page)), /^\[English\]\(/m, twinOf(page))
    }
    const englishOnly = (page: string) => page.startsWith('docs/decisions/') || page === 'docs/sources.md'
    for (const page of docPages(root)) assert.equal(existsSync(join(root, twinOf(page))), !englishOnly(page), page)
    const twins = docPages(root).map(twinOf)
    for (const page of translated) assert.ok(twins.includes(page), `${page} has no English page`)
    assert.deepEqual(shape(read('README.zh.md')), shape(read('README.md')))
  })

  test('every link to a file leads to one', () => {
    for (const page of pages)
      for (const [, target] of read(page)
        .replace(fence, '')
        .matchAll(/\]\((?!https?:)([^)#]+)/g))
        assert.ok(existsSync(join(root, dirname(page), target as string)), `${page} links to ${target}`)
  })

  test('every captured block is filled', () => {
    for (const page of pages) assert.doesNotMatch(read(page), /-->\n```text\n```/, page)
  })

  test('every weft command shown is one, with options that it has', () => {
    const program = new Command('weft')
    for (const register of [agent, cleanup, controller, install, lab]) register(program)
    let seen = 0
    for (const page of pages) {
      const shown =
        typed(read(page)).match(
          /(?<=(^|[\s(])(\.\/)?weft )(agent|cleanup|controller|install|uninstall|lab) [^\n;&|)]*/gm,
        ) ?? []
      for (const line of shown) {
        seen++
        const problem = unknownWord(program, line.split(' -- ')[0] as string)
        assert.equal(problem, undefined, `${page}: weft ${line}`)
      }
    }
    assert.ok(seen > 50, `only ${seen} commands seen`)
  })
})

/** What a reader types: blocks of commands, and of captured blocks the line of the command. */
function typed(text: string): string {
  const lines = (text.match(fence) ?? []).flatMap((block) => {
    const [head, ...rest] = block.split('\n')
    return head === '```text' ? rest.filter((line) => line.startsWith('$ ')) : rest
  })
  return lines.join('\n')
}

/** The first word of a command line that no command or option of the program is. */
function unknownWord(program: Command, line: string): string | undefined {
  let command = program
  for (const word of line.split(/\s+/)) {
    if (word.startsWith('--')) {
      const name = word.split('=')[0] as string
      if (name !== '--help' && !command.options.some((option) => option.long === name)) return word
      continue
    }
    const next = command.commands.find((each) => each.name() === word)
    if (next) command = next
    else if (command.commands.length > 0) return /^[a-z]/.test(word) ? word : undefined
  }
  return undefined
}
