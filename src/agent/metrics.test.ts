import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Applier } from '../apply/applier.ts'
import { kernelError } from '../kernel/errno.ts'
import { FakeKernel } from '../kernel/fake/fake-kernel.ts'
import { keyOf } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import { setTunnels } from './metric-readings.ts'
import { AgentMetrics } from './metrics.ts'

/** Samples of one metric, without its comments. */
async function samples(metrics: AgentMetrics, name: string): Promise<string[]> {
  const text = await metrics.registry.getSingleMetricAsString(name)
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
}

test('callers of the plugin cannot make series', async () => {
  const metrics = new AgentMetrics('1')
  for (let n = 0; n < 500; n++) metrics.observeCni(`X${n}`, 1000 + n, 1)
  metrics.observeCni('ADD', 0, 1500)
  assert.deepEqual(await samples(metrics, 'weft_cni_operations_total'), [
    'weft_cni_operations_total{command="other",code="other"} 500',
    'weft_cni_operations_total{command="ADD",code="0"} 1',
  ])
  const times = await samples(metrics, 'weft_cni_operation_duration_seconds')
  assert.ok(times.includes('weft_cni_operation_duration_seconds_sum{command="ADD",result="success"} 1.5'))
})

test('what the kernel did and what it refused', async () => {
  const metrics = new AgentMetrics('1')
  const link = (name: string): KernelOp => ({ verb: 'add', object: { kind: 'link', name, type: 'dummy' } })
  const ops = [link('a'), link('b')]
  const error = kernelError('ip link add b', 1)
  const failures = [{ key: keyOf(ops[1]!.object), error, sources: [], retryInMs: 1 }]
  metrics.observeApply({ ops, failures, durationMs: 2 })
  metrics.observeApply({ ops, failures: [], durationMs: 2 })
  const counted = async (name: string) => (await samples(metrics, name)).join()
  assert.equal(await counted('weft_apply_operations_total'), 'weft_apply_operations_total{kind="link",verb="add"} 3')
  assert.equal(await counted('weft_apply_failures_total'), 'weft_apply_failures_total{kind="link",code="EPERM"} 1')
  assert.equal(await counted('felix_int_dataplane_failures'), 'felix_int_dataplane_failures 1')
  assert.ok((await counted('weft_apply_duration_seconds')).includes('weft_apply_duration_seconds_count 2'))
})

test('the applier tells how long a pass took and what waits', async () => {
  const kernel = FakeKernel.create()
  const durations: number[] = []
  const applier = new Applier(kernel, { onReport: ({ durationMs }) => durations.push(durationMs) })
  applier.set({ source: 'x', objects: [{ kind: 'link', name: 'a', type: 'dummy' }] })
  assert.equal(applier.queued, 1)
  await applier.start()
  await applier.settle()
  assert.equal(applier.queued, 0)
  assert.ok(durations.length > 0 && durations.every((duration) => duration >= 0))
  await applier.close()
})

test('a tunnel’s counters are sorted by what their names say; a tunnel that is gone has no series', async () => {
  const metrics = new AgentMetrics('1')
  const counters = new Map([
    ['sent-packets', 5],
    ['received-bytes', 700],
    ['dropped-no-peer', 2],
    ['send-calls', 3],
  ])
  const all = async () => {
    const names = ['packets', 'bytes', 'dropped_packets', 'events'].map((part) => `weft_tunnel_${part}_total`)
    return (await Promise.all(names.map((name) => samples(metrics, name)))).flat()
  }
  setTunnels(metrics, new Map([['flannel0', counters]]))
  setTunnels(metrics, new Map([['flannel0', counters]]))
  assert.deepEqual(await all(), [
    'weft_tunnel_packets_total{device="flannel0",direction="sent"} 5',
    'weft_tunnel_bytes_total{device="flannel0",direction="received"} 700',
    'weft_tunnel_dropped_packets_total{device="flannel0",reason="no-peer"} 2',
    'weft_tunnel_events_total{device="flannel0",event="send-calls"} 3',
  ])
  setTunnels(metrics, new Map())
  assert.deepEqual(await all(), [])
})
