/** Every definition of Calico's that weft needs in a cluster, in the order in which they are to be applied. */
import { bgpConfigurationDefinition, bgpPeerDefinition } from './bgp.ts'
import { bgpFilterDefinition } from './bgp-filter.ts'
import type { DefinitionObject } from './definition.ts'
import { felixConfigurationDefinition } from './felix.ts'
import { ipPoolDefinition } from './ip-pool.ts'
import {
  blockAffinityDefinition,
  ipamBlockDefinition,
  ipamConfigDefinition,
  ipamHandleDefinition,
  ipReservationDefinition,
} from './ipam.ts'

export const calicoDefinitions: readonly DefinitionObject[] = [
  ipPoolDefinition,
  ipReservationDefinition,
  ipamConfigDefinition,
  ipamBlockDefinition,
  blockAffinityDefinition,
  ipamHandleDefinition,
  felixConfigurationDefinition,
  bgpConfigurationDefinition,
  bgpPeerDefinition,
  bgpFilterDefinition,
]
