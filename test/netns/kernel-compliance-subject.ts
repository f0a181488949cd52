import { type TestContext, test } from 'node:test'
import type { Kernel, KernelEvent } from '../../src/kernel/kernel.ts'
import { type KernelKey, type KernelObject, keyOf, type ObjectKind } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import type { Link } from '../../src/model/link.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { Mac } from '../../src/net/mac.ts'

export interface Subject {
  readonly kernel: Kernel
  /** A second namespace of the same machine and its path. */
  readonly other: Kernel
  readonly otherPath: string
  dispose(): void
}

export const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })
export const set = (object: KernelObject): KernelOp => ({ verb: 'set', object })
export const remove = (object: KernelObject): KernelOp => ({ verb: 'delete', object })
export const ip = (text: string): Ip => Ip.parse(text)
export const cidr = (text: string): Cidr => Cidr.parse(text)
export const mac = (last: number): Mac => new Mac(Uint8Array.of(2, 0, 0, 0, 0, last))

export const bridge = (name: string, rest: Partial<Link> = {}): KernelObject =>
  ({ kind: 'link', name, type: 'bridge', up: true, ...rest }) as KernelObject
export const vxlan: KernelObject = {
  kind: 'link',
  name: 'vx0',
  type: 'vxlan',
  up: true,
  settings: { vni: 7, port: 8472, learning: false },
}
export const address = (text: string, prefixLength: number, device = 'br0'): KernelObject => ({
  kind: 'address',
  device,
  ip: ip(text),
  prefixLength,
  ...(text.includes(':') && { noDad: true }),
})
export const route = (
  destination: string,
  via?: string,
  rest: Partial<Extract<KernelObject, { kind: 'route' }>> = {},
) =>
  ({
    kind: 'route',
    destination: cidr(destination),
    hops: [{ ...(via && { via: ip(via) }), device: 'br0' }],
    protocol: 119,
    ...rest,
  }) as const

export async function codes(kernel: Kernel, ...ops: KernelOp[]): Promise<(string | undefined)[]> {
  return (await kernel.execute(ops)).map((result) => result?.code)
}

export async function succeed(kernel: Kernel, ...ops: KernelOp[]): Promise<void> {
  for (const result of await kernel.execute(ops)) if (result) throw result
}

export async function keys(kernel: Kernel, ...kinds: ObjectKind[]): Promise<Set<KernelKey>> {
  return new Set((await kernel.read(...kinds)).map(keyOf))
}

/** Waits for an event, with a limit far beyond what any machine needs. */
export class Listener {
  readonly heard: string[] = []
  #waiting: (() => void) | undefined

  readonly listen = (event: KernelEvent): void => {
    this.heard.push(event.type === 'resync' ? 'resync' : `${event.type} ${event.key}`)
    this.#waiting?.()
  }

  async until(line: string): Promise<void> {
    const limit = AbortSignal.timeout(20_000)
    while (!this.heard.includes(line)) {
      await new Promise<void>((resolve, reject) => {
        this.#waiting = resolve
        limit.addEventListener('abort', () => reject(new Error(`never heard ${line}; heard ${this.heard.join(', ')}`)))
      })
    }
  }
}

/** Defines a test over a fresh subject. */
export type Check = (what: string, body: (subject: Subject, t: TestContext) => Promise<void>) => void

/** Tests that bear the kernel's name; `make` gives a fresh subject for each. */
export const checker =
  (name: string, make: () => Subject): Check =>
  (what, body) => {
    test(`${name}: ${what}`, async (t) => {
      const subject = make()
      try {
        await body(subject, t)
      } finally {
        subject.dispose()
      }
    })
  }
