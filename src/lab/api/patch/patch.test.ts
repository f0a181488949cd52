/** Strategic merge, and who owns what under server-side apply. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ApiError } from '../api-error.ts'
import { Catalog } from '../catalog.ts'
import type { KubeObject } from '../interfaces.ts'
import { applyConfiguration } from './apply.ts'
import { fieldsOf, sharedLeaves, subtract, union } from './fields.ts'
import { entriesOf, ownedPart, trackUpdate } from './managed-fields.ts'
import { mergePatch, strategicMerge } from './merge.ts'

const catalog = new Catalog()
const source = catalog.schemas
const pods = catalog.named('pods')!
const merge = (target: unknown, patch: unknown) => strategicMerge(source, pods.schema, target, patch)

test('a merge patch is RFC 7386', () => {
  assert.deepEqual(mergePatch({ a: 'b', c: { d: 'e', f: 'g' } }, { a: 'z', c: { f: null } }), { a: 'z', c: { d: 'e' } })
  assert.deepEqual(mergePatch({ a: [{ b: 'c' }] }, { a: [1] }), { a: [1] })
  assert.deepEqual(mergePatch([1, 2], { a: 'b', c: null }), { a: 'b' })
  assert.deepEqual(mergePatch({ a: 'foo' }, null), null)
})

test('strategic merge joins lists by their key, deletes, replaces, keeps order', () => {
  const pod = {
    spec: {
      containers: [
        { name: 'a', image: '1', ports: [{ containerPort: 80 }] },
        { name: 'b', image: '1' },
      ],
    },
  }
  assert.deepEqual(
    merge(pod, {
      spec: {
        containers: [
          { name: 'b', image: '2' },
          { name: 'c', image: '1' },
        ],
      },
    }),
    {
      spec: {
        containers: [
          { name: 'a', image: '1', ports: [{ containerPort: 80 }] },
          { name: 'b', image: '2' },
          { name: 'c', image: '1' },
        ],
      },
    },
  )
  assert.deepEqual(merge(pod, { spec: { containers: [{ name: 'a', $patch: 'delete' }] } }), {
    spec: { containers: [{ name: 'b', image: '1' }] },
  })
  assert.deepEqual(merge(pod, { spec: { containers: [{ $patch: 'replace' }, { name: 'x' }] } }), {
    spec: { containers: [{ name: 'x' }] },
  })
  const reordered = merge(pod, { spec: { '$setElementOrder/containers': [{ name: 'b' }, { name: 'a' }] } })
  assert.deepEqual(
    (reordered as typeof pod).spec.containers.map((c) => c.name),
    ['b', 'a'],
  )
  assert.throws(() => merge(pod, { spec: { containers: [{ image: '2' }] } }), /merge key: name/)
})

test('strategic merge knows primitive lists, retained keys and atomic lists', () => {
  assert.deepEqual(merge({ metadata: { finalizers: ['a'] } }, { metadata: { finalizers: ['b', 'a'] } }), {
    metadata: { finalizers: ['a', 'b'] },
  })
  assert.deepEqual(
    merge({ metadata: { finalizers: ['a', 'b'] } }, { metadata: { '$deleteFromPrimitiveList/finalizers': ['a'] } }),
    { metadata: { finalizers: ['b'] } },
  )
  const volume = { spec: { volumes: [{ name: 'v', emptyDir: {} }] } }
  const change = { spec: { volumes: [{ name: 'v', $retainKeys: ['name', 'hostPath'], hostPath: { path: '/x' } }] } }
  assert.deepEqual(merge(volume, change), { spec: { volumes: [{ name: 'v', hostPath: { path: '/x' } }] } })
  const tolerations = { spec: { tolerations: [{ key: 'a' }] } }
  assert.deepEqual(merge(tolerations, { spec: { tolerations: [{ key: 'b' }] } }), {
    spec: { tolerations: [{ key: 'b' }] },
  })
})

test('field sets: union, subtraction, shared leaves', () => {
  const a = { 'f:x': {}, 'f:y': { 'f:z': {}, 'f:w': {} } }
  const b = { 'f:y': { 'f:z': {} }, 'f:q': {} }
  assert.deepEqual(union(a, b), { ...a, 'f:q': {} })
  assert.deepEqual(subtract(a, b), { 'f:x': {}, 'f:y': { 'f:w': {} } })
  assert.deepEqual(sharedLeaves(a, b), [['f:y', 'f:z']])
  assert.deepEqual(
    fieldsOf(source, pods.schema, { spec: { nodeSelector: { a: 'b' }, containers: [{ name: 'c', command: ['x'] }] } }),
    {
      'f:spec': {
        'f:nodeSelector': {},
        'f:containers': { 'k:{"name":"c"}': { '.': {}, 'f:name': {}, 'f:command': {} } },
      },
    },
  )
})

const config = (spec: object, labels?: Record<string, string>): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'default', ...(labels && { labels }) },
  spec: spec as KubeObject['spec'],
})
const applied = (live: KubeObject, wanted: KubeObject, manager: string, force = false) =>
  applyConfiguration(source, pods, live, wanted, { manager }, force)
const nothing: KubeObject = { metadata: {} }

test('apply removes what its manager no longer says, and only that', () => {
  const one = {
    name: 'c',
    image: '1',
    env: [
      { name: 'A', value: '1' },
      { name: 'B', value: '2' },
    ],
  }
  let live = applied(nothing, config({ containers: [one] }, { a: '1', b: '2' }), 'me')
  live = applied(live, config({ containers: [{ name: 'sidecar', image: 's' }] }), 'other')
  live = applied(live, config({ containers: [{ ...one, env: [{ name: 'B', value: '2' }] }] }, { b: '2' }), 'me')
  assert.deepEqual(live.metadata.labels, { b: '2' })
  assert.deepEqual(live.spec.containers, [
    { name: 'c', image: '1', env: [{ name: 'B', value: '2' }] },
    { name: 'sidecar', image: 's' },
  ])
  live = applied(live, config({}), 'other')
  assert.deepEqual(
    live.spec.containers.map((c: { name: string }) => c.name),
    ['c'],
  )
  assert.deepEqual(entriesOf(live).find((entry) => entry.manager === 'other')?.fieldsV1, { 'f:spec': {} })
})

test('apply refuses to take what another manager set, unless forced; equal values are shared', () => {
  let live = applied(nothing, config({ containers: [{ name: 'c', image: '1' }] }), 'a')
  const other = config({ containers: [{ name: 'c', image: '2' }] })
  assert.throws(
    () => applied(live, other, 'b'),
    (error: ApiError) => {
      assert.equal(error.code, 409)
      assert.match(error.message, /conflict with "a" using v1: \.spec\.containers\[name="c"\]\.image/)
      assert.equal(error.details?.causes?.[0]?.reason, 'FieldManagerConflict')
      return true
    },
  )
  live = applied(live, config({ containers: [{ name: 'c', image: '1' }] }), 'b')
  assert.equal(entriesOf(live).length, 2)
  live = applied(live, other, 'b', true)
  assert.equal(live.spec.containers[0].image, '2')
  const [a] = entriesOf(live)
  assert.equal(a!.manager, 'a')
  assert.deepEqual(a!.fieldsV1, { 'f:spec': { 'f:containers': { 'k:{"name":"c"}': { '.': {}, 'f:name': {} } } } })
})

test('a plain update takes the fields that it changes, and no more', () => {
  const live = applied(nothing, config({ containers: [{ name: 'c', image: '1' }], nodeName: 'n' }), 'a')
  const next = structuredClone(live)
  next.spec.containers[0].image = '2'
  trackUpdate(source, pods, live, next, { manager: 'kubectl-edit' })
  const [a, edit] = entriesOf(next)
  assert.deepEqual(edit!.fieldsV1, { 'f:spec': { 'f:containers': { 'k:{"name":"c"}': { 'f:image': {} } } } })
  assert.equal(JSON.stringify(a!.fieldsV1).includes('image'), false)
  assert.ok(JSON.stringify(a!.fieldsV1).includes('f:nodeName'))
  assert.equal('uid' in ((ownedPart(next).metadata ?? {}) as object), false)
})
