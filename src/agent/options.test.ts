import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flagName } from '../config/flag-table.ts'
import { agentFlags } from './flags.ts'
import { parseOptions } from './options.ts'

test('defaults are those of one agent on a machine', () => {
  const options = parseOptions({}, { NODE_NAME: 'n1' })
  assert.equal(options.nodeName, 'n1')
  assert.equal(options.store, 'kubernetes')
  assert.deepEqual(options.netConfig, { namespace: 'kube-flannel', name: 'kube-flannel-cfg' })
  assert.equal(options.subnetFile, '/run/flannel/subnet.env')
  assert.equal(options.stateDir, '/var/lib/weft')
})

test('an agent with a run directory of its own keeps its files there', () => {
  const options = parseOptions({ 'run-dir': '/run/x' }, {})
  assert.equal(options.subnetFile, '/run/x/subnet.env')
  assert.equal(options.stateDir, '/run/x')
})

test('requests to the API server are limited, unless told otherwise', () => {
  assert.deepEqual(parseOptions({}, {}).apiLimit, { perSecond: 10, burst: 50 })
  assert.deepEqual(parseOptions({ 'kube-api-qps': '3' }, { WEFT_KUBE_API_BURST: '4' }).apiLimit, {
    perSecond: 3,
    burst: 4,
  })
  assert.equal(parseOptions({ 'kube-api-qps': '0' }, {}).apiLimit, undefined)
  assert.throws(() => parseOptions({ 'kube-api-burst': '0' }, {}), /--kube-api-burst/)
})

test('an empty run directory is refused by the name of its flag', () => {
  assert.throws(() => parseOptions({ 'run-dir': '' }, {}), /--run-dir/)
})

test('flags win over WEFT_ variables, those over FLANNELD_ ones', () => {
  const env = {
    WEFT_IFACE: 'eth1,eth2',
    FLANNELD_IFACE: 'eth3',
    FLANNELD_IP_MASQ: 'false',
    FLANNELD_PUBLIC_IP: '192.0.2.1',
  }
  assert.deepEqual(parseOptions({}, env).interface.names, ['eth1', 'eth2'])
  assert.deepEqual(parseOptions({ iface: ['eth0'] }, env).interface.names, ['eth0'])
  assert.equal(parseOptions({}, env).masquerade.enabled, false)
  assert.equal(parseOptions({ 'ip-masq': true }, env).masquerade.enabled, true)
  assert.equal(`${parseOptions({}, env).interface.publicIp}`, '192.0.2.1')
})

test('etcd is chosen by its endpoints, unless told otherwise', () => {
  assert.equal(parseOptions({ 'etcd-endpoints': 'http://127.0.0.1:2379' }, {}).store, 'etcd')
  assert.equal(parseOptions({ 'kube-subnet-mgr': 'false' }, {}).store, 'etcd')
  assert.equal(parseOptions({ 'etcd-endpoints': 'http://x', 'kube-subnet-mgr': true }, {}).store, 'kubernetes')
})

test('what is wrong is named', () => {
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ 'healthz-port': '70000' }, /--healthz-port/],
    [{ 'ip-masq': 'perhaps' }, /--ip-masq/],
    [{ 'public-ip': 'fd00::1' }, /--public-ip.*IPv4/],
    [{ 'iface-regex': ['('] }, /--iface-regex/],
    [{ 'node-name': 'N 1' }, /--node-name/],
    [{ 'kube-annotation-prefix': 'a/b/c' }, /--kube-annotation-prefix/],
    [{ 'net-config-map': 'x' }, /--net-config-map/],
    [{ 'log-level': 'loud' }, /--log-level: value: "loud" is none of error, warn, info, debug, trace/],
    [{ 'log-format': 'xml' }, /--log-format/],
    [{ 'etcd-endpoints': 'http://10.0.0.1:2379,ftp://x' }, /--etcd-endpoints: "ftp:..x": is neither http:.. nor https/],
    [{ 'etcd-endpoints': '10.0.0.1' }, /--etcd-endpoints: "10.0.0.1": is not a URL/],
    [
      { 'etcd-endpoints': 'http://a:geheim@b' },
      /^ConfigError: --etcd-endpoints: b: must not hold a user or a password$/,
    ],
    [{ 'kube-api-url': 'unix:///x' }, /--kube-api-url/],
  ]
  for (const [given, pattern] of wrong) assert.throws(() => parseOptions(given, { NODE_NAME: 'n1' }), pattern)
})

test('every row has a description, and no two have one name or variable', () => {
  const names = agentFlags.rows.flatMap((row) => [flagName(row), ...agentFlags.envNames(row)])
  assert.equal(new Set(names).size, names.length)
  for (const row of agentFlags.rows) assert.ok(row.description.length > 5)
})

test("calico/node's variables stand for flags", () => {
  const env = {
    NODENAME: 'worker-1',
    IP: '192.0.2.10/24',
    IP6_AUTODETECTION_METHOD: 'interface=eth.*',
    DATASTORE_TYPE: 'etcdv3',
    ETCD_ENDPOINTS: 'https://10.0.0.1:2379,https://10.0.0.2:2379',
    ETCD_CA_CERT_FILE: '/ca.pem',
  }
  const options = parseOptions({}, env)
  assert.equal(options.nodeName, 'worker-1')
  assert.equal(options.wiring, 'auto')
  assert.equal(JSON.stringify(options.addresses.v4), '{"type":"given","ip":"192.0.2.10","prefixLength":24}')
  assert.deepEqual(options.addresses.v6, { type: 'autodetect', method: { type: 'interface', patterns: [/eth.*/] } })
  assert.deepEqual(options.calico, {
    store: 'etcd',
    etcd: { endpoints: ['https://10.0.0.1:2379', 'https://10.0.0.2:2379'], caFile: '/ca.pem' },
    spareAddresses: 8,
    handles: 'needed',
  })
  assert.equal(options.store, 'kubernetes', "flannel's subnets are not moved by it")
})

test('pools are looked for where the nodes are, unless told otherwise', () => {
  assert.equal(parseOptions({}, {}).calico.store, 'kubernetes')
  assert.equal(parseOptions({ 'etcd-endpoints': 'http://10.0.0.1:2379' }, {}).calico.store, 'none')
  assert.equal(parseOptions({ 'calico-datastore': 'none' }, {}).calico.store, 'none')
  assert.throws(() => parseOptions({ 'calico-datastore': 'sqlite' }, {}), /--calico-datastore/)
  assert.throws(() => parseOptions({ wiring: 'mesh' }, {}), /--wiring/)
  assert.equal(parseOptions({ 'spare-addresses': '0' }, {}).calico.spareAddresses, 0)
  assert.equal(parseOptions({ 'ipam-handles': 'all' }, {}).calico.handles, 'all')
  assert.throws(() => parseOptions({ 'ipam-handles': 'some' }, {}), /--ipam-handles/)
  assert.throws(() => parseOptions({ 'spare-addresses': '65' }, {}), /--spare-addresses/)
  assert.throws(() => parseOptions({}, { IP: 'fd00::1' }), /--ip/)
  assert.throws(() => parseOptions({ 'ip-autodetection-method': 'cidr=x' }, {}), /--ip-autodetection-method/)
})

test("kube-router's overlay flags are together or not at all", () => {
  assert.equal(parseOptions({}, {}).overlay, undefined)
  const usual = { type: 'kube-router', overlay: 'subnet', encap: 'ipip', port: 5555, autoMtu: true }
  assert.deepEqual(parseOptions({ 'enable-overlay': true }, {}).overlay, usual)
  const { overlay } = parseOptions({ 'overlay-encap': 'fou' }, { WEFT_OVERLAY_TYPE: 'full' })
  assert.deepEqual(overlay, { ...usual, overlay: 'full', encap: 'fou' })
  assert.throws(() => parseOptions({ 'overlay-encap-port': '80' }, {}), /--overlay-encap-port/)
})

test("of Calico's features the one about checksums counts", () => {
  const broken = (text: string) => parseOptions({}, { FELIX_FEATUREDETECTOVERRIDE: text }).checksumOffloadBroken
  assert.equal(broken('SNATFullyRandom=true'), undefined)
  assert.equal(broken('SNATFullyRandom=true, ChecksumOffloadBroken=true'), true)
  assert.equal(broken('ChecksumOffloadBroken=false'), false)
  assert.throws(() => broken('ChecksumOffloadBroken=maybe'), /--feature-detect-override/)
})
