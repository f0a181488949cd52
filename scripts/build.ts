/**
 * Bundles the program into dist/. Packages with native parts or with their own files stay outside the bundle.
 * One bundle with split chunks: a command loads only what it uses.
 */
import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

const started = process.hrtime.bigint()
rmSync(`${root}dist/chunks`, { recursive: true, force: true })
const result = await build({
  absWorkingDir: root,
  entryPoints: { weft: 'bin/weft.ts' },
  outdir: 'dist',
  bundle: true,
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  minifySyntax: true,
  sourcemap: 'linked',
  metafile: true,
  logLevel: 'warning',
  external: ['koffi', 'lmdb', 'pino'],
  banner: {
    js: "import { createRequire as weftCreateRequire } from 'node:module'; const require = weftCreateRequire(import.meta.url);",
  },
})
const bytes = Object.entries(result.metafile.outputs)
  .filter(([name]) => name.endsWith('.js'))
  .reduce((sum, [, output]) => sum + output.bytes, 0)
console.log(
  `built dist/weft.js (${Math.round(bytes / 1024)} KiB) in ${(process.hrtime.bigint() - started) / 1000000n} ms`,
)
