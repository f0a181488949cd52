import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr } from '../../net/cidr.ts'
import { parseLeaseValue } from './subnet-key.ts'

const subnets = [Cidr.parse('10.5.52.0/24')]
const parse = (value: object) => parseLeaseValue('10.5.52.0-24', subnets, JSON.stringify(value))

test("a lease of flannel's udp backend does not name it", () => {
  const { node, problems } = parse({ PublicIP: '192.0.2.1', PublicIPv6: null })
  assert.deepEqual(problems, [])
  assert.equal(node.lease?.backendType, 'udp')
  assert.equal(`${node.lease?.publicIp}`, '192.0.2.1')
})

test('a reservation is no lease', () => {
  const { node, publicIp } = parse({ PublicIP: '192.0.2.1' })
  assert.equal(node.lease, undefined)
  assert.equal(`${publicIp}`, '192.0.2.1')
})
