/**
 * How a running cluster moves from one data path to another without losing a packet. Pure: this node's place and what it
 * sees of the others in, what to keep, send by and announce out.
 *
 * Two promises travel in node objects (WeftNodeStatus): `accepts` = "packets by these paths are taken in", `sends` = "I may
 * be sending by these". Both live in one store whose changes every node sees in one order. From that follow four rules:
 *
 *   1 Send by X only to a peer that accepts X, and only once one's own "sends X" has come back from the store.
 *   2 Take X out of `sends` only once nothing in the kernel sends by it any more.
 *   3 Take X out of `accepts` only while nobody's `sends` has X (and neither this node wants nor sends it).
 *   4 Remove the device of X only once one's own `accepts` without X has come back and still nobody's `sends` has X.
 *
 * Why that is enough: let A begin to send X to B, and B remove X. A saw its own "sends X" and then "B accepts X"; B saw its
 * own "accepts, not X" and then "A does not send X". In the store's one order either A's word stands before B's, and B
 * must have seen it (4), or after, and A must have seen B's (1). Whatever was written and has not come back yet counts
 * against the writer: it may send only by what every such status says, and must accept what any of them says.
 *
 *   wanted ──► device ──► accepts ─┐                     ┌─► sends no more old ──► accepts no more old ──► old device gone
 *                                  ├─► each peer: flip ──┤
 *   wanted ──────────────► sends ──┘  as it accepts      └─ (a peer that never accepts stays on the old path)
 *
 * Two paths that cannot stand side by side (another port of one VNI) are switched in two such moves, by way of a third that
 * can stand beside either: old ─► detour ─► new. The second begins when the old path is gone here.
 *
 * What goes to one peer may be several flows, each with a wish of its own (Calico: one for each pool). The rules speak of
 * paths alone, so they hold for any number of flows. Ids and their meaning are the dialect's (PathWords).
 *
 * A peer without weft's words is another project's: what it sends by and accepts is concluded from its own words (flannel's
 * backend-type, the modes of Calico's pools), and that is all it will say.
 * MTU: the least of all paths in use, so it is lowered before the first flip and raised after the old path is gone. A path in
 * use whose own MTU shrinks with the underlay's stays in use: small packets go on while pods are told.
 */
import type { NodeInfo, WeftNodeStatus } from '../model/cluster.ts'
import { decodeVxlanEndpoint } from '../model/vxlan-endpoint.ts'
import { configOfPath, flannelPaths, type PathId, type PathWords } from './path.ts'

/** How packets go to a peer: by a path, and by plain routes where the peer is on the link when `direct`. */
export interface SendMode {
  readonly path: PathId
  readonly direct: boolean
}

/** What a peer says, with everything impossible left out. */
export interface PeerView {
  readonly accepts: readonly PathId[]
  readonly sends: readonly PathId[]
  /** It does not speak weft's words: what is said of it is concluded from its own dialect. */
  readonly isForeign?: boolean
}

/** What goes to one peer for one reason: all of it for flannel, the packets to one pool's addresses for Calico. */
export interface Flow {
  /** How the configuration wants it sent. */
  readonly wanted: SendMode
  /** Ways by which the peer takes it in, and that lead there. */
  readonly accepts: readonly PathId[]
  /** How it is sent now, for keeping it. */
  readonly current: SendMode | undefined
}

export interface TransitionInput {
  readonly words: PathWords
  /** What the configuration asks for, whoever is there to send to. */
  readonly wanted: readonly SendMode[]
  /** Paths whose local part, and whose part for every known peer, is in the kernel. */
  readonly inPlace: ReadonlySet<PathId>
  /** Paths that the kernel sends by now or may send by: what was decided and not yet surely undone. Everything after a restart: see `announced`. */
  readonly sending: ReadonlySet<PathId>
  /** This node's own status as it stands in the snapshot that `peers` is of; undefined when there is none. */
  readonly announced: WeftNodeStatus | undefined
  /** Statuses written or being written that have not come back in a snapshot. */
  readonly pending: readonly WeftNodeStatus[]
  /** What the other nodes say, also those that nothing is sent to; of several that say the same, one is enough. */
  readonly peers: Iterable<PeerView>
  /** By any name; flows that are alike are decided alike, so one may stand for all of them. */
  readonly flows: ReadonlyMap<string, Flow>
  /** What pods use as their MTU now; undefined when no pod was told one yet. */
  readonly podMtuBytes?: number
  /** Largest inner packet of a path; undefined for a path that this node cannot have. */
  mtuOf(path: PathId): number | undefined
}

export interface TransitionPlan {
  /** Paths whose local part (and part for each peer) to keep or make, wanted ones first. */
  readonly paths: readonly PathId[]
  /** How to send each flow; one is missing while there is no way that its peer accepts. */
  readonly toward: ReadonlyMap<string, SendMode>
  readonly status: { readonly accepts: readonly PathId[]; readonly sends: readonly PathId[] }
  /** What pods may use as their MTU now. */
  readonly mtuBytes: number | undefined
  /** True when nothing of an earlier mode is left. */
  readonly settled: boolean
}

const PLAIN: PathId = 'host-gw'

/** Every path that a mode sends by. */
export const pathsOf = (mode: SendMode): readonly PathId[] => (mode.direct ? [mode.path, PLAIN] : [mode.path])

/** What planTransition has found out before it looks at flows. */
interface Ground {
  readonly input: TransitionInput
  /** This node's statuses that somebody may hold it to. */
  readonly written: readonly WeftNodeStatus[]
  readonly isForeignNear: boolean
  readonly wantedPaths: ReadonlySet<PathId>
  readonly paths: readonly PathId[]
}

/** The next step from here; call again whenever any part of the input changes. */
export function planTransition(input: TransitionInput): TransitionPlan {
  const { exclude } = input.words
  const written = [...(input.announced ? [input.announced] : []), ...input.pending]
  const sentByPeers = new Set<PathId>()
  let isForeignNear = false
  for (const peer of input.peers) {
    for (const path of peer.sends) sentByPeers.add(path)
    if (peer.isForeign) isForeignNear = true
  }
  const goals = [...input.wanted, ...[...input.flows.values()].map(({ wanted }) => wanted)]
  const wantedPaths = new Set<PathId>()
  for (const goal of goals)
    for (const path of pathsOf(nextMode(input, written, isForeignNear, goal)))
      if (input.mtuOf(path) !== undefined) wantedPaths.add(path)

  // Rule 4, from the other side: kept is what is wanted, promised, sent by this node, or sent by anyone to it.
  const kept = new Set<PathId>(wantedPaths)
  for (const status of written) for (const path of status.accepts) kept.add(path)
  for (const path of input.sending) kept.add(path)
  for (const path of sentByPeers) if (isExpected(path, input, goals)) kept.add(path)
  for (const path of kept) if (input.mtuOf(path) === undefined) kept.delete(path)
  // Of two that exclude each other the one that stands already stays: somebody may be sending by it.
  const standing = [...kept].filter((path) => input.inPlace.has(path))
  const paths: PathId[] = []
  for (const path of new Set([...wantedPaths, ...standing, ...kept]))
    if (kept.has(path) && !paths.some((earlier) => exclude(earlier, path))) paths.push(path)
  const mtuBytes = paths.length > 0 ? Math.min(...paths.map((path) => input.mtuOf(path)!)) : undefined

  const ground = { input, written, isForeignNear, wantedPaths, paths }
  const toward = new Map<string, SendMode>()
  for (const [name, flow] of input.flows) {
    const mode = chooseMode(flow, ground)
    if (mode) toward.set(name, mode)
  }

  const sends = new Set(wantedPaths)
  for (const path of input.sending) if (input.words.isKnown(path)) sends.add(path)
  for (const mode of toward.values()) for (const path of pathsOf(mode)) sends.add(path)
  const accepts = paths.filter((path) => input.inPlace.has(path) && (sends.has(path) || sentByPeers.has(path)))
  return {
    paths,
    toward,
    status: { accepts, sends: [...sends] },
    mtuBytes,
    settled:
      goals.every((goal) => nextMode(input, written, isForeignNear, goal) === goal) &&
      paths.every((path) => wantedPaths.has(path)) &&
      [...sends].every((path) => wantedPaths.has(path)),
  }
}

/** The wanted mode, or the way round to it while a path that it excludes is in use here. */
function nextMode(
  input: TransitionInput,
  written: readonly WeftNodeStatus[],
  isForeignNear: boolean,
  wanted: SendMode,
): SendMode {
  const { path, direct } = wanted
  const { exclude, detourOf } = input.words
  const detour = detourOf(path)
  // A foreign node knows no way round, and is thought to go by the wanted path already.
  if (detour === undefined || isForeignNear || input.mtuOf(detour) === undefined) return wanted
  const standing = new Set([...written.flatMap(({ accepts }) => accepts), ...input.inPlace])
  const inTheWay = [...standing, ...input.sending].filter((other) => exclude(other, path))
  const isPassable = !inTheWay.some((other) => exclude(other, detour))
  return inTheWay.length === 0 || standing.has(path) || !isPassable ? wanted : { path: detour, direct }
}

/** The wanted mode when it may be used, else what the flow is sent by now, else any way that both ends have. */
function chooseMode(flow: Flow, { input, written, isForeignNear, paths }: Ground): SendMode | undefined {
  const mayKeep = (path: PathId): boolean =>
    input.mtuOf(path) !== undefined &&
    flow.accepts.includes(path) &&
    input.inPlace.has(path) &&
    input.announced !== undefined &&
    written.every((status) => status.sends.includes(path))
  const may = (path: PathId): boolean => mayKeep(path) && (input.podMtuBytes ?? 0) <= input.mtuOf(path)!
  const usable = (mode: SendMode): boolean => pathsOf(mode).every(may)
  const wanted = nextMode(input, written, isForeignNear, flow.wanted)
  if (usable(wanted)) return wanted
  const plainly = { path: wanted.path, direct: false }
  const { current } = flow
  if (current && pathsOf(current).every(mayKeep)) return current
  if (usable(plainly)) return plainly
  for (const path of paths) if (may(path)) return { path, direct: false }
  return undefined
}

/**
 * Whether to prepare for a path because peers send by it. Only for what the configuration names, what this node had
 * before, and the dialect's own defaults: no node object can make every other node open a port of its choice.
 */
function isExpected(path: PathId, input: TransitionInput, goals: readonly SendMode[]): boolean {
  return (
    input.words.defaults.includes(path) ||
    (input.announced?.accepts.includes(path) ?? false) ||
    input.inPlace.has(path) ||
    goals.some((goal) => pathsOf(goal).includes(path) || path === input.words.detourOf(goal.path))
  )
}

/** Most paths that one node's words may name, of all dialects together. */
const MAX_PATHS = 16

/**
 * What a peer accepts and sends by. flannel nodes do not say their VXLAN port: it is the one that this node's
 * configuration has, because the file is the same; with DirectRouting wanted here they have it too.
 */
export function viewPeer(node: NodeInfo, wanted: SendMode): PeerView {
  if (node.weft) return viewStatus(node.weft, flannelPaths)
  const path = foreignPath(node, wanted)
  if (!path) return { accepts: [], sends: [], isForeign: true }
  const both = wanted.direct && path !== PLAIN ? [path, PLAIN] : [path]
  return { accepts: both, sends: both, isForeign: true }
}

/** What a weft node says of one dialect's paths. */
export const viewStatus = ({ accepts, sends }: WeftNodeStatus, { isKnown }: PathWords): PeerView => {
  const known = (paths: readonly string[]) => paths.slice(0, MAX_PATHS).filter(isKnown)
  return { accepts: known(accepts), sends: known(sends) }
}

function foreignPath(node: NodeInfo, wanted: SendMode): PathId | undefined {
  const type = node.lease?.backendType
  const own = configOfPath(wanted.path)
  if (type === 'host-gw') return PLAIN
  if (type === 'ipip') return 'ipip'
  if (type === 'udp') return own?.type === 'udp' ? wanted.path : 'udp/8285'
  if (type !== 'vxlan') return undefined
  const endpoint = [node.lease?.backendData, node.lease?.backendV6Data]
    .map(decodeVxlanEndpoint)
    .find((decoded) => typeof decoded === 'object')
  const vni = endpoint?.vni ?? 1
  return own?.type === 'vxlan' && own.vni === vni ? wanted.path : `vxlan/${vni}/8472`
}
