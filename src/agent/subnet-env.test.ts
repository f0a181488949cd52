import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Cidr } from '../net/cidr.ts'
import { readPreviousSubnets, writeSubnetEnv } from './subnet-env.ts'

test("subnet.env is flannel's, atomic, and read back", (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
  context.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'flannel', 'subnet.env')
  assert.deepEqual(readPreviousSubnets(path), [])
  writeSubnetEnv(path, {
    networks: [Cidr.parse('10.244.0.0/16'), Cidr.parse('fd00:10:244::/56')],
    subnets: [Cidr.parse('10.244.3.0/24'), Cidr.parse('fd00:10:244:3::/64')],
    mtuBytes: 1450,
    masquerade: true,
  })
  const expected = `FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.3.1/24
FLANNEL_IPV6_NETWORK=fd00:10:244::/56
FLANNEL_IPV6_SUBNET=fd00:10:244:3::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
`
  assert.equal(readFileSync(path, 'utf8'), expected)
  assert.equal(statSync(path).mode & 0o777, 0o644)
  assert.deepEqual(readPreviousSubnets(path).map(String), ['10.244.3.0/24', 'fd00:10:244:3::/64'])
  writeFileSync(path, 'FLANNEL_SUBNET=garbage\n')
  assert.deepEqual(readPreviousSubnets(path), [])
})
