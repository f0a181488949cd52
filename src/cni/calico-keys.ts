/**
 * Keys of Calico's own configuration list, for who brings one to weft's plugin: `type` `calico`, or an `ipam` of the type
 * `calico-ipam`. The agent knows node, store, MTU and policy itself, so most keys have nothing to say here.
 *
 *   honoured   name, mtu, ipam.{type, assign_ipv4, assign_ipv6, ipv4_pools, ipv6_pools, subnet usePodCidr},
 *              container_settings.allow_ip_forwarding, feature_control.ip_addrs_no_ipam, runtimeConfig
 *   refused    mode (vxlan), device_type netkit, dataplane_options.type other than linux
 *   the agent's, not read: datastore_type, etcd_*, kubernetes, nodename, nodename_file, nodename_file_optional, policy, log_*,
 *              qps, burst, require_mtu_file, ipam_lock_file, calico_api_group, readiness_gates, endpoint_status_dir,
 *              policy_setup_timeout_seconds, num_queues, include_default_routes, windows_*
 *
 * Sources: Calico cni-plugin/pkg/types/types.go, pkg/k8s/k8s.go (usePodCidr), docs of the CNI plugin's configuration.
 */
import { Cidr } from '../net/cidr.ts'
import type { Family } from '../net/ip.ts'
import { FieldReader } from './fields.ts'

export interface CalicoKeys {
  /** Undefined: as the node has it. */
  readonly families?: readonly Family[]
  readonly ipv4Pools?: readonly string[]
  readonly ipv6Pools?: readonly string[]
  /** The container may forward packets between its interfaces. */
  readonly forwards: boolean
  readonly addressesWithoutIpam: boolean
}

/** Undefined for a configuration that is not Calico's. Throws CniError 7 naming a key that is refused. */
export function parseCalicoKeys(fields: FieldReader): CalicoKeys | undefined {
  const ipam = fields.optionalObject('ipam')
  const isCalico = fields.optionalText('type', 64) === 'calico'
  if (!isCalico && ipam?.optionalText('type', 64) !== 'calico-ipam') return undefined
  refuseOthers(fields)
  const families = ipam && assignedFamilies(ipam)
  const [ipv4Pools, ipv6Pools] = ([4, 6] as const).map((family) => ipam && parsePools(ipam, family))
  return {
    ...(families ? { families } : {}),
    ...(ipv4Pools?.length ? { ipv4Pools } : {}),
    ...(ipv6Pools?.length ? { ipv6Pools } : {}),
    forwards: fields.optionalObject('container_settings')?.flag('allow_ip_forwarding') ?? false,
    addressesWithoutIpam: fields.optionalObject('feature_control')?.flag('ip_addrs_no_ipam') ?? false,
  }
}

function refuseOthers(fields: FieldReader): void {
  const refused = (field: FieldReader | undefined, key: string, allowed: readonly string[], problem: string) => {
    const value = field?.optionalText(key, 64)
    if (value && !allowed.includes(value)) throw field!.problem(key, `${JSON.stringify(value)} ${problem}`)
  }
  refused(fields, 'mode', ['none'], 'is not supported: pools say how packets travel')
  refused(fields, 'device_type', ['veth'], 'is not supported: there is veth')
  refused(fields.optionalObject('dataplane_options'), 'type', ['linux'], 'is not supported: there is linux')
}

/** `"true"` and `"false"`, as texts. */
function assignedFamilies(ipam: FieldReader): Family[] | undefined {
  const wishes = ([4, 6] as const).map((family) => {
    const key = `assign_ipv${family}`
    const text = ipam.optionalText(key, 16)?.toLowerCase()
    if (text !== undefined && text !== 'true' && text !== 'false')
      throw ipam.problem(key, `must be "true" or "false", not ${JSON.stringify(text)}`)
    return { family, text }
  })
  if (wishes.every(({ text }) => text === undefined)) return undefined
  // Calico assigns IPv4 unless told otherwise, and IPv6 only when told.
  return wishes.filter(({ family, text }) => (text ?? String(family === 4)) === 'true').map(({ family }) => family)
}

function parsePools(ipam: FieldReader, family: Family): string[] {
  const key = `ipv${family}_pools`
  return ipam.texts(key, 64, 253).map((text) => {
    const good = text.includes('/')
      ? Cidr.tryParse(text)?.family === family
      : /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(text)
    if (!good)
      throw ipam.problem(key, `${JSON.stringify(text)} is neither the name of a pool nor its IPv${family} CIDR`)
    return text
  })
}

const podCidrWords = ['usepodcidr', 'usepodcidripv6']

/** Whether an `ipam` of host-local leaves its ranges to the node's pod CIDRs. */
export function usesPodCidr(ipam: FieldReader): boolean {
  const isWord = (field: FieldReader) => podCidrWords.includes((field.optionalText('subnet', 64) ?? '').toLowerCase())
  const sets = ipam.list('ranges', 16, (value) => value)
  return isWord(ipam) || sets.some((set, index) => rangesOf(ipam, set, index).some(isWord))
}

const rangesOf = (ipam: FieldReader, set: unknown, index: number): FieldReader[] =>
  FieldReader.of({ set }, `${ipam.path}.ranges[${index}]`).objects('set', 64)
