/** Definitions of Calico's objects put into a cluster and taken out of it, on the lab's API server. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HttpClient } from '../../src/cluster/http-client.ts'
import { readKubeconfig } from '../../src/cluster/kubernetes/kubeconfig.ts'
import { ClusterClient } from '../../src/install/cluster-client.ts'
import { definitionObjects, installDefinitions, removeDefinitions } from '../../src/install/definitions.ts'
import { ApiUnderTest } from './api-under-test.ts'

const api = new ApiUnderTest()
const pools = 'ippools.crd.projectcalico.org'

/** What one round says of each definition, by its name. */
async function said(
  run: (client: ClusterClient, print: (line: string) => void) => Promise<void>,
  kubeconfig = api.kubeconfig,
): Promise<Readonly<Record<string, string>>> {
  const http = new HttpClient(readKubeconfig(kubeconfig))
  const lines: Record<string, string> = {}
  await run(new ClusterClient(http), (line) => {
    const [, name, text] = /^CustomResourceDefinition (\S+): (.*)$/s.exec(line)!
    lines[name!] = text!
  })
  http.close()
  return lines
}

const remove = (all: boolean) => said((client, print) => removeDefinitions(client, all, print))
const names = definitionObjects().map(({ metadata }) => metadata.name)
const allAre = (text: string) => Object.fromEntries(names.map((name) => [name, text]))

test('they are applied, again and again, and stay with their objects until they are asked for', async () => {
  assert.deepEqual(await remove(true), {})
  for (let round = 0; round < 2; round++) assert.deepEqual(await said(installDefinitions), allAre('applied'))
  const pool = {
    apiVersion: 'crd.projectcalico.org/v1',
    kind: 'IPPool',
    metadata: { name: 'p' },
    spec: { cidr: '10.0.0.0/16' },
  }
  await api.kubectl('create -f -', pool)
  assert.deepEqual(await remove(false), allAre('stays, with its objects; --crds removes it'))
  assert.match(await api.kubectl('get ippools'), /^p +10\.0\.0\.0\/16 /m)
  assert.deepEqual(await remove(true), allAre('deleted, with its objects'))
  assert.match(await api.refused('get ippools'), /resource type|requested resource/)
})

test('definitions of others are used as they are, and stay', async () => {
  const { labels: _, ...metadata } = definitionObjects()[0]!.metadata
  const foreign = { ...definitionObjects()[0]!, metadata }
  await api.kubectl('create -f -', foreign)
  const before = await api.kubectl(`get crd ${pools} -o jsonpath={.metadata.resourceVersion}`)
  assert.deepEqual(await said(installDefinitions), {
    ...allAre('applied'),
    [pools]: "there already, and not weft's: used as it is",
  })
  assert.deepEqual(await remove(true), { ...allAre('deleted, with its objects'), [pools]: "not weft's, stays" })
  assert.equal(await api.kubectl(`get crd ${pools} -o jsonpath={.metadata.resourceVersion}`), before)
  await api.kubectl(`delete crd ${pools}`)
})

test('a server that refuses them is told of, and nothing else', async () => {
  for (const text of Object.values(await said(installDefinitions, `${api.kubeconfig}-node`)))
    assert.match(text, /^left out, pools cannot be used: .*forbidden/)
})
