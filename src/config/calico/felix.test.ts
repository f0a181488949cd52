import assert from 'node:assert/strict'
import { test } from 'node:test'
import { felixConfigurationDefinition } from './definitions/felix.ts'
import { defaultFelixSettings, felixKeys, parseFelix } from './felix.ts'
import { felixKeysNotApplying } from './felix-keys.ts'

test('without an object there are defaults alone', () => {
  assert.deepEqual(parseFelix({}), { settings: defaultFelixSettings, warnings: [], problems: [] })
})

test("a node's object goes before the default's, key by key", () => {
  const { settings, problems } = parseFelix({
    default: { vxlanPort: 8472, vxlanVNI: 7, workloadSourceSpoofing: 'any', ipipMTU: 0 },
    node: { vxlanPort: 4790, natPortRange: '1000:2000', ipForwarding: 'Disabled' },
  })
  assert.deepEqual(problems, [])
  assert.deepEqual(settings, {
    ...defaultFelixSettings,
    vxlanPort: 4790,
    vxlanVni: 7,
    workloadSourceSpoofing: 'Any',
    natPortRange: { first: 1000, last: 2000 },
    ipForwarding: false,
  })
})

test('what is wrong in one key is named, and the next value holds', () => {
  const { settings, problems } = parseFelix({
    default: {
      vxlanPort: 8472,
      vxlanMTU: 'big',
      natOutgoingAddress: 'fd00::1',
      externalNodesList: ['10.0.0.1', 'ten'],
    },
    node: { vxlanPort: 0, interfacePrefix: 'workload' },
  })
  assert.equal(settings.vxlanPort, 8472)
  assert.equal(settings.vxlanMtuBytes, undefined)
  assert.equal(settings.interfacePrefix, 'cali')
  assert.deepEqual(
    problems.map(({ object, key }) => `${object}: ${key}`),
    [
      'FelixConfiguration of this node: spec.interfacePrefix',
      'FelixConfiguration default: spec.vxlanMTU',
      'FelixConfiguration of this node: spec.vxlanPort',
      'FelixConfiguration default: spec.natOutgoingAddress',
      'FelixConfiguration default: spec.externalNodesList[1]',
    ],
  )
})

test('values of every form', () => {
  const { settings } = parseFelix({
    default: {
      natPortRange: 5000,
      externalNodesList: ['10.0.0.1', 'fd00::/64'],
      iptablesNATOutgoingInterfaceFilter: 'eth+',
      interfacePrefix: 'tap,cali',
      deviceRouteSourceAddressIPv6: 'fd00::5',
      natOutgoingExclusions: 'IPPoolsAndHostIPs',
    },
  })
  assert.deepEqual(settings.natPortRange, { first: 5000, last: 5000 })
  assert.deepEqual(settings.externalNodes.map(String), ['10.0.0.1/32', 'fd00::/64'])
  assert.equal(settings.natOutgoingInterfaceFilter, 'eth+')
  assert.equal(settings.interfacePrefix, 'tap')
  assert.equal(`${settings.deviceRouteSourceAddressV6}`, 'fd00::5')
  assert.equal(settings.natOutgoingExclusions, 'IPPoolsAndHostIPs')
})

test('every honoured key refuses what it is not, and says its name', () => {
  for (const key of felixKeys) {
    for (const value of [{ a: 1 }, [{}], '\u0000', 1.5, -1, 'x'.repeat(3000)]) {
      const { settings, problems } = parseFelix({ default: { [key]: value } })
      if (problems.length === 0) continue
      assert.ok(problems[0]!.key.startsWith(`spec.${key}`), `${key}: ${problems[0]!.message}`)
      assert.ok(problems[0]!.message.length < 300)
      assert.deepEqual(settings, defaultFelixSettings)
    }
    const { problems } = parseFelix({ default: { [key]: { a: 1 } } })
    assert.equal(problems.length, 1, `${key} takes an object`)
  }
})

test('specs that are no objects are named', () => {
  for (const spec of [7, 'x', []]) {
    const { settings, problems } = parseFelix({ default: spec, node: { vxlanPort: 1 } })
    assert.equal(settings.vxlanPort, 1)
    assert.deepEqual(
      problems.map(({ key }) => key),
      ['spec'],
    )
  }
})

test('what does not apply is said once for each reason; what is empty is not said', () => {
  const { warnings } = parseFelix({
    default: {
      bpfLogLevel: '',
      bpfEnabled: true,
      bpfKubeProxyMinSyncPeriod: '1s',
      reportingInterval: '0s',
      vxlanPort: 1,
      vlan: 1,
    },
  })
  assert.deepEqual(warnings, [
    'FelixConfiguration default: bpfEnabled, bpfKubeProxyMinSyncPeriod: does not apply: weft has no eBPF or XDP data path yet',
    'FelixConfiguration default: reportingInterval: does not apply: weft reports nothing of the kind',
    'FelixConfiguration default: vlan: is not known to weft and has no effect',
  ])
})

test('every key is either honoured or does not apply, and the definition has them all', () => {
  const kept = felixKeysNotApplying.flatMap(({ keys }) => keys)
  const all = [...felixKeys, ...kept]
  assert.equal(new Set(all).size, all.length, 'a key stands twice')
  const { versions } = felixConfigurationDefinition.spec as {
    versions: { schema: { openAPIV3Schema: { properties: { spec: { properties: object } } } } }[]
  }
  assert.deepEqual(Object.keys(versions[0]!.schema.openAPIV3Schema.properties.spec.properties), all.sort())
})

test('of the features that may be said the one about checksums counts', () => {
  const read = (featureDetectOverride: unknown) => parseFelix({ default: { featureDetectOverride } })
  assert.equal(read('ChecksumOffloadBroken=true').settings.checksumOffloadBroken, true)
  assert.equal(read('SNATFullyRandom=false').settings.checksumOffloadBroken, undefined)
  const bad = read('ChecksumOffloadBroken=perhaps')
  assert.equal(bad.settings.checksumOffloadBroken, undefined)
  assert.match(bad.problems.map(({ message }) => message).join(), /featureDetectOverride.*is true or false/)
})
