/**
 * The two ways in which a Kubernetes API server has Calico's objects: definitions of its own, or Calico's later ones under the
 * name that its API server uses. Where both are served the second is a view of the first, made by Calico's API server.
 *
 * Sources: Calico libcalico-go/lib/backend/k8s/discovery.go (which one counts), lib/backend/k8s/resources/ipam_config_v1.go and
 * api/pkg/apis/projectcalico/v3/blockaffinity.go (what differs).
 */
import type { HttpClient } from '../http-client.ts'

export type CalicoGroup = 'crd.projectcalico.org/v1' | 'projectcalico.org/v3'

export type CalicoResource =
  | 'ippools'
  | 'ipreservations'
  | 'ipamblocks'
  | 'blockaffinities'
  | 'ipamhandles'
  | 'ipamsettings'
  | 'felixconfigurations'

export const kinds: Readonly<Record<CalicoResource, string>> = {
  ippools: 'IPPool',
  ipreservations: 'IPReservation',
  ipamblocks: 'IPAMBlock',
  blockaffinities: 'BlockAffinity',
  ipamhandles: 'IPAMHandle',
  ipamsettings: 'IPAMConfig',
  felixconfigurations: 'FelixConfiguration',
}

/** Path of a collection. */
export function collectionPath(group: CalicoGroup, resource: CalicoResource): string {
  const plural =
    resource !== 'ipamsettings' ? resource : group === 'projectcalico.org/v3' ? 'ipamconfigurations' : 'ipamconfigs'
  return `/apis/${group}/${plural}`
}

/** The definition whose presence says that a group is in use, by its name. */
export const poolDefinitions: readonly { readonly group: CalicoGroup; readonly name: string }[] = [
  { group: 'crd.projectcalico.org/v1', name: 'ippools.crd.projectcalico.org' },
  { group: 'projectcalico.org/v3', name: 'ippools.projectcalico.org' },
]

/** Asks the server which group counts; undefined while neither is served. Rejects as the client does. */
export async function readGroup(client: HttpClient, signal: AbortSignal): Promise<CalicoGroup | undefined> {
  const { groups } = (await client.request({ method: 'GET', path: '/apis', signal })) as {
    readonly groups?: readonly { readonly name?: string }[] | null
  }
  const names = new Set((groups ?? []).map(({ name }) => name))
  return poolDefinitions.find(({ group }) => names.has(group.split('/')[0]!))?.group
}
