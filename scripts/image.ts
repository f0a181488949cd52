/**
 * `npm run image`: writes weft's image as one archive, without a registry and without docker.
 *
 *   tsx scripts/image.ts [--output FILE] [--name REPOSITORY] [--tag TAG]
 *
 * The same checkout, Node and libraries give the same digest. `--tag` is also what `weft --version` says in the image;
 * left out, it is package.json's version. SOURCE_DATE_EPOCH takes the place of the commit's time.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { writeImage } from './image/archive.ts'
import { appEntries, baseEntries, nativeModule } from './image/program.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as { version: string }
const { values } = parseArgs({
  options: {
    output: { type: 'string', default: `${root}dist/weft-image.tar` },
    name: { type: 'string', default: 'weft.dev/weft' },
    tag: { type: 'string', default: version },
  },
})
if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/.test(values.tag)) throw new Error(`${values.tag} is not a tag`)

/** Undefined outside a checkout. */
function git(...args: string[]): string | undefined {
  try {
    return execFileSync('git', ['-C', root, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return undefined
  }
}

const commit = git('rev-parse', 'HEAD')
const dirty = git('status', '--porcelain', '--', 'bin', 'src', 'native', 'scripts/image', 'package-lock.json')
const createdSeconds = Number(process.env.SOURCE_DATE_EPOCH ?? git('show', '-s', '--format=%ct', 'HEAD') ?? 0)
const architecture = { x64: 'amd64', arm64: 'arm64' }[process.arch as string] ?? process.arch

const started = performance.now()
const { archive, digest, layers } = writeImage({
  name: `${values.name}:${values.tag}`,
  architecture,
  layers: [
    { comment: `Node ${process.version} and its libraries`, entries: baseEntries([nativeModule()]) },
    { comment: `weft ${values.tag}`, entries: await appEntries(values.tag) },
  ],
  entrypoint: ['/usr/bin/weft'],
  env: ['PATH=/usr/bin', 'NODE_OPTIONS=--disable-warning=ExperimentalWarning'],
  labels: {
    'org.opencontainers.image.title': 'weft',
    'org.opencontainers.image.description': 'A Kubernetes pod network',
    'org.opencontainers.image.licenses': 'Apache-2.0',
    'org.opencontainers.image.version': values.tag,
    ...(commit ? { 'org.opencontainers.image.revision': dirty ? `${commit}-dirty` : commit } : {}),
  },
  createdSeconds,
})
const output = resolve(values.output)
mkdirSync(dirname(output), { recursive: true })
writeFileSync(`${output}.${process.pid}`, archive)
renameSync(`${output}.${process.pid}`, output)

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
for (const { comment, bytes, compressedBytes } of layers)
  console.log(`layer ${comment}: ${mib(bytes)}, ${mib(compressedBytes)} compressed`)
console.log(`${values.name}:${values.tag} ${digest}`)
console.log(`${output} (${mib(archive.length)}, ${Math.round(performance.now() - started)} ms)`)
