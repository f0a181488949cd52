/**
 * What kernel variables were before this program first wrote them, kept in a file so that whoever removes the program
 * can put them back. The first value seen counts, however often the program is started. Variables of the namespace that
 * the program itself is in only: those of pods go with their namespaces.
 */
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

let memory: { readonly file: string; readonly netns: number; readonly values: Map<string, string> } | undefined

const MAX_ENTRIES = 10_000

/** From now on the first write of each variable is preceded by a note in `file`. */
export function rememberSysctls(file: string): void {
  const netns = statSync('/proc/thread-self/ns/net').ino
  memory = { file, netns, values: readRememberedSysctls(file) }
}

/** Called before `path` is written in the namespace `netns`, with its value as it is. Throws when the note cannot be kept. */
export function noteSysctl(netns: number, path: string, value: string): void {
  if (!memory || memory.netns !== netns || memory.values.has(path) || memory.values.size >= MAX_ENTRIES) return
  const values = new Map([...memory.values, [path, value]])
  mkdirSync(dirname(memory.file), { recursive: true })
  const next = `${memory.file}.${process.pid}.tmp`
  writeFileSync(next, `${[...values].map(([name, before]) => `${name} = ${before}`).join('\n')}\n`, { mode: 0o644 })
  renameSync(next, memory.file)
  memory.values.set(path, value)
}

/** Variable → value of before. Empty when there is no file; a line that is not understood is passed over. */
export function readRememberedSysctls(file: string): Map<string, string> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return new Map()
  }
  return new Map(
    text
      .split('\n')
      .slice(0, MAX_ENTRIES)
      .flatMap((line) => {
        const [, name, value] = /^(net\/[^\0 ]+) = (.*)$/.exec(line) ?? []
        return name !== undefined && value !== undefined && !name.split('/').includes('..') ? [[name, value]] : []
      }),
  )
}
