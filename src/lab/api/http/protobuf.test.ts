/** Protobuf bodies: what kubectl sends, and what nobody should. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { ApiError } from '../api-error.ts'
import { decodeProtobuf } from './protobuf.ts'

/** A length-delimited field. */
const field = (number: number, content: Buffer | string): Buffer => {
  const bytes = Buffer.from(content as string)
  return Buffer.concat([Buffer.from([number * 8 + 2, bytes.length]), bytes])
}
const envelope = (apiVersion: string, kind: string, raw: Buffer): Buffer =>
  Buffer.concat([
    Buffer.from('k8s\0'),
    field(1, Buffer.concat([field(1, apiVersion), field(2, kind)])),
    field(2, raw),
    field(3, ''),
    field(4, ''),
  ])

test('an object is read with its maps, bytes and inlined parts; zeros that mean nothing are left out', () => {
  const metadata = field(1, Buffer.concat([field(1, 's'), field(2, ''), field(3, 'team'), field(8, '')]))
  const data = field(2, Buffer.concat([field(1, 'k'), field(2, 'v')]))
  assert.deepEqual(decodeProtobuf(envelope('v1', 'Secret', Buffer.concat([metadata, data, field(3, 'Opaque')]))), {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 's', namespace: 'team' },
    data: { k: 'dg==' },
    type: 'Opaque',
  })
  // Volume { name = 1, inlined source = 2 { emptyDir = 2 } } of a pod's spec.
  const volume = field(1, Buffer.concat([field(1, 'v'), field(2, field(2, ''))]))
  const pod = decodeProtobuf(envelope('v1', 'Pod', field(2, Buffer.concat([volume, Buffer.from([4 * 8, 0])]))))
  assert.deepEqual(pod.spec, { volumes: [{ name: 'v', emptyDir: {} }], terminationGracePeriodSeconds: 0 })
})

test('times are RFC 3339, quantities text, kinds of other groups their own', () => {
  const seconds = Buffer.from([8, 0x80, 0x96, 0xa1, 0xa6, 0x06])
  const lease = field(2, Buffer.concat([field(1, 'n1'), field(4, seconds)]))
  const { spec } = decodeProtobuf(envelope('coordination.k8s.io/v1', 'Lease', lease)) as { spec: object }
  assert.deepEqual(spec, { holderIdentity: 'n1', renewTime: '2023-08-01T00:00:00Z' })
  const event = decodeProtobuf(envelope('events.k8s.io/v1', 'Event', field(8, field(3, 'p1'))))
  assert.deepEqual(event.regarding, { name: 'p1' })
})

test('garbage of any kind is a 400', () => {
  const refused = (body: Buffer) =>
    assert.throws(
      () => decodeProtobuf(body),
      (error) => error instanceof ApiError && error.code === 400,
    )
  refused(Buffer.alloc(0))
  refused(Buffer.from('{"kind":"Pod"}'))
  refused(envelope('v1', 'NoSuchKind', Buffer.alloc(0)))
  const whole = envelope('v1', 'ConfigMap', field(1, field(1, 'name')))
  for (let length = 0; length < whole.length - 4; length++)
    try {
      decodeProtobuf(whole.subarray(0, length))
    } catch (error) {
      assert.ok(error instanceof ApiError, String(error))
    }
  for (let n = 0; n < 2000; n++)
    try {
      decodeProtobuf(envelope('v1', 'Pod', randomBytes(n % 120)))
    } catch (error) {
      assert.ok(error instanceof ApiError, String(error))
    }
})
