/**
 * Writes a tar archive whose bytes depend on its entries alone: sorted by path, owned by root, one time for all, parent
 * directories made. A layer of an image is one, and so is the archive around it.
 *
 * Sources: POSIX.1-2001 pax "ustar Interchange Format"; OCI image-spec layer.md (paths without a leading slash).
 */

export type TarEntry =
  | { readonly path: string; readonly type: 'file'; readonly data: Buffer; readonly mode: number }
  | { readonly path: string; readonly type: 'symlink'; readonly target: string }
  | { readonly path: string; readonly type: 'directory'; readonly mode: number }

const BLOCK = 512
const typeFlags = { file: '0', symlink: '2', directory: '5' } as const

/** `seconds` is the time of every entry, Unix. Throws for a path that ustar cannot hold and for one given twice. */
export function writeTar(entries: readonly TarEntry[], seconds: number): Buffer {
  const byPath = new Map<string, TarEntry>()
  for (const entry of entries) {
    const path = entry.path.replace(/^\/+/, '')
    if (byPath.has(path)) throw new Error(`${path} is in the archive twice`)
    byPath.set(path, { ...entry, path })
  }
  for (const path of [...byPath.keys()])
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      const parent = path.slice(0, end)
      if (!byPath.has(parent)) byPath.set(parent, { path: parent, type: 'directory', mode: 0o755 })
    }
  const parts: Buffer[] = []
  for (const path of [...byPath.keys()].sort()) {
    const entry = byPath.get(path)!
    parts.push(header(entry, seconds))
    if (entry.type !== 'file') continue
    parts.push(entry.data, Buffer.alloc((BLOCK - (entry.data.length % BLOCK)) % BLOCK))
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)])
}

function header(entry: TarEntry, seconds: number): Buffer {
  const block = Buffer.alloc(BLOCK)
  const octal = (value: number, at: number, length: number) =>
    block.write(value.toString(8).padStart(length - 1, '0'), at, 'latin1')
  const { name, prefix } = splitPath(entry.type === 'directory' ? `${entry.path}/` : entry.path)
  block.write(name, 0, 'utf8')
  octal(entry.type === 'symlink' ? 0o777 : entry.mode, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(entry.type === 'file' ? entry.data.length : 0, 124, 12)
  octal(seconds, 136, 12)
  block.write(typeFlags[entry.type], 156, 'latin1')
  if (entry.type === 'symlink') {
    if (Buffer.byteLength(entry.target) > 100) throw new Error(`${entry.path}: the link's target is too long`)
    block.write(entry.target, 157, 'utf8')
  }
  block.write('ustar\u000000', 257, 'latin1')
  block.write(prefix, 345, 'utf8')
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** A name of at most 100 bytes and a prefix of at most 155, parted at a slash. */
function splitPath(path: string): { name: string; prefix: string } {
  if (Buffer.byteLength(path) <= 100) return { name: path, prefix: '' }
  for (let at = path.indexOf('/'); at > 0; at = path.indexOf('/', at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)]
    if (name !== '' && Buffer.byteLength(name) <= 100 && Buffer.byteLength(prefix) <= 155) return { name, prefix }
  }
  throw new Error(`${path} is too long for an archive`)
}
