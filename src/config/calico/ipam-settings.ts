/**
 * Calico's IPAMConfig `default` of crd.projectcalico.org/v1, its v3 shape (IPAMConfiguration), and the value of
 * `/calico/ipam/v2/config` in etcd, which names two keys differently.
 *
 * Sources: Calico libcalico-go/lib/backend/model/ipam_config.go, lib/ipam/ipam.go (defaults; strictAffinity and
 * autoAllocateBlocks cannot both be off), api/pkg/apis/projectcalico/v3/ipamconfig.go.
 */
import type { IpamSettings } from '../../model/calico.ts'
import { Fields, isObject } from './fields.ts'

export const defaultIpamSettings: IpamSettings = {
  strictAffinity: false,
  maxBlocksPerHost: 0,
  autoAllocateBlocks: true,
  ipCooldownSeconds: 0,
}

const MAX_BLOCKS = 2 ** 31 - 1
const MAX_COOLDOWN_SECONDS = 1200

/** The object as Kubernetes has it, or etcd's value. Throws ConfigError naming the object and the key. */
export function parseIpamSettings(object: unknown): {
  readonly settings: IpamSettings
  readonly warnings: readonly string[]
} {
  const isKubernetes = isObject(object) && isObject(object.spec)
  const fields = isKubernetes
    ? new Fields(object, 'IPAMConfig default').inner('spec')
    : new Fields(object, '/calico/ipam/v2/config')
  const strictKey = isKubernetes ? 'strictAffinity' : 'strict_affinity'
  const autoKey = isKubernetes ? 'autoAllocateBlocks' : 'auto_allocate_blocks'
  const settings: IpamSettings = {
    strictAffinity: fields.flag(strictKey) ?? false,
    // Go leaves out what is false: of an object in etcd that exists, a missing key is no.
    autoAllocateBlocks: fields.flag(autoKey) ?? isKubernetes,
    maxBlocksPerHost: fields.integer('maxBlocksPerHost', 0, MAX_BLOCKS) ?? 0,
    ipCooldownSeconds: fields.integer('ipCooldownSeconds', 0, MAX_COOLDOWN_SECONDS) ?? 0,
  }
  if (!settings.strictAffinity && !settings.autoAllocateBlocks)
    throw fields.error(autoKey, `cannot be false while ${strictKey} is: nobody would have addresses`)
  const known = [strictKey, autoKey, 'maxBlocksPerHost', 'ipCooldownSeconds']
  const persistence = fields.get('kubeVirtVMAddressPersistence')
  const warnings = fields.unknown([...known, 'kubeVirtVMAddressPersistence'])
  if (persistence === undefined || persistence === 'Disabled') return { settings, warnings }
  const where = `${fields.object}: ${fields.path}kubeVirtVMAddressPersistence`
  return {
    settings,
    warnings: [...warnings, `${where}: does not apply: weft gives a virtual machine's pod its own address`],
  }
}
