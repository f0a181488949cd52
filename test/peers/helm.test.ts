/** The chart beside `weft install`: Helm itself renders one, the same values make the other, and the objects are alike. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import type { KubeObject } from '../../src/install/kube-object.ts'
import { manifestObjects } from '../../src/install/manifest.ts'
import { defaultValues, type InstallValues } from '../../src/install/values.ts'
import { buildGoProgram } from './go-program.ts'

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const chart = path('../../deploy/helm/weft')
const { version } = JSON.parse(readFileSync(path('../../package.json'), 'utf8')) as { version: string }
const built = buildGoProgram(path('./helm'), 'helm', 'helm.sh/helm/v3/cmd/helm', { CGO_ENABLED: '0' })
const skip = 'missing' in built && built.missing

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-test-helm-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

const helm = (...args: string[]): string => {
  assert.ok('program' in built)
  const home = { HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder }
  return execFileSync(built.program, args, { encoding: 'utf8', env: { ...process.env, ...home } })
}

/** By kind and name; the configuration as what it says, not as how it is laid out. */
function comparable(objects: readonly KubeObject[]): Record<string, unknown> {
  const plain = JSON.parse(JSON.stringify(objects)) as (KubeObject & { data?: { 'net-conf.json': string } })[]
  return Object.fromEntries(
    plain.map((object) => [
      `${object.kind} ${object.metadata.name}`,
      object.data ? { ...object, data: JSON.parse(object.data['net-conf.json']) } : object,
    ]),
  )
}

function render(values: object): KubeObject[] {
  const file = join(folder, 'values.yaml')
  writeFileSync(file, JSON.stringify(values))
  const text = helm('template', 'weft', chart, '--kube-version', '1.35.0', '--values', file)
  return parseAllDocuments(text)
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null)
}

const usual = defaultValues(version)
const without: InstallValues = { ...usual, controller: { ...usual.controller, enabled: false } }
const cases: Readonly<Record<string, InstallValues>> = {
  defaults: usual,
  'no controller': without,
  'everything else': {
    namespace: 'network',
    image: { repository: 'registry.example:5000/weft', tag: '9.9', pullPolicy: 'Always' },
    netConf: { Network: '10.42.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:42::/56', Backend: { Type: 'host-gw' } },
    agent: {
      args: ['--iface=eth1', '--iface-regex=^(en|eth)[0-9]: "x"'],
      logLevel: 'debug',
      healthPort: 19180,
      resources: { requests: { cpu: '1', memory: '200Mi' }, limits: { memory: '1Gi' } },
      privileged: true,
      maxUnavailable: 3,
    },
    controller: {
      enabled: true,
      allocateNodeCidrs: true,
      replicas: 3,
      leakCheckInterval: '0s',
      args: ['--agent-forget-after=24h'],
      logLevel: 'warn',
      healthPort: 19181,
      resources: { requests: { cpu: '20m', memory: '90Mi' }, limits: { memory: '300Mi' } },
    },
    cniBinDir: '/var/lib/cni/bin',
    cniConfDir: '/var/lib/cni/net.d',
    nodeGuard: false,
  },
}

for (const [name, values] of Object.entries(cases))
  test(`the chart and install make the same objects: ${name}`, { skip }, () => {
    assert.deepEqual(comparable(render(name === 'defaults' ? {} : values)), comparable(manifestObjects(values)))
  })

test('without createNamespace there is none, and all else is the same', { skip }, () => {
  const { 'Namespace kube-flannel': _, ...others } = comparable(manifestObjects(usual))
  assert.deepEqual(comparable(render({ createNamespace: false })), others)
})

test('Helm finds nothing to complain about', { skip }, () => {
  assert.match(helm('lint', '--strict', chart), /1 chart\(s\) linted, 0 chart\(s\) failed/)
})
