/** Calico's definitions on the lab's API server: what is refused, what is kept, what is shown. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { formatJson } from '../../bytes/json.ts'
import { MemoryJournal } from '../../cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../cluster/embedded/store.ts'
import { calicoDefinitions } from '../../config/calico/definitions/index.ts'
import { poolCases } from '../../config/calico/definitions/pool-cases.ts'
import { parsePool } from '../../config/calico/pool.ts'
import { ApiServer } from './server.ts'

const tokens = new Map([['admin-token', { user: 'admin', groups: ['system:masters'] }]])
const journal = new MemoryJournal()
const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const group = '/apis/crd.projectcalico.org/v1'
let store: ObjectStore
let server: ApiServer
let port: number

// biome-ignore lint/suspicious/noExplicitAny: answers of many kinds
type Json = any

async function call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    headers: { authorization: 'Bearer admin-token', 'content-type': 'application/json', ...headers },
    ...(body !== undefined && { body: typeof body === 'string' ? body : formatJson(body) }),
  })
  const text = await response.text()
  return { code: response.status, text, body: JSON.parse(text) as Json, warning: response.headers.get('warning') }
}

before(async () => {
  store = await ObjectStore.open(journal)
  server = new ApiServer({ store, tokens })
  port = (await server.listen({ host: '127.0.0.1', port: 0 })).port
  for (const definition of calicoDefinitions) {
    const { code, body, warning } = await call('POST', definitions, definition)
    assert.equal(code, 201, body.message)
    assert.equal(warning, null, 'every rule is evaluated')
  }
})
after(async () => {
  await server.close()
  await store.close()
})

const poolOf = (name: string, spec: object, metadata: object = {}) => ({
  apiVersion: 'crd.projectcalico.org/v1',
  kind: 'IPPool',
  metadata: { name, ...metadata },
  spec,
})

for (const [n, { what, spec, change, refused, parserOnly }] of poolCases.entries())
  test(`a pool: ${what}`, async () => {
    const name = `pool-${n}`
    let answer = await call('POST', `${group}/ippools`, poolOf(name, spec))
    if (change) {
      assert.equal(answer.code, 201, answer.body.message)
      const { resourceVersion } = answer.body.metadata
      answer = await call('PUT', `${group}/ippools/${name}`, poolOf(name, change, { resourceVersion }))
    }
    if (!refused || parserOnly) return assert.equal(answer.code, change ? 200 : 201, answer.body.message)
    const { field, says } = refused
    assert.ok(answer.code === 422 || answer.code === 400, `${answer.code}`)
    assert.match(answer.body.message, says)
    assert.ok(answer.body.message.includes(`${field}: `), answer.body.message)
  })

test('defaults are filled in, as Calico documents them', async () => {
  const { body } = await call('POST', `${group}/ippools`, poolOf('defaults', { cidr: '10.70.0.0/16' }))
  assert.deepEqual(body.spec, { cidr: '10.70.0.0/16', nodeSelector: 'all()', assignmentMode: 'Automatic' })
})

test('a pool is listed with its columns', async () => {
  await call(
    'POST',
    `${group}/ippools`,
    poolOf('columns', { cidr: '10.71.0.0/16', ipipMode: 'Always', natOutgoing: true }),
  )
  const table = await call('GET', `${group}/ippools/columns`, undefined, {
    accept: 'application/json;as=Table;v=v1;g=meta.k8s.io',
  })
  const names = table.body.columnDefinitions.map(({ name }: Json) => name)
  assert.deepEqual(names, ['Name', 'CIDR', 'VXLAN', 'IPIP', 'NAT', 'Allocatable', 'Age'])
  assert.deepEqual(table.body.rows[0].cells.slice(0, 6), ['columns', '10.71.0.0/16', '', 'Always', true, ''])
})

test('status is written apart, and nobody loses what is refused there', async () => {
  await call('POST', `${group}/ippools`, poolOf('status', { cidr: '10.72.0.0/16' }))
  const condition = (status: string) => ({
    type: 'Allocatable',
    status,
    reason: 'OK',
    message: '',
    lastTransitionTime: '2026-11-21T22:00:00Z',
  })
  const merge = { 'content-type': 'application/merge-patch+json' }
  const path = `${group}/ippools/status/status`
  const taken = await call('PATCH', path, { status: { conditions: [condition('True')] } }, merge)
  assert.equal(taken.code, 200, taken.body.message)
  const refused = await call('PATCH', path, { status: { conditions: [condition('Perhaps')] } }, merge)
  assert.equal(refused.code, 422)
  assert.match(refused.body.message, /status\.conditions\[0\]\.status: Unsupported value: "Perhaps"/)
  const { body } = await call('GET', `${group}/ippools/status`)
  assert.equal(body.status.conditions[0].status, 'True')
  assert.equal(body.metadata.generation, 1)
})

test('sequence numbers of blocks keep all their digits', async () => {
  const sequenceNumber = 1763761234567890123n
  const block = {
    apiVersion: 'crd.projectcalico.org/v1',
    kind: 'IPAMBlock',
    metadata: { name: '10-0-0-0-31' },
    spec: {
      cidr: '10.0.0.0/31',
      affinity: 'host:n1',
      strictAffinity: false,
      allocations: [0, null],
      unallocated: [1],
      attributes: [{ handle_id: 'h', secondary: { pod: 'p' } }],
      sequenceNumber,
      sequenceNumberForAllocation: { 0: sequenceNumber },
    },
  }
  const { code, text } = await call('POST', `${group}/ipamblocks`, block)
  assert.equal(code, 201, text)
  const digits = [`"sequenceNumber":${sequenceNumber}`, `"sequenceNumberForAllocation":{"0":${sequenceNumber}}`]
  for (const part of digits) assert.ok(text.includes(part), text)
  const read = await call('GET', `${group}/ipamblocks/10-0-0-0-31`)
  for (const part of digits) assert.ok(read.text.includes(part), read.text)
  const path = `${group}/ipamblocks/applied?fieldManager=test`
  const applied = { ...block, metadata: { name: 'applied' } }
  const answer = await call('PATCH', path, applied, { 'content-type': 'application/apply-patch+yaml' })
  for (const part of digits) assert.ok(answer.text.includes(part), answer.text)
  const beyond = { ...block, metadata: { name: 'beyond' }, spec: { ...block.spec, sequenceNumber: 2n ** 63n } }
  assert.equal((await call('POST', `${group}/ipamblocks`, beyond)).code, 422)
})

test('settings that leave nobody an address are refused, and so are settings that nobody reads', async () => {
  const settings = (name: string, strictAffinity: boolean, autoAllocateBlocks: boolean) => ({
    apiVersion: 'crd.projectcalico.org/v1',
    kind: 'IPAMConfig',
    metadata: { name },
    spec: { strictAffinity, autoAllocateBlocks },
  })
  const neither = await call('POST', `${group}/ipamconfigs`, settings('default', false, false))
  assert.match(
    neither.body.message,
    /"default" is invalid: spec: Invalid value: one of strictAffinity and autoAllocateBlocks/,
  )
  const unread = await call('POST', `${group}/ipamconfigs`, settings('mine', true, true))
  assert.match(unread.body.message, /only the object named default is read/)
  assert.equal((await call('POST', `${group}/ipamconfigs`, settings('default', true, false))).code, 201)
})

test('a FelixConfiguration of any Calico is kept whole; what is misspelt is told', async () => {
  const felix = {
    apiVersion: 'crd.projectcalico.org/v1',
    kind: 'FelixConfiguration',
    metadata: { name: 'default' },
    spec: {
      bpfLogLevel: '',
      logSeverityScreen: 'Info',
      reportingInterval: '0s',
      floatingIPs: 'Disabled',
      vxlanVNI: 4097,
    },
  }
  const taken = await call('POST', `${group}/felixconfigurations?fieldValidation=Strict`, felix)
  assert.equal(taken.code, 201, taken.body.message)
  assert.deepEqual(taken.body.spec, felix.spec)
  const misspelt = { ...felix, metadata: { name: 'node.a' }, spec: { vxlanVni: 1 } }
  const refused = await call('POST', `${group}/felixconfigurations?fieldValidation=Strict`, misspelt)
  assert.match(refused.body.message, /unknown field "spec\.vxlanVni"/)
  const address = { ...felix, metadata: { name: 'node.a' }, spec: { natOutgoingAddress: 'fd00::1' } }
  const wrong = await call('POST', `${group}/felixconfigurations`, address)
  assert.match(wrong.body.message, /spec\.natOutgoingAddress: Invalid value: must be an IPv4 address/)
})

/** Verdicts that a schema and rules cannot give. */
const parserAlone = /is no selector|holds no addresses for pods/

test('random pools: what the API takes the parser takes, and what it refuses the parser refuses', async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const one = <T>(choices: readonly T[]): T => choices[random(choices.length)]!
  const modes = ['Never', 'Always', 'CrossSubnet', 'Never', 'always']
  const values: Readonly<Record<string, () => unknown>> = {
    blockSize: () => one([0, 19, 20, 24, 26, 28, 32, 33, 115, 116, 122, 128, 129, -1, '26', 26.5]),
    ipipMode: () => one(modes),
    vxlanMode: () => one(modes),
    natOutgoing: () => one([true, false, 'true']),
    disabled: () => one([true, false]),
    disableBGPExport: () => one([true, false]),
    nodeSelector: () => one(['all()', '', "a == 'b'", 'global()', 'has(x) && global()', "a = 'b'"]),
    namespaceSelector: () => one(['all()', '', "a == 'b'", '!global()', '((']),
    allowedUses: () =>
      one([
        [],
        ['Workload'],
        ['Tunnel'],
        ['LoadBalancer'],
        ['Workload', 'Tunnel'],
        ['LoadBalancer', 'Tunnel'],
        ['Tunnel', 'Tunnel'],
      ]),
    assignmentMode: () => one(['Automatic', 'Manual', 'manual']),
  }
  const address = () =>
    `${one([10, 169, 172, 224, 127, 0])}.${one([0, 254, 16])}.${one([0, 7, 128])}.${one([0, 0, 1, 64])}`
  const address6 = () =>
    `${one(['fd00:', 'fe80:', 'fe00:', '2001:db8:', 'ff02:', '::ffff:10.0.0', ''])}${one([':', ':1', '::1'])}`
  const cidr = () =>
    one([
      () => `${address()}/${one([0, 7, 8, 12, 16, 24, 26, 27, 32, 33])}`,
      () => `${address6()}/${one([0, 9, 10, 48, 64, 96, 116, 122, 128, 129])}`,
      () =>
        one([
          '',
          'ten',
          '10.0.0.0',
          '010.0.0.0/8',
          '10.0.0.0/08',
          '10.0.0.0/8 ',
          '::/ 1',
          'fd00::%eth0/64',
          '10.0.0/24',
        ]),
    ])()
  const counts = { both: 0, neither: 0 }
  for (let n = 0; n < 600; n++) {
    const spec: Record<string, unknown> = { cidr: cidr() }
    for (const [key, value] of Object.entries(values)) if (random(3) === 0) spec[key] = value()
    // One wrong thing hides the next: most are to be right but for one.
    if (random(2)) Object.assign(spec, { cidr: one(['10.5.0.0/16', 'fd00:5::/64']) })
    const { code, body } = await call('POST', `${group}/ippools?dryRun=All`, poolOf('random', spec))
    let problem: string | undefined
    try {
      parsePool(poolOf('random', spec))
    } catch (error) {
      problem = (error as Error).message
    }
    if (problem !== undefined && parserAlone.test(problem)) continue
    const text = `${JSON.stringify(spec)}\nAPI: ${code === 201 ? 'taken' : body.message}\nparser: ${problem ?? 'taken'}`
    assert.equal(code === 201, problem === undefined, text)
    counts[problem === undefined ? 'both' : 'neither']++
  }
  assert.ok(counts.both > 20 && counts.neither > 100, JSON.stringify(counts))
})
