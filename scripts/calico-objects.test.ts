/**
 * docs/calico-objects.md against the definitions and the readers: no key is left out, none is told otherwise than it is. BGP's
 * objects have a page of their own, and a test of their own: bgp-objects.test.ts.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { calicoDefinitions } from '../src/config/calico/definitions/index.ts'
import { felixKeys } from '../src/config/calico/felix.ts'
import { felixKeysNotApplying } from '../src/config/calico/felix-keys.ts'
import { nodeAnnotationKeys } from '../src/config/calico/node-annotations.ts'
import { writtenPodAnnotations } from '../src/config/calico/pod-words.ts'
import { GENEVE_MODE_ANNOTATION } from '../src/config/calico/pool.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const pages = ['docs/calico-objects.md', 'docs/zh/calico-objects.md'].map((path) => ({
  path,
  text: readFileSync(join(root, path), 'utf8'),
}))

/** Rows of tables, each as the codes of its columns. */
const rowsOf = (text: string): readonly (readonly (readonly string[])[])[] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.split('|').map((column) => [...column.matchAll(/`([^`]+)`/g)].map(([, code]) => code!)))

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
}

test('every key of every definition stands in a table', () => {
  for (const { path, text } of pages) {
    const codes = new Set(rowsOf(text).flat(2))
    for (const { spec } of calicoDefinitions) {
      const { names, versions } = spec as {
        names: { kind: string }
        versions: [{ schema: { openAPIV3Schema: { properties: { spec: Schema } } } }]
      }
      if (names.kind.startsWith('BGP')) continue
      const keys = versions[0].schema.openAPIV3Schema.properties.spec.properties ?? {}
      for (const [key, { items }] of Object.entries(keys)) {
        assert.ok(codes.has(key), `${path} lacks ${names.kind} ${key}`)
        for (const inner of Object.keys(items?.properties ?? {}))
          assert.ok(codes.has(inner), `${path} lacks ${names.kind} ${key}.${inner}`)
      }
      assert.match(text, new RegExp(`\\b${names.kind}\\b`))
    }
  }
})

test('keys of FelixConfiguration that do not apply stand together by their reason, and the others do not', () => {
  const groups = new Set(felixKeysNotApplying.map(({ keys }) => keys.join()))
  for (const { path, text } of pages) {
    const found = rowsOf(text).filter((columns) => groups.has(columns[2]?.join() ?? ''))
    assert.equal(found.length, groups.size, path)
    const kept = new Set(felixKeysNotApplying.flatMap(({ keys }) => keys))
    for (const key of felixKeys) assert.ok(!kept.has(key), key)
  }
  for (const { reason, keys } of felixKeysNotApplying)
    assert.ok(pages[0]!.text.includes(`\n| ${reason} | \`${keys[0]}\``), reason)
})

test('every annotation that is read or written stands in a table', () => {
  const names = [...nodeAnnotationKeys, ...Object.values(writtenPodAnnotations)].map((key) => key.split('/')[1]!)
  const asked = ['ipAddrs', 'ipAddrsNoIpam', 'ipv4pools', 'ipv6pools', 'ipFamilies', 'hwAddr'].concat(
    ...['allowedSourcePrefixes', 'floatingIPs', GENEVE_MODE_ANNOTATION],
  )
  for (const { path, text } of pages) {
    const codes = new Set(rowsOf(text).flat(2))
    for (const name of [...names, ...asked]) assert.ok(codes.has(name), `${path} lacks ${name}`)
  }
})
