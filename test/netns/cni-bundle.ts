/**
 * The CNI server's process as it is shipped: bundled, so that it starts in a tenth of a second and runs what users run.
 */
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Bundles cni-agent.ts into a folder and returns the file to run with node. A guest finds it made beforehand. */
export async function bundleCniAgent(folder: string): Promise<string> {
  const { WEFT_TEST_BUNDLES } = process.env
  if (WEFT_TEST_BUNDLES) return join(WEFT_TEST_BUNDLES, 'netns-cni-agent.mjs')
  const outfile = join(folder, 'cni-agent.mjs')
  await build({
    absWorkingDir: root,
    entryPoints: ['test/netns/cni-agent.ts'],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    external: ['koffi', 'yaml'],
    logLevel: 'error',
  })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  return outfile
}
