/**
 * Makes the underlay: namespaces, then the planned objects inside them. Everything may be half there already (a
 * lab resumed after a crash): what exists is left, what is missing is made.
 */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Kernel } from '../kernel/kernel.ts'
import { openLinuxKernel } from '../kernel/linux/linux-kernel.ts'
import { createNetns, deleteNetns } from '../kernel/linux/netns.ts'
import type { KernelError } from '../model/errors.ts'
import { keyOf } from '../model/kernel-object.ts'
import { netnsExists } from './kubelet/netns.ts'
import { type LabSpec, labRoots, type NodeSpec, netnsPath, netnsPrefix } from './layout.ts'
import { type PlacePlan, planFabric, planNode } from './underlay-plan.ts'

/** Names of the lab's namespaces that exist now, without their directory. */
export function listNetns(lab: string): string[] {
  try {
    return readdirSync(labRoots.netns).filter((name) => name.startsWith(netnsPrefix(lab)))
  } catch {
    return []
  }
}

/** Deletes the lab's namespaces whose place name passes the test; with them go their devices. */
export function deleteNamespaces(lab: string, test: (place: string) => boolean = () => true): void {
  for (const name of listNetns(lab))
    if (test(name.slice(netnsPrefix(lab).length))) deleteNetns(join(labRoots.netns, name))
}

function ensureNetns(path: string): void {
  if (netnsExists(path)) return
  // A plain file where a namespace was bound before a reboot would be in the way.
  rmSync(path, { force: true })
  createNetns(path)
}

/** Executes a plan in its namespace; objects that exist already count as done. Throws the first failure. */
async function realize(lab: string, own: Kernel, plan: PlacePlan): Promise<void> {
  const kernel = own.open(netnsPath(lab, plan.place))
  try {
    const present = new Set((await kernel.read('link')).map(keyOf))
    const ops = plan.ops.filter(
      (op) => op.verb !== 'add' || op.object.kind !== 'link' || !present.has(keyOf(op.object)),
    )
    const results = await kernel.execute(ops)
    const failure = results.find((error): error is KernelError => error !== undefined && error.code !== 'EEXIST')
    if (failure) throw new Error(`Cannot build ${plan.place} of lab ${lab}`, { cause: failure })
  } finally {
    kernel.close()
  }
}

const placesOf = (lab: string) => (place: string) => netnsPath(lab, place)

/** Bridges, router and outside. */
export async function buildFabric(spec: LabSpec): Promise<void> {
  for (const place of ['fabric', 'router', 'outside']) ensureNetns(netnsPath(spec.name, place))
  const own = openLinuxKernel()
  try {
    for (const plan of planFabric(spec, placesOf(spec.name))) await realize(spec.name, own, plan)
  } finally {
    own.close()
  }
}

/** One node's namespace and its cable. */
export async function buildNode(spec: LabSpec, node: NodeSpec): Promise<void> {
  ensureNetns(netnsPath(spec.name, node.name))
  const own = openLinuxKernel()
  try {
    for (const plan of planNode(spec, node, placesOf(spec.name))) await realize(spec.name, own, plan)
  } finally {
    own.close()
  }
}

/** Takes a node's cable out of the fabric; one that is gone already is fine. */
export async function unplugNode(spec: LabSpec, node: NodeSpec): Promise<void> {
  const own = openLinuxKernel()
  const fabric = own.open(netnsPath(spec.name, 'fabric'))
  try {
    const port = (await fabric.read('link')).find((link) => link.name === node.name)
    if (!port) return
    const [failure] = await fabric.execute([{ verb: 'delete', object: port }])
    if (failure && failure.code !== 'ENODEV') throw failure
  } finally {
    fabric.close()
    own.close()
  }
}
