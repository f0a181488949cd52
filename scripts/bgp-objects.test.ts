/** docs/bgp-objects.md against the definitions and the readers: no key is left out, none is told otherwise than it is. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bgpConfigurationKeys, nodeBgpConfigurationKeys } from '../src/config/calico/bgp-configuration.ts'
import { bgpFilterKeys, bgpFilterOperationKeys, bgpFilterRuleKeys } from '../src/config/calico/bgp-filter.ts'
import { type BgpKind, bgpKeysNotApplying } from '../src/config/calico/bgp-keys.ts'
import { bgpPeerKeys } from '../src/config/calico/bgp-peer.ts'
import { calicoDefinitions } from '../src/config/calico/definitions/index.ts'
import { nodeBgpAnnotations, serviceBgpAnnotations } from '../src/config/kube-router/bgp-node.ts'
import { BGP_KEYS } from '../src/config/kube-router/bgp-settings.ts'
import { bgpSecret } from '../src/install/rights.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const pages = ['docs/bgp-objects.md', 'docs/zh/bgp-objects.md'].map((path) => ({
  path,
  text: readFileSync(join(root, path), 'utf8'),
}))

const codesIn = (text: string): readonly string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, code]) => code!)

/** Codes of the first column of the tables under a heading (the n-th of second rank, counted from 0). */
function firstColumn(text: string, section: number): ReadonlySet<string> {
  const part = text.split(/^## /m)[section + 1] ?? ''
  const rows = part.split('\n').filter((line) => line.startsWith('| '))
  return new Set(rows.flatMap((row) => codesIn(row.split('|')[1]!)))
}

const SECTIONS = { BGPConfiguration: 0, BGPPeer: 1, BGPFilter: 2, notApplying: 4, flags: 6, annotations: 7 } as const
const honoured: Readonly<Record<BgpKind, readonly string[]>> = {
  BGPConfiguration: bgpConfigurationKeys,
  BGPPeer: bgpPeerKeys,
  BGPFilter: bgpFilterKeys,
}

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
}

function specOf(kind: BgpKind): Readonly<Record<string, Schema>> {
  const { spec } = calicoDefinitions.find((each) => (each.spec.names as { kind: string }).kind === kind)!
  const { versions } = spec as unknown as {
    versions: [{ schema: { openAPIV3Schema: { properties: { spec: Schema } } } }]
  }
  return versions[0].schema.openAPIV3Schema.properties.spec.properties ?? {}
}

test('the definitions have the keys that are honoured and those that do not apply, and no others', () => {
  for (const kind of Object.keys(honoured) as BgpKind[]) {
    const kept = bgpKeysNotApplying[kind].flatMap(({ keys }) => keys)
    assert.deepEqual(Object.keys(specOf(kind)).sort(), [...honoured[kind], ...kept].sort(), kind)
  }
  for (const list of bgpFilterKeys) {
    const rule = specOf('BGPFilter')[list]!.items!.properties!
    assert.deepEqual(Object.keys(rule).sort(), [...bgpFilterRuleKeys].sort())
    assert.deepEqual(Object.keys(rule.operations!.items!.properties!).sort(), [...bgpFilterOperationKeys].sort())
  }
})

test('every key that is honoured has its row, and no key that is not', () => {
  for (const { path, text } of pages) {
    for (const kind of ['BGPConfiguration', 'BGPPeer'] as const)
      assert.deepEqual([...firstColumn(text, SECTIONS[kind])].sort(), [...honoured[kind]].sort(), `${path} ${kind}`)
    const filter = [...firstColumn(text, SECTIONS.BGPFilter)].sort()
    assert.deepEqual(filter, [...bgpFilterRuleKeys, ...bgpFilterOperationKeys].sort(), path)
    for (const key of bgpFilterKeys) assert.ok(text.includes(`\`${key}\``), `${path} lacks ${key}`)
    const intro = text.split(/^## /m)[1]!.split('\n')[1]!
    for (const key of nodeBgpConfigurationKeys) assert.ok(codesIn(intro).includes(key), `${path}: node.NAME and ${key}`)
  }
})

test('keys that do not apply stand together by their reason', () => {
  const keysOf = new Map<string, string[]>()
  for (const { reason, keys } of Object.values(bgpKeysNotApplying).flat())
    keysOf.set(reason, [...(keysOf.get(reason) ?? []), ...keys])
  for (const { path, text } of pages) {
    const rows = text
      .split(/^## /m)
      [SECTIONS.notApplying + 1]!.split('\n')
      .filter((line) => line.startsWith('| '))
      .map((line) => codesIn(line))
      .filter((codes) => codes.length > 0)
    assert.deepEqual(rows, [...keysOf.values()], path)
  }
  for (const reason of keysOf.keys()) assert.ok(pages[0]!.text.includes(`\n| ${reason} |`), reason)
})

test("kube-router's flags and annotations have their rows", () => {
  for (const { path, text } of pages) {
    assert.deepEqual([...firstColumn(text, SECTIONS.flags)].sort(), [...BGP_KEYS].sort(), path)
    const annotations = [...nodeBgpAnnotations, ...Object.values(serviceBgpAnnotations)].sort()
    assert.deepEqual([...firstColumn(text, SECTIONS.annotations)].sort(), annotations, path)
    assert.ok(codesIn(text).includes(bgpSecret), path)
  }
})
