/**
 * What every Kernel must do with nft objects: run over the real kernel in a namespace (nft-compliance.test.ts) and over the
 * twin in memory (src/kernel/fake/nft-compliance.test.ts). An expectation here is what Linux does.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Kernel, KernelEvent } from '../../src/kernel/kernel.ts'
import { type KernelObject, keyOf } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import type { NftRule } from '../../src/model/nft.ts'
import { type NftObject, nftObjectText } from '../../src/model/nft-format.ts'

const here = { family: 'inet', table: 'weft' } as const
const table: KernelObject = { kind: 'nft-table', family: 'inet', name: 'weft' }
const hosts: KernelObject = { kind: 'nft-set', ...here, name: 'hosts', type: ['ipv4_addr'] }
const targets: KernelObject = {
  kind: 'nft-set',
  ...here,
  name: 'targets',
  type: ['inet_proto', 'inet_service'],
  data: ['ipv4_addr', 'inet_service'],
}
const strangers: KernelObject = { kind: 'nft-counter', ...here, name: 'strangers' }
const element = (set: string, key: string, value?: string): KernelObject => ({
  kind: 'nft-element',
  ...here,
  set,
  key,
  ...(value !== undefined && { value }),
})
const chain = (name: string, ...rules: NftRule[]): KernelObject => ({ kind: 'nft-chain', ...here, name, rules })
const accept: NftRule = { statements: [{ verdict: 'accept' }] }
const drop: NftRule = { statements: [{ match: ['ip saddr'], right: '@hosts' }, { verdict: 'drop' }] }

const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })
const set = (object: KernelObject): KernelOp => ({ verb: 'set', object })
const remove = (object: KernelObject): KernelOp => ({ verb: 'delete', object })

const kinds = ['nft-table', 'nft-set', 'nft-counter', 'nft-chain', 'nft-element'] as const

async function codes(kernel: Kernel, ...ops: KernelOp[]): Promise<(string | undefined)[]> {
  return (await kernel.execute(ops)).map((result) => result?.code)
}

async function texts(kernel: Kernel): Promise<string[]> {
  return (await kernel.read(...kinds)).map((object) => nftObjectText(object as NftObject)).sort()
}

/** `make` gives an empty namespace's kernel and how to be rid of it. */
export function testNftCompliance(name: string, make: () => { kernel: Kernel; dispose(): void }): void {
  const scenario = (title: string, run: (kernel: Kernel) => Promise<void>) =>
    test(`${name}: ${title}`, async () => {
      const { kernel, dispose } = make()
      try {
        await run(kernel)
      } finally {
        dispose()
      }
    })

  scenario('what was added is read back, whatever the order of adding', async (kernel) => {
    const all = [
      element('targets', 'tcp . 80', '10.244.1.7 . 8080'),
      element('hosts', '10.0.0.1'),
      chain('c', drop, accept),
      strangers,
      targets,
      hosts,
      table,
    ]
    assert.deepEqual(
      await codes(kernel, ...all.map(add)),
      all.map(() => undefined),
    )
    assert.deepEqual(await texts(kernel), all.map((object) => nftObjectText(object as NftObject)).sort())
  })

  scenario(
    'what exists cannot be added, what does not cannot be deleted; tables may be added twice',
    async (kernel) => {
      await codes(kernel, add(table), add(hosts), add(chain('c')), add(element('hosts', '10.0.0.1')))
      assert.deepEqual(await codes(kernel, add(table)), [undefined])
      assert.deepEqual(await codes(kernel, add(hosts)), ['EEXIST'])
      assert.deepEqual(await codes(kernel, add(chain('c'))), ['EEXIST'])
      assert.deepEqual(await codes(kernel, add(element('hosts', '10.0.0.1'))), ['EEXIST'])
      assert.deepEqual(await codes(kernel, remove(element('hosts', '10.0.0.2'))), ['ENOENT'])
      assert.deepEqual(await codes(kernel, remove(chain('d'))), ['ENOENT'])
      assert.deepEqual(await codes(kernel, remove(targets)), ['ENOENT'])
      assert.deepEqual(await codes(kernel, remove(strangers)), ['ENOENT'])
    },
  )

  scenario('nothing stands without its table, no element without its set', async (kernel) => {
    assert.deepEqual(await codes(kernel, add(hosts)), ['ENOENT'])
    assert.deepEqual(await codes(kernel, add(chain('c'))), ['ENOENT'])
    await codes(kernel, add(table))
    assert.deepEqual(await codes(kernel, add(element('hosts', '10.0.0.1'))), ['ENOENT'])
  })

  scenario('consecutive ops happen all or none', async (kernel) => {
    await codes(kernel, add(table), add(hosts), add(element('hosts', '10.0.0.1')))
    const before = await texts(kernel)
    assert.deepEqual(
      await codes(kernel, add(element('hosts', '10.0.0.2')), add(element('hosts', '10.0.0.1')), remove(hosts)),
      ['ECANCELED', 'EEXIST', 'ECANCELED'],
    )
    assert.deepEqual(await texts(kernel), before)
  })

  scenario('set brings a chain its rules and an element its value', async (kernel) => {
    await codes(kernel, add(table), add(hosts), add(targets), add(chain('c', accept)))
    await codes(kernel, add(element('targets', 'tcp . 80', '10.244.1.7 . 8080')))
    const changed = [chain('c', drop, accept, drop), element('targets', 'tcp . 80', '10.244.1.8 . 8080')]
    assert.deepEqual(await codes(kernel, ...changed.map(set)), [undefined, undefined])
    const read = await texts(kernel)
    for (const object of changed) assert.ok(read.includes(nftObjectText(object as NftObject)), keyOf(object))
  })

  scenario('a set goes with its elements, a table with everything', async (kernel) => {
    await codes(kernel, add(table), add(hosts), add(targets), add(element('hosts', '10.0.0.1')), add(chain('c')))
    assert.deepEqual(await codes(kernel, remove(hosts)), [undefined])
    assert.deepEqual((await kernel.read('nft-element')).map(keyOf), [])
    assert.deepEqual(await codes(kernel, remove(table)), [undefined])
    assert.deepEqual(await texts(kernel), [])
  })

  scenario('a set gets another definition together with the chains that use it', async (kernel) => {
    const later: NftRule = { statements: [{ verdict: 'return' }] }
    const guard = chain('guard', accept, drop, later)
    await codes(kernel, add(table), add(hosts), add(chain('other', accept)), add(guard))
    assert.deepEqual(await codes(kernel, add(element('hosts', '10.0.0.1'))), [undefined])
    const blocks: KernelObject = { ...hosts, flags: ['interval'] } as KernelObject
    const before = await texts(kernel)
    assert.deepEqual(await codes(kernel, set(blocks)), ['EBUSY'])
    assert.deepEqual(await texts(kernel), before)
    const ops = [set(blocks), set(chain('other', drop)), set(guard), add(element('hosts', '10.1.0.0/16'))]
    assert.deepEqual(await codes(kernel, ...ops), [undefined, undefined, undefined, undefined])
    const wanted = [table, blocks, chain('other', drop), guard, element('hosts', '10.1.0.0/16')]
    assert.deepEqual(await texts(kernel), wanted.map((object) => nftObjectText(object as NftObject)).sort())
    // And back, when nothing but the set is known of.
    assert.deepEqual(await codes(kernel, set(hosts), set(chain('other')), set(guard)), [
      undefined,
      undefined,
      undefined,
    ])
    const back = [table, hosts, chain('other'), guard].map((object) => nftObjectText(object as NftObject)).sort()
    assert.deepEqual(await texts(kernel), back)
  })

  scenario('changes are announced', async (kernel) => {
    await codes(kernel, add(table), add(hosts))
    const heard: string[] = []
    let wake = () => {}
    const watch = kernel.watch(kinds, (event: KernelEvent) => {
      heard.push(event.type === 'resync' ? 'resync' : `${event.type} ${event.key}`)
      wake()
    })
    const until = async (...lines: string[]) => {
      const limit = AbortSignal.timeout(20_000)
      while (!lines.some((line) => heard.includes(line)))
        await new Promise<void>((resolve, reject) => {
          wake = resolve
          limit.addEventListener('abort', () => reject(new Error(`no ${lines} in ${heard.join('; ')}`)), { once: true })
        })
      heard.length = 0
    }
    await codes(kernel, add(targets), add(element('targets', 'tcp . 1', '10.0.0.1 . 1')))
    await until('new nft-element inet weft targets tcp . 1')
    await codes(kernel, add(chain('c', accept)))
    await until('new nft-chain inet weft c')
    await codes(kernel, remove(element('targets', 'tcp . 1')))
    await until('delete nft-element inet weft targets tcp . 1')
    // What a table takes with it may be announced one by one or by the word to read again.
    await codes(kernel, remove(table))
    await until('resync', 'delete nft-table inet weft')
    watch.close()
  })
}
