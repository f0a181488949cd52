/** Pools under kubectl on Kubernetes' own API server: what a bad pool is told, before any agent sees it. */
import { spawn } from 'node:child_process'
import { after, before } from 'node:test'
import { missingForKubernetes } from '../../src/lab/kubernetes/programs.ts'
import { type KubectlResult, poolSuite } from '../netns/pool-suite.ts'
import { RealApiServer } from './api-server.ts'

const skip = missingForKubernetes() ?? false
let api: RealApiServer
let kubeconfig: string

before(async () => {
  if (skip) return
  api = await RealApiServer.start()
  kubeconfig = api.kubeconfig()
})
after(() => api?.close())

poolSuite(
  (args, input) =>
    new Promise<KubectlResult>((done, fail) => {
      const env = { ...process.env, KUBECONFIG: kubeconfig, HOME: api.folder, KUBECACHEDIR: `${api.folder}/cache` }
      const child = spawn('kubectl', [...args], { env })
      let [out, err] = ['', '']
      child.stdout.on('data', (text: Buffer) => (out += text))
      child.stderr.on('data', (text: Buffer) => (err += text))
      child.on('error', fail)
      child.on('close', (code) => done({ code: code ?? 137, out, err }))
      child.stdin.end(input === undefined ? '' : JSON.stringify(input))
    }),
  { skip },
)
