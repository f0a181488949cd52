/**
 * Spare addresses: taken ahead by a node in its own blocks, so that a pod can have one before the store has been asked. In the
 * block they are in use under a handle of weft's own, which says whose they are:
 *
 *   weft-spare.<journal>.<run>      attributes: node, type weftSpareAddress
 *
 * `<journal>` is the name of the journal that knows which spares have become a pod's; `<run>` one life of the agent. Only that life gives
 * them away. The next one, with the same journal, makes them its own by a write, after which nothing that the former one still
 * had on its way can be done. Spares of another journal are somebody else's: another agent under the same name.
 *
 * Sources: Calico kube-controllers/pkg/controllers/node/ipam.go (an address that is neither a pod's nor a tunnel's is left alone).
 */
import type { BlockAttribute } from '../model/calico.ts'

const TYPE = 'weftSpareAddress'
/** Set by a node that wants just this address: its holder frees it. */
const WANTED_BY = 'wantedBy'

export interface SpareOwner {
  readonly node: string
  /** Name of the journal. */
  readonly journal: string
  readonly run: string
}

export const spareHandle = ({ journal, run }: SpareOwner): string => `weft-spare.${journal}.${run}`

export const spareAttributes = ({ node }: SpareOwner): Readonly<Record<string, string>> => ({ node, type: TYPE })

/** True for the attributes of a spare address, whoever's it is. */
export const areSpare = ({ type }: Readonly<Record<string, string>>): boolean => type === TYPE

export const isSpare = (attribute: BlockAttribute | undefined): boolean =>
  attribute !== undefined && attribute.releasedAt === undefined && areSpare(attribute.secondary)

/** Whose it is, as the owner sees it: of this life, of an earlier one, or another's under the node's name; undefined for other nodes' and for no spare. */
export function kinship(
  attribute: BlockAttribute | undefined,
  owner: SpareOwner,
): 'own' | 'former' | 'namesake' | undefined {
  if (!attribute || !isSpare(attribute) || attribute.secondary.node !== owner.node) return undefined
  if (attribute.handleId === spareHandle(owner)) return 'own'
  return attribute.handleId?.startsWith(`weft-spare.${owner.journal}.`) ? 'former' : 'namesake'
}

export const isWanted = ({ secondary }: BlockAttribute): boolean => secondary[WANTED_BY] !== undefined

/** The attributes of a spare address that another node asks its holder for. */
export const wantedAttributes = ({ secondary }: BlockAttribute, node: string): Readonly<Record<string, string>> => ({
  ...secondary,
  [WANTED_BY]: node,
})

/**
 * How many spares a block should have: never more than it has free besides, so that the last addresses are there for whoever comes,
 * and none where no address is used, so that an empty block can go.
 */
export function sparesFor(block: {
  readonly wanted: number
  /** Not given to anybody. */
  readonly free: number
  readonly spare: number
  /** Given to pods and tunnels. */
  readonly used: number
}): number {
  return block.used === 0 ? 0 : Math.min(block.wanted, Math.floor((block.free + block.spare) / 2))
}
