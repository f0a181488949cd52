/** Devices without settings of their own. */
import type { LinkKindRow } from './link-kind.ts'

export const dummyKind: LinkKindRow<'dummy'> = { kind: 'dummy', encode: () => undefined, decode: () => ({}) }
export const ifbKind: LinkKindRow<'ifb'> = { kind: 'ifb', encode: () => undefined, decode: () => ({}) }
