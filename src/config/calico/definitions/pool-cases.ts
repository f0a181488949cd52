/**
 * Pools that are taken and pools that are refused, for every judge there is: `parsePool`, the lab's API server and
 * Kubernetes' own. Tests run one list against all three.
 */

type Spec = Readonly<Record<string, unknown>>

export interface PoolCase {
  readonly what: string
  readonly spec: Spec
  /** Written over the first, which is taken. */
  readonly change?: Spec
  /** What of it the answer says: the field, and part of the message. Left out: it is taken. */
  readonly refused?: { readonly field: string; readonly says: RegExp }
  /** The schema cannot say it: only `parsePool` refuses. */
  readonly parserOnly?: true
}

const v4 = '10.77.0.0/16'
const v6 = 'fd00:77::/48'

export const poolCases: readonly PoolCase[] = [
  { what: 'the least', spec: { cidr: v4 } },
  { what: 'the least of IPv6', spec: { cidr: v6 } },
  {
    what: 'everything',
    spec: {
      cidr: v4,
      blockSize: 28,
      ipipMode: 'CrossSubnet',
      vxlanMode: 'Never',
      natOutgoing: true,
      disabled: true,
      disableBGPExport: true,
      nodeSelector: "rack in {'a', 'b'} && !has(gpu)",
      namespaceSelector: "team == 'x'",
      allowedUses: ['Workload'],
      assignmentMode: 'Manual',
    },
  },
  { what: 'a pool of one block', spec: { cidr: '10.77.0.0/26' } },
  { what: 'a pool of one address', spec: { cidr: '10.77.0.1/32', blockSize: 32 } },
  { what: 'a disabled pool smaller than a block', spec: { cidr: '10.77.0.0/30', disabled: true } },
  { what: 'a block size of 0', spec: { cidr: v4, blockSize: 0 } },
  { what: 'VXLAN of IPv6', spec: { cidr: v6, vxlanMode: 'Always' } },
  { what: 'a pool for LoadBalancer', spec: { cidr: v4, allowedUses: ['LoadBalancer'] } },
  {
    what: 'a namespace selector where the list of uses is empty',
    spec: { cidr: v4, allowedUses: [], namespaceSelector: "team == 'x'" },
  },
  {
    what: 'a namespace selector where uses are left out',
    spec: { cidr: v4, namespaceSelector: "team == 'x'" },
  },

  { what: 'no CIDR', spec: {}, refused: { field: 'spec.cidr', says: /Required value|is missing/ } },
  { what: 'text for a CIDR', spec: { cidr: 'ten' }, refused: { field: 'spec.cidr', says: /cidr/ } },
  { what: 'an address for a CIDR', spec: { cidr: '10.77.0.0' }, refused: { field: 'spec.cidr', says: /cidr/ } },
  {
    what: 'IPv4 within IPv6',
    spec: { cidr: '::ffff:10.77.0.0/112' },
    refused: { field: 'spec.cidr', says: /must be an IPv4 or an IPv6 block/ },
  },
  { what: 'host bits', spec: { cidr: '10.77.0.1/16' }, refused: { field: 'spec.cidr', says: /has host bits set/ } },
  {
    what: 'host bits of IPv6',
    spec: { cidr: 'fd00:77::1/48' },
    refused: { field: 'spec.cidr', says: /has host bits set/ },
  },
  { what: 'link-local', spec: { cidr: '169.254.7.0/24' }, refused: { field: 'spec.cidr', says: /link-local/ } },
  { what: 'around link-local', spec: { cidr: '169.0.0.0/8' }, refused: { field: 'spec.cidr', says: /link-local/ } },
  { what: 'link-local of IPv6', spec: { cidr: 'fe80:1::/64' }, refused: { field: 'spec.cidr', says: /link-local/ } },
  {
    what: 'smaller than a block',
    spec: { cidr: '10.77.0.0/27' },
    refused: { field: 'spec.cidr', says: /smaller than one block/ },
  },
  {
    what: 'smaller than its own block',
    spec: { cidr: '10.77.0.0/24', blockSize: 20 },
    refused: { field: 'spec.cidr', says: /smaller than one block/ },
  },
  {
    what: 'a block too large',
    spec: { cidr: v4, blockSize: 19 },
    refused: { field: 'spec.blockSize', says: /from 20 to 32/ },
  },
  {
    what: 'a block of IPv6 too large',
    spec: { cidr: v6, blockSize: 115 },
    refused: { field: 'spec.blockSize', says: /from 116 to 128/ },
  },
  {
    what: "IPv6's block in IPv4",
    spec: { cidr: v4, blockSize: 122 },
    refused: { field: 'spec.blockSize', says: /from 20 to 32/ },
  },
  {
    what: "IPv4's block in IPv6",
    spec: { cidr: v6, blockSize: 26 },
    refused: { field: 'spec.blockSize', says: /from 116 to 128/ },
  },
  {
    what: 'half a bit',
    spec: { cidr: v4, blockSize: 25.5 },
    refused: { field: 'spec.blockSize', says: /integer|whole number/ },
  },
  {
    what: 'IP in IP and VXLAN',
    spec: { cidr: v4, ipipMode: 'Always', vxlanMode: 'CrossSubnet' },
    refused: { field: 'spec', says: /one of .* must be Never/ },
  },
  {
    what: 'IP in IP of IPv6',
    spec: { cidr: v6, ipipMode: 'Always' },
    refused: { field: 'spec.ipipMode', says: /carries IPv4 only/ },
  },
  {
    what: 'a mode that is none',
    spec: { cidr: v4, ipipMode: 'always' },
    refused: { field: 'spec.ipipMode', says: /Never.*Always.*CrossSubnet/ },
  },
  {
    what: 'text for a flag',
    spec: { cidr: v4, natOutgoing: 'true' },
    refused: { field: 'spec.natOutgoing', says: /boolean|true or false/ },
  },
  {
    what: 'a use that is none',
    spec: { cidr: v4, allowedUses: ['Pods'] },
    refused: { field: 'spec.allowedUses[0]', says: /Workload.*Tunnel.*LoadBalancer/ },
  },
  {
    what: 'LoadBalancer and pods',
    spec: { cidr: v4, allowedUses: ['LoadBalancer', 'Workload'] },
    refused: { field: 'spec.allowedUses', says: /cannot be combined/ },
  },
  {
    what: 'LoadBalancer by VXLAN',
    spec: { cidr: v4, allowedUses: ['LoadBalancer'], vxlanMode: 'Always' },
    refused: { field: 'spec', says: /must be Never in a pool for LoadBalancer/ },
  },
  {
    what: 'LoadBalancer that nobody is told of',
    spec: { cidr: v4, allowedUses: ['LoadBalancer'], disableBGPExport: true },
    refused: { field: 'spec.disableBGPExport', says: /must not be true in a pool for LoadBalancer/ },
  },
  {
    what: 'LoadBalancer of some nodes',
    spec: { cidr: v4, allowedUses: ['LoadBalancer'], nodeSelector: 'has(edge)' },
    refused: { field: 'spec.nodeSelector', says: /must be all\(\)/ },
  },
  {
    what: 'tunnels in namespaces',
    spec: { cidr: v4, allowedUses: ['Tunnel'], namespaceSelector: 'has(team)' },
    refused: { field: 'spec.namespaceSelector', says: /tunnels are in no namespace/ },
  },
  {
    what: 'nodes by global()',
    spec: { cidr: v4, nodeSelector: 'global()' },
    refused: { field: 'spec.nodeSelector', says: /global\(\)/ },
  },
  {
    what: 'namespaces by global()',
    spec: { cidr: v4, namespaceSelector: 'global() || has(x)' },
    refused: { field: 'spec.namespaceSelector', says: /global\(\)/ },
  },
  {
    what: 'an assignment that is none',
    spec: { cidr: v4, assignmentMode: 'manual' },
    refused: { field: 'spec.assignmentMode', says: /Automatic.*Manual/ },
  },
  {
    what: 'a selector that is none',
    spec: { cidr: v4, nodeSelector: "rack = 'a'" },
    refused: { field: 'spec.nodeSelector', says: /is no selector/ },
    parserOnly: true,
  },
  {
    what: 'multicast',
    spec: { cidr: '224.0.0.0/16' },
    refused: { field: 'spec.cidr', says: /no addresses for pods/ },
    parserOnly: true,
  },

  {
    what: 'another mode',
    spec: { cidr: v4, ipipMode: 'Always' },
    change: { cidr: v4, ipipMode: 'Never', vxlanMode: 'Always' },
  },
  { what: 'the same block size, written out', spec: { cidr: v4 }, change: { cidr: v4, blockSize: 26 } },
  { what: 'the same CIDR in other words', spec: { cidr: 'fd00:0077:0:0::/48' }, change: { cidr: v6 } },
  {
    what: 'another CIDR',
    spec: { cidr: v4 },
    change: { cidr: '10.78.0.0/16' },
    refused: { field: 'spec.cidr', says: /cannot be changed/ },
  },
  {
    what: 'another block size',
    spec: { cidr: v4 },
    change: { cidr: v4, blockSize: 27 },
    refused: { field: 'spec.blockSize', says: /cannot be changed/ },
  },
  {
    what: 'a block size taken back',
    spec: { cidr: v4, blockSize: 28 },
    change: { cidr: v4 },
    refused: { field: 'spec.blockSize', says: /cannot be changed/ },
  },
  {
    what: 'LoadBalancer no more',
    spec: { cidr: v4, allowedUses: ['LoadBalancer'] },
    change: { cidr: v4, allowedUses: ['Workload'] },
    refused: { field: 'spec.allowedUses', says: /stays one/ },
  },
]
