/**
 * What is wrong with other nodes' words, with this node's configuration, and with what the kernel was asked for: to the log
 * and to the node's Events, each sentence once although it is found again with every plan.
 */
import type { ClusterSource, NodeReport } from '../cluster/cluster.ts'
import type { LoopLog } from './network-loop.ts'

/** The last few messages about each node, so that each is said once although there are several. */
const MESSAGES_KEPT = 8

export class Complaints {
  readonly #source: Pick<ClusterSource, 'report'>
  readonly #log: LoopLog
  readonly #nodeName: string
  readonly #onPeerProblem: () => void
  readonly #said = new Map<string, string[]>()

  constructor(
    source: Pick<ClusterSource, 'report'>,
    log: LoopLog,
    nodeName: string,
    onPeerProblem: () => void = () => {},
  ) {
    this.#source = source
    this.#log = log
    this.#nodeName = nodeName
    this.#onPeerProblem = onPeerProblem
  }

  /** Another node is not believed, or not in everything. */
  ofPeer({ name, uid }: { readonly name: string; readonly uid?: string }, message: string): void {
    if (!this.#isNews(name, message)) return
    this.#onPeerProblem()
    this.#log.warn({ peer: name }, message)
    const report: NodeReport = {
      node: name,
      ...(uid === undefined ? {} : { uid }),
      severity: 'Warning',
      reason: 'PeerRefused',
      message,
    }
    this.#source.report(report)
  }

  /** Something of this node's own, or of an object that it works by. `about` tells objects apart that are asked of often. */
  ofOwn(reason: string, message: string, about = this.#nodeName): void {
    if (!this.#isNews(about, message)) return
    this.#log.error({}, message)
    this.#source.report({ node: this.#nodeName, severity: 'Warning', reason, message })
  }

  /** It is gone, or right again: the same sentence would be news. */
  forget(about: string): void {
    this.#said.delete(about)
  }

  #isNews(about: string, message: string): boolean {
    const before = this.#said.get(about) ?? []
    if (before.includes(message)) return false
    this.#said.set(about, [...before.slice(1 - MESSAGES_KEPT), message])
    return true
  }
}
