/**
 * Calico's IPPool, from a CRD (crd.projectcalico.org/v1) or from etcd (projectcalico.org/v3): the same spec. The API
 * refuses most of what is refused here; a store without a schema (etcd), or one older than the schema, does not.
 *
 * weft's own annotation `weft.dev/geneve-mode` (Never, Always, CrossSubnet) stands beside ipipMode and vxlanMode: Calico has
 * no GENEVE. At most one of the three is not Never.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/ippool.go (defaults, rules), libcalico-go/lib/clientv3/ippool.go (what
 * empty fields mean), kube-controllers/pkg/controllers/ippool (what overlaps what, and which stands).
 */
import type { EncapsulationMode, IpPool, PoolUse } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { createdAtSeconds, Fields, readHead } from './fields.ts'
import { parseSelector, usesGlobal } from './selector.ts'

export const GENEVE_MODE_ANNOTATION = 'weft.dev/geneve-mode'

const MODES = ['Never', 'Always', 'CrossSubnet'] as const
const USES = ['Workload', 'Tunnel', 'LoadBalancer'] as const
const KEYS = [
  'cidr',
  'blockSize',
  'ipipMode',
  'vxlanMode',
  'natOutgoing',
  'disabled',
  'disableBGPExport',
  'nodeSelector',
  'namespaceSelector',
  'allowedUses',
  'assignmentMode',
] as const
/** Fields of Calico releases long ago, which today's also still read past. */
const FORMER_KEYS = ['ipip', 'nat-outgoing'] as const

/** Prefix lengths that a block may have. */
const blockSizes = {
  4: { least: 20, most: 32, usual: 26 },
  6: { least: 116, most: 128, usual: 122 },
} as const

/** IPv4 addresses as IPv6 writes them. */
const mapped = Cidr.parse('::ffff:0.0.0.0/96')
const linkLocal = [Cidr.parse('169.254.0.0/16'), Cidr.parse('fe80::/10')]

/** Throws ConfigError naming the object and the key. Warnings are sentences that name both. */
export function parsePool(object: unknown): { readonly pool: IpPool; readonly warnings: readonly string[] } {
  const { root, name } = readHead(object, 'IPPool')
  const spec = root.inner('spec')
  const cidr = readCidr(spec)
  const modes = readModes(root, spec, cidr)
  const uses = readUses(spec)
  const nodeSelector = readSelector(spec, 'nodeSelector') ?? 'all()'
  const namespaceSelector = readSelector(spec, 'namespaceSelector')
  const isSwitchedOff = spec.flag('disabled') ?? false
  const leaving = !isSwitchedOff && root.inner('metadata').get('deletionTimestamp') !== undefined
  const disabled = isSwitchedOff || leaving
  const allocatable = readAllocatable(root)
  const disableBgpExport = spec.flag('disableBGPExport') ?? false
  const createdAt = createdAtSeconds(root)
  const pool: IpPool = {
    name,
    cidr,
    blockSize: readBlockSize(spec, cidr, disabled),
    ...modes,
    natOutgoing: spec.flag('natOutgoing') ?? false,
    disabled,
    ...(leaving && { leaving }),
    ...(allocatable !== undefined && { allocatable }),
    disableBgpExport,
    nodeSelector,
    ...(namespaceSelector !== undefined && { namespaceSelector }),
    allowedUses: uses,
    assignmentMode: spec.oneOf('assignmentMode', ['Automatic', 'Manual']) ?? 'Automatic',
    ...(createdAt !== undefined && { createdAtSeconds: createdAt }),
  }
  checkUses(spec, pool)
  return { pool, warnings: spec.unknown([...KEYS, ...FORMER_KEYS]) }
}

/** Of the condition Allocatable its status; one that is neither true nor false says nothing. */
function readAllocatable(root: Fields): boolean | undefined {
  const conditions = (root.get('status') as { readonly conditions?: unknown } | null | undefined)?.conditions
  const found: unknown = Array.isArray(conditions) && conditions.find((each) => each?.type === 'Allocatable')?.status
  return found === 'True' ? true : found === 'False' ? false : undefined
}

function readCidr(spec: Fields): Cidr {
  const cidr = spec.cidr('cidr')
  if (!cidr) throw spec.error('cidr', 'is missing; it is the block of addresses that the pool gives out')
  const local = linkLocal.find((block) => block.overlaps(cidr))
  if (local) throw spec.error('cidr', `${cidr} overlaps the link-local addresses ${local}`)
  if (mapped.covers(cidr))
    throw spec.error('cidr', `${cidr} must be an IPv4 or an IPv6 block, and not one within the other`)
  if (cidr.base.isMulticast || cidr.base.isLoopback) throw spec.error('cidr', `${cidr} holds no addresses for pods`)
  return cidr
}

function readBlockSize(spec: Fields, cidr: Cidr, disabled: boolean): number {
  const { least, most, usual } = blockSizes[cidr.family]
  const asked = spec.integer('blockSize', 0, 128)
  const blockSize = asked || usual
  if (blockSize < least || blockSize > most)
    throw spec.error('blockSize', `must be from ${least} to ${most} in an IPv${cidr.family} pool, not ${blockSize}`)
  if (cidr.length > blockSize && !disabled)
    throw spec.error('cidr', `${cidr} is smaller than one block of it, a /${blockSize}`)
  return blockSize
}

function readModes(root: Fields, spec: Fields, cidr: Cidr) {
  const annotations = new Fields(root.inner('metadata').get('annotations') ?? {}, root.object, 'metadata.annotations.')
  const ipipMode: EncapsulationMode = spec.oneOf('ipipMode', MODES) ?? 'Never'
  const vxlanMode: EncapsulationMode = spec.oneOf('vxlanMode', MODES) ?? 'Never'
  const geneveMode: EncapsulationMode = annotations.oneOf(GENEVE_MODE_ANNOTATION, MODES) ?? 'Never'
  if (ipipMode !== 'Never' && vxlanMode !== 'Never')
    throw spec.error('vxlanMode', `is ${vxlanMode} and ipipMode ${ipipMode}: one of them must be Never`)
  if (geneveMode !== 'Never' && (ipipMode !== 'Never' || vxlanMode !== 'Never'))
    throw annotations.error(GENEVE_MODE_ANNOTATION, `is ${geneveMode}: ipipMode and vxlanMode must then be Never`)
  if (ipipMode !== 'Never' && cidr.family === 6)
    throw spec.error('ipipMode', `is ${ipipMode}, but IP in IP carries IPv4 only; ${cidr} can use vxlanMode`)
  return { ipipMode, vxlanMode, geneveMode }
}

function readUses(spec: Fields): readonly PoolUse[] {
  const texts = spec.texts('allowedUses', 10) ?? []
  if (texts.length === 0) return ['Workload', 'Tunnel']
  return texts.map((text, index) => {
    const use = USES.find((each) => each === text)
    if (!use)
      throw spec.error(`allowedUses[${index}]`, `must be one of ${USES.join(', ')}, not ${JSON.stringify(text)}`)
    if (texts.indexOf(text) < index) throw spec.error(`allowedUses[${index}]`, `${text} stands twice`)
    return use
  })
}

function checkUses(spec: Fields, pool: IpPool): void {
  const isSaid = (spec.texts('allowedUses', 10) ?? []).length > 0
  if (isSaid && pool.allowedUses.includes('Tunnel') && pool.namespaceSelector !== undefined)
    throw spec.error('namespaceSelector', 'cannot be used where allowedUses has Tunnel: tunnels are in no namespace')
  if (!pool.allowedUses.includes('LoadBalancer')) return
  if (pool.allowedUses.length > 1)
    throw spec.error('allowedUses', 'LoadBalancer cannot be combined with Workload or Tunnel')
  for (const mode of ['ipipMode', 'vxlanMode', 'geneveMode'] as const)
    if (pool[mode] !== 'Never') throw spec.error(mode, `must be Never in a pool for LoadBalancer, not ${pool[mode]}`)
  if (pool.disableBgpExport) throw spec.error('disableBGPExport', 'must not be true in a pool for LoadBalancer')
  if (pool.nodeSelector !== 'all()') throw spec.error('nodeSelector', 'must be all() in a pool for LoadBalancer')
}

function readSelector(spec: Fields, key: 'nodeSelector' | 'namespaceSelector'): string | undefined {
  const text = spec.text(key)
  if (text === undefined) return undefined
  let hasGlobal: boolean
  try {
    parseSelector(text)
    hasGlobal = usesGlobal(text)
  } catch (cause) {
    throw spec.error(key, `${JSON.stringify(text)} is no selector: ${(cause as Error).message}`, cause)
  }
  if (hasGlobal) throw spec.error(key, 'global() selects neither nodes nor namespaces')
  return text
}

export interface PoolOverlap {
  /** The pool that gives out no addresses because of it. */
  readonly pool: IpPool
  /** The older one, which does. */
  readonly stands: IpPool
}

/**
 * Pools whose addresses are also another's. Of two that stands which the condition Allocatable says of that it does; else the
 * older (by creation, then by name; one without a time is the youngest), and before a new one that which was told that it does
 * not. A pool overlaps only what itself stands. Disabled pools overlap nothing, those that are being deleted do until they are gone.
 */
export function findOverlaps(pools: Iterable<IpPool>): readonly PoolOverlap[] {
  const rank = ({ leaving, allocatable }: IpPool) => (leaving ? 1 : allocatable ? 0 : allocatable === false ? 2 : 3)
  const age = ({ createdAtSeconds: at = Number.POSITIVE_INFINITY }: IpPool) => at
  const before = (a: IpPool, b: IpPool) => {
    if (rank(a) !== rank(b)) return rank(a) - rank(b)
    return age(a) === age(b) ? (a.name < b.name ? -1 : 1) : age(a) - age(b)
  }
  const standing: IpPool[] = []
  const overlaps: PoolOverlap[] = []
  for (const pool of [...pools].filter(({ disabled, leaving }) => !disabled || leaving).sort(before)) {
    const stands = pool.leaving ? undefined : standing.find(({ cidr }) => cidr.overlaps(pool.cidr))
    if (stands) overlaps.push({ pool, stands })
    else standing.push(pool)
  }
  return overlaps
}
