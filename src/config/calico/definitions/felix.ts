/**
 * The definition of FelixConfiguration. Keys that weft honours have a schema; of those that do not apply anything is kept,
 * and `kubectl explain` says why they do not. A key that is neither is refused, as with Calico's own definition.
 *
 * Sources: Calico libcalico-go/config/crd/crd.projectcalico.org_felixconfigurations.yaml (types, enumerations).
 */
import { felixKeysNotApplying } from '../felix-keys.ts'
import { define, flag, integer, listOf, object, oneOf, type PropertySchema, rulesOf, text } from './definition.ts'

const MTU = { minimum: 0, maximum: 65535 }
const PRIORITY = { minimum: 1, maximum: 2147483646 }
const ADDRESS = { maxLength: 45 }

const honoured: Readonly<Record<string, PropertySchema>> = {
  allowIPIPPacketsFromWorkloads: flag('Pods may send IP in IP themselves. Default: false.'),
  allowVXLANPacketsFromWorkloads: flag('Pods may send VXLAN themselves. Default: false.'),
  deviceRouteSourceAddress: text('Source address of the node for packets to its pods.', ADDRESS),
  deviceRouteSourceAddressIPv6: text('The same for IPv6.', ADDRESS),
  externalNodesList: listOf({ type: 'string' }, 'Who besides nodes of the cluster may send encapsulated packets.'),
  featureDetectOverride: text(
    'ChecksumOffloadBroken=true or =false: said instead of found out; others are not needed.',
  ),
  interfacePrefix: text("Beginning of the names of pods' devices on the node. Default: cali."),
  ipForwarding: oneOf(['Enabled', 'Disabled'], "Disabled: the node's forwarding switches are left alone."),
  ipipEnabled: flag('Whether there is a device for IP in IP. Default: when a pool needs it.'),
  ipipMTU: integer('MTU with IP in IP; 0: found out.', MTU),
  iptablesNATOutgoingInterfaceFilter: text('natOutgoing only for packets that leave by such devices: eth0, or eth+.'),
  ipv4NormalRoutePriority: integer('Metric of IPv4 routes. Default: 1024.', PRIORITY),
  ipv6NormalRoutePriority: integer('Metric of IPv6 routes. Default: 1024.', PRIORITY),
  ipv6Support: flag('false: nothing of IPv6. Default: true.'),
  natOutgoingAddress: text("The address that natOutgoing gives, instead of the leaving device's.", ADDRESS),
  natOutgoingExclusions: oneOf(
    ['IPPoolsOnly', 'IPPoolsAndHostIPs'],
    'What natOutgoing leaves alone. Default: IPPoolsOnly.',
  ),
  natPortRange: {
    description: 'Ports that natOutgoing uses: one, or first:last.',
    'x-kubernetes-int-or-string': true,
  },
  vxlanEnabled: flag('Whether there is a device for VXLAN. Default: when a pool needs it.'),
  vxlanMTU: integer('MTU with VXLAN over IPv4; 0: found out.', MTU),
  vxlanMTUV6: integer('MTU with VXLAN over IPv6; 0: found out.', MTU),
  vxlanPort: integer('UDP port of VXLAN. Default: 4789.', { minimum: 1, maximum: 65535 }),
  vxlanVNI: integer('VNI of VXLAN. Default: 4096.', { minimum: 1, maximum: 16777215 }),
  workloadSourceSpoofing: text('Any: the annotation allowedSourcePrefixes of pods is believed. Default: Disabled.', {
    pattern: '^([Dd]isabled|[Aa]ny)?$',
  }),
}

const kept = felixKeysNotApplying.flatMap(({ reason, keys }) =>
  keys.map((key): readonly [string, PropertySchema] => [
    key,
    { description: `Does not apply: ${reason}.`, 'x-kubernetes-preserve-unknown-fields': true },
  ]),
)

const isAddress = (key: string, family: 4 | 6) => ({
  rule: `!has(self.${key}) || self.${key} == '' || (isIP(self.${key}) && ip(self.${key}).family() == ${family})`,
  message: `must be an IPv${family} address`,
  fieldPath: `.${key}`,
})

export const felixConfigurationDefinition = define(
  { kind: 'FelixConfiguration', plural: 'felixconfigurations' },
  {
    description: "Settings of nodes' data paths: the object named default for all, node.NAME for one.",
    spec: object(
      'The settings. Without a key, its default holds.',
      Object.fromEntries([...Object.entries(honoured), ...kept].sort(([a], [b]) => (a < b ? -1 : 1))),
      rulesOf([
        isAddress('natOutgoingAddress', 4),
        isAddress('deviceRouteSourceAddress', 4),
        isAddress('deviceRouteSourceAddressIPv6', 6),
      ]),
    ),
  },
)
