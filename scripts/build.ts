/**
 * Bundles the program into dist/. Packages with native parts or with their own files stay outside the bundle.
 * One bundle with split chunks: a command loads only what it uses.
 */
import { rmSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Metafile } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Packages that the bundle loads from node_modules. */
export const outsidePackages: readonly string[] = ['koffi', 'lmdb', 'pino']

export interface BundleOptions {
  /** Into dist/; otherwise the files are returned alone. */
  readonly write: boolean
  readonly sourcemap: boolean
  /** Commands (`bin/lab.ts`) that the program does not get. */
  readonly without?: readonly string[]
}

export interface Bundle {
  readonly metafile: Metafile
  /** By path below dist/: `weft.js`, `chunks/…`. Empty when they were written. */
  readonly files: ReadonlyMap<string, Uint8Array>
}

/** Makes `weft.js` and `chunks/`. */
export async function bundle({ write, sourcemap, without = [] }: BundleOptions): Promise<Bundle> {
  if (write) rmSync(`${root}dist/chunks`, { recursive: true, force: true })
  const left = without.map((file) => resolve(root, file))
  const { metafile, outputFiles = [] } = await build({
    absWorkingDir: root,
    entryPoints: { weft: 'bin/weft.ts' },
    outdir: 'dist',
    write,
    bundle: true,
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    platform: 'node',
    target: 'node20',
    format: 'esm',
    minifySyntax: true,
    ...(sourcemap ? { sourcemap: 'linked' as const } : {}),
    metafile: true,
    logLevel: 'warning',
    external: [...outsidePackages],
    banner: {
      js: "import { createRequire as weftCreateRequire } from 'node:module'; const require = weftCreateRequire(import.meta.url);",
    },
    plugins: [
      {
        name: 'without',
        setup({ onLoad }) {
          onLoad({ filter: /[\\/]bin[\\/][a-z-]+\.ts$/ }, ({ path }) =>
            left.includes(path) ? { contents: 'export function register() {}', loader: 'ts' } : undefined,
          )
        },
      },
    ],
  })
  return {
    metafile,
    files: new Map(outputFiles.map(({ path, contents }) => [relative(`${root}dist`, path), contents])),
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const started = process.hrtime.bigint()
  const { outputs } = (await bundle({ write: true, sourcemap: true })).metafile
  const bytes = Object.entries(outputs)
    .filter(([name]) => name.endsWith('.js'))
    .reduce((sum, [, output]) => sum + output.bytes, 0)
  console.log(
    `built dist/weft.js (${Math.round(bytes / 1024)} KiB) in ${(process.hrtime.bigint() - started) / 1000000n} ms`,
  )
}
