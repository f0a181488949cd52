/**
 * What goes into the image: the running Node with the libraries it loads, the bundled program with the modules it loads
 * by name, the native programs, and the licences of all of them. Neither a shell nor any other tool.
 *
 *   /usr/bin/node                     /usr/bin/weft → /usr/lib/weft/dist/weft.js
 *   /usr/lib/weft/{package.json,dist/{weft.js,chunks,native},node_modules}
 *   /usr/share/licenses/…
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { bundle } from '../build.ts'
import { findLibraries, trimElf } from './elf.ts'
import type { TarEntry } from './tar.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Modules that the bundle asks for by name. The lab alone uses lmdb, and is not in the image. */
const loadedPackages = ['koffi', 'pino']
const nativePrograms = ['weft-cni', 'weft-tunnel']

const file = (path: string, data: Buffer | string, mode = 0o644): TarEntry => ({
  path,
  type: 'file',
  data: Buffer.from(data),
  mode,
})

/** Node, its loader and libraries (`also`: further files whose libraries are needed), and the few files that libc reads. */
export function baseEntries(also: readonly string[]): TarEntry[] {
  const node = realpathSync(process.execPath)
  const libraries = findLibraries([node, ...also])
  return [
    file('usr/bin/node', trimElf(readFileSync(node)), 0o755),
    ...[...libraries].map(([place, source]) => file(place, trimElf(readFileSync(source)), 0o755)),
    file('etc/passwd', 'root:x:0:0:root:/:/sbin/nologin\n'),
    file('etc/group', 'root:x:0:\n'),
    file('etc/nsswitch.conf', 'hosts: files dns\n'),
    { path: 'tmp', type: 'directory', mode: 0o1777 },
    // Runtimes name network namespaces by /var/run/netns.
    { path: 'run', type: 'directory', mode: 0o755 },
    { path: 'var/run', type: 'symlink', target: '../run' },
    ...licenceOfNode(node),
    ...licencesOfLibraries([...libraries.values()]),
  ]
}

/** The program itself; `version` is what `weft --version` prints. */
export async function appEntries(version: string): Promise<TarEntry[]> {
  const { metafile, files } = await bundle({ write: false, sourcemap: false, without: ['bin/lab.ts'] })
  const modules = await moduleFiles()
  const packages = new Set([...Object.keys(metafile.inputs), ...modules].flatMap((path) => packageOf(path) ?? []))
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, unknown>
  const { name, description, license, type } = manifest
  const main = Buffer.from(files.get('weft.js')!)
  return [
    file(
      'usr/lib/weft/package.json',
      `${JSON.stringify({ name, version, description, license, type }, undefined, 2)}\n`,
    ),
    // The kernel hands over one argument. A young generation of 2 MiB, as in the script of the checkout.
    file(
      'usr/lib/weft/dist/weft.js',
      Buffer.concat([Buffer.from('#!/usr/bin/node --max-semi-space-size=2\n'), main]),
      0o755,
    ),
    ...[...files]
      .filter(([path]) => path !== 'weft.js')
      .map(([path, data]) => file(`usr/lib/weft/dist/${path}`, Buffer.from(data))),
    ...nativePrograms.map((program) => {
      const path = join(root, 'dist/native', program)
      if (!existsSync(path)) throw new Error(`dist/native/${program} is missing: run scripts/setup.sh`)
      return file(`usr/lib/weft/dist/native/${program}`, trimElf(readFileSync(path)), 0o755)
    }),
    ...modules.map((path) => file(`usr/lib/weft/${path}`, readFileSync(join(root, path)))),
    { path: 'usr/bin/weft', type: 'symlink', target: '../lib/weft/dist/weft.js' },
    file('usr/share/licenses/weft/LICENSE', readFileSync(join(root, 'LICENSE'))),
    ...[...packages].sort().flatMap(licencesOfPackage),
  ]
}

/** Koffi's native part for this platform, whose libraries the base has to hold. */
export function nativeModule(): string {
  const path = join(root, 'node_modules', `@koromix/koffi-linux-${process.arch}`, `linux_${process.arch}`, 'koffi.node')
  if (!existsSync(path)) throw new Error(`${path} is missing: koffi has no build for this platform`)
  return path
}

/** Paths, from the checkout, of the files that the packages outside the bundle consist of at run time. */
async function moduleFiles(): Promise<string[]> {
  const { metafile } = await build({
    absWorkingDir: root,
    stdin: { contents: loadedPackages.map((name) => `import ${JSON.stringify(name)}`).join('\n'), resolveDir: root },
    bundle: true,
    write: false,
    platform: 'node',
    format: 'esm',
    metafile: true,
    logLevel: 'error',
    preserveSymlinks: true,
    external: ['*.node', '@koromix/*'],
  })
  const files = Object.keys(metafile.inputs).filter((path) => path.startsWith('node_modules/'))
  const koffi = nativeModule().slice(root.length)
  files.push(koffi, `${dirname(dirname(koffi))}/index.js`)
  const manifests = files.flatMap((path) => packageOf(path) ?? []).map((name) => `node_modules/${name}/package.json`)
  return [...new Set([...files, ...manifests])].sort()
}

/** `@scope/name` or `name` of a path below node_modules. */
const packageOf = (path: string): string | undefined => /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]

function licencesOfPackage(name: string): TarEntry[] {
  const folder = resolve(root, 'node_modules', name)
  const { license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { license?: string }
  const files = readdirSync(folder).filter((entry) => /^(licen[cs]e|copying|notice)/i.test(entry))
  const place = `usr/share/licenses/node-modules/${name}`
  if (files.length === 0) return [file(`${place}/LICENSE`, `${license ?? 'no licence is named'}\n`)]
  return files.map((entry) => file(`${place}/${entry}`, readFileSync(join(folder, entry))))
}

function licenceOfNode(node: string): TarEntry[] {
  const prefix = dirname(dirname(node))
  const places = [`${prefix}/LICENSE`, `${prefix}/share/doc/nodejs/LICENSE`, `${prefix}/share/doc/nodejs/copyright`]
  const found = places.find((path) => existsSync(path))
  return found ? [file('usr/share/licenses/node/LICENSE', readFileSync(found))] : []
}

const librariesOfPackage: readonly [RegExp, string][] = [
  [/^(ld-|lib(c|m|dl|pthread|rt|resolv)[-.])/, 'libc6'],
  [/^libstdc\+\+/, 'libstdc++6'],
  [/^libgcc_s/, 'libgcc-s1'],
]

/** Debian's copyright files of the packages that the libraries are of. */
function licencesOfLibraries(paths: readonly string[]): TarEntry[] {
  const names = paths.flatMap((path) => librariesOfPackage.find(([pattern]) => pattern.test(basename(path)))?.[1] ?? [])
  return [...new Set(names)]
    .map((name) => ({ name, path: `/usr/share/doc/${name}/copyright` }))
    .filter(({ path }) => existsSync(path))
    .map(({ name, path }) => file(`usr/share/licenses/${name}/copyright`, readFileSync(path)))
}
