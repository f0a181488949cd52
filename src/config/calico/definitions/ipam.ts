/**
 * Definitions of what IPAM keeps (IPAMBlock, BlockAffinity, IPAMHandle) and is told (IPReservation, IPAMConfig). The first
 * three are written by programs alone: their schemas say shapes, and src/config/calico judges the rest.
 *
 * Sources: Calico libcalico-go/config/crd (v1 shapes), api/config/crd (printed columns, short names), libcalico-go/lib/ipam
 * (which settings exclude each other).
 */
import { define, flag, integer, listOf, mapOf, object, oneOf, rulesOf, text } from './definition.ts'

export const ipReservationDefinition = define(
  { kind: 'IPReservation', plural: 'ipreservations' },
  {
    description: 'Addresses that are not given out, though they are in a pool. Those in use already stay so.',
    spec: object('Which addresses.', {
      reservedCIDRs: listOf({ type: 'string', format: 'cidr' }, 'Blocks; one address is a /32 or a /128.', {
        'x-kubernetes-list-type': 'set',
      }),
    }),
  },
)

const attribute = object('Whose an address is.', {
  handle_id: text('Who asked for it.'),
  secondary: mapOf({ type: 'string' }, 'node, pod, namespace, type, timestamp.'),
  alternateOwnerAttrs: mapOf({ type: 'string' }, 'The same of a second owner, while a virtual machine moves.'),
  releasedAt: text('Given back then, and not given out again before the cooldown is over.', { format: 'date-time' }),
})

export const ipamBlockDefinition = define(
  { kind: 'IPAMBlock', plural: 'ipamblocks' },
  {
    description: 'A block of addresses, and who has which. Written by IPAM alone.',
    spec: object(
      'The block.',
      {
        cidr: text('Its addresses.'),
        affinity: text('Whose it is: host:NODE or virtual:USE. Nobody’s without it.'),
        affinityClaimTime: text('Since when.', { format: 'date-time' }),
        allocations: listOf(
          { type: 'integer', nullable: true },
          'For each address the index of its attribute, null when it is free.',
        ),
        unallocated: listOf({ type: 'integer' }, 'Free addresses by number, longest free first.'),
        attributes: listOf(attribute, 'Whose addresses are.'),
        sequenceNumber: integer('Rises with every write.', { format: 'int64', default: 0 }),
        sequenceNumberForAllocation: mapOf(
          { type: 'integer', format: 'int64' },
          'For each address in use the sequence number when it was given.',
        ),
        deleted: flag('It is being removed.'),
        strictAffinity: flag('Of former releases; IPAMConfig says it now.'),
      },
      { required: ['cidr', 'allocations', 'unallocated', 'attributes', 'strictAffinity'] },
    ),
    columns: [
      { name: 'CIDR', type: 'string', jsonPath: '.spec.cidr' },
      { name: 'Affinity', type: 'string', jsonPath: '.spec.affinity' },
      { name: 'ClaimTime', type: 'date', jsonPath: '.spec.affinityClaimTime' },
    ],
  },
)

export const blockAffinityDefinition = define(
  { kind: 'BlockAffinity', plural: 'blockaffinities', shortNames: ['affinity', 'affinities'] },
  {
    description: 'Says that a node wants a block, or has it. Written by IPAM alone.',
    spec: object(
      'Who, and which.',
      {
        cidr: text('The block.'),
        node: text('The node.'),
        type: text('host, also without it, or virtual.'),
        state: text('pending, confirmed or pendingDeletion.'),
        deleted: text('"true": it is being removed.'),
      },
      { required: ['cidr', 'deleted', 'node', 'state'] },
    ),
    columns: [
      { name: 'CIDR', type: 'string', jsonPath: '.spec.cidr' },
      { name: 'Node', type: 'string', jsonPath: '.spec.node' },
      { name: 'Type', type: 'string', jsonPath: '.spec.type' },
    ],
  },
)

export const ipamHandleDefinition = define(
  { kind: 'IPAMHandle', plural: 'ipamhandles' },
  {
    description: 'How many addresses of which blocks one owner has. Written by IPAM alone.',
    spec: object(
      'The owner, and its addresses.',
      {
        handleID: text('The owner.'),
        block: mapOf({ type: 'integer' }, 'By block, how many.'),
        deleted: flag('It is being removed.'),
      },
      { required: ['block', 'handleID'] },
    ),
    columns: [{ name: 'ID', type: 'string', jsonPath: '.spec.handleID' }],
  },
)

export const ipamConfigDefinition = define(
  { kind: 'IPAMConfig', plural: 'ipamconfigs' },
  {
    description: 'How IPAM works, for the whole cluster. The object is named default.',
    spec: object(
      'The settings.',
      {
        strictAffinity: flag('Nobody takes addresses of another node’s block.'),
        autoAllocateBlocks: flag('Nodes take blocks when they need one.'),
        maxBlocksPerHost: integer('How many blocks one node may have; 0: as many as it needs, up to 20.', {
          minimum: 0,
          maximum: 2147483647,
        }),
        ipCooldownSeconds: integer('How long an address rests before it is given out again.', {
          minimum: 0,
          maximum: 1200,
        }),
        kubeVirtVMAddressPersistence: oneOf(['Enabled', 'Disabled'], 'Does not apply to weft.'),
      },
      {
        required: ['autoAllocateBlocks', 'strictAffinity'],
        ...rulesOf([
          {
            rule: 'self.strictAffinity || self.autoAllocateBlocks',
            message: 'one of strictAffinity and autoAllocateBlocks must be true, else nobody has addresses',
          },
        ]),
      },
    ),
    rules: [{ rule: "self.metadata.name == 'default'", message: 'only the object named default is read' }],
    columns: [
      { name: 'StrictAffinity', type: 'boolean', jsonPath: '.spec.strictAffinity' },
      { name: 'MaxBlocksPerHost', type: 'integer', jsonPath: '.spec.maxBlocksPerHost' },
      { name: 'AutoAllocateBlocks', type: 'boolean', jsonPath: '.spec.autoAllocateBlocks' },
    ],
  },
)
