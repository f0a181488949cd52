/**
 * The guest's kernel has what the tier is for: without this, a test there could skip and nobody would see it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { probeKernel } from '../../src/kernel/probe.ts'

test('this kernel has every kind of device and every feature that weft knows', async () => {
  const { release, links, nftables, ...rest } = await probeKernel()
  console.log(`Linux ${release}`)
  const missing = Object.entries({ ...links, ...nftables, ...rest }).flatMap(([name, has]) => (has ? [] : name))
  assert.deepEqual(missing, [])
})
