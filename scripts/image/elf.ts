/**
 * As much of ELF as it takes to put a program into an image: which loader and libraries it asks for, where this machine
 * has them, and the program without what only debuggers read.
 *
 * Sources: System V ABI chapters 4 and 5 (ELF header, program headers, dynamic section), ld.so(8) (search order).
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

const PT_LOAD = 1
const PT_DYNAMIC = 2
const PT_INTERP = 3
const DT_NEEDED = 1n
const DT_STRTAB = 5n
const DT_RPATH = 15n
const DT_RUNPATH = 29n

interface Segment {
  readonly type: number
  readonly offset: number
  readonly address: number
  readonly fileSize: number
}

export interface ElfNeeds {
  /** The program's loader, `/lib64/ld-linux-x86-64.so.2`; undefined for a library and for a static program. */
  readonly interpreter: string | undefined
  /** Names of libraries, `libc.so.6`. */
  readonly needed: readonly string[]
  readonly searchPaths: readonly string[]
}

/** Throws for what is not a 64-bit little-endian ELF file. */
export function readNeeds(file: Buffer): ElfNeeds {
  const segments = readSegments(file)
  const text = (at: number) => file.toString('latin1', at, file.indexOf(0, at))
  const interp = segments.find(({ type }) => type === PT_INTERP)
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC)
  const needed: string[] = []
  const searchPaths: string[] = []
  if (dynamic) {
    const rows: [bigint, number][] = []
    for (let at = dynamic.offset; at < dynamic.offset + dynamic.fileSize; at += 16)
      rows.push([file.readBigUInt64LE(at), Number(file.readBigUInt64LE(at + 8))])
    const strings = offsetOf(segments, rows.find(([tag]) => tag === DT_STRTAB)?.[1] ?? 0)
    for (const [tag, value] of rows) {
      if (tag === DT_NEEDED) needed.push(text(strings + value))
      if (tag === DT_RPATH || tag === DT_RUNPATH) searchPaths.push(...text(strings + value).split(':'))
    }
  }
  return { interpreter: interp && text(interp.offset), needed, searchPaths }
}

/**
 * Every library that the files need, theirs included, and the loader: where the loader will look for it, and where it is
 * on this machine. Throws naming a library that is nowhere.
 */
export function findLibraries(files: readonly string[]): Map<string, string> {
  const found = new Map<string, string>()
  const bySoname = new Map<string, string>()
  const waiting = [...files]
  const machinePaths = systemPaths()
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const { interpreter, needed, searchPaths } = readNeeds(readFileSync(path))
    if (interpreter && !found.has(interpreter)) {
      found.set(interpreter, realpathSync(interpreter))
      bySoname.set(basename(interpreter), interpreter)
    }
    const own = searchPaths.map((folder) => folder.replace(/\$\{?ORIGIN\}?/, dirname(path)))
    for (const name of needed) {
      if (bySoname.has(name)) continue
      const place = [...own, ...machinePaths].map((folder) => join(folder, name)).find((file) => existsSync(file))
      if (place === undefined) throw new Error(`${path} needs ${name}, which is nowhere on this machine`)
      bySoname.set(name, place)
      waiting.push(realpathSync(place))
    }
  }
  // The loader looks without a cache in few folders only, and surely where its libc is.
  const home = dirname(bySoname.get('libc.so.6') ?? '/lib/libc.so.6')
  for (const [name, place] of bySoname) if (!found.has(place)) found.set(join(home, name), realpathSync(place))
  return found
}

/** The file up to the end of what is loaded into memory: symbols and debug sections are after it. */
export function trimElf(file: Buffer): Buffer {
  const loaded = readSegments(file).filter(({ type }) => type === PT_LOAD)
  const headers = Number(file.readBigUInt64LE(32)) + file.readUInt16LE(54) * file.readUInt16LE(56)
  const end = loaded.reduce((most, { offset, fileSize }) => Math.max(most, offset + fileSize), headers)
  if (end >= file.length) return file
  const trimmed = Buffer.from(file.subarray(0, end))
  trimmed.writeBigUInt64LE(0n, 40) // e_shoff
  trimmed.writeUInt16LE(0, 60) // e_shnum
  trimmed.writeUInt16LE(0, 62) // e_shstrndx
  return trimmed
}

function readSegments(file: Buffer): Segment[] {
  if (file.toString('latin1', 0, 6) !== '\x7fELF\x02\x01') throw new Error('this is no 64-bit little-endian ELF file')
  const [start, size, count] = [Number(file.readBigUInt64LE(32)), file.readUInt16LE(54), file.readUInt16LE(56)]
  return Array.from({ length: count }, (_, index) => {
    const at = start + index * size
    return {
      type: file.readUInt32LE(at),
      offset: Number(file.readBigUInt64LE(at + 8)),
      address: Number(file.readBigUInt64LE(at + 16)),
      fileSize: Number(file.readBigUInt64LE(at + 32)),
    }
  })
}

function offsetOf(segments: readonly Segment[], address: number): number {
  const home = segments.find(
    (segment) => segment.type === PT_LOAD && address >= segment.address && address < segment.address + segment.fileSize,
  )
  if (!home) throw new Error('the dynamic section points nowhere')
  return address - home.address + home.offset
}

/** Folders of /etc/ld.so.conf and what it includes, then the standard ones. */
function systemPaths(): string[] {
  const listed = (file: string): string[] => {
    if (!existsSync(file)) return []
    return readFileSync(file, 'utf8')
      .split('\n')
      .flatMap((line) => {
        const include = /^include\s+(\S+)\/\*\.conf$/.exec(line.trim())?.[1]
        if (include !== undefined)
          return existsSync(include)
            ? readdirSync(include)
                .filter((name) => name.endsWith('.conf'))
                .sort()
                .flatMap((name) => listed(join(include, name)))
            : []
        return line.startsWith('/') ? [line.trim()] : []
      })
  }
  return [...listed('/etc/ld.so.conf'), '/lib64', '/usr/lib64', '/lib', '/usr/lib']
}
