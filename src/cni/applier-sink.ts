/**
 * Fragments of attachments into the node's applier: set means in the kernel, or not wanted any more.
 */
import type { Applier } from '../apply/applier.ts'
import { DesiredConflict } from '../apply/desired.ts'
import { CniCode, CniError } from './error.ts'
import type { FragmentSink } from './network.ts'

export function applierSink(applier: Applier): FragmentSink {
  return {
    async set(fragment) {
      try {
        applier.set(fragment)
      } catch (cause) {
        if (!(cause instanceof DesiredConflict)) throw cause
        const other = cause.sources.find((source) => source !== fragment.source)
        throw new CniError(CniCode.hostPort, `A host port is taken by ${other}`, cause.key, { cause })
      }
      await applier.settle()
      if (applier.inPlace(fragment.source)) return
      const failure = applier.failures().find(({ sources }) => sources.includes(fragment.source))
      applier.remove(fragment.source)
      throw new CniError(CniCode.kernel, failure?.error.message ?? 'The host ports could not be set', '', {
        cause: failure?.error,
      })
    },
    async remove(source) {
      applier.remove(source)
      await applier.settle()
    },
  }
}
