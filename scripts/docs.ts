/**
 * The documentation's layout: English pages under docs/, each 中文 page under docs/zh/ at the same path.
 */
import { readdirSync } from 'node:fs'
import { join, relative } from 'node:path'

/** Every English page under docs/, by its path from the checkout's root, sorted. */
export function docPages(root: string): string[] {
  return markdown(join(root, 'docs'))
    .map((path) => relative(root, path))
    .filter((path) => !path.startsWith('docs/zh/'))
}

/** Every 中文 page under docs/zh/. */
export function chinesePages(root: string): string[] {
  return markdown(join(root, 'docs/zh')).map((path) => relative(root, path))
}

/** Where the 中文 page of an English page stands. */
export const twinOf = (page: string): string => page.replace(/^docs\//, 'docs/zh/')

function markdown(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md'))
    .map((path) => join(directory, path))
    .sort()
}
