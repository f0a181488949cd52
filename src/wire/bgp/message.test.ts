import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EncodeError } from '../../bytes/errors.ts'
import type { Capability } from './capability.ts'
import { CeaseCode, ErrorCode, HeaderError, MessageType, OpenError, RouteRefreshError } from './constants.ts'
import type { WireContext } from './context.ts'
import { BgpError } from './error.ts'
import { IPV4_UNICAST, IPV6_UNICAST, routeFamily } from './family.ts'
import { decodeHeader } from './header.ts'
import { decodeMessage, encodeKeepalive, MessageStream } from './message.ts'
import {
  cease,
  enclosedNotification,
  encodeNotification,
  formatNotification,
  hardReset,
  shutdownNotification,
  shutdownText,
} from './notification.ts'
import { encodeOpen, type Open } from './open.ts'
import { encodeRouteRefresh } from './route-refresh.ts'

const context: WireContext = {
  fourOctetAs: true,
  peerType: 'external',
  families: new Set([IPV4_UNICAST]),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set(),
  messageBytesMax: 4096,
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** A message of a type around a body in hex with blanks. */
function message(type: number, body: string): Uint8Array {
  const bytes = Buffer.from(body.replaceAll(' ', ''), 'hex')
  return Uint8Array.from([
    ...new Array(16).fill(255),
    (bytes.length + 19) >> 8,
    (bytes.length + 19) & 255,
    type,
    ...bytes,
  ])
}

function errorOf(bytes: Uint8Array): { code: number; subcode: number; data: string } {
  try {
    decodeMessage(bytes, context)
  } catch (error) {
    assert(error instanceof BgpError, `${error}`)
    return { code: error.code, subcode: error.subcode, data: hex(error.data) }
  }
  return assert.fail('no error')
}

const everyCapability: readonly Capability[] = [
  { kind: 'multiprotocol', family: IPV4_UNICAST },
  { kind: 'multiprotocol', family: routeFamily(25, 70) },
  { kind: 'routeRefresh' },
  { kind: 'enhancedRouteRefresh' },
  { kind: 'extendedMessage' },
  { kind: 'extendedNextHop', families: [{ family: IPV4_UNICAST, nextHopAfi: 2 }] },
  { kind: 'role', role: 3 },
  {
    kind: 'gracefulRestart',
    restarted: true,
    notification: true,
    restartTimeSeconds: 4095,
    families: [
      { family: IPV4_UNICAST, forwarding: true },
      { family: IPV6_UNICAST, forwarding: false },
    ],
  },
  { kind: 'fourOctetAs', asn: 4200000001 },
  { kind: 'addPath', families: [{ family: IPV6_UNICAST, send: true, receive: false }] },
  {
    kind: 'longLivedGracefulRestart',
    families: [{ family: IPV4_UNICAST, forwarding: true, staleTimeSeconds: 16777215 }],
  },
  { kind: 'fqdn', hostName: 'nöde1', domainName: '' },
  { kind: 'unknown', code: 200, value: Uint8Array.of(1, 2, 3) },
]
const open: Open = { asn: 4200000001, holdTimeSeconds: 90, identifier: 0xc0000201, capabilities: everyCapability }

test('an OPEN with every capability comes back', () => {
  const bytes = encodeOpen(open)
  assert.deepEqual(decodeMessage(bytes, context), { type: 'open', open })
  // AS_TRANS stands where the number does not fit.
  assert.equal(hex(bytes.subarray(20, 22)), '5ba0')
})

test('optional parameters of more than 255 bytes take the long form of RFC 9072', () => {
  const capabilities = Array.from(
    { length: 30 },
    (_, i): Capability => ({ kind: 'unknown', code: 220, value: new Uint8Array(20).fill(i) }),
  )
  const bytes = encodeOpen({ ...open, capabilities: [{ kind: 'fourOctetAs', asn: 4200000001 }, ...capabilities] })
  assert.equal(hex(bytes.subarray(28, 32)), 'ffff029d')
  const decoded = decodeMessage(bytes, context)
  assert(decoded.type === 'open')
  assert.equal(decoded.open.capabilities.length, 31)
  // The type alone marks the form: the length before it is not looked at.
  bytes[28] = 9
  assert.deepEqual(decodeMessage(bytes, context), decoded)
})

test('an OPEN does not grow beyond 4096 bytes', () => {
  const value = new Uint8Array(250)
  const many = (count: number) =>
    Array.from({ length: count }, (): Capability => ({ kind: 'unknown', code: 220, value }))
  assert.equal(encodeOpen({ ...open, capabilities: many(16) }).length, 4067)
  assert.throws(() => encodeOpen({ ...open, capabilities: many(17) }), EncodeError)
})

test('capabilities in one parameter, or in a parameter each', () => {
  const decoded = decodeMessage(message(1, '04 fdea 005a 0a000001 08 0202 0200 0202 4600'), context)
  assert(decoded.type === 'open')
  assert.deepEqual(decoded.open.capabilities, [{ kind: 'routeRefresh' }, { kind: 'enhancedRouteRefresh' }])
})

test('what is wrong with an OPEN', () => {
  const refused = (body: string) => {
    const { code, subcode, data } = errorOf(message(1, body))
    assert.equal(code, ErrorCode.OPEN_MESSAGE)
    return [subcode, data]
  }
  assert.deepEqual(refused('03 fdea 005a 0a000001 00'), [OpenError.UNSUPPORTED_VERSION, '0004'])
  assert.deepEqual(refused('04 0000 005a 0a000001 00'), [OpenError.BAD_PEER_AS, ''])
  assert.deepEqual(refused('04 5ba0 005a 0a000001 00'), [OpenError.BAD_PEER_AS, ''])
  assert.deepEqual(refused('04 fdeb 005a 0a000001 08 0206 4104 0000fdea'), [OpenError.BAD_PEER_AS, ''])
  assert.deepEqual(refused('04 fdea 0002 0a000001 00'), [OpenError.UNACCEPTABLE_HOLD_TIME, ''])
  assert.deepEqual(refused('04 fdea 005a 00000000 00'), [OpenError.BAD_BGP_IDENTIFIER, ''])
  assert.deepEqual(refused('04 fdea 005a 0a000001 03 010100'), [OpenError.UNSUPPORTED_OPTIONAL_PARAMETER, ''])
  for (const cut of ['05 02020200', '04 02030200', '04 02024102', '04 02020201', 'ff', '05 ff 0009 02', '03 020101'])
    assert.deepEqual(refused(`04 fdea 005a 0a000001 ${cut}`), [OpenError.UNSPECIFIC, ''], cut)
})

test('what is wrong with a header', () => {
  const bad = (change: (bytes: Uint8Array) => void, bytes = message(4, '')) => {
    change(bytes)
    return () => decodeHeader(bytes, 4096)
  }
  const header =
    (subcode: number, data = '') =>
    (error: unknown) =>
      error instanceof BgpError &&
      error.code === ErrorCode.MESSAGE_HEADER &&
      error.subcode === subcode &&
      hex(error.data) === data
  const length =
    (value: number, type = 4) =>
    (bytes: Uint8Array) =>
      bytes.set([value >> 8, value & 255, type], 16)
  assert.throws(
    bad((bytes) => bytes.fill(254, 7, 8)),
    header(HeaderError.CONNECTION_NOT_SYNCHRONIZED),
  )
  assert.throws(bad(length(18)), header(HeaderError.BAD_MESSAGE_LENGTH, '0012'))
  assert.throws(bad(length(20)), header(HeaderError.BAD_MESSAGE_LENGTH, '0014'))
  assert.throws(bad(length(28, 1)), header(HeaderError.BAD_MESSAGE_LENGTH, '001c'))
  assert.throws(bad(length(22, 2)), header(HeaderError.BAD_MESSAGE_LENGTH, '0016'))
  assert.throws(bad(length(4097, 2)), header(HeaderError.BAD_MESSAGE_LENGTH, '1001'))
  assert.throws(bad(length(20, 3)), header(HeaderError.BAD_MESSAGE_LENGTH, '0014'))
  assert.throws(bad(length(19, 0)), header(HeaderError.BAD_MESSAGE_TYPE, '00'))
  assert.throws(bad(length(19, 6)), header(HeaderError.BAD_MESSAGE_TYPE, '06'))
  // RFC 8654: only UPDATE, NOTIFICATION and ROUTE-REFRESH may be longer.
  const long = message(2, '')
  length(65535, 2)(long)
  assert.deepEqual(decodeHeader(long, 65535), { length: 65535, type: MessageType.UPDATE })
  length(4097, 1)(long)
  assert.throws(() => decodeHeader(long, 65535), header(HeaderError.BAD_MESSAGE_LENGTH, '1001'))
  // RFC 7313 has a code of its own, and sends back the message.
  assert.deepEqual(errorOf(message(5, '0001')), {
    code: ErrorCode.ROUTE_REFRESH_MESSAGE,
    subcode: RouteRefreshError.INVALID_MESSAGE_LENGTH,
    data: hex(message(5, '0001')),
  })
  assert.equal(decodeHeader(new Uint8Array(18).fill(255), 4096), undefined)
})

test('ROUTE-REFRESH and its marks', () => {
  for (const kind of ['request', 'begin', 'end'] as const)
    assert.deepEqual(decodeMessage(encodeRouteRefresh(IPV6_UNICAST, kind), context), {
      type: 'routeRefresh',
      refresh: { family: IPV6_UNICAST, kind },
    })
  assert.deepEqual(decodeMessage(message(5, '00010301'), context), {
    type: 'routeRefresh',
    refresh: { family: IPV4_UNICAST, kind: undefined },
  })
  const bytes = message(5, '0001010100')
  assert.deepEqual(errorOf(bytes), { code: 7, subcode: 1, data: hex(bytes) })
})

test('NOTIFICATIONs: text of a shutdown, hard reset, unknown numbers', () => {
  const roundTrip = (notification: Parameters<typeof encodeNotification>[0]) => {
    const decoded = decodeMessage(encodeNotification(notification), context)
    assert(decoded.type === 'notification')
    assert.deepEqual(decoded.notification, notification)
    return formatNotification(decoded.notification)
  }
  const shutdown = shutdownNotification(CeaseCode.ADMINISTRATIVE_SHUTDOWN, 'moving "racks"')
  assert.equal(roundTrip(shutdown), 'cease: administrative shutdown: "moving \\"racks\\""')
  assert.equal(
    roundTrip(hardReset(shutdown)),
    'cease: hard reset: cease: administrative shutdown: "moving \\"racks\\""',
  )
  assert.deepEqual(enclosedNotification(hardReset(shutdown)), shutdown)
  assert.equal(roundTrip(cease(CeaseCode.MAXIMUM_PREFIXES_REACHED)), 'cease: maximum number of prefixes reached')
  assert.equal(roundTrip({ code: 4, subcode: 0, data: new Uint8Array(0) }), 'hold timer expired')
  assert.equal(roundTrip({ code: 99, subcode: 7, data: Uint8Array.of(1) }), 'error 99: subcode 7')
  // Cut at a whole character: 85 times three bytes.
  assert.equal(shutdownText(shutdownNotification(CeaseCode.ADMINISTRATIVE_RESET, '中'.repeat(100))), '中'.repeat(85))
  assert.equal(shutdownText(shutdownNotification(CeaseCode.ADMINISTRATIVE_RESET, '')), undefined)
  assert.equal(shutdownText({ code: 6, subcode: 2, data: Uint8Array.of(9, 65) }), undefined)
  assert.equal(enclosedNotification({ code: 6, subcode: 9, data: Uint8Array.of(6) }), undefined)
})

test('a stream is cut into messages wherever it is cut into chunks', () => {
  const messages = [
    encodeKeepalive(),
    encodeOpen(open),
    encodeRouteRefresh(IPV4_UNICAST),
    encodeKeepalive(),
    encodeNotification(cease(2)),
  ]
  const all = Buffer.concat(messages)
  for (let size = 1; size <= all.length; size++) {
    const stream = new MessageStream(4096)
    const got: string[] = []
    for (let at = 0; at < all.length; at += size)
      stream.push(all.subarray(at, at + size), (bytes, type) => {
        assert.equal(type, bytes[18])
        got.push(hex(bytes))
      })
    assert.deepEqual(got, messages.map(hex), `chunks of ${size}`)
    assert.equal(stream.waiting, 0)
  }
})

test('a stream refuses a bad header as soon as it is there', () => {
  const stream = new MessageStream(4096)
  const bytes = message(2, '0000')
  bytes[16] = 0xff
  stream.push(bytes.subarray(0, 18), () => assert.fail())
  assert.throws(() => stream.push(bytes.subarray(18, 19), () => assert.fail()), BgpError)
})
