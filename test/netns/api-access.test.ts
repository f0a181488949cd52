/**
 * Rights under the machine's own kubectl: roles and bindings as an administrator makes them, what the holder of a service
 * account's token may do then, `auth can-i` and `--as`.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ApiUnderTest, kubectlIsAtLeast, words } from './api-under-test.ts'

const api = new ApiUnderTest()
const kubectl = (line: string, input?: unknown) => api.kubectl(line, input)
const refused = (line: string, input?: unknown) => api.refused(line, input)

/** `kubectl auth can-i` says no with exit code 1. */
async function can(line: string): Promise<boolean> {
  const { out } = await api.run(['auth', 'can-i', ...words(line)])
  assert.match(out, /^(yes|no)/, `${line}: ${out}`)
  return out.startsWith('yes')
}

test('a role and its binding: can-i says what holds, and a removed binding ends it', async () => {
  await kubectl('create namespace team')
  await kubectl('create serviceaccount bob -n team')
  const bob = '--as=system:serviceaccount:team:bob'
  assert.equal(await can(`get pods -n team ${bob}`), false)
  await kubectl('create role reader --verb=get,list --resource=pods,pods/log -n team')
  await kubectl('create rolebinding bob --role=reader --serviceaccount=team:bob -n team')
  assert.equal(await can(`get pods -n team ${bob}`), true)
  assert.equal(await can(`get pods/log -n team ${bob}`), true)
  assert.equal(await can(`get pods --subresource=exec -n team ${bob}`), false)
  assert.equal(await can(`delete pods -n team ${bob}`), false)
  assert.equal(await can(`get pods -n default ${bob}`), false)
  assert.equal(await can(`get /healthz ${bob}`), true)
  assert.equal(await can(`get /metrics ${bob}`), false)
  assert.match(await kubectl(`auth can-i --list -n team ${bob}`), /^pods +\[\] +\[\] +\[get list\]$/m)
  assert.equal(await kubectl(`get pods -n team ${bob}`), '')
  assert.match(
    await refused(`get pods ${bob}`),
    /pods is forbidden: User "system:serviceaccount:team:bob" cannot list resource "pods" in API group "" in the namespace "default"/,
  )
  assert.match(await refused(`get nodes ${bob}`), /nodes is forbidden: .* at the cluster scope/)
  await kubectl('delete rolebinding bob -n team')
  assert.match(await refused(`get pods -n team ${bob}`), /forbidden/)
})

test('admin, edit and view; a custom role adds to them by its label', async () => {
  await kubectl('create clusterrolebinding v --clusterrole=view --user=vera')
  assert.equal(await can('list deployments -n default --as=vera'), true)
  assert.equal(await can('list secrets -n default --as=vera'), false)
  assert.equal(await can('create pods -n default --as=vera'), false)
  assert.equal(await can('list pools.weft.dev -n default --as=vera'), false)
  await kubectl('create clusterrole pools --verb=list --resource=configmaps --resource-name=a')
  await kubectl('apply -f -', {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'pools-view', labels: { 'rbac.authorization.k8s.io/aggregate-to-view': 'true' } },
    rules: [{ apiGroups: ['apps'], resources: ['statefulsets/scale'], verbs: ['get'] }],
  })
  assert.match(await kubectl('get clusterrole view -o yaml'), /statefulsets\/scale/)
  assert.match(await kubectl('get clusterrole admin -o yaml'), /statefulsets\/scale/)
  assert.equal(await can('get statefulsets --subresource=scale -n default --as=vera'), true)
  await kubectl('create rolebinding e --clusterrole=edit --group=writers -n default')
  assert.equal(await can('create pods -n default --as=x --as-group=writers'), true)
  assert.equal(await can('create pods -n kube-system --as=x --as-group=writers'), false)
})

test('nobody gives away rights that they lack, or stands for others unasked', async () => {
  await kubectl('create rolebinding adam --clusterrole=admin --user=adam -n default')
  const asAdam = '-n default --as=adam'
  await kubectl(`create role small --verb=get --resource=pods ${asAdam}`)
  await kubectl(`create rolebinding small --role=small --user=carl ${asAdam}`)
  assert.match(
    await refused(`create role big --verb=get --resource=nodes ${asAdam}`),
    /attempting to grant RBAC permissions not currently held/,
  )
  assert.match(
    await refused(`create rolebinding big --clusterrole=cluster-admin --user=adam ${asAdam}`),
    /not currently held/,
  )
})

test('tokens of a service account: made by kubectl, good for what its roles say, gone with it', {
  skip: (await kubectlIsAtLeast(24)) ? false : 'kubectl before 1.24 makes no tokens',
}, async () => {
  await kubectl('create serviceaccount robot')
  await kubectl('create rolebinding robot --clusterrole=view --serviceaccount=default:robot')
  const token = (await kubectl('create token robot --duration=20m')).trim()
  const claims = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())
  assert.equal(claims.sub, 'system:serviceaccount:default:robot')
  assert.equal(claims.exp - claims.iat, 1200)
  const config = `${api.kubeconfig}-robot`
  api.writeKubeconfig(config, token)
  const asRobot = (line: string) => api.run(words(line), undefined, { KUBECONFIG: config })
  assert.equal((await asRobot('get configmaps')).code, 0)
  assert.match((await asRobot('get secrets')).err, /forbidden/)
  assert.match((await asRobot('get pods --as=adam')).err, /cannot impersonate resource "users"/)
  assert.match((await asRobot('auth whoami')).out + (await asRobot('auth can-i --list')).out, /robot|configmaps/)
  const forged = `${token.split('.').slice(0, 2).join('.')}.${Buffer.alloc(64).toString('base64url')}`
  api.writeKubeconfig(`${config}-forged`, forged)
  assert.match(
    (await api.run(['get', 'pods'], undefined, { KUBECONFIG: `${config}-forged` })).err,
    /Unauthorized|logged in|credentials/,
  )
  assert.match(await refused('create token robot --duration=1m'), /10 minutes/)
  await kubectl('delete serviceaccount robot')
  assert.match((await asRobot('get configmaps')).err, /Unauthorized|logged in|credentials/)
})
