import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseNetworkConfig } from './config.ts'
import { CniError } from './error.ts'
import { FieldReader } from './fields.ts'

const parse = (config: object) =>
  parseNetworkConfig(FieldReader.of({ name: 'k8s-pod-network', cniVersion: '0.3.1', ...config }, ''), '0.3.1')
const refusal = (config: object): string => {
  try {
    parse(config)
  } catch (error) {
    if (error instanceof CniError) return `${error.code} ${error.message}`
    throw error
  }
  return 'taken'
}

test("a configuration of Calico's manifest is taken; what the agent knows itself is not read", () => {
  const { ipam, mtuBytes, calico } = parse({
    type: 'calico',
    log_level: 'info',
    log_file_path: '/var/log/calico/cni/cni.log',
    datastore_type: 'kubernetes',
    nodename: '__KUBERNETES_NODE_NAME__',
    mtu: 1440,
    ipam: { type: 'calico-ipam', assign_ipv4: 'true', assign_ipv6: 'true', ipv4_pools: ['default-ipv4-ippool'] },
    policy: { type: 'k8s' },
    kubernetes: { kubeconfig: '__KUBECONFIG_FILEPATH__' },
    container_settings: { allow_ip_forwarding: true },
    feature_control: { ip_addrs_no_ipam: true, floating_ips: false },
  })
  assert.deepEqual([ipam, mtuBytes], [{ type: 'node' }, 1440])
  assert.deepEqual(calico, {
    families: [4, 6],
    ipv4Pools: ['default-ipv4-ippool'],
    forwards: true,
    addressesWithoutIpam: true,
  })
})

test('families are as Calico assigns them', () => {
  const families = (ipam: object) => parse({ type: 'calico', ipam: { type: 'calico-ipam', ...ipam } }).calico?.families
  assert.equal(families({}), undefined)
  assert.deepEqual(families({ assign_ipv6: 'true' }), [4, 6])
  assert.deepEqual(families({ assign_ipv4: 'false', assign_ipv6: 'true' }), [6])
  assert.deepEqual(families({ assign_ipv4: 'False' }), [])
})

test("usePodCidr means the node's, in each of its forms; other ranges are the configuration's own", () => {
  const ipam = (of: object) => parse({ type: 'calico', ipam: { type: 'host-local', ...of } }).ipam
  const ofNode = { type: 'node', podCidrsOnly: true }
  assert.deepEqual(ipam({ subnet: 'usePodCidr' }), ofNode)
  assert.deepEqual(ipam({ ranges: [[{ subnet: 'usePodCidr' }], [{ subnet: 'usePodCidrIPv6' }]] }), ofNode)
  assert.equal(ipam({ ranges: [[{ subnet: '10.9.0.0/24' }]] }).type, 'host-local')
})

test("another plugin's keys of these names mean nothing to weft's own configuration", () => {
  assert.equal(parse({ type: 'weft', mode: 'vxlan', device_type: 'netkit' }).calico, undefined)
})

test('refusals name the key', () => {
  const calico = (more: object) => refusal({ type: 'calico', ipam: { type: 'calico-ipam' }, ...more })
  assert.match(calico({ mode: 'vxlan' }), /^7 mode: "vxlan" is not supported/)
  assert.match(calico({ device_type: 'netkit' }), /^7 device_type: "netkit" is not supported/)
  assert.match(calico({ dataplane_options: { type: 'grpc' } }), /^7 dataplane_options\.type: "grpc"/)
  assert.match(calico({ ipam: { type: 'calico-ipam', assign_ipv4: 'yes' } }), /^7 ipam\.assign_ipv4: must be "true"/)
  assert.match(calico({ ipam: { type: 'calico-ipam', assign_ipv4: true } }), /^7 ipam\.assign_ipv4: must be a string/)
  assert.match(calico({ ipam: { type: 'calico-ipam', ipv4_pools: ['fd00::/64'] } }), /^7 ipam\.ipv4_pools: .*IPv4 CIDR/)
  assert.match(calico({ ipam: { type: 'calico-ipam', ipv4_pools: 'a' } }), /^7 ipam\.ipv4_pools: must be an array/)
  assert.match(
    calico({ container_settings: { allow_ip_forwarding: 'yes' } }),
    /^7 container_settings\.allow_ip_forward/,
  )
  assert.match(calico({ ipam: { type: 'host-local', ranges: [7] } }), /ipam\.ranges\[0\]/)
})
