import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { LogOptions } from '../api/interfaces.ts'
import { readLog } from './logs.ts'
import { environmentOf, expand, type Pod, portNumber } from './pod-spec.ts'
import type { ContainerRecord, PodRecord } from './record.ts'
import { phaseOf, podStatus } from './status.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const pod = (restartPolicy: 'Always' | 'OnFailure' | 'Never'): Pod =>
  ({
    metadata: { name: 'p', namespace: 'default', uid: 'u', labels: { app: 'x' } },
    spec: { nodeName: 'n1', restartPolicy, containers: [{ name: 'a' }, { name: 'b' }] },
  }) as Pod

const running: ContainerRecord = { restartCount: 0, startedAt: 't', process: { pid: 1, startTicks: 1 } }
const ended = (exitCode: number): ContainerRecord => ({
  ...running,
  ended: { exitCode, reason: exitCode ? 'Error' : 'Completed', containerId: 'c', startedAt: 't', finishedAt: 't' },
})
const record = (containers: Record<string, ContainerRecord>): PodRecord => ({
  uid: 'u',
  namespace: 'default',
  name: 'p',
  sandbox: 'ready',
  attempt: 1,
  hostNetwork: false,
  ips: ['10.244.0.2', 'fd00::2'],
  startedAt: 't',
  containers,
})

test('the phase follows the containers and the restart policy', () => {
  const phase = (policy: 'Always' | 'OnFailure' | 'Never', a?: ContainerRecord, b?: ContainerRecord) =>
    phaseOf(pod(policy), record({ ...(a ? { a } : {}), ...(b ? { b } : {}) }))
  assert.equal(phase('Always'), 'Pending')
  assert.equal(phase('Always', running, running), 'Running')
  assert.equal(phase('Always', ended(0), ended(0)), 'Running')
  assert.equal(phase('Never', ended(0), running), 'Running')
  assert.equal(phase('Never', ended(0), ended(0)), 'Succeeded')
  assert.equal(phase('Never', ended(0), ended(1)), 'Failed')
  assert.equal(phase('OnFailure', ended(0), ended(1)), 'Running')
  assert.equal(phase('OnFailure', ended(0), ended(0)), 'Succeeded')
})

test('the status names addresses, what is not ready and why a container waits; a condition keeps its time', () => {
  const facts = {
    hostIps: ['172.30.0.11'],
    ready: new Set(['a']),
    started: new Set(['a', 'b']),
    waiting: new Map([['b', { reason: 'CrashLoopBackOff' }]]),
    terminating: false,
  }
  const first = podStatus(pod('Always'), record({ a: running, b: ended(3) }), facts, '2026-01-01T00:00:00Z')
  assert.deepEqual(first.podIPs, [{ ip: '10.244.0.2' }, { ip: 'fd00::2' }])
  const ready = first.conditions.find(({ type }) => type === 'Ready')!
  assert.equal(ready.status, 'False')
  assert.match(ready.message!, /\[b\]/)
  const [, b] = first.containerStatuses
  assert.deepEqual(b!.state, { waiting: { reason: 'CrashLoopBackOff' } })
  assert.equal((b!.lastState as { terminated: { exitCode: number } }).terminated.exitCode, 3)
  const again = podStatus(
    { ...pod('Always'), status: { conditions: first.conditions } } as Pod,
    record({ a: running, b: ended(3) }),
    facts,
    '2026-02-02T00:00:00Z',
  )
  assert.equal(again.conditions.find(({ type }) => type === 'Ready')!.lastTransitionTime, '2026-01-01T00:00:00Z')
})

test('environment: earlier variables, the downward API, ports by name', () => {
  const container = {
    name: 'a',
    env: [
      { name: 'HOST', value: 'h' },
      { name: 'URL', value: 'http://$(HOST):$(NONE)$$(HOST)' },
      { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
      { name: 'APP', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
    ],
    ports: [{ name: 'http', containerPort: 8080 }],
  }
  assert.deepEqual(environmentOf(pod('Always'), container, ['10.244.0.2']), {
    HOST: 'h',
    URL: 'http://h:$(NONE)$(HOST)',
    IP: '10.244.0.2',
    APP: 'x',
  })
  assert.equal(expand('$(A)', { A: '1' }), '1')
  assert.equal(portNumber('http', container), 8080)
  assert.equal(portNumber('81', container), 81)
  assert.throws(() => portNumber('dns', container), /no port named "dns"/)
})

test('logs: tail by lines over chunk borders, limits, and following until the program ended', async () => {
  const path = join(folder, 'log')
  const read = async (options: Partial<LogOptions>, ended = () => true) => {
    const chunks: Buffer[] = []
    const all = { follow: false, previous: false, timestamps: false, signal: new AbortController().signal, ...options }
    for await (const chunk of readLog(path, all, ended)) chunks.push(chunk)
    return Buffer.concat(chunks).toString()
  }
  const lines = Array.from({ length: 20_000 }, (_, i) => `line ${i} ${'x'.repeat(i % 40)}`)
  writeFileSync(path, `${lines.join('\n')}\n`)
  for (const tail of [0, 1, 2, 999, 19_999, 20_000, 30_000])
    assert.equal(
      await read({ tailLines: tail }),
      tail === 0 ? '' : `${lines.slice(-tail).join('\n')}\n`,
      `tail ${tail}`,
    )
  assert.equal(await read({ limitBytes: 9 }), `${lines.join('\n')}\n`.slice(0, 9))
  writeFileSync(path, 'no end of line')
  assert.equal(await read({ tailLines: 1 }), 'no end of line')
  assert.equal(await read({ tailLines: 5, follow: true }), 'no end of line')
})
