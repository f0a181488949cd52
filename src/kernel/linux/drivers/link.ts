/**
 * Network devices. The kernel takes some fields only of a device that exists (alias, address generation, a port's
 * settings): creating such a device is two messages, and the second, which names the device, goes out only after the
 * first succeeded; a foreign device of the same name is never touched.
 *
 * Deleting is not here but in link-removal.ts, because the kernel waits on it.
 *
 * Sources: net/core/rtnetlink.c (rtnl_newlink_create, do_setlink); include/uapi/linux/if_link.h.
 */

import { type BridgePort, type ForeignLink, isFallbackDevice, type Link } from '../../../model/link.ts'
import { Mac } from '../../../net/mac.ts'
import { NLM_F_CREATE, NLM_F_EXCL } from '../../../wire/netlink/constants.gen.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import type { BridgePortData } from '../../../wire/rtnetlink/kinds/bridge.ts'
import { type LinkAttributes, type LinkMessage, linkMessage, linkRequest } from '../../../wire/rtnetlink/link.ts'
import { kernelError } from '../../errno.ts'
import { otherUseOf } from '../../fallback-device.ts'
import { linkKindRow } from '../link-kinds/registry.ts'
import type { RequestSink, RtnetlinkKind } from '../rtnetlink-kind.ts'

type AnyLink = Link | ForeignLink
const EEXIST = 17
const EOPNOTSUPP = 95

type AddressGeneration = NonNullable<Link['addressGeneration']>
const generations: readonly (readonly [AddressGeneration, number])[] = [
  ['eui64', k.IN6_ADDR_GEN_MODE_EUI64],
  ['none', k.IN6_ADDR_GEN_MODE_NONE],
  ['stable-privacy', k.IN6_ADDR_GEN_MODE_STABLE_PRIVACY],
  ['random', k.IN6_ADDR_GEN_MODE_RANDOM],
]
const generationNumbers = new Map(generations)
const generationNames = new Map(generations.map(([name, number]) => [number, name]))

/** RFC 2863 ifOperStatus as the kernel numbers it. */
const operationalStates = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up']

const portData = (port: BridgePort): BridgePortData => ({
  hairpin: port.hairpin,
  guard: port.guard,
  learning: port.learning,
  isolated: port.isolated,
})

const sameSettings = (a: object | undefined, b: object | undefined): boolean => JSON.stringify(a) === JSON.stringify(b)

/** What a message about an existing device must say so that it becomes as wanted, but for its kind's own settings. */
function changesOf(want: AnyLink, was: AnyLink | undefined, sink: RequestSink): LinkAttributes {
  const changed = <F extends keyof AnyLink>(field: F): boolean =>
    want[field] !== undefined && (!was || !sameSettings({ value: want[field] }, { value: was[field] }))
  return {
    mtu: changed('mtuBytes') ? want.mtuBytes : undefined,
    address: changed('mac') ? want.mac?.bytes : undefined,
    master: changed('master') ? masterIndex(want, sink) : undefined,
    alias: changed('alias') ? want.alias : undefined,
    group: changed('group') ? want.group : undefined,
    txQueueLength: changed('txQueueLength') ? want.txQueueLength : undefined,
    gsoMaxSize: changed('gsoMaxBytes') ? want.gsoMaxBytes : undefined,
  }
}

/** The kind's own settings that a change must say; undefined for none. */
function changedData(want: Link, was: Link | undefined, sink: RequestSink): object | undefined {
  const row = linkKindRow(want.type)
  const settings = want.settings as Readonly<Record<string, unknown>> | undefined
  // A fallback device refuses to be told even what it has.
  if (!row || !settings || want.type === 'veth' || isFallbackDevice(want)) return undefined
  const old = was?.settings as Readonly<Record<string, unknown>> | undefined
  const differs = (field: string) => !sameSettings({ value: settings[field] }, { value: old?.[field] })
  const fields = Object.keys(settings).filter((field) =>
    old ? differs(field) : (row.changeable?.includes(field) ?? true),
  )
  if (fields.length === 0) return undefined
  const said = row.changesWhole ? settings : Object.fromEntries(fields.map((field) => [field, settings[field]]))
  const data = row.encode(said, sink, old)
  return data && Object.values(data).some((value) => value !== undefined) ? data : undefined
}

/** Index of the master, 0 for none, undefined when it does not matter. */
function masterIndex(link: AnyLink, sink: RequestSink): number | undefined {
  if (link.master === undefined) return undefined
  return link.master === null ? 0 : sink.index(link.master)
}

function put(sink: RequestSink, flags: number, message: LinkMessage): void {
  const start = sink.begin(k.RTM_NEWLINK, flags)
  linkMessage.encode(sink.writer, message)
  sink.end(start)
}

const hasAny = (attributes: LinkAttributes): boolean => Object.values(attributes).some((value) => value !== undefined)

const generationSpecifics = (mode: AddressGeneration): LinkAttributes => ({
  familySpecifics: { inet6: { addressGenerationMode: generationNumbers.get(mode) } },
})

/** The message that makes the device, and what is left to say once it exists. */
function create(link: AnyLink, sink: RequestSink): undefined | (() => void) {
  const row = link.type === 'foreign' ? undefined : linkKindRow(link.type)
  if (!row || link.type === 'foreign')
    throw kernelError(`ip link add ${link.name}`, EOPNOTSUPP, { extack: 'weft cannot create a device of this kind' })
  const lower = row.lower?.(link.settings)
  const attributes: LinkAttributes = {
    name: link.name,
    mtu: link.mtuBytes,
    address: link.mac?.bytes,
    link: lower === undefined ? undefined : sink.index(lower),
    master: link.master ? masterIndex(link, sink) : undefined,
    group: link.group,
    txQueueLength: link.txQueueLength,
    gsoMaxSize: link.gsoMaxBytes,
    ...(link.type === 'veth' && { txQueues: link.settings?.queues, rxQueues: link.settings?.queues }),
    info: { kind: link.type, data: row.encode(link.settings, sink) },
  }
  const later: LinkAttributes = {
    alias: link.alias,
    info: link.port && { portKind: 'bridge', portData: portData(link.port) },
  }
  // The address generation mode must stand before the device comes up, or a link-local address is made first.
  const mode = link.addressGeneration
  const flags = (link.up ? k.IFF_UP : 0) | (link.promiscuous ? k.IFF_PROMISC : 0)
  const flagsNow = mode === undefined && !hasAny(later) ? flags : 0
  put(sink, NLM_F_CREATE | NLM_F_EXCL, { header: linkRequest(link.ifindex ?? 0, flagsNow, flagsNow), attributes })
  if (mode === undefined && !hasAny(later)) return undefined
  return () => {
    const index = sink.index(link.name)
    if (mode !== undefined) put(sink, 0, { header: linkRequest(index), attributes: generationSpecifics(mode) })
    if (flags || hasAny(later)) put(sink, 0, { header: linkRequest(index, flags, flags), attributes: later })
  }
}

/**
 * One message for each part: a kind may refuse a change of its settings beside other fields, and a port is looked for
 * before its new master is looked at.
 */
function change(link: AnyLink, was: AnyLink | undefined, sink: RequestSink): void {
  const use = was && otherUseOf(link, was)
  if (use) throw kernelError('', EEXIST, { extack: use })
  const index = sink.index(link.name)
  const say = (attributes: LinkAttributes, flags = 0, mask = 0) =>
    put(sink, 0, { header: linkRequest(index, flags, mask), attributes })
  const attributes = changesOf(link, was, sink)
  const data = link.type === 'foreign' ? undefined : changedData(link, was?.type === link.type ? was : undefined, sink)
  const port = link.port && (!was || !sameSettings(link.port, was.port)) ? portData(link.port) : undefined
  const mode = link.addressGeneration
  if (mode !== undefined && was?.addressGeneration !== mode) say(generationSpecifics(mode))
  if (data) say({ info: { kind: link.type, data } })
  const flags = (link.up ? k.IFF_UP : 0) | (link.promiscuous ? k.IFF_PROMISC : 0)
  const mask =
    (link.up === undefined || link.up === was?.up ? 0 : k.IFF_UP) |
    (link.promiscuous === undefined || link.promiscuous === was?.promiscuous ? 0 : k.IFF_PROMISC)
  if (mask || hasAny(attributes)) say(attributes, flags & mask, mask)
  if (port) say({ info: { portKind: 'bridge', portData: port } })
}

export const linkKind: RtnetlinkKind<'link'> = {
  kind: 'link',
  types: [k.RTM_NEWLINK, k.RTM_DELLINK],
  groups: [k.RTNLGRP_LINK],
  dumps: [
    {
      type: k.RTM_GETLINK,
      encode: (writer) =>
        linkMessage.encode(writer, {
          header: linkRequest(0),
          attributes: { extMask: k.RTEXT_FILTER_SKIP_STATS },
        }),
    },
  ],

  encode({ verb, object, was }, sink) {
    if (verb === 'add') return create(object, sink)
    change(object, was, sink)
    return undefined
  },

  decode(_header, payload, names) {
    const { header, attributes } = linkMessage.decode(payload)
    // Messages of family AF_BRIDGE tell a port's state again, without the device's own fields.
    if (header.family !== 0 || attributes.name === undefined) return undefined
    const kind = attributes.info?.kind
    const row = kind === undefined ? undefined : linkKindRow(kind)
    const common = {
      kind: 'link' as const,
      name: attributes.name,
      up: (header.flags & k.IFF_UP) !== 0,
      ...(header.flags & k.IFF_PROMISC && { promiscuous: true }),
      mtuBytes: attributes.mtu ?? 0,
      ...(attributes.address?.length === 6 && { mac: new Mac(attributes.address) }),
      master: attributes.master ? names.name(attributes.master) : null,
      ...portOf(attributes),
      ...(attributes.alias && { alias: attributes.alias }),
      group: attributes.group ?? 0,
      ...(attributes.txQueueLength !== undefined && { txQueueLength: attributes.txQueueLength }),
      ...(attributes.gsoMaxSize !== undefined && { gsoMaxBytes: attributes.gsoMaxSize }),
      ...generationOf(attributes),
      ifindex: header.index,
      ...(attributes.link !== undefined && { lowerIfindex: attributes.link }),
      ...(attributes.linkNetnsId !== undefined && { peerNetnsId: attributes.linkNetnsId }),
      operationalState: operationalStates[attributes.operationalState ?? 0] ?? 'unknown',
    }
    if (!row) return { ...common, type: 'foreign', ...(kind !== undefined && { infoKind: kind }) }
    const data = attributes.info?.data
    const here = attributes.linkNetnsId === undefined ? attributes.link : undefined
    const settings = row.decode(data && !(data instanceof Uint8Array) ? data : {}, (index) => names.name(index), here)
    return { ...common, type: row.kind, settings } as Link
  },
}

function portOf(attributes: LinkAttributes): { port?: BridgePort } {
  const { portKind, portData: data } = attributes.info ?? {}
  if (portKind !== 'bridge' || !data || data instanceof Uint8Array) return {}
  const { hairpin, isolated, learning, guard } = data as BridgePortData
  return {
    port: {
      ...(hairpin !== undefined && { hairpin }),
      ...(isolated !== undefined && { isolated }),
      ...(learning !== undefined && { learning }),
      ...(guard !== undefined && { guard }),
    },
  }
}

function generationOf(attributes: LinkAttributes): { addressGeneration?: AddressGeneration } {
  const mode = attributes.familySpecifics?.inet6?.addressGenerationMode
  const name = mode === undefined ? undefined : generationNames.get(mode)
  return name ? { addressGeneration: name } : {}
}
