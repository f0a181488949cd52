/**
 * Routes of every table, both families. A wanted route that names no metric stands at the kernel's default; a delete
 * says the metric and, when known, the protocol, so that it can never hit another's route of the same destination.
 *
 * Sources: rtnetlink(7); net/ipv4/fib_semantics.c (fib_nh_match), net/ipv6/route.c (ip6_route_del).
 */

import { Reader } from '../../../bytes/reader.ts'
import { Writer } from '../../../bytes/writer.ts'
import type { HopEncapsulation, NextHop, Route, RouteType } from '../../../model/route.ts'
import { Cidr } from '../../../net/cidr.ts'
import { type Family, Ip } from '../../../net/ip.ts'
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../../wire/netlink/constants.gen.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import {
  encapsulationAttributes,
  encodeRouteHeader,
  type RouteAttributes,
  type RouteHop,
  routeAttributes,
  routeMessage,
} from '../../../wire/rtnetlink/route.ts'
import { kernelError } from '../../errno.ts'
import type { DeviceNames, DumpRequest, RequestSink, RtnetlinkKind } from '../rtnetlink-kind.ts'
import { AF_INET } from '../syscalls.ts'

type EncapsulationBytes = Pick<RouteHop['attributes'], 'encapsulationType' | 'encapsulation'>

const AF_INET6 = 10
const EINVAL = 22
const RTPROT_BOOT = k.RTPROT_BOOT
const IP6_RT_PRIO_USER = 1024

const types: readonly (readonly [RouteType, number])[] = [
  ['unicast', k.RTN_UNICAST],
  ['local', k.RTN_LOCAL],
  ['blackhole', k.RTN_BLACKHOLE],
  ['unreachable', k.RTN_UNREACHABLE],
  ['prohibit', k.RTN_PROHIBIT],
  ['throw', k.RTN_THROW],
]
const typeNumbers = new Map(types)
const typeNames = new Map(types.map(([name, number]) => [number, name]))

export type Scope = NonNullable<Route['scope']>
const scopes: readonly (readonly [Scope, number])[] = [
  ['global', k.RT_SCOPE_UNIVERSE],
  ['site', k.RT_SCOPE_SITE],
  ['link', k.RT_SCOPE_LINK],
  ['host', k.RT_SCOPE_HOST],
  ['nowhere', k.RT_SCOPE_NOWHERE],
]
export const scopeNumbers: ReadonlyMap<Scope, number> = new Map(scopes)
export const scopeNames: ReadonlyMap<number, Scope> = new Map(scopes.map(([name, number]) => [number, name]))

export const addressFamily = (family: Family): number => (family === 4 ? AF_INET : AF_INET6)

/** The scope that the kernel insists on when the route says none. */
function scopeNumber(route: Route, deleting: boolean): number {
  if (route.scope) return scopeNumbers.get(route.scope)!
  if (deleting) return k.RT_SCOPE_NOWHERE
  if (route.destination.family === 6) return k.RT_SCOPE_UNIVERSE
  if (route.type === 'local') return k.RT_SCOPE_HOST
  if (route.type !== undefined && route.type !== 'unicast') return k.RT_SCOPE_UNIVERSE
  return route.hops.some((hop) => hop.via) ? k.RT_SCOPE_UNIVERSE : k.RT_SCOPE_LINK
}

function putHops(route: Route, attributes: RouteAttributes, sink: RequestSink): number {
  if (route.hops.length > 1) {
    attributes.multipath = route.hops.map((hop) => multipathHop(route, hop, sink))
    return 0
  }
  const hop = route.hops[0]
  if (!hop) return 0
  if (hop.via) {
    if (hop.via.family === route.destination.family) attributes.gateway = hop.via
    else attributes.via = hop.via
  }
  if (hop.device !== undefined) attributes.outDevice = sink.index(hop.device)
  if (hop.encapsulation) Object.assign(attributes, encodeEncapsulation(hop.encapsulation))
  return hop.onlink ? k.RTNH_F_ONLINK : 0
}

function multipathHop(route: Route, hop: NextHop, sink: RequestSink): RouteHop {
  const weight = hop.weight ?? 1
  if (weight < 1 || weight > 256)
    throw kernelError(`route ${route.destination}`, EINVAL, { extack: `weight ${weight} is outside 1..256` })
  const sameFamily = hop.via?.family === route.destination.family
  return {
    flags: hop.onlink ? k.RTNH_F_ONLINK : 0,
    hops: weight - 1,
    index: hop.device === undefined ? 0 : sink.index(hop.device),
    attributes: {
      ...(hop.via && (sameFamily ? { gateway: hop.via } : { via: hop.via })),
      ...(hop.encapsulation && encodeEncapsulation(hop.encapsulation)),
    },
  }
}

function encodeEncapsulation({ id, destination, source, ttl }: HopEncapsulation): EncapsulationBytes {
  const writer = new Writer()
  encapsulationAttributes.encode(writer, { id: BigInt(id), destination, source, ttl })
  const encapsulationType = destination.family === 4 ? k.LWTUNNEL_ENCAP_IP : k.LWTUNNEL_ENCAP_IP6
  return { encapsulationType, encapsulation: writer.finish() }
}

/** Undefined for none, and for kinds outside the vocabulary. */
function decodeEncapsulation({ encapsulationType, encapsulation }: EncapsulationBytes): HopEncapsulation | undefined {
  if (encapsulationType !== k.LWTUNNEL_ENCAP_IP && encapsulationType !== k.LWTUNNEL_ENCAP_IP6) return undefined
  const { id, destination, source, ttl } = encapsulationAttributes.decode(new Reader(encapsulation ?? new Uint8Array()))
  if (!destination) return undefined
  return { id: Number(id ?? 0n), destination, ...(source && !source.isAny && { source }), ...(ttl && { ttl }) }
}

const dumpOf = (family: number): DumpRequest => ({
  type: k.RTM_GETROUTE,
  family,
  encode: (writer) =>
    encodeRouteHeader(writer, {
      family,
      destinationLength: 0,
      sourceLength: 0,
      tos: 0,
      table: 0,
      protocol: 0,
      scope: 0,
      type: 0,
      flags: 0,
    }),
})

const hasHops = (type: RouteType): boolean => type === 'unicast' || type === 'local'

function hopsOf(attributes: RouteAttributes, flags: number, names: DeviceNames): NextHop[] {
  if (attributes.multipath)
    return attributes.multipath.map((hop) => ({
      ...hopOf(hop.index, hop.attributes, hop.flags, names),
      weight: hop.hops + 1,
    }))
  const via = attributes.gateway ?? attributes.via
  if (attributes.outDevice === undefined && !via) return []
  return [hopOf(attributes.outDevice, attributes, flags, names)]
}

function hopOf(
  index: number | undefined,
  attributes: RouteHop['attributes'],
  flags: number,
  names: DeviceNames,
): NextHop {
  const via = attributes.gateway ?? attributes.via
  const encapsulation = attributes.encapsulationType === undefined ? undefined : decodeEncapsulation(attributes)
  return {
    ...(index && { device: names.name(index) }),
    ...(via && { via }),
    ...(flags & k.RTNH_F_ONLINK && { onlink: true }),
    ...(encapsulation && { encapsulation }),
  }
}

export const routeKind: RtnetlinkKind<'route'> = {
  kind: 'route',
  types: [k.RTM_NEWROUTE, k.RTM_DELROUTE],
  groups: [k.RTNLGRP_IPV4_ROUTE, k.RTNLGRP_IPV6_ROUTE],
  dumps: [dumpOf(AF_INET), dumpOf(AF_INET6)],

  encode({ verb, object: route }, sink) {
    const deleting = verb === 'delete'
    const family = route.destination.family
    const table = route.table ?? k.RT_TABLE_MAIN
    const attributes: RouteAttributes = {}
    if (route.destination.length > 0) attributes.destination = route.destination.base
    const metric = route.metric ?? (family === 6 ? IP6_RT_PRIO_USER : 0)
    if (metric) attributes.priority = metric
    if (table > 255) attributes.table = table
    let flags = 0
    if (!deleting) {
      flags = putHops(route, attributes, sink)
      if (route.source) attributes.preferredSource = route.source
      if (route.mtuBytes !== undefined || route.advertisedMssBytes !== undefined)
        attributes.metrics = { mtu: route.mtuBytes, advertisedMss: route.advertisedMssBytes }
    }
    const start = sink.begin(
      deleting ? k.RTM_DELROUTE : k.RTM_NEWROUTE,
      deleting ? 0 : NLM_F_CREATE | (verb === 'add' ? NLM_F_EXCL : NLM_F_REPLACE),
    )
    encodeRouteHeader(sink.writer, {
      family: addressFamily(family),
      destinationLength: route.destination.length,
      sourceLength: 0,
      tos: 0,
      table: table > 255 ? k.RT_TABLE_COMPAT : table,
      protocol: route.protocol ?? (deleting ? 0 : RTPROT_BOOT),
      scope: scopeNumber(route, deleting),
      type: deleting && route.type === undefined ? 0 : typeNumbers.get(route.type ?? 'unicast')!,
      flags,
    })
    routeAttributes.encode(sink.writer, attributes)
    sink.end(start)
    return undefined
  },

  decode(_header, payload, names) {
    const message = routeMessage.decode(payload)
    const type = typeNames.get(message.type)
    const family: Family | undefined = message.family === AF_INET ? 4 : message.family === AF_INET6 ? 6 : undefined
    if (!type || !family || message.flags & k.RTM_F_CLONED || message.sourceLength || message.tos) return undefined
    const { attributes } = message
    const scope = family === 4 ? scopeNames.get(message.scope) : undefined
    return {
      kind: 'route',
      destination: Cidr.of(attributes.destination ?? Ip.any(family), message.destinationLength),
      table: attributes.table ?? message.table,
      ...(family === 6 ? { metric: attributes.priority ?? 0 } : attributes.priority && { metric: attributes.priority }),
      type,
      // IPv6 shows lo where nothing is sent anywhere.
      hops: hasHops(type) ? hopsOf(attributes, message.flags, names) : [],
      ...(attributes.preferredSource && { source: attributes.preferredSource }),
      ...(scope && { scope }),
      protocol: message.protocol,
      ...(attributes.metrics?.mtu !== undefined && { mtuBytes: attributes.metrics.mtu }),
      ...(attributes.metrics?.advertisedMss !== undefined && { advertisedMssBytes: attributes.metrics.advertisedMss }),
    }
  },
}
