import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse, parseAllDocuments } from 'yaml'
import { type KubeObject, pathOf } from '../src/install/kube-object.ts'
import { manifestObjects } from '../src/install/manifest.ts'
import { defaultValues } from '../src/install/values.ts'
import { manifestFiles } from './manifests.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const { version } = JSON.parse(read('package.json')) as { version: string }

test('the manifests under deploy/ are those of the source', () => {
  for (const [path, text] of manifestFiles()) {
    if (process.env.UPDATE) writeFileSync(join(root, path), text)
    assert.equal(read(path), text, `${path} differs; write it with tsx scripts/manifests.ts`)
  }
})

test('what a manifest says is what install applies, and every object has a place of its own', () => {
  const objects = manifestObjects(defaultValues(version))
  const written = parseAllDocuments(read('deploy/weft.yaml')).map((document) => document.toJS() as KubeObject)
  assert.deepEqual(written, JSON.parse(JSON.stringify(objects)))
  const places = objects.map(pathOf)
  assert.equal(new Set(places).size, places.length)
  assert.ok(places.includes('/apis/apps/v1/namespaces/kube-flannel/daemonsets/weft-agent'))
  assert.ok(
    places.includes('/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/weft-agent-own-node'),
    places.join('\n'),
  )
})

test('every rule of a role stands under its reason', () => {
  const templates = ['rights', 'controller'].map((name) => `deploy/helm/weft/templates/${name}.yaml`)
  for (const path of ['deploy/weft.yaml', 'deploy/agent-rbac.yaml', 'deploy/controller-rbac.yaml', ...templates])
    for (const [, before] of read(path).matchAll(/^(.*)\n {2}- apiGroups:/gm))
      if (before !== '    resourceRules:') assert.match(before!, /^ {2}# \S/, path)
})

test("the chart's values are install's, and its version weft's", () => {
  const { createNamespace, ...values } = parse(read('deploy/helm/weft/values.yaml'))
  assert.equal(createNamespace, true)
  const { image, ...defaults } = defaultValues(version)
  assert.deepEqual(values, { ...defaults, image: { ...image, tag: '' } })
  const chart = parse(read('deploy/helm/weft/Chart.yaml'))
  assert.deepEqual([chart.version, chart.appVersion], [version, version])
})
