/**
 * `npm run bench -- routes [--routes N] [--rounds R]`: N routes into an empty table, and a change of one, against
 * `ip -batch` and against bird2's kernel protocol. Ours is Kernel.execute of the ops in the applier's order, as the applier
 * calls it. Beside it stand the planning of those ops from objects, and the whole applier: fragments in, everything settled,
 * every multicast message about our own routes received and compared. Every round gives each way a fresh namespace; the
 * ways take turns, and the number of routes is counted afterwards.
 *
 * bird's time runs from its start until the kernel counts its routes (looked at every 10 ms), for the change from
 * `birdc configure` until the kernel announces it; parsing its configuration alone is printed beside.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Applier } from '../../src/apply/applier.ts'
import { diff } from '../../src/apply/diff.ts'
import { weftOwnership } from '../../src/apply/ownership.ts'
import { keyOf } from '../../src/model/kernel-object.ts'
import type { KernelState } from '../../src/model/kernel-state.ts'
import type { Route } from '../../src/model/route.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from '../netns/namespace.ts'
import type { Bench, BenchResult } from './bench.ts'

const BASE = Ip.parse('20.0.0.0')
const GATEWAY = Ip.parse('10.0.0.2')
const OTHER_GATEWAY = Ip.parse('10.0.0.3')

const destination = (i: number): Cidr => Cidr.of(BASE.plus(i * 256), 24)

const routeOf = (i: number, via: Ip): Route => ({
  kind: 'route',
  destination: destination(i),
  hops: [{ via, device: 'v0' }],
  protocol: 119,
})

/** A fresh namespace with a veth pair whose near end is 10.0.0.1/24. */
function fresh(): TestNamespace {
  const netns = new TestNamespace()
  netns.run(
    'ip link add v0 type veth peer name v1; ip link set v1 up; ip address add 10.0.0.1/24 dev v0; ip link set v0 up',
  )
  return netns
}

function countRoutes(netns: TestNamespace, expected: number): void {
  const count = Number(netns.run("ip -4 route show table main | grep -c 'via 10.0.0'"))
  if (count !== expected) throw new Error(`${count} routes in the kernel instead of ${expected}`)
}

interface Reading {
  /** From objects to ops in order; ours alone. */
  readonly plan?: number
  readonly load: number
  readonly change: number
}

async function measureOurs(routes: number): Promise<Reading> {
  const netns = fresh()
  try {
    const kernel = netns.kernel
    await kernel.read('route')
    const objects = Array.from({ length: routes }, (_, i) => routeOf(i, GATEWAY))
    const want: KernelState = new Map(objects.map((object) => [keyOf(object), object]))
    const planStart = performance.now()
    const ops = diff(new Map(), want, weftOwnership())
    const plan = performance.now() - planStart
    const start = performance.now()
    const failed = (await kernel.execute(ops)).find((result) => result)
    const load = performance.now() - start
    if (failed) throw failed
    const other = routeOf(routes >> 1, OTHER_GATEWAY)
    const key = keyOf(other)
    const changeStart = performance.now()
    const [refused] = await kernel.execute(
      diff(new Map([[key, want.get(key)!]]), new Map([[key, other]]), weftOwnership()),
    )
    const change = performance.now() - changeStart
    if (refused) throw refused
    countRoutes(netns, routes)
    return { load, change, plan }
  } finally {
    netns.delete()
  }
}

async function measureApplier(routes: number): Promise<Reading> {
  const netns = fresh()
  const applier = new Applier(netns.kernel)
  try {
    await applier.start()
    applier.markComplete()
    await applier.settle()
    const objects = Array.from({ length: routes }, (_, i) => routeOf(i, GATEWAY))
    const start = performance.now()
    applier.set(...objects.map((object, i) => ({ source: `node/${i}`, objects: [object] })))
    await applier.settle()
    const load = performance.now() - start
    const at = routes >> 1
    const changeStart = performance.now()
    applier.set({ source: `node/${at}`, objects: [routeOf(at, OTHER_GATEWAY)] })
    await applier.settle()
    const change = performance.now() - changeStart
    if (applier.failures().length > 0) throw applier.failures()[0]!.error
    countRoutes(netns, routes)
    return { load, change }
  } finally {
    await applier.close()
    netns.delete()
  }
}

function timed(call: () => void): number {
  const start = performance.now()
  call()
  return performance.now() - start
}

function measureIpBatch(routes: number, folder: string): Reading {
  const netns = fresh()
  try {
    const batch = join(folder, 'batch')
    const one = join(folder, 'one')
    const line = (i: number, via: Ip) => `route replace ${destination(i)} via ${via} dev v0 proto 119\n`
    writeFileSync(batch, Array.from({ length: routes }, (_, i) => line(i, GATEWAY)).join(''))
    writeFileSync(one, line(routes >> 1, OTHER_GATEWAY))
    const ip = (file: string) => timed(() => execFileSync('ip', ['-n', netns.name, '-batch', file], { stdio: 'pipe' }))
    const reading = { load: ip(batch), change: ip(one) }
    countRoutes(netns, routes)
    return reading
  } finally {
    netns.delete()
  }
}

const birdConfig = (routes: number, changed: boolean): string =>
  `router id 10.0.0.1;
protocol device {}
protocol kernel { ipv4 { export all; import none; }; }
protocol static {
  ipv4;
${Array.from({ length: routes }, (_, i) => `  route ${destination(i)} via ${changed && i === routes >> 1 ? OTHER_GATEWAY : GATEWAY};\n`).join('')}}
`

/** Prefixes in the main table of a process's namespace; 0 while the process is not there yet. */
function prefixesOf(pid: number): number {
  try {
    const main = /Main:\n[\s\S]*?Prefixes:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/net/fib_triestat`, 'utf8'))
    return Number(main?.[1] ?? 0)
  } catch {
    return 0
  }
}

export async function measureBird(routes: number, folder: string): Promise<Reading & { parse: number }> {
  const netns = fresh()
  const config = join(folder, 'bird.conf')
  const control = join(folder, 'bird.ctl')
  writeFileSync(config, birdConfig(routes, false))
  const parse = timed(() => execFileSync('bird', ['-p', '-c', config], { stdio: 'pipe' }))
  const start = performance.now()
  const args = ['netns', 'exec', netns.name, 'bird', '-f', '-c', config, '-s', control]
  const bird = spawn('ip', args, { stdio: 'ignore' })
  try {
    // The count of the main table's prefixes, read without a dump. The pause keeps the reader out of bird's way.
    while (prefixesOf(bird.pid!) < routes) await pause(10)
    const load = performance.now() - start
    writeFileSync(config, birdConfig(routes, true))
    let changed: () => void = () => {}
    const heard = new Promise<void>((resolve) => {
      changed = resolve
    })
    const watch = netns.kernel.watch(['route'], (event) => {
      if (event.type === 'new' && event.object.kind === 'route') changed()
    })
    const changeStart = performance.now()
    spawnSync('birdc', ['-s', control, 'configure'], { stdio: 'ignore' })
    await heard
    const change = performance.now() - changeStart
    watch.close()
    return { load, change, parse }
  } finally {
    bird.kill('SIGKILL')
    netns.delete()
  }
}

export const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!
export const spread = (values: readonly number[]): string =>
  `${median(values).toFixed(1)} (${Math.min(...values).toFixed(1)}–${Math.max(...values).toFixed(1)})`

export const bench: Bench = {
  name: 'routes',
  describe: '100,000 routes from an empty table, and a change of one, against ip -batch and bird2',
  async run(args): Promise<BenchResult> {
    const { values } = parseArgs({
      args: [...args],
      options: {
        routes: { type: 'string', default: '100000' },
        rounds: { type: 'string', default: '5' },
        'no-bird': { type: 'boolean', default: false },
      },
    })
    const routes = Number(values.routes)
    const folder = mkdtempSync(join(tmpdir(), 'weft-bench-'))
    const ours: Reading[] = []
    const whole: Reading[] = []
    const ip: Reading[] = []
    const bird: (Reading & { parse: number })[] = []
    try {
      await measureOurs(Math.min(routes, 5000))
      for (let round = 0; round < Number(values.rounds); round++) {
        ours.push(await measureOurs(routes))
        ip.push(measureIpBatch(routes, folder))
        whole.push(await measureApplier(routes))
        if (!values['no-bird']) bird.push(await measureBird(routes, folder))
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    const ratios = ours.map((reading, i) => reading.load / ip[i]!.load)
    const row = (name: string, readings: readonly Reading[]) => {
      if (readings.length === 0) return
      const load = spread(readings.map((reading) => reading.load))
      console.log(`${name.padEnd(22)} ${load.padEnd(30)} ${spread(readings.map((reading) => reading.change))}`)
    }
    console.log(`${routes} routes, ms, median (range) of ${ours.length} interleaved rounds`)
    console.log(`${''.padEnd(22)} ${'load'.padEnd(30)} change of one`)
    row('weft', ours)
    console.log(`weft, planning them    ${spread(ours.map((r) => r.plan!))}`)
    row('weft, whole applier', whole)
    row('ip -batch', ip)
    row('bird (from its start)', bird)
    if (bird.length) console.log(`bird, parsing alone:   ${spread(bird.map((reading) => reading.parse))}`)
    const [oursLoad, ipLoad] = [median(ours.map((r) => r.load)), median(ip.map((r) => r.load))]
    console.log(`weft ÷ ip -batch: ${spread(ratios.map((r) => r * 100))} %`)
    return {
      bench: 'routes',
      ours: oursLoad,
      peer: ipLoad,
      unit: 'ms',
      ratio: median(ratios),
      routes,
      oursChangeMs: median(ours.map((r) => r.change)),
      planMs: median(ours.map((r) => r.plan!)),
      ratioWithPlan: median(ours.map((r, i) => (r.load + r.plan!) / ip[i]!.load)),
      applierMs: median(whole.map((r) => r.load)),
      applierChangeMs: median(whole.map((r) => r.change)),
      ipChangeMs: median(ip.map((r) => r.change)),
      ...(bird.length && {
        birdMs: median(bird.map((r) => r.load)),
        birdChangeMs: median(bird.map((r) => r.change)),
        ratioToBird: oursLoad / median(bird.map((r) => r.load)),
      }),
    }
  },
}
