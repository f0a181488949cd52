/**
 * The layer check: which folder may import which. The table is the one of the design; a new edge is a reviewed
 * line here. Run alone it prints every breach and exits 1; scripts/layers.test.ts runs it as a test.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Room → layer. The longest matching prefix of a path under src/ counts. */
const layerOf: Readonly<Record<string, number>> = {
  bytes: 0,
  net: 0,
  wire: 1,
  model: 1,
  config: 2,
  datapath: 2,
  service: 2,
  policy: 2,
  ipam: 2,
  bgp: 2,
  kernel: 3,
  cluster: 3,
  status: 3,
  'ipam/stores': 3,
  'bgp/session': 3,
  apply: 4,
  cni: 5,
  agent: 5,
  controller: 5,
  lab: 5,
  inspect: 5,
  install: 5,
}

/** Edges beyond "a lower layer, or the same room": each with its reason. */
const allowedEdges: readonly (readonly [from: string, to: string, why: string])[] = [
  ['net', 'bytes', 'values are written and read with the byte cursor'],
  ['cluster', 'ipam/stores', 'implements the store that blocks are kept in'],
  ['agent', 'cni', 'the agent is the composition; the CNI server is one of its features'],
  ['lab', 'inspect', 'the lab shows captures'],
  ['bgp/session', 'kernel', 'sessions set options on sockets before they connect, by the one file of system calls'],
]

/** Edges that the layers would permit and the design forbids. */
const forbiddenEdges: readonly (readonly [from: string, to: string])[] = [
  ['wire', 'model'],
  ['model', 'wire'],
  ['bytes', 'net'],
]

/** Packages that only one file may load. */
const packageHomes: Readonly<Record<string, string>> = {
  koffi: 'src/kernel/linux/syscalls.ts',
}

export interface Breach {
  readonly file: string
  readonly imported: string
  readonly rule: string
}

const roomOf = (path: string): string => {
  const parts = path.split('/')
  for (let n = Math.min(parts.length, 3); n > 0; n--) {
    const room = parts.slice(0, n).join('/').replace(/\.ts$/, '')
    if (room in layerOf) return room
  }
  return parts[0]!
}

function* sourceFiles(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true }))
    if (entry.isFile() && /\.tsx?$/.test(entry.name)) yield join(entry.parentPath, entry.name)
}

const importPattern =
  /(?:^|\n)\s*(?:import|export)\s(?:[^'"]*?\sfrom\s)?['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)/g

/** Every import that the table does not allow. */
export function findBreaches(): Breach[] {
  const breaches: Breach[] = []
  const src = join(root, 'src')
  for (const file of sourceFiles(src)) {
    const shown = relative(root, file)
    const from = roomOf(relative(src, file))
    const isTest = /\.test\.ts$/.test(file)
    const report = (imported: string, rule: string) => breaches.push({ file: shown, imported, rule })
    for (const match of readFileSync(file, 'utf8').matchAll(importPattern)) {
      const name = (match[1] ?? match[2])!
      if (!name.startsWith('.')) {
        const layer = layerOf[from]!
        if (layer <= 2 && !isTest) report(name, `${from} is pure: no packages, no node modules`)
        const home = packageHomes[name]
        if (home && home !== shown) report(name, `${name} is loaded in ${home} only`)
        continue
      }
      const target = resolve(dirname(file), name)
      if (!target.startsWith(src)) {
        if (!isTest) report(name, 'src imports nothing outside src')
        continue
      }
      const to = roomOf(relative(src, target))
      if (isTest || from === to) continue
      const edge = allowedEdges.some(([a, b]) => a === from && b === to)
      const forbidden = forbiddenEdges.some(([a, b]) => a === from && b === to)
      const down = layerOf[to]! < layerOf[from]!
      if (forbidden || !(down || edge))
        report(name, `${from} (layer ${layerOf[from]}) may not import ${to} (layer ${layerOf[to]})`)
    }
  }
  return breaches
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const breaches = findBreaches()
  for (const { file, imported, rule } of breaches) console.error(`${file}: imports ${imported}: ${rule}`)
  console.error(breaches.length ? `${breaches.length} breaches of the layer table` : 'layers hold')
  process.exitCode = breaches.length ? 1 : 0
}
