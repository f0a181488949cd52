/**
 * `weft ipam check`: what the audit finds, said in the order in which calicoctl says it, and as a report that
 * `weft ipam release --from-report` takes. Pure: what was read in, lines out.
 *
 * Sources: Calico calicoctl/commands/ipam/check.go (steps, and the fields of the report).
 */
import { type AuditInput, audit, type Finding, type FindingKind, notes } from '../../ipam/audit.ts'
import { allocationsOf, isInUse } from '../../ipam/block.ts'
import { isSpare } from '../../ipam/spares.ts'
import { Ip } from '../../net/ip.ts'

export interface CheckWish {
  /** Every allocated address with who has it. */
  readonly allIps: boolean
  /** Each address that something is wrong with; otherwise they are counted. */
  readonly problemIps: boolean
}

export interface Checked {
  readonly lines: readonly string[]
  readonly report: IpamReport
  readonly problems: number
}

/** One allocated address. */
export interface ReportedAddress {
  readonly ip: string
  readonly block: string
  readonly handle?: string
  /** A decimal: it may need more digits than a number has. */
  readonly sequenceNumber?: string
  readonly pod?: string
  readonly namespace?: string
  readonly node?: string
  readonly type?: string
  readonly creationTimestamp?: string
  readonly inUse: boolean
  readonly borrowed?: boolean
  readonly coolingDown?: boolean
  /** Kept ready for pods by a node that exists. */
  readonly spare?: boolean
  readonly owners: readonly string[]
}

export interface IpamReport {
  readonly version: string
  /** By address. */
  readonly allocations: Readonly<Record<string, readonly ReportedAddress[]>>
  readonly leakedHandles: readonly { readonly id: string; readonly revision: string }[]
  readonly problems: readonly { readonly kind: FindingKind; readonly message: string }[]
}

/** What is looked for, in order: what it is called, and the findings that answer. */
const steps: readonly { readonly title: string; readonly found: string; readonly kinds: readonly FindingKind[] }[] = [
  { title: 'objects that cannot be read', found: 'unreadable objects', kinds: ['unreadable-object'] },
  {
    title: 'IPs that are allocated but not actually in use',
    found: 'IPs that are allocated in IPAM but not actually in use',
    kinds: ['leaked-address'],
  },
  {
    title: 'IPs that are in use by a workload or node but not allocated in IPAM',
    found: 'in-use IPs that are in IP pools but have no corresponding IPAM allocation',
    kinds: ['not-allocated'],
  },
  {
    title: 'IPs that are in use and in no IP pool',
    found: 'in-use IPs that are not in IP pools',
    kinds: ['not-in-pool'],
  },
  {
    title: 'IPs with several owners',
    found: 'IPs that are used or allocated twice',
    kinds: ['duplicate-use', 'duplicate-allocation'],
  },
  {
    title: 'IPAM handles with no matching IPs',
    found: 'handles whose IPs are not as they say',
    kinds: ['handle-without-addresses', 'handle-count'],
  },
  { title: 'IPAMBlock structures', found: 'invalid IPAMBlocks', kinds: ['damaged-block', 'future-release'] },
  {
    title: 'blocks and pools that do not fit each other',
    found: 'blocks and pools that overlap or are in no pool',
    kinds: ['block-outside-pools', 'overlapping-blocks', 'overlapping-pools'],
  },
  {
    title: 'affinities that do not match blocks',
    found: 'affinities and blocks that contradict each other',
    kinds: ['block-without-affinity', 'affinity-without-block', 'affinity-mismatch', 'affinity-unfinished'],
  },
  { title: 'blocks of nodes that do not exist', found: 'nodes that are gone and have blocks', kinds: ['node-gone'] },
]

const ofAddresses: ReadonlySet<FindingKind> = new Set(['leaked-address', 'not-allocated', 'not-in-pool'])

export function check(input: AuditInput, version: string, wish: CheckWish): Checked {
  const findings = audit(input)
  const problems = findings.filter(({ kind }) => !notes.has(kind))
  const allocated = reportAddresses(input)
  const lines = ['Checking IPAM for inconsistencies...', '', ...summarize(input, allocated)]
  if (wish.allIps) {
    lines.push('Allocated IPs:')
    for (const each of allocated)
      lines.push(`  ${each.ip} of ${each.handle ?? 'no handle'}: ${each.owners.join(', ') || 'nobody'}`)
    lines.push('')
  }
  for (const { title, found, kinds } of steps) {
    const hits = findings.filter(({ kind }) => kinds.includes(kind))
    lines.push(`Scanning for ${title}...`)
    for (const { kind, message } of hits) if (wish.problemIps || !ofAddresses.has(kind)) lines.push(`  ${message}`)
    lines.push(`Found ${hits.length} ${found}.`)
  }
  const remarks = findings.filter(({ kind }) => notes.has(kind))
  if (wish.problemIps) for (const { message } of remarks) lines.push(`  Note: ${message}`)
  lines.push('', `Check complete; found ${problems.length} problems.`)
  if (problems.some(({ kind }) => ofAddresses.has(kind)) && !wish.problemIps)
    lines.push('--show-problem-ips names the addresses; -o FILE writes a report for weft ipam release.')
  return { lines, report: reportOf(findings, problems, allocated, version), problems: problems.length }
}

function summarize({ pools, blocks, inUse: used }: AuditInput, allocated: readonly ReportedAddress[]): string[] {
  const uses = new Set(used.map(({ ip }) => `${ip}`)).size
  const byNode = new Map<string, number>()
  for (const { node } of allocated) if (node !== undefined) byNode.set(node, (byNode.get(node) ?? 0) + 1)
  const spares = allocated.filter(({ spare, inUse }) => spare && !inUse).length
  const top = [...byNode].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1)).slice(0, 5)
  return [
    `Found ${blocks.length} IPAM blocks.`,
    `IPAM blocks record ${allocated.length} allocations.`,
    ...(spares > 0 ? [`Nodes keep ${spares} of them ready for pods.`] : []),
    `Found ${pools.filter(({ disabled }) => !disabled).length} active IP pools.`,
    ...pools.map(({ name, cidr, disabled }) => `  ${cidr} (${name}${disabled ? ', disabled' : ''})`),
    `Workloads and nodes are using ${uses} IPs.`,
    'Nodes with most allocations:',
    ...top.map(([node, count]) => `  ${node} has ${count} allocations`),
    '',
  ]
}

function reportAddresses({ blocks, nodes, inUse }: AuditInput): ReportedAddress[] {
  const owners = new Map<string, string[]>()
  for (const { ip, holder } of inUse) owners.set(`${ip}`, [...(owners.get(`${ip}`) ?? []), holder])
  return blocks.flatMap(({ value }) =>
    [...allocationsOf(value)].map((allocation): ReportedAddress => {
      const { ip, attribute, handleId, sequenceNumber } = allocation
      const { node, namespace, pod, type, timestamp } = attribute?.secondary ?? {}
      const holders = owners.get(`${ip}`) ?? []
      return {
        ip: `${ip}`,
        block: `${value.cidr}`,
        ...(handleId === undefined ? {} : { handle: handleId }),
        ...(sequenceNumber === undefined ? {} : { sequenceNumber: `${sequenceNumber}` }),
        ...(pod === undefined ? {} : { pod }),
        ...(namespace === undefined ? {} : { namespace }),
        ...(node === undefined ? {} : { node }),
        ...(type === undefined ? {} : { type }),
        ...(timestamp === undefined ? {} : { creationTimestamp: timestamp }),
        inUse: holders.length > 0,
        ...(node !== undefined && node !== value.owner?.name ? { borrowed: true } : {}),
        ...(isInUse(allocation) ? {} : { coolingDown: true }),
        ...(isSpare(attribute) && nodes.has(node ?? '') ? { spare: true } : {}),
        owners: holders,
      }
    }),
  )
}

function reportOf(
  findings: readonly Finding[],
  problems: readonly Finding[],
  allocated: readonly ReportedAddress[],
  version: string,
): IpamReport {
  const allocations: Record<string, ReportedAddress[]> = {}
  for (const each of allocated) allocations[each.ip] = [...(allocations[each.ip] ?? []), each]
  return {
    version,
    allocations,
    leakedHandles: findings.flatMap((finding) =>
      finding.kind === 'handle-without-addresses'
        ? [{ id: finding.handle.value.handleId, revision: finding.handle.revision }]
        : [],
    ),
    problems: problems.map(({ kind, message }) => ({ kind, message })),
  }
}

/** What a report says to release: addresses that nobody uses or keeps ready, and that do not cool down. Throws for what is no report. */
export function leaksOf(text: string): {
  readonly addresses: readonly ReportedAddress[]
  readonly handles: IpamReport['leakedHandles']
} {
  const { allocations, leakedHandles } = JSON.parse(text) as Partial<IpamReport>
  if (typeof allocations !== 'object' || allocations === null) throw new Error('allocations: is missing')
  const addresses = Object.values(allocations)
    .flat()
    .filter(({ inUse, coolingDown, spare }) => inUse === false && !coolingDown && !spare)
  for (const { ip, block, sequenceNumber } of addresses) {
    if (Ip.tryParse(ip) === undefined || typeof block !== 'string')
      throw new Error(`allocations: ${ip}: is not an address`)
    if (sequenceNumber !== undefined && !/^\d{1,20}$/.test(sequenceNumber))
      throw new Error(`allocations: ${ip}: sequenceNumber: is not a number`)
  }
  return { addresses, handles: Array.isArray(leakedHandles) ? leakedHandles : [] }
}
