/**
 * Whole sessions between gobgpd 3.10, bird 2.0.12, frr 8.4.4 and exabgp 4.2.21, as they went over the wire: each pair with
 * other capabilities (4-octet AS on and off, add-path, IPv4 over IPv6 next hops, unnumbered, reflection, confederation, graceful
 * restart, roles), routes of both families, refreshes, shutdowns with a text. All of it decodes without a fault that is not
 * named here, and comes out again as it went in.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { decodeAttributes, encodeAttributes } from './attribute.ts'
import type { Capability } from './capability.ts'
import { HEADER_BYTES } from './constants.ts'
import type { WireContext } from './context.ts'
import type { RouteFamily } from './family.ts'
import { decodeMessage, encodeKeepalive } from './message.ts'
import { type NlriRun, pathIdAt, prefixAt, runOf } from './nlri.ts'
import { encodeNotification, formatNotification } from './notification.ts'
import { encodeOpen, type Open } from './open.ts'
import { encodeRouteRefresh } from './route-refresh.ts'
import { decodeUpdate, type Update } from './update.ts'
import { encodeEndOfRib, packReach, packUnreach } from './update-packing.ts'

interface Session {
  readonly speakers: readonly [string, string]
  readonly messages: readonly { readonly from: 0 | 1; readonly bytes: string }[]
}

const sessions = JSON.parse(readFileSync(new URL('testdata/sessions.json', import.meta.url), 'utf8')) as Session[]
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const before: WireContext = {
  fourOctetAs: true,
  peerType: 'external',
  families: new Set(),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set(),
  messageBytesMax: 4096,
}

type OfKind<K extends Capability['kind']> = Extract<Capability, { kind: K }>
const ofKind = <K extends Capability['kind']>({ capabilities }: Open, kind: K): OfKind<K>[] =>
  capabilities.filter((capability): capability is OfKind<K> => capability.kind === kind)

/** What `receiver` reads from `sender`. Add-path stands in both directions, so that what is read can be written again. */
function contextOf(sender: Open, receiver: Open, confederation: boolean): WireContext {
  const both = (kind: 'fourOctetAs' | 'extendedMessage') =>
    ofKind(sender, kind).length > 0 && ofKind(receiver, kind).length > 0
  const families = (open: Open): RouteFamily[] => ofKind(open, 'multiprotocol').map(({ family }) => family)
  const addPath = new Set<RouteFamily>()
  for (const theirs of ofKind(sender, 'addPath').flatMap((capability) => capability.families))
    for (const ours of ofKind(receiver, 'addPath').flatMap((capability) => capability.families))
      if (theirs.family === ours.family && theirs.send && ours.receive) addPath.add(ours.family)
  const nextHops = (open: Open) => ofKind(open, 'extendedNextHop').flatMap((capability) => capability.families)
  return {
    fourOctetAs: both('fourOctetAs'),
    peerType: sender.asn === receiver.asn ? 'internal' : confederation ? 'confederation' : 'external',
    families: new Set(families(sender).filter((family) => families(receiver).includes(family))),
    addPathReceive: addPath,
    addPathSend: addPath,
    extendedNextHop: new Set(
      nextHops(sender)
        .map(({ family }) => family)
        .filter((family) => nextHops(receiver).some((other) => other.family === family)),
    ),
    messageBytesMax: both('extendedMessage') ? 65535 : 4096,
  }
}

const shown = (run: NlriRun): string[] =>
  Array.from({ length: run.count }, (_, i) => `${prefixAt(run, i)}#${pathIdAt(run, i)}`)

/** Everything that an update says, without the memory that it says it in. */
function meaning(update: Update, context: WireContext) {
  return {
    unreach: update.unreach.map((run) => [run.family, shown(run)]),
    reach: update.reach.map((run) => [run.family, shown(run), decodeAttributes(run.attributes, context).attributes]),
    endOfRib: update.endOfRib,
  }
}

function encodeAgain(update: Update, context: WireContext): Uint8Array[] {
  const own = (run: NlriRun) =>
    runOf(
      run.family,
      Array.from({ length: run.count }, (_, i) => prefixAt(run, i)),
      Array.from({ length: run.count }, (_, i) => pathIdAt(run, i)),
    )
  if (update.endOfRib !== undefined) return [encodeEndOfRib(update.endOfRib)]
  return [
    ...update.unreach.flatMap((run) => packUnreach(own(run), context)),
    ...update.reach.flatMap((run) => {
      const { attributes } = decodeAttributes(run.attributes, context)
      return packReach({ ...own(run), attributes: encodeAttributes(attributes, run.family, context) }, context)
    }),
  ]
}

/** An UPDATE with its attributes by number, without PARTIAL, and with short lengths where they suffice: in these speakers differ. */
function inOrder(message: Uint8Array): Uint8Array {
  const withdrawn = (message[19]! << 8) | message[20]!
  const from = 23 + withdrawn
  const to = from + ((message[from - 2]! << 8) | message[from - 1]!)
  const attributes: Uint8Array[] = []
  for (let at = from; at < to; ) {
    const long = (message[at]! & 0x10) !== 0
    const start = at + (long ? 4 : 3)
    const length = long ? (message[at + 2]! << 8) | message[at + 3]! : message[at + 2]!
    const head =
      length > 255 ? message.subarray(at, start) : Uint8Array.of(message[at]! & ~0x30, message[at + 1]!, length)
    attributes.push(Buffer.concat([head, message.subarray(start, start + length)]))
    at = start + length
  }
  attributes.sort((a, b) => a[1]! - b[1]!)
  return Buffer.concat([message.subarray(19, 21 + withdrawn), ...attributes, message.subarray(to)])
}

test('sessions of other speakers decode, and what was decoded encodes to the same', () => {
  assert.equal(sessions.length, 9)
  const faults = new Set<string>()
  const notifications = new Set<string>()
  let updates = 0
  let same = 0
  for (const { speakers, messages } of sessions) {
    const opens: Open[] = []
    for (const { from, bytes } of messages) {
      const whole = bytesOf(bytes)
      const label = `${speakers[from]} in ${speakers.join(' and ')}: ${bytes}`
      const [sender, receiver] = [opens[from], opens[1 - from]]
      const confederation = speakers.includes('frr 8.4.4') && opens.some(({ asn }) => asn === 65022)
      const context = sender && receiver ? contextOf(sender, receiver, confederation) : before
      const message = decodeMessage(whole, context)
      switch (message.type) {
        case 'open':
          opens[from] = message.open
          // How optional parameters are divided is the speaker's choice: the capabilities count.
          assert.deepEqual(decodeMessage(encodeOpen(message.open), before), message, label)
          break
        case 'notification':
          notifications.add(`${speakers[from]}: ${formatNotification(message.notification)}`)
          assert.equal(hex(encodeNotification(message.notification)), bytes, label)
          break
        case 'routeRefresh':
          assert.equal(hex(encodeRouteRefresh(message.refresh.family, message.refresh.kind)), bytes, label)
          break
        case 'keepalive':
          assert.equal(hex(encodeKeepalive()), bytes, label)
          break
        case 'update': {
          const { update } = message
          const all = [
            ...update.faults,
            ...update.reach.flatMap((run) => decodeAttributes(run.attributes, context).faults),
          ]
          for (const fault of all) faults.add(`${speakers[from]}: ${fault.reaction}: ${fault.problem}`)
          const again = encodeAgain(update, context)
          updates++
          // bird says IPv4 routes in the attributes of RFC 4760 once RFC 8950 is negotiated; both places are right.
          const elsewhere = context.extendedNextHop.size > 0 && again[0]?.length !== whole.length
          if (again.length === 1 && !elsewhere) {
            same++
            // Without a global address bird leaves the first of the two next hops empty; here both are the link-local one.
            const expected = hex(inOrder(whole)).replace(/0{32}(fe80.{28})/, '$1$1')
            assert.equal(hex(inOrder(again[0]!)), expected, label)
          }
          const parts = again.map((part) => meaning(decodeUpdate(part.subarray(HEADER_BYTES), context), context))
          assert.deepEqual(
            {
              unreach: parts.flatMap(({ unreach }) => unreach),
              reach: parts.flatMap(({ reach }) => reach),
              endOfRib: parts.find(({ endOfRib }) => endOfRib !== undefined)?.endOfRib,
            },
            meaning(update, context),
            label,
          )
        }
      }
    }
  }
  assert.deepEqual([updates, same], [270, 214])
  assert.deepEqual([...faults], [])
  assert.deepEqual([...notifications].sort(), [
    'bird 2.0.12: cease: administrative shutdown: "maintenance"',
    'exabgp 4.2.21: message header error',
    'frr 8.4.4: cease: administrative shutdown: "moving racks"',
    'gobgpd 3.10.0: cease: administrative shutdown',
  ])
})
