/**
 * Prints operations as the line that an operator would type: `--dry-run`, logs, goldens and errors are this text. A line with
 * several settings of one device may stand for what iproute2 needs two commands for; it stays one line, as it is one message.
 *
 * Sources: ip-link(8), ip-address(8), ip-route(8), ip-neighbour(8), ip-rule(8), bridge(8), tc(8), ethtool(8), nft(8).
 */
import type { KernelObject } from './kernel-object.ts'
import type { KernelOp } from './kernel-state.ts'
import type { Address, FdbEntry, ForeignLink, Link, Neighbour, TunnelEncapsulation } from './link.ts'
import { formatNftOp, isNftObject } from './nft-format.ts'
import type { NextHop, Route, Rule } from './route.ts'
import type { Filter, Qdisc, TrafficClass } from './traffic.ts'

/** Words of a command; empty and undefined ones fall out. */
type Words = readonly (string | number | undefined | false)[]
const line = (...words: Words): string =>
  words.filter((word) => word !== undefined && word !== false && word !== '').join(' ')
const option = (name: string, value: unknown): string => (value === undefined ? '' : `${name} ${value}`)
const onOff = (name: string, value: boolean | undefined): string =>
  value === undefined ? '' : `${name} ${value ? 'on' : 'off'}`
const not = (name: string, value: boolean | undefined): string =>
  value === undefined ? '' : value ? name : `no${name}`

/** The whole line of an op. */
export function formatOp(op: KernelOp): string {
  const { verb, object } = op
  if (isNftObject(object)) return formatNftOp({ ...op, object })
  switch (object.kind) {
    case 'link':
      return formatLinkOp(verb, object)
    case 'address':
      return line('ip address', verb === 'set' ? 'replace' : verb, formatAddress(object))
    case 'route':
      return line(
        'ip',
        sixFlag(object.destination.family),
        'route',
        verb === 'set' ? 'replace' : verb,
        formatRoute(object),
      )
    case 'neighbour':
      return line('ip neighbour', verb === 'set' ? 'replace' : verb, formatNeighbour(object, verb))
    case 'fdb':
      return line('bridge fdb', verb === 'set' ? 'replace' : verb, formatFdb(object))
    case 'bridge-vlan':
      return line(
        'bridge vlan',
        verb === 'delete' ? verb : 'add',
        option('dev', object.device),
        option('vid', object.vlan),
        object.self && 'self',
        verb !== 'delete' && object.pvid && 'pvid',
        verb !== 'delete' && object.untagged && 'untagged',
      )
    case 'rule':
      return line('ip', sixFlag(object.family), 'rule', verb === 'set' ? 'add' : verb, formatRule(object))
    case 'qdisc':
      return line('tc qdisc', verb === 'set' ? 'replace' : verb, formatQdisc(object))
    case 'class':
      return line('tc class', verb === 'set' ? 'replace' : verb, formatClass(object, verb === 'delete'))
    case 'filter':
      return line('tc filter', verb === 'set' ? 'replace' : verb, formatFilter(object))
    case 'sysctl':
      // A device's name may hold dots: then sysctl wants the slashes.
      return `sysctl -w ${object.path.includes('.') ? object.path : object.path.replaceAll('/', '.')}=${object.value}`
    case 'offload':
      return line(
        'ethtool -K',
        object.device,
        ...Object.entries(object.features).map(([name, on]) => `${name} ${on ? 'on' : 'off'}`),
      )
    case 'fou':
      return line(
        'ip',
        sixFlag(object.family),
        'fou',
        verb === 'delete' ? 'del' : 'add',
        `port ${object.port}`,
        verb !== 'delete' && (object.type === 'gue' ? 'gue' : `ipproto ${object.protocol}`),
      )
    case 'tunnel':
      return verb === 'delete'
        ? `weft-tunnel shutdown ${object.device}`
        : `weft-tunnel --device ${object.device} --mtu ${object.mtuBytes} --local ${object.local} --port ${object.port}`
    case 'tunnel-peer':
      return `weft-tunnel ${verb}-peer ${object.device} ${object.subnet} ${object.remote} ${object.port}`
  }
}

/** What the object is, without a verb; for messages about things that were found. */
export const formatObject = (object: KernelObject): string =>
  formatOp({ verb: 'add', object }).replace(
    /^(sysctl -w|ethtool -K|(\S+ )(-6 )?(\S+ )?add(-peer)?) ?/,
    `${object.kind} `,
  )

const sixFlag = (family: 4 | 6): string => (family === 6 ? '-6' : '')

function formatLinkOp(verb: KernelOp['verb'], link: Link | ForeignLink): string {
  if (verb === 'delete') return `ip link delete ${link.name}`
  const settings = formatLinkSettings(link)
  const common = line(
    link.up !== undefined && verb === 'set' && (link.up ? 'up' : 'down'),
    onOff('promisc', link.promiscuous),
    option('address', link.mac),
    option('mtu', link.mtuBytes),
    option('txqueuelen', link.txQueueLength),
    option('gso_max_size', link.gsoMaxBytes),
    option('group', link.group),
    link.alias !== undefined && `alias ${JSON.stringify(link.alias)}`,
    link.master === null ? 'nomaster' : option('master', link.master),
    option('addrgenmode', link.addressGeneration === 'stable-privacy' ? 'stable_secret' : link.addressGeneration),
    verb === 'add' && link.up && 'up',
  )
  const port = link.port
    ? line(
        'type bridge_slave',
        onOff('hairpin', link.port.hairpin),
        onOff('isolated', link.port.isolated),
        onOff('learning', link.port.learning),
        onOff('guard', link.port.guard),
      )
    : ''
  return verb === 'add'
    ? line('ip link add', link.name, common, `type ${link.type}`, settings, port)
    : line('ip link set', link.name, common, settings && `type ${link.type} ${settings}`, port)
}

function formatLinkSettings(link: Link | ForeignLink): string {
  switch (link.type) {
    case 'veth': {
      const peer = link.settings?.peer
      return peer
        ? line(
            `peer name ${peer.name}`,
            option('address', peer.mac),
            option('mtu', peer.mtuBytes),
            option('index', peer.ifindex),
            option('netns', peer.netnsPath),
          )
        : ''
    }
    case 'bridge':
      return line(
        onOff('vlan_filtering', link.settings?.vlanFiltering),
        onOff('stp', link.settings?.stp),
        onOff('mcast_snooping', link.settings?.multicastSnooping),
      )
    case 'vxlan':
      return formatVxlan(link.settings)
    case 'geneve':
      return line(
        option('id', link.settings?.vni),
        option('dstport', link.settings?.port),
        option('remote', link.settings?.remote),
        option('ttl', link.settings?.ttl),
        link.settings?.external && 'external',
        not('udpcsum', link.settings?.udpChecksum),
        not('udp6zerocsumtx', link.settings?.udp6ZeroChecksumTx),
        not('udp6zerocsumrx', link.settings?.udp6ZeroChecksumRx),
      )
    case 'ipip':
      return line(
        option('local', link.settings?.local),
        option('remote', link.settings?.remote),
        option('dev', link.settings?.lower),
        option('ttl', link.settings?.ttl),
        not('pmtudisc', link.settings?.pmtuDiscovery),
        link.settings?.external && 'external',
        formatEncapsulation(link.settings?.encapsulation),
      )
    case 'ip6tnl':
      return line(
        option('mode', link.settings?.mode),
        option('local', link.settings?.local),
        option('remote', link.settings?.remote),
        option('dev', link.settings?.lower),
        option('hoplimit', link.settings?.hopLimit),
        option('encaplimit', link.settings?.encapsulationLimit === null ? 'none' : link.settings?.encapsulationLimit),
        link.settings?.external && 'external',
        formatEncapsulation(link.settings?.encapsulation),
      )
    case 'gre':
      return line(
        option('local', link.settings?.local),
        option('remote', link.settings?.remote),
        option('key', link.settings?.key),
        option('ttl', link.settings?.ttl),
      )
    case 'vlan':
      return line(option('id', link.settings?.id), option('link', link.settings?.lower))
    case 'macvlan':
    case 'ipvlan':
      return line(option('mode', link.settings?.mode), option('link', link.settings?.lower))
    case 'vrf':
      return option('table', link.settings?.table)
    case 'tun':
      return line(option('mode', link.settings?.mode), link.settings?.vnetHeader && 'vnet_hdr')
    default:
      return ''
  }
}

const formatEncapsulation = (encapsulation: TunnelEncapsulation | null | undefined): string =>
  encapsulation
    ? line(
        `encap ${encapsulation.type}`,
        `encap-sport ${encapsulation.sourcePort || 'auto'}`,
        `encap-dport ${encapsulation.destinationPort}`,
        encapsulation.checksum && 'encap-csum',
        encapsulation.checksum6 && 'encap-csum6',
      )
    : encapsulation === null
      ? 'encap none'
      : ''

function formatVxlan(settings: Extract<Link, { type: 'vxlan' }>['settings']): string {
  if (!settings) return ''
  return line(
    option('id', settings.vni),
    option('dstport', settings.port),
    option('dev', settings.lower),
    option('local', settings.local),
    option('ttl', settings.ttl),
    not('learning', settings.learning),
    settings.gbp && 'gbp',
    settings.external && 'external',
    not('udpcsum', settings.udpChecksum),
    not('udp6zerocsumtx', settings.udp6ZeroChecksumTx),
    not('udp6zerocsumrx', settings.udp6ZeroChecksumRx),
  )
}

const formatAddress = (address: Address): string =>
  line(
    `${address.ip}/${address.prefixLength}`,
    option('peer', address.peer),
    option('broadcast', address.broadcast),
    `dev ${address.device}`,
    option('scope', address.scope),
    address.noDad && 'nodad',
    address.noPrefixRoute && 'noprefixroute',
  )

function formatHop(hop: NextHop): string {
  const wrapped = hop.encapsulation
  return line(
    wrapped &&
      line(
        `encap ip${wrapped.destination.family === 6 ? '6' : ''} id ${wrapped.id}`,
        option('src', wrapped.source),
        `dst ${wrapped.destination}`,
        option(wrapped.destination.family === 6 ? 'hoplimit' : 'ttl', wrapped.ttl),
      ),
    option('via', hop.via),
    option('dev', hop.device),
    hop.onlink && 'onlink',
  )
}

function formatRoute(route: Route): string {
  const several = route.hops.length > 1
  return line(
    route.type !== undefined && route.type !== 'unicast' && route.type,
    route.destination.length === 0 ? 'default' : `${route.destination}`,
    !several && route.hops[0] && formatHop(route.hops[0]),
    route.table !== undefined && route.table !== 254 && `table ${route.table}`,
    option('proto', route.protocol),
    option('scope', route.scope),
    option('src', route.source),
    option('metric', route.metric),
    option('mtu', route.mtuBytes),
    option('advmss', route.advertisedMssBytes),
    ...(several ? route.hops.map((hop) => line('nexthop', formatHop(hop), option('weight', hop.weight))) : []),
  )
}

const formatNeighbour = (entry: Neighbour, verb: KernelOp['verb']): string =>
  line(
    entry.proxy ? `proxy ${entry.ip}` : `${entry.ip}`,
    verb !== 'delete' && option('lladdr', entry.mac),
    `dev ${entry.device}`,
    verb !== 'delete' && !entry.proxy && option('nud', entry.state ?? 'permanent'),
  )

const formatFdb = (entry: FdbEntry): string =>
  line(
    `${entry.mac} dev ${entry.device}`,
    option('dst', entry.remote),
    option('vlan', entry.vlan),
    entry.table ?? 'self',
    entry.state === 'dynamic' ? 'dynamic' : entry.state === 'static' ? 'static' : 'permanent',
  )

const formatRule = (rule: Rule): string =>
  line(
    `priority ${rule.priority}`,
    `from ${rule.from ?? 'all'}`,
    option('to', rule.to),
    option('iif', rule.inDevice),
    option('oif', rule.outDevice),
    rule.mark !== undefined &&
      `fwmark 0x${rule.mark.toString(16)}${rule.markMask === undefined ? '' : `/0x${rule.markMask.toString(16)}`}`,
    rule.action === undefined || rule.action === 'lookup' ? option('lookup', rule.table) : rule.action,
    option('suppress_prefixlength', rule.suppressPrefixLength),
    option('protocol', rule.protocol),
  )

const formatParent = (parent: string): string =>
  parent === 'root' || parent === 'ingress' || parent === 'clsact' ? parent : `parent ${parent}`

const formatClass = ({ device, parent, handle, htb }: TrafficClass, named: boolean): string =>
  named
    ? line(`dev ${device}`, `classid ${handle}`)
    : line(
        `dev ${device}`,
        `parent ${parent}`,
        `classid ${handle}`,
        `htb rate ${htb.rateBitsPerSecond}bit ceil ${htb.ceilBitsPerSecond}bit`,
        `burst ${htb.burstBytes} cburst ${htb.ceilBurstBytes}`,
        option('prio', htb.priority),
        option('quantum', htb.quantumBytes),
      )

const formatQdisc = (qdisc: Qdisc): string =>
  line(
    `dev ${qdisc.device}`,
    qdisc.type === 'ingress' || qdisc.type === 'clsact' ? '' : formatParent(qdisc.parent),
    option('handle', qdisc.handle),
    qdisc.type,
    qdisc.tbf && `rate ${qdisc.tbf.rateBitsPerSecond}bit burst ${qdisc.tbf.burstBytes} limit ${qdisc.tbf.limitBytes}`,
    qdisc.htb && `default ${qdisc.htb.defaultClass.toString(16)}`,
  )

const formatFilter = (filter: Filter): string =>
  line(
    `dev ${filter.device}`,
    formatParent(filter.parent),
    `protocol 0x${filter.protocol.toString(16).padStart(4, '0')} prio ${filter.priority}`,
    'redirectTo' in filter.action
      ? `matchall action mirred egress redirect dev ${filter.action.redirectTo}`
      : `bpf da name ${filter.action.name}`,
  )
