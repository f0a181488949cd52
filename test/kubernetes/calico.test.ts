import { after, before } from 'node:test'
import { readKubeconfig } from '../../src/cluster/kubernetes/kubeconfig.ts'
import { testIpamStore } from '../../src/ipam/stores/ipam-store-suite.ts'
import { missingForKubernetes } from '../../src/lab/kubernetes/programs.ts'
import { type ApiAccess, accessTo, define, harnessOn, sourceHarnessOn } from '../netns/calico-api.ts'
import { testCalicoSource } from '../netns/calico-source-suite.ts'
import { RealApiServer } from './api-server.ts'

const missing = missingForKubernetes()
let server: RealApiServer
let api: ApiAccess & { close(): void }

if (missing) {
  const { test } = await import('node:test')
  test("Calico's objects on a real API server", { skip: missing }, () => {})
} else {
  before(async () => {
    server = await RealApiServer.start()
    api = await accessTo(Number(new URL(server.url).port), (url) => readKubeconfig(server.kubeconfig(undefined, url)))
    await define(api.admin)
  })
  after(async () => {
    api?.close()
    await server?.close()
  })

  testIpamStore('kube-apiserver', () => harnessOn(api))
  testCalicoSource('kube-apiserver', () => sourceHarnessOn(api))
}
