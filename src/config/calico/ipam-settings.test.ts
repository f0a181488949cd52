import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../../model/errors.ts'
import { defaultIpamSettings, parseIpamSettings } from './ipam-settings.ts'
import { parseReservation } from './reservation.ts'

test("settings of Kubernetes' object and of etcd's value", () => {
  const spec = { strictAffinity: true, autoAllocateBlocks: false, maxBlocksPerHost: 4, ipCooldownSeconds: 30 }
  assert.deepEqual(parseIpamSettings({ metadata: { name: 'default' }, spec }), { settings: spec, warnings: [] })
  const value = { strict_affinity: true, maxBlocksPerHost: 4, ipCooldownSeconds: 30 }
  assert.deepEqual(parseIpamSettings(value).settings, spec)
  assert.deepEqual(parseIpamSettings({ auto_allocate_blocks: true }).settings, defaultIpamSettings)
  assert.deepEqual(parseIpamSettings({ spec: {} }).settings, defaultIpamSettings)
})

test('settings that cannot be are refused by name', () => {
  const refused = (spec: object, key: string) =>
    assert.throws(
      () => parseIpamSettings({ spec }),
      (error: ConfigError) => error.object === 'IPAMConfig default' && error.key === `spec.${key}`,
    )
  refused({ autoAllocateBlocks: false }, 'autoAllocateBlocks')
  refused({ ipCooldownSeconds: 1201 }, 'ipCooldownSeconds')
  refused({ maxBlocksPerHost: -1 }, 'maxBlocksPerHost')
  refused({ strictAffinity: 'yes' }, 'strictAffinity')
  assert.throws(() => parseIpamSettings([]), ConfigError)
})

test('what does not apply to weft, or to nobody, is told', () => {
  const { warnings } = parseIpamSettings({ spec: { kubeVirtVMAddressPersistence: 'Enabled', color: 'red' } })
  assert.equal(warnings.length, 2)
  assert.match(warnings[0]!, /spec\.color: is not known to weft/)
  assert.match(warnings[1]!, /kubeVirtVMAddressPersistence: does not apply/)
})

test('a reservation has blocks and single addresses; host bits are masked, and told', () => {
  const { reservation, warnings } = parseReservation({
    metadata: { name: 'r' },
    spec: { reservedCIDRs: ['10.0.0.0/17', '10.0.200.7', 'fd00::5/64'] },
  })
  assert.deepEqual(reservation.cidrs.map(String), ['10.0.0.0/17', '10.0.200.7/32', 'fd00::/64'])
  assert.deepEqual(warnings, [
    'IPReservation r: spec.reservedCIDRs[2]: fd00::5/64 has host bits set: fd00::/64 is reserved',
  ])
  assert.deepEqual(parseReservation({ metadata: { name: 'r' }, spec: {} }).reservation.cidrs, [])
})

test('a reservation that cannot be read names the entry', () => {
  const object = (reservedCIDRs: unknown) => ({ metadata: { name: 'r' }, spec: { reservedCIDRs } })
  for (const entry of ['ten', '10.0.0.0/33', '', 7, null])
    assert.throws(
      () => parseReservation(object(['10.0.0.0/8', entry])),
      (error: ConfigError) => error.object === 'IPReservation r' && error.key === 'spec.reservedCIDRs[1]',
    )
  assert.throws(() => parseReservation(object(new Array(10_001).fill('10.0.0.0/8'))), /has 10001 items/)
})
