/**
 * Long op lists, which a kernel may cut into many sends and work on while the next is written: run over the real kernel in a
 * namespace and over the twin in memory. Order and results must be those of one op after the other.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Kernel } from '../../src/kernel/kernel.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import { WEFT_ROUTE_PROTOCOL } from '../../src/model/route.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'

/** `make` gives an empty namespace's kernel and how to be rid of it; `count` is a multiple of 500. */
export function testBulkCompliance(name: string, make: () => { kernel: Kernel; dispose(): void }, count: number): void {
  test(`${name}: a long list is done in order, each op with its own result`, async () => {
    const { kernel, dispose } = make()
    try {
      const route = (i: number, via: string, verb: KernelOp['verb'] = 'set'): KernelOp => ({
        verb,
        object: {
          kind: 'route',
          destination: Cidr.of(Ip.parse('20.0.0.0').plus(i * 256), 24),
          hops: [{ via: Ip.parse(via), device: 'bulk0' }],
          protocol: WEFT_ROUTE_PROTOCOL,
        },
      })
      // The devices that the routes need are part of the list.
      const ops: KernelOp[] = [
        { verb: 'add', object: { kind: 'link', type: 'bridge', name: 'bulk0', up: true } },
        {
          verb: 'add',
          object: { kind: 'address', device: 'bulk0', ip: Ip.parse('10.9.0.1'), prefixLength: 24 },
        },
      ]
      const lead = ops.length
      for (let i = 0; i < count; i++) ops.push(route(i, i % 500 === 499 ? '192.0.2.1' : '10.9.0.2'))
      // Words of the same list about what it did before.
      ops.push(route(7, '10.9.0.3'), route(8, '10.9.0.2', 'delete'), route(9, '10.9.0.2', 'add'))
      const results = await kernel.execute(ops)
      assert.equal(results.length, ops.length)
      const failed = results.flatMap((result, i) => (result ? [`${i - lead} ${result.code}`] : []))
      const unreachable = Array.from({ length: count / 500 }, (_, i) => `${i * 500 + 499} ENETUNREACH`)
      assert.deepEqual(failed, [...unreachable, `${count + 2} EEXIST`])
      const routes = (await kernel.read('route')).filter(({ protocol }) => protocol === WEFT_ROUTE_PROTOCOL)
      assert.equal(routes.length, count - count / 500 - 1)
      const seventh = routes.find(({ destination }) => String(destination) === '20.0.7.0/24')
      assert.equal(String(seventh?.hops[0]?.via), '10.9.0.3')
    } finally {
      dispose()
    }
  })

  test(`${name}: two long lists and a short one at once`, async () => {
    const { kernel, dispose } = make()
    try {
      await kernel.execute([{ verb: 'add', object: { kind: 'link', type: 'bridge', name: 'bulk0', up: true } }])
      const list = (base: string, length: number): KernelOp[] =>
        Array.from({ length }, (_, i) => ({
          verb: 'add',
          object: {
            kind: 'route',
            destination: Cidr.of(Ip.parse(base).plus(i * 256), 24),
            hops: [{ device: 'bulk0' }],
            scope: 'link',
            protocol: WEFT_ROUTE_PROTOCOL,
          },
        }))
      const lists = [list('20.0.0.0', 3000), list('30.0.0.0', 3000), list('40.0.0.0', 3)]
      for (const results of await Promise.all(lists.map((ops) => kernel.execute(ops))))
        assert.ok(results.every((result) => result === undefined))
      const routes = (await kernel.read('route')).filter(({ protocol }) => protocol === WEFT_ROUTE_PROTOCOL)
      assert.equal(routes.length, 6003)
    } finally {
      dispose()
    }
  })
}
