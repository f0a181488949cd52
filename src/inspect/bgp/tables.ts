/**
 * What `weft bgp` prints: statuses and routes of a speaker as tables for people.
 */
import type { AsPathSegment, PeerStatus, RibRoute, SpeakerStatus } from '../../model/bgp.ts'

/** One line a peer, under the speaker's own. */
export function formatSummary(status: SpeakerStatus, nowMs: number): string[] {
  const { asn, routerId, rib, attributeSets } = status
  const sizes = (['ipv4', 'ipv6'] as const).map(
    (family) => `${rib[family].prefixes} ${family} prefixes (${rib[family].paths} paths)`,
  )
  return [
    `AS ${asn}, router id ${routerId}, ${sizes.join(', ')}, ${attributeSets} attribute sets`,
    '',
    ...table(
      ['PEER', 'ADDRESS', 'AS', 'STATE', 'SINCE', 'RECEIVED', 'ACCEPTED', 'SENT', 'REASON'],
      status.peers.map((peer) => {
        const sum = (key: 'received' | 'accepted' | 'sent'): string =>
          peer.families.map((family) => family[key]).join('/')
        return [
          peer.name,
          peer.address ?? peer.device ?? '-',
          String(peer.remoteAsn),
          peer.state,
          formatAge(nowMs - peer.sinceMs),
          sum('received'),
          sum('accepted'),
          sum('sent'),
          peer.reason ?? '',
        ]
      }),
    ),
  ]
}

/** Everything about one peer. */
export function formatNeighbor(peer: PeerStatus, nowMs: number): string[] {
  const rows: [string, string | undefined][] = [
    ['description', peer.description],
    ['origin', peer.origin],
    ['address', [peer.address, peer.device && `on ${peer.device}`].filter(Boolean).join(' ') || undefined],
    ['local address', peer.localAddress],
    ['AS', `${peer.remoteAsn} (${peer.type}), ours ${peer.localAsn}`],
    ['router id', peer.remoteRouterId],
    ['state', `${peer.state} for ${formatAge(nowMs - peer.sinceMs)}, established ${peer.establishedCount} times`],
    ['reason', peer.reason],
    [
      'timers',
      peer.holdSeconds === undefined ? undefined : `hold ${peer.holdSeconds} s, keepalive ${peer.keepaliveSeconds} s`,
    ],
    ['last sent', peer.lastSent && `${new Date(peer.lastSent.atMs).toISOString()} ${peer.lastSent.text}`],
    [
      'last received',
      peer.lastReceived && `${new Date(peer.lastReceived.atMs).toISOString()} ${peer.lastReceived.text}`,
    ],
    ['BFD', peer.bfd],
  ]
  const lines = [peer.name]
  for (const [name, value] of rows) if (value !== undefined) lines.push(`  ${`${name}:`.padEnd(15)} ${value}`)
  const offered = new Map((peer.capabilitiesSent ?? []).map(({ code, text }) => [`${code} ${text}`, 'sent']))
  for (const { code, text } of peer.capabilitiesReceived ?? [])
    offered.set(`${code} ${text}`, offered.has(`${code} ${text}`) ? 'both' : 'received')
  if (offered.size > 0) lines.push('  capabilities:')
  for (const [text, by] of offered) lines.push(`    ${by.padEnd(9)} ${text}`)
  for (const { family, ...counts } of peer.families)
    lines.push(
      `  ${`${family}:`.padEnd(15)} ${counts.received} received, ${counts.accepted} accepted, ${counts.best} best, ${counts.sent} sent, ${counts.stale} stale` +
        `, End-of-RIB ${counts.endOfRibReceived ? 'received' : 'not received'}, ${counts.endOfRibSent ? 'sent' : 'not sent'}`,
    )
  for (const direction of ['received', 'sent'] as const) {
    const { open, update, keepalive, notification, routeRefresh, bytes } = peer.messages[direction]
    lines.push(
      `  ${`${direction}:`.padEnd(15)} ${open} OPEN, ${update} UPDATE, ${keepalive} KEEPALIVE, ${notification} NOTIFICATION, ${routeRefresh} ROUTE-REFRESH, ${bytes} bytes`,
    )
  }
  return lines
}

export const ribHead = ['', 'PREFIX', 'NEXT HOP', 'FROM', 'PREF', 'MED', 'PATH', 'COMMUNITIES'] as const

/** One route: `*` valid, `>` the best, `=` used beside it, `s` stale. */
export function ribRow(route: RibRoute): string[] {
  const mark = [
    route.rejected === undefined ? '*' : ' ',
    route.best ? '>' : route.multipath ? '=' : ' ',
    route.stale ? 's' : ' ',
  ].join('')
  return [
    mark,
    route.pathId === undefined ? route.prefix : `${route.prefix} (${route.pathId})`,
    route.nextHops.map(({ address, device }) => (device ? `${address}%${device}` : address)).join(' ') || '-',
    route.fromPeer ?? route.localKind ?? '-',
    String(route.localPreference ?? '-'),
    String(route.med ?? '-'),
    [formatAsPath(route.asPath), { igp: 'i', egp: 'e', incomplete: '?' }[route.origin]].filter(Boolean).join(' '),
    [route.communities.join(' '), route.rejected && `rejected: ${route.rejected}`].filter(Boolean).join('; '),
  ]
}

/** One candidate of a prefix, and what became of it. */
export function formatCandidate(route: RibRoute, lostAt: string | undefined): string {
  const [, prefix, nextHop, from, , , path] = ribRow(route)
  const verdict = route.best
    ? 'the best'
    : route.rejected !== undefined
      ? `not used: ${route.rejected}`
      : `${route.multipath ? 'used beside the best' : 'not used'}${lostAt ? `: lost at ${lostAt}` : ''}`
  return `${prefix} via ${nextHop} from ${from}, path ${path}: ${verdict}`
}

const formatAsPath = (segments: readonly AsPathSegment[]): string =>
  segments
    .map(({ kind, asns }) => {
      const text = asns.join(kind.endsWith('set') ? ',' : ' ')
      if (kind === 'sequence') return text
      return kind === 'set' ? `{${text}}` : kind === 'confed-sequence' ? `(${text})` : `[${text}]`
    })
    .join(' ')

/** Columns as wide as their widest cell; the last one is as long as it is. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, i) => rows.reduce((most, row) => Math.max(most, row[i]!.length), title.length))
  return [head, ...rows].map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  )
}

/** `59s`, `5m10s`, `3h12m`, `9d4h`. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000))
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${seconds % 60}s`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h${Math.floor((seconds % 3600) / 60)}m`
  return `${Math.floor(seconds / 86_400)}d${Math.floor((seconds % 86_400) / 3600)}h`
}
