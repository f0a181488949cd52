/**
 * An in-memory kernel: the twin of `linux/`, for tests of everything above the boundary. It keeps the consequences
 * that callers must live with: a device takes its addresses, routes, neighbours and its veth peer along; an address
 * brings its connected route; routes need a device that is up and a gateway that is reachable; consecutive nft ops are
 * one transaction. What it does not have: packets, counters, the local table.
 */
import { formatOp } from '../../model/format.ts'
import { type KernelKey, type KernelObject, keyOf, type ObjectKind, type ObjectOf } from '../../model/kernel-object.ts'
import type { KernelOp } from '../../model/kernel-state.ts'
import { errnoOf, kernelError } from '../errno.ts'
import type { Kernel, KernelEvent, OpResult, Watch } from '../kernel.ts'
import { type FakeMachine, FakeNamespace, Refusal } from './fake-namespace.ts'
import { orderTransaction } from './nft-order.ts'

const isNft = (op: KernelOp) => op.object.kind.startsWith('nft-')

export class FakeKernel implements Kernel {
  readonly #machine: FakeMachine
  readonly #namespace: FakeNamespace
  readonly #stops = new Set<() => void>()
  #closed = false
  /** Every op that was asked for, in order, with its outcome: what a test of proportional work counts. */
  readonly history: { readonly op: KernelOp; readonly result: OpResult }[] = []

  private constructor(machine: FakeMachine, namespace: FakeNamespace) {
    this.#machine = machine
    this.#namespace = namespace
  }

  /** A machine of its own, in a first namespace that is empty but for `lo`. */
  static create(): FakeKernel {
    const machine: FakeMachine = { namespaces: new Map(), everyNamespace: new Set(), tunnels: new Set() }
    return new FakeKernel(machine, new FakeNamespace(machine))
  }

  /** Makes a further namespace under a path, to be opened by it. */
  createNamespace(path: string): FakeKernel {
    const namespace = new FakeNamespace(this.#machine)
    this.#machine.namespaces.set(path, namespace)
    return new FakeKernel(this.#machine, namespace)
  }

  open(netnsPath: string): FakeKernel {
    const namespace = this.#machine.namespaces.get(netnsPath)
    if (!namespace) throw kernelError(`open namespace ${netnsPath}`, errnoOf('ENOENT'))
    return new FakeKernel(this.#machine, namespace)
  }

  async read<K extends ObjectKind>(...kinds: readonly K[]): Promise<ObjectOf<K>[]> {
    this.#check()
    return kinds.flatMap((kind) => this.#namespace.of(kind))
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    this.#check()
    const results: OpResult[] = []
    for (let i = 0; i < ops.length; ) {
      let end = i + 1
      if (isNft(ops[i]!)) while (end < ops.length && isNft(ops[end]!)) end++
      results.push(...(end > i + 1 ? this.#transaction(ops.slice(i, end)) : [this.#perform(ops[i]!)]))
      i = end
    }
    for (const [i, op] of ops.entries()) this.history.push({ op, result: results[i] })
    return results
  }

  #perform(op: KernelOp, together?: ReadonlySet<KernelKey>): OpResult {
    try {
      this.#namespace.perform(op, together)
      return undefined
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      return kernelError(formatOp(op), errnoOf(error.code), { extack: error.extack })
    }
  }

  /** All or none: a trial on a copy first, so that watchers hear of nothing that did not happen. */
  #transaction(ops: readonly KernelOp[]): OpResult[] {
    const trial = new FakeNamespace(this.#machine)
    for (const [key, object] of this.#namespace.objects) trial.objects.set(key, object)
    const order = orderTransaction(ops)
    const together = new Set(ops.map(({ object }) => keyOf(object)))
    const failures = new Array<Refusal | undefined>(ops.length).fill(undefined)
    for (const i of order) {
      try {
        trial.perform(ops[i]!, together)
      } catch (error) {
        if (!(error instanceof Refusal)) throw error
        failures[i] = error
      }
    }
    if (failures.every((failure) => failure === undefined)) {
      for (const i of order) this.#perform(ops[i]!, together)
      return ops.map(() => undefined)
    }
    return ops.map((op, i) =>
      kernelError(formatOp(op), errnoOf(failures[i]?.code ?? 'ECANCELED'), {
        extack: failures[i] ? failures[i].extack : 'another operation of the transaction failed',
      }),
    )
  }

  async deleteGroup(group: number): Promise<OpResult> {
    this.#check()
    for (const link of this.#namespace.of('link')) if (link.group === group) this.#namespace.deleteDevice(link.name)
    return undefined
  }

  watch(kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    this.#check()
    const stop = this.#namespace.listen((event) => {
      if (event.type === 'resync' || kinds.includes(event.object.kind)) listener(event)
    })
    this.#stops.add(stop)
    return {
      close: () => {
        stop()
        this.#stops.delete(stop)
      },
    }
  }

  /** What there is, by key; for assertions. */
  get objects(): ReadonlyMap<KernelKey, KernelObject> {
    return this.#namespace.objects
  }

  /** Pretends that multicast messages were lost. */
  loseEvents(): void {
    this.#namespace.loseEvents()
  }

  close(): void {
    for (const stop of this.#stops) stop()
    this.#stops.clear()
    this.#closed = true
  }

  #check(): void {
    if (this.#closed) throw new Error('This kernel was closed')
  }
}
