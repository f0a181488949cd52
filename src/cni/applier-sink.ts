/**
 * Fragments of attachments into the node's applier: set means in the kernel, removed means out of it.
 */
import type { Applier } from '../apply/applier.ts'
import type { FragmentSink } from './network.ts'

export function applierSink(applier: Applier): FragmentSink {
  return {
    async set(fragment) {
      applier.set(fragment)
      await applier.settle()
      if (applier.inPlace(fragment.source)) return
      const failure = applier.failures().find(({ sources }) => sources.includes(fragment.source))
      throw failure?.error ?? new Error(`${fragment.source} could not be put in place`)
    },
    async remove(source) {
      applier.remove(source)
      await applier.settle()
    },
  }
}
