/**
 * What an attachment wants in the node's shared nft table, as one fragment that the applier owns.
 */
import type { Fragment } from '../model/kernel-state.ts'
import type { Attachment } from './journal.ts'

export const fragmentSource = ({ role, containerId, ifname }: Attachment): string =>
  `cni/${containerId}/${ifname}${role === 'chained' ? '/chained' : ''}`

/** The attachment's fragment; undefined when it wants nothing there. */
export function attachmentFragment(_attachment: Attachment): Fragment | undefined {
  return undefined
}
