/**
 * The API server under the machine's own kubectl, on loopback with TLS: what an operator types, and what comes
 * back. Streams are in api-streams.test.ts, rights in api-access.test.ts; the lab's own pods in lab-kubectl.test.ts.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { ApiUnderTest, kubectlIsAtLeast, podManifest, words } from './api-under-test.ts'

const api = new ApiUnderTest()
const kubectl = (line: string, input?: unknown) => api.kubectl(line, input)
const refused = (line: string, input?: unknown) => api.refused(line, input)

const labels = { app: 'web' }
const deployment = (image: string) => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', labels },
  spec: {
    replicas: 2,
    selector: { matchLabels: labels },
    template: {
      metadata: { labels },
      spec: { containers: [{ name: 'web', image, ports: [{ containerPort: 8080 }] }] },
    },
  },
})
test('version, discovery and explain', async () => {
  assert.match(await kubectl('version'), /v1\.32\.0\+weft/)
  assert.match(await kubectl('cluster-info'), /is running at/)
  const resources = await kubectl('api-resources')
  for (const line of [/^pods +po +v1 +true +Pod$/m, /^endpointslices +discovery.k8s.io\/v1 +true +EndpointSlice$/m])
    assert.match(resources, line)
  assert.match(await kubectl('api-versions'), /^networking.k8s.io\/v1$/m)
  assert.match(await kubectl('explain pod.spec.containers.ports'), /containerPort\s+<integer> -required-/)
  assert.equal((await kubectl('auth can-i create pods')).trim(), 'yes')
})

test('apply, diff, edit, scale, set, label, annotate, delete', async () => {
  assert.match(await kubectl('apply -f -', deployment('web:1')), /web created/)
  assert.match(await kubectl('apply -f -', deployment('web:1')), /web unchanged/)
  const diff = await api.run(['diff', '-f', '-'], deployment('web:2'))
  assert.equal(diff.code, 1)
  assert.match(diff.out, /^-.*image: web:1$/m)
  assert.match(diff.out, /^\+.*image: web:2$/m)
  assert.match(await kubectl('apply -f -', deployment('web:2')), /web configured/)
  const edited = await api.run(['edit', 'deployment', 'web'], undefined, {
    EDITOR: 'sed -i s/revisionHistoryLimit:.*/revisionHistoryLimit:3/',
  })
  assert.equal(edited.code, 1, 'what the editor left is not valid')
  const edit = await api.run(['edit', 'deployment', 'web'], undefined, {
    EDITOR: "sed -i 's/replicas: 2/replicas: 3/'",
  })
  assert.match(edit.out, /web edited/)
  await kubectl('scale deployment web --replicas 5')
  await kubectl('set image deployment/web web=web:3')
  await kubectl('label deployment web tier=front')
  await kubectl('annotate deployment web note=hello')
  const wide = await kubectl('get deployment -o wide -l tier=front')
  assert.match(wide, /^NAME +READY +UP-TO-DATE +AVAILABLE +AGE +CONTAINERS +IMAGES +SELECTOR$/m)
  assert.match(wide, /^web +0\/5 +0 +0 +\d+s +web +web:3 +app=web$/m)
  assert.equal(
    await kubectl("get deployment web -o jsonpath='{.spec.replicas} {.metadata.annotations.note}'"),
    '5 hello',
  )
  await kubectl('delete deployment web')
  assert.match(await refused('get deployment web'), /deployments.apps "web" not found/)
})

test('server-side apply: conflicts, force, and taking over from client-side apply', async () => {
  await kubectl('apply -f -', deployment('web:1'))
  await kubectl('apply --server-side -f -', deployment('web:1'))
  await kubectl('apply --server-side --field-manager other --force-conflicts -f -', deployment('web:2'))
  assert.match(await refused('apply --server-side -f -', deployment('web:3')), /conflict with "other".*image/)
  await kubectl('apply --server-side --force-conflicts -f -', deployment('web:3'))
  assert.equal(await kubectl("get deployment web -o jsonpath='{..image}'"), 'web:3')
  await kubectl('delete deployment web')
})

test('create of every simple kind', async () => {
  await kubectl('create namespace team')
  await kubectl('create configmap settings --from-literal=a=b -n team')
  await kubectl('create secret generic key --from-literal=k=v -n team')
  await kubectl('create serviceaccount bob -n team')
  await kubectl('create deployment web --image=web --port=80 --replicas=2 -n team')
  await kubectl('create role reader --verb=get --resource=pods -n team')
  await kubectl('create rolebinding bob --role=reader --serviceaccount=team:bob -n team')
  await kubectl('create service nodeport web --tcp=80:8080 -n team')
  assert.equal(await kubectl("get configmap settings -n team -o jsonpath='{.data.a}'"), 'b')
  assert.equal(await kubectl("get secret key -n team -o jsonpath='{.data.k}'"), 'dg==')
  assert.match(await kubectl('get services -n team'), /^web +NodePort +10\.96\.\d+\.\d+ +<none> +80:3\d{4}\/TCP/m)
  assert.match(await kubectl('get all -n team'), /deployment.apps\/web/)
  assert.match(await kubectl('expose deployment web --name web2 --port 80 -n team'), /web2 exposed/)
  await kubectl('delete namespace team')
  assert.match(await refused('get namespace team'), /not found/)
})

test('pods: get, wait, describe, events, watch, graceful and forced deletion', async () => {
  await kubectl('apply -f -', podManifest('p1'))
  const waiting = kubectl('wait --for=condition=Ready pod/p1 --timeout=30s')
  await api.setRunning('p1')
  assert.match(await waiting, /condition met/)
  assert.match(await kubectl('get pods -o wide'), /^p1 +1\/1 +Running +0 +\d+s +10\.244\.0\.5 +n1 +<none> +<none>$/m)
  await api.client.create('events', {
    metadata: { name: 'e1', namespace: 'default' },
    involvedObject: { kind: 'Pod', name: 'p1', namespace: 'default' },
    reason: 'Started',
    message: 'Started container c',
    type: 'Normal',
    lastTimestamp: new Date().toISOString(),
  })
  const described = await kubectl('describe pod p1')
  assert.match(described, /^Status: +Running$/m)
  assert.match(
    await kubectl('get events --field-selector involvedObject.name=p1'),
    /Normal +Started +pod\/p1 +Started container c/,
  )
  await kubectl('delete pod p1 --wait=false')
  assert.match(await kubectl('get pod p1'), /Terminating/)
  await kubectl('delete pod p1 --force --grace-period=0')
  assert.match(await refused('get pod p1'), /pods "p1" not found/)
})

test('nodes: wide columns, cordon, taint, podCIDR, own rights', async () => {
  await api.client.create('nodes', {
    metadata: { name: 'n1', labels: { 'node-role.kubernetes.io/worker': '' } },
    spec: { podCIDR: '10.244.0.0/24' },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      addresses: [{ type: 'InternalIP', address: '172.30.0.1' }],
      nodeInfo: { kubeletVersion: 'v1', osImage: 'Debian', kernelVersion: '6', containerRuntimeVersion: 'weft://1' },
    },
  })
  assert.match(
    await kubectl('get nodes -o wide'),
    /^n1 +Ready +worker +\d+s +v1 +172\.30\.0\.1 +<none> +Debian +6 +weft:\/\/1$/m,
  )
  await kubectl('cordon n1')
  assert.match(await kubectl('get nodes'), /^n1 +Ready,SchedulingDisabled/m)
  await kubectl('uncordon n1')
  await kubectl('taint node n1 a=b:NoSchedule')
  assert.match(await kubectl('describe node n1'), /^PodCIDR: +10\.244\.0\.0\/24$/m)
  assert.match(
    await refused(`patch node n1 -p '{"spec":{"podCIDR":"10.9.0.0/24","podCIDRs":["10.9.0.0/24"]}}'`),
    /may not change podCIDR/,
  )
  const asNode = await api.run(words('label node n1 x=y'), undefined, { KUBECONFIG: `${api.kubeconfig}-node` })
  assert.equal(asNode.code, 0, asNode.err)
  const forbidden = await api.run(words('create configmap x'), undefined, { KUBECONFIG: `${api.kubeconfig}-node` })
  assert.match(forbidden.err, /User "system:node:n1" cannot create resource "configmaps"/)
})

test('a definition: its objects, columns, validation, status and scale', async () => {
  await kubectl('apply -f -', {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'pools.weft.dev' },
    spec: {
      group: 'weft.dev',
      scope: 'Namespaced',
      names: { plural: 'pools', singular: 'pool', kind: 'Pool', shortNames: ['pl'] },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          subresources: {
            status: {},
            scale: { specReplicasPath: '.spec.replicas', statusReplicasPath: '.status.replicas' },
          },
          additionalPrinterColumns: [
            { name: 'CIDR', type: 'string', jsonPath: '.spec.cidr' },
            { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status', priority: 1 },
          ],
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: {
                spec: {
                  type: 'object',
                  required: ['cidr'],
                  properties: {
                    cidr: { type: 'string', pattern: '^[0-9./]+$', description: 'The block.' },
                    size: { type: 'integer', default: 26 },
                    replicas: { type: 'integer' },
                  },
                },
                status: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
              },
            },
          },
        },
      ],
    },
  })
  await kubectl('wait --for=condition=Established crd/pools.weft.dev --timeout=30s')
  const pool = (spec: object) => ({ apiVersion: 'weft.dev/v1', kind: 'Pool', metadata: { name: 'a' }, spec })
  assert.match(
    await refused('apply -f -', pool({ cidr: 'x' })),
    /spec\.cidr: Invalid value: "x": spec\.cidr in body should match/,
  )
  await kubectl('apply -f -', pool({ cidr: '10.0.0.0/8' }))
  assert.match(await kubectl('get pl'), /^NAME +CIDR\na +10\.0\.0\.0\/8$/m)
  assert.equal(await kubectl("get pool a -o jsonpath='{.spec.size}'"), '26')
  assert.match(await kubectl('explain pool.spec'), /The block\./)
  await kubectl('scale pool a --replicas 3')
  assert.equal(await kubectl("get pool a -o jsonpath='{.spec.replicas}'"), '3')
  await kubectl('delete crd pools.weft.dev')
  assert.match(await refused('get pools'), /doesn't have a resource type|could not find the requested resource/)
})

test('rules in CEL: what is one is evaluated, what needs more is told, what is none is refused', async () => {
  const number = { type: 'integer' }
  const definition = (...rules: string[]) => ({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'rules.weft.dev' },
    spec: {
      group: 'weft.dev',
      scope: 'Cluster',
      names: { plural: 'rules', kind: 'Rule' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: {
                spec: {
                  type: 'object',
                  properties: { a: number, b: number },
                  'x-kubernetes-validations': rules.map((rule) => ({ rule })),
                },
              },
            },
          },
        },
      ],
    },
  })
  const none = await refused('create -f -', definition('self.a < self.b', 'self.a <'))
  assert.match(none, /properties\[spec\]\.x-kubernetes-validations\[1\]\.rule: Invalid value: "self\.a <"/)
  const foreign = "quantity('1').isLessThan(quantity('2'))"
  const { code, err } = await api.run(['apply', '-f', '-'], definition('self.a < self.b', foreign))
  assert.equal(code, 0, err)
  assert.match(
    err,
    /^Warning: .*properties\[spec\]\.x-kubernetes-validations\[1\].* does not evaluate the rule: .*quantity/m,
  )
  assert.match(await kubectl('get crd rules.weft.dev -o yaml'), /rule: self\.a < self\.b/)
  const rule = (a: number) => ({ apiVersion: 'weft.dev/v1', kind: 'Rule', metadata: { name: 'r' }, spec: { a, b: 5 } })
  assert.match(
    await refused('apply -f -', rule(7)),
    /The Rule "r" is invalid: spec: Invalid value: failed rule: self\.a < self\.b/,
  )
  await kubectl('apply -f -', rule(3))
  assert.match(await refused(`patch rule r --type merge -p '{"spec":{"b":1}}'`), /failed rule: self\.a < self\.b/)
  await kubectl('delete crd rules.weft.dev')
})

test('validation speaks in field paths', async () => {
  const bad = { ...podManifest('Bad'), spec: { containers: [{ name: 'c', ports: [{ containerPort: 99_999 }] }] } }
  const text = await refused('create --validate=false -f -', bad)
  assert.match(text, /The Pod "Bad" is invalid: metadata.name: Invalid value: "Bad"/)
  const worse = await refused('create --validate=false -f -', { ...bad, metadata: { name: 'bad' } })
  assert.match(worse, /spec\.containers\[0\]\.image: Required value/)
  assert.match(worse, /spec\.containers\[0\]\.ports\[0\]\.containerPort: Invalid value: 99999/)
  const unknown = { ...podManifest('bad'), spec: { containers: [{ name: 'c', imagee: 'x' }] } }
  assert.match(await refused('create -f -', unknown), /unknown field "(spec\.containers\[0\]\.)?imagee"/)
})

test('get -w shows changes as they come; what was made is there after a restart', async () => {
  const child = spawn('kubectl', ['get', 'configmaps', '-w', '-o', 'name'], { env: api.environment })
  child.stderr.resume()
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (name: string): Promise<void> => {
    for (let { value } = await lines.next(); value; { value } = await lines.next())
      if (value === `configmap/${name}`) return
    assert.fail(`kubectl get -w ended before ${name}`)
  }
  try {
    await kubectl('create configmap first --from-literal=a=b')
    await next('first')
    await api.stop()
    await api.start()
  } finally {
    child.kill()
  }
  assert.match(await kubectl('get configmap first'), /^first +1 /m)
})

test('status through kubectl', {
  skip: (await kubectlIsAtLeast(24)) ? false : 'kubectl before 1.24 has no --subresource',
}, async () => {
  await kubectl('apply -f -', podManifest('p4'))
  await kubectl(`patch pod p4 --subresource=status --type=merge -p '{"status":{"phase":"Running"}}'`)
  assert.match(await kubectl('get pod p4'), /Running/)
  await kubectl('delete pod p4 --force --grace-period=0')
})

test('a file of several objects is created and taken away whole', async () => {
  const file = join(api.folder, 'all.json')
  writeFileSync(
    file,
    JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [deployment('web:1'), { ...podManifest('p5') }] }),
  )
  await kubectl(`apply -f ${file}`)
  await api.client.delete('pods', { namespace: 'default', name: 'p5' }, { gracePeriodSeconds: 0 })
  const deleted = await kubectl(`delete -f ${file} --ignore-not-found`)
  assert.match(deleted, /deployment.apps "web" deleted/)
})
