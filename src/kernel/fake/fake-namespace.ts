/**
 * One network namespace of the fake kernel: objects by key, and the rules by which one change brings others along.
 * Errors are errno names, thrown as Refusal; FakeKernel turns them into KernelErrors.
 *
 * Sources: observed behaviour of Linux 6.x; net/ipv4/{devinet,fib_frontend,fib_semantics}.c, net/core/{neighbour,rtnetlink}.c.
 */
import { type KernelKey, type KernelObject, keyOf, type ObjectKind, type ObjectOf } from '../../model/kernel-object.ts'
import type { KernelOp } from '../../model/kernel-state.ts'
import { type Address, type BridgeVlan, type ForeignLink, isFallbackDevice, type Link } from '../../model/link.ts'
import type { NftChain, NftElement, NftSet } from '../../model/nft.ts'
import { type NftObject, sameDefinition } from '../../model/nft-format.ts'
import { setsUsedBy } from '../../model/nft-reference.ts'
import type { Route } from '../../model/route.ts'
import { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import { otherUseOf } from '../fallback-device.ts'
import type { KernelEvent } from '../kernel.ts'

/** What the kernel answers: an errno name and its own words. */
export class Refusal extends Error {
  readonly code: string
  readonly extack: string | undefined
  constructor(code: string, extack?: string) {
    super(code)
    this.code = code
    this.extack = extack
  }
}

type Device = Link | ForeignLink
const noKeys: ReadonlySet<KernelKey> = new Set()
const RTPROT_KERNEL = 2
/** IFNAMSIZ minus the terminating NUL. */
const maxNameLength = 15

type TunnelDevice = Extract<Device, { type: TunnelKind }>
const isTunnel = (device: Device): device is TunnelDevice => device.type === 'ipip' || device.type === 'ip6tnl'

/** What several namespaces of one fake machine share. */
export interface FakeMachine {
  readonly namespaces: Map<string, FakeNamespace>
  /** Also those that no path leads to. */
  readonly everyNamespace: Set<FakeNamespace>
  /** Kinds of tunnels whose module is loaded: each has its fallback device everywhere. */
  readonly tunnels: Set<TunnelKind>
}

type TunnelKind = 'ipip' | 'ip6tnl'
const fallbackNames: Readonly<Record<TunnelKind, string>> = { ipip: 'tunl0', ip6tnl: 'ip6tnl0' }

export class FakeNamespace {
  readonly objects = new Map<KernelKey, KernelObject>()
  readonly #machine: FakeMachine
  readonly #peers = new Map<string, { namespace: FakeNamespace; name: string }>()
  readonly #listeners = new Set<(event: KernelEvent) => void>()
  #nextIndex = 2

  constructor(machine: FakeMachine) {
    this.#machine = machine
    const loopback: ForeignLink = { kind: 'link', name: 'lo', type: 'foreign', up: false, mtuBytes: 65536, ifindex: 1 }
    this.objects.set(keyOf(loopback), loopback)
    machine.everyNamespace.add(this)
    for (const kind of machine.tunnels) this.#makeFallback(kind)
  }

  listen(listener: (event: KernelEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Tells every watcher that messages were lost, as a full socket buffer does. */
  loseEvents(): void {
    for (const listener of this.#listeners) listener({ type: 'resync' })
  }

  of<K extends ObjectKind>(kind: K): ObjectOf<K>[] {
    return [...this.objects.values()].filter((object): object is ObjectOf<K> => object.kind === kind)
  }

  device(name: string): Device | undefined {
    return this.objects.get(`link ${name}`) as Device | undefined
  }

  /** Performs one op or throws Refusal, having changed nothing. `together`: keys of what the same transaction is about. */
  perform(op: KernelOp, together: ReadonlySet<KernelKey> = noKeys): void {
    const { object, verb } = op
    switch (object.kind) {
      case 'link':
        return this.#performLink(verb, object, op.was?.kind === 'link' ? op.was : undefined)
      case 'address':
        return this.#performAddress(verb, object)
      case 'route':
        return this.#performRoute(verb, object)
      case 'nft-table':
      case 'nft-set':
      case 'nft-counter':
      case 'nft-chain':
      case 'nft-element':
        return this.#performNft(verb, object, together)
      case 'sysctl':
        if (verb === 'delete') throw new Refusal('EOPNOTSUPP')
        return this.#put(object)
      case 'tunnel':
        if (verb !== 'delete' && !this.device(object.device)) this.#createTunnelDevice(object.device, object.mtuBytes)
        return this.#performPlain(verb, object, 'ENOENT')
      case 'bridge-vlan':
        return this.#performBridgeVlan(verb, object)
      case 'rule':
      case 'fou':
      case 'tunnel-peer':
        return this.#performPlain(verb, object, 'ENOENT')
      default:
        if (!this.device(object.device)) throw new Refusal('ENODEV')
        return this.#performPlain(verb, object, 'ENOENT')
    }
  }

  #performPlain(verb: KernelOp['verb'], object: KernelObject, missing: string): void {
    const exists = this.objects.has(keyOf(object))
    if (verb === 'add' && exists) throw new Refusal('EEXIST')
    if (verb === 'delete' && !exists) throw new Refusal(missing)
    if (verb === 'delete') this.#drop(keyOf(object))
    else this.#put(object)
  }

  #put(object: KernelObject): void {
    const key = keyOf(object)
    this.objects.set(key, Object.freeze(object))
    this.#emit({ type: 'new', key, object })
  }

  #drop(key: KernelKey): void {
    const object = this.objects.get(key)
    if (!object) return
    this.objects.delete(key)
    this.#emit({ type: 'delete', key, object })
  }

  /** Removes what goes with a device or its last address. Linux announces every kind of object but IPv4 routes. */
  #dropAlong(key: KernelKey, object: KernelObject): void {
    if (object.kind === 'route' && object.destination.family === 4) this.objects.delete(key)
    else this.#drop(key)
  }

  #emit(event: KernelEvent): void {
    for (const listener of this.#listeners) queueMicrotask(() => this.#listeners.has(listener) && listener(event))
  }

  // --- devices ---

  #performLink(verb: KernelOp['verb'], wanted: Device, was: Device | undefined): void {
    const present = this.device(wanted.name)
    if (verb === 'delete') {
      if (!present) throw new Refusal('ENODEV')
      if (present.name === 'lo') throw new Refusal('EOPNOTSUPP')
      // The kernel says yes, and leaves it.
      if (isFallbackDevice(present)) return
      return this.deleteDevice(present.name)
    }
    if (wanted.master && !this.device(wanted.master)) throw new Refusal('ENODEV')
    if (verb === 'set') {
      if (!present) throw new Refusal('ENODEV')
      if (was?.type === 'vxlan' && wanted.type === 'vxlan' && wanted.settings)
        for (const field of ['vni', 'port'] as const)
          if (wanted.settings[field] !== was.settings?.[field])
            throw new Refusal('EOPNOTSUPP', `Cannot change ${field}`)
      const use = was && otherUseOf(wanted, was)
      if (use) throw new Refusal('EEXIST', use)
      return this.#changeDevice(present, wanted)
    }
    if (present) throw new Refusal('EEXIST')
    this.#createDevice(wanted)
  }

  #createDevice(wanted: Device): void {
    if (wanted.type === 'foreign') throw new Refusal('EOPNOTSUPP', 'Unknown device type')
    if (wanted.name.length === 0 || wanted.name.length > maxNameLength) throw new Refusal('ERANGE')
    if (wanted.type === 'vxlan') {
      const { vni, port } = wanted.settings!
      const clash = this.of('link').some(
        (link) => link.type === 'vxlan' && link.settings?.vni === vni && link.settings.port === port,
      )
      if (clash) throw new Refusal('EEXIST', 'A VXLAN device with the specified VNI already exists')
    }
    if (isTunnel(wanted)) this.#checkTunnel(wanted)
    const peer = wanted.type === 'veth' ? (wanted.settings?.peer ?? { name: `${wanted.name}p` }) : undefined
    const peerHome = peer?.netnsPath === undefined ? this : this.#machine.namespaces.get(peer.netnsPath)
    if (peer && !peerHome) throw new Refusal('ENOENT')
    if (peer && (peerHome!.device(peer.name) || (peerHome === this && peer.name === wanted.name)))
      throw new Refusal('EEXIST')
    const device = { mtuBytes: 1500, up: false, ...wanted, ifindex: this.#nextIndex, mac: wanted.mac ?? this.#newMac() }
    this.#nextIndex++
    this.#put(
      isTunnel(wanted)
        ? ({ ...device, settings: { encapsulation: null, ...wanted.settings } } as Device)
        : (device as Device),
    )
    if (device.type === 'bridge') this.#joinDefaultVlan(device.name, undefined)
    if (device.master) this.#joinDefaultVlan(device.name, device.master)
    if (!peer || !peerHome) return
    peerHome.#put({
      kind: 'link',
      type: 'veth',
      name: peer.name,
      up: false,
      mtuBytes: peer.mtuBytes ?? device.mtuBytes,
      mac: peer.mac ?? peerHome.#newMac(),
      ifindex: peer.ifindex ?? peerHome.#nextIndex++,
      lowerIfindex: device.ifindex,
    })
    this.#peers.set(wanted.name, { namespace: peerHome, name: peer.name })
    peerHome.#peers.set(peer.name, { namespace: this, name: wanted.name })
  }

  /** Loads the module, and refuses a second tunnel of the same ends. */
  #checkTunnel(wanted: TunnelDevice): void {
    if (!this.#machine.tunnels.has(wanted.type)) {
      this.#machine.tunnels.add(wanted.type)
      for (const namespace of this.#machine.everyNamespace) namespace.#makeFallback(wanted.type)
    }
    const endsOf = ({ settings }: typeof wanted) =>
      `${settings?.lower} ${settings?.local ?? 'any'} ${settings?.remote ?? 'any'} ${settings?.external ?? false}`
    for (const link of this.of('link'))
      if (link.type === wanted.type && endsOf(link as typeof wanted) === endsOf(wanted)) throw new Refusal('EEXIST')
    if (this.device(wanted.name)) throw new Refusal('EEXIST')
  }

  #makeFallback(type: TunnelKind): void {
    const name = fallbackNames[type]
    if (this.device(name)) return
    const ipip = { ttl: 0, pmtuDiscovery: false, encapsulation: null }
    const settings = type === 'ipip' ? ipip : { hopLimit: 0, encapsulation: null }
    const mtuBytes = type === 'ipip' ? 1480 : 1452
    this.#put({ kind: 'link', type, name, up: false, mtuBytes, settings, ifindex: this.#nextIndex++ } as Device)
  }

  #newMac(): Mac {
    return Mac.local(Uint8Array.of(2, 0xfa, 0xce, this.#nextIndex >> 16, this.#nextIndex >> 8, this.#nextIndex))
  }

  #createTunnelDevice(name: string, mtuBytes: number): void {
    this.#put({ kind: 'link', type: 'tun', name, up: true, mtuBytes, ifindex: this.#nextIndex++ })
  }

  #changeDevice(present: Device, wanted: Device): void {
    const { settings, ...rest } = wanted as Link
    const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
    const port = wanted.port ? { port: { ...present.port, ...wanted.port } } : {}
    // A veth's settings are about its making; a fallback device's are the kernel's.
    const isFixed = present.type === 'veth' || present.type === 'foreign' || isFallbackDevice(present)
    const own = settings && !isFixed ? present.settings : undefined
    const changed = own ? { settings: { ...own, ...settings } } : {}
    const { alias, ...next } = { ...present, ...given, ...port, ...changed, type: present.type }
    this.#put((alias ? { ...next, alias } : next) as Device)
    if (wanted.master !== undefined && wanted.master !== (present.master ?? null))
      this.#joinDefaultVlan(present.name, wanted.master ?? '')
    if (present.up && wanted.up === false) this.#deviceWentDown(present.name)
    if (!present.up && wanted.up) for (const address of this.#addressesOf(present.name)) this.#connect(address)
  }

  /** Admin down: routes by the device go, neighbours too, IPv6 addresses too; IPv4 addresses stay. */
  #deviceWentDown(name: string): void {
    for (const [key, object] of [...this.objects]) {
      const routed = object.kind === 'route' && object.hops.some((hop) => hop.device === name)
      const neighbour = object.kind === 'neighbour' && object.device === name
      const address = object.kind === 'address' && object.device === name && object.ip.family === 6
      if (routed || neighbour || address) this.#dropAlong(key, object)
    }
  }

  /** Removes a device with everything that hangs on it, and its veth peer. */
  deleteDevice(name: string): void {
    if (!this.device(name)) return
    for (const [key, object] of [...this.objects]) {
      const onDevice = 'device' in object && object.device === name && object.kind !== 'tunnel'
      const routed = object.kind === 'route' && object.hops.some((hop) => hop.device === name)
      if ((onDevice && object.kind !== 'tunnel-peer') || routed) this.#dropAlong(key, object)
      if (object.kind === 'link' && object.master === name) this.#put({ ...object, master: null })
    }
    this.#drop(`link ${name}`)
    const peer = this.#peers.get(name)
    this.#peers.delete(name)
    peer?.namespace.deleteDevice(peer.name)
  }

  /** A second addition is a change, the removal of nothing is done; a new default VLAN takes that part from the old one. */
  #performBridgeVlan(verb: KernelOp['verb'], vlan: BridgeVlan): void {
    const device = this.device(vlan.device)
    if (!device) throw new Refusal('ENODEV')
    if (vlan.self ? device.type !== 'bridge' : !device.master) throw new Refusal('EOPNOTSUPP')
    if (vlan.vlan < 1 || vlan.vlan > 4094) throw new Refusal('EINVAL')
    if (verb === 'delete') return this.#drop(keyOf(vlan))
    if (vlan.pvid) for (const { pvid, ...other } of this.#vlansOf(vlan.device)) if (pvid) this.#put(other)
    this.#put(vlan)
  }

  #vlansOf(device: string): BridgeVlan[] {
    return this.of('bridge-vlan').filter((vlan) => vlan.device === device)
  }

  /** A bridge, and each new port of one, is in VLAN 1; a port that leaves is in none. */
  #joinDefaultVlan(name: string, master: string | undefined): void {
    for (const vlan of this.#vlansOf(name)) this.#drop(keyOf(vlan))
    const self = master === undefined
    if (self || this.device(master)?.type === 'bridge')
      this.#put({ kind: 'bridge-vlan', device: name, vlan: 1, pvid: true, untagged: true, ...(self && { self }) })
  }

  // --- addresses and routes ---

  #addressesOf(device: string): Address[] {
    return this.of('address').filter((address) => address.device === device)
  }

  #performAddress(verb: KernelOp['verb'], address: Address): void {
    if (!this.device(address.device)) throw new Refusal('ENODEV')
    const exists = this.objects.has(keyOf(address))
    if (verb === 'add' && exists) throw new Refusal('EEXIST')
    if (verb === 'delete') {
      if (!exists) throw new Refusal('EADDRNOTAVAIL')
      for (const secondary of this.#secondariesOf(address)) this.#drop(keyOf(secondary))
      this.#drop(keyOf(address))
      for (const [key, object] of [...this.objects])
        if (object.kind === 'route' && object.source?.equals(address.ip) && object.protocol !== RTPROT_KERNEL)
          this.#dropAlong(key, object)
      this.#disconnect(address)
      const last = !this.#addressesOf(address.device).some((other) => other.ip.family === 4)
      if (address.ip.family === 4 && last) this.#disableIpv4(address.device)
      return
    }
    this.#put(address)
    if (this.device(address.device)!.up) this.#connect(address)
  }

  /** The connected route of an address, as the kernel adds it. */
  #connect(address: Address): void {
    if (address.noPrefixRoute || address.prefixLength === bitsOf(address.ip.family)) return
    const v4 = address.ip.family === 4
    const route: Route = {
      kind: 'route',
      destination: Cidr.of(address.ip, address.prefixLength),
      metric: v4 ? 0 : 256,
      hops: [{ device: address.device }],
      protocol: RTPROT_KERNEL,
      ...(v4 ? { scope: 'link' as const, source: address.ip } : {}),
    }
    if (!this.objects.has(keyOf(route))) this.#put(route)
  }

  /** Further IPv4 addresses of a subnet go with its first one (promote_secondaries is off as the kernel has it). */
  #secondariesOf(address: Address): Address[] {
    if (address.ip.family === 6) return []
    const block = Cidr.of(address.ip, address.prefixLength)
    const [first, ...rest] = this.#addressesOf(address.device).filter(
      (other) => other.prefixLength === block.length && block.contains(other.ip),
    )
    return first?.ip.equals(address.ip) ? rest : []
  }

  /** The last IPv4 address went: so do the device's IPv4 routes and neighbours. */
  #disableIpv4(device: string): void {
    for (const [key, object] of [...this.objects]) {
      const routed = object.kind === 'route' && object.hops.some((hop) => hop.device === device)
      if (routed && object.destination.family === 4) this.#dropAlong(key, object)
      if (object.kind === 'neighbour' && object.device === device && object.ip.family === 4)
        this.#dropAlong(key, object)
    }
  }

  /** Takes the connected route of an address away, unless another address of the device needs it. */
  #disconnect(address: Address): void {
    const block = Cidr.of(address.ip, address.prefixLength)
    const needed = this.#addressesOf(address.device).some(
      (other) => other.prefixLength === block.length && block.contains(other.ip),
    )
    if (needed) return
    for (const [key, object] of [...this.objects])
      if (
        object.kind === 'route' &&
        object.protocol === RTPROT_KERNEL &&
        object.destination.equals(block) &&
        object.hops[0]?.device === address.device
      )
        this.#drop(key)
  }

  #performRoute(verb: KernelOp['verb'], route: Route): void {
    const exists = this.objects.has(keyOf(route))
    if (verb === 'delete') {
      if (!exists) throw new Refusal('ESRCH')
      return this.#drop(keyOf(route))
    }
    const hops = route.hops.map((hop) => {
      const device = hop.device ?? (hop.via && this.#deviceTowards(hop.via))
      if (device === undefined) throw new Refusal('ENETUNREACH', 'Nexthop has invalid gateway')
      const link = this.device(device)
      if (!link) throw new Refusal('ENODEV')
      if (!link.up && (!hop.via || hop.onlink)) throw new Refusal('ENETDOWN', 'Device for nexthop is not up')
      const reachable = !hop.via || hop.onlink || hop.via.isLinkLocal || this.#deviceTowards(hop.via) === device
      if (!reachable) throw new Refusal('ENETUNREACH', 'Nexthop has invalid gateway')
      return { ...hop, device }
    })
    if (route.source && !this.of('address').some((address) => address.ip.equals(route.source!)))
      throw new Refusal('EINVAL', 'Invalid prefsrc address')
    // The kernel looks at the next hops first.
    if (verb === 'add' && exists) throw new Refusal('EEXIST')
    this.#put({ ...route, hops })
  }

  /** The device by which an address is directly reachable. */
  #deviceTowards(ip: Ip): string | undefined {
    let best: Route | undefined
    for (const route of this.of('route'))
      if (route.destination.contains(ip) && route.hops.every((hop) => !hop.via))
        if (!best || route.destination.length > best.destination.length) best = route
    return best?.hops[0]?.device
  }

  // --- nftables ---

  #performNft(verb: KernelOp['verb'], object: NftObject, together: ReadonlySet<KernelKey>): void {
    const exists = this.objects.has(keyOf(object))
    if (verb === 'add' && exists && object.kind !== 'nft-table') throw new Refusal('EEXIST')
    if (verb === 'delete' && !exists) throw new Refusal('ENOENT')
    if (object.kind !== 'nft-table' && !this.objects.has(`nft-table ${object.family} ${object.table}`))
      throw new Refusal('ENOENT')
    if (object.kind === 'nft-element' && !this.objects.has(`nft-set ${object.family} ${object.table} ${object.set}`))
      throw new Refusal('ENOENT')
    if (verb === 'set' && object.kind === 'nft-set') this.#renewSet(object, together)
    if (verb !== 'delete') return this.#put(object)
    for (const [key, other] of [...this.objects]) {
      const inTable =
        object.kind === 'nft-table' && 'table' in other && other.table === object.name && key.startsWith('nft-')
      const inSet =
        object.kind === 'nft-set' &&
        other.kind === 'nft-element' &&
        other.table === object.table &&
        other.set === object.name
      if ((inTable || inSet) && 'family' in other && other.family === object.family) this.#drop(key)
    }
    this.#drop(keyOf(object))
  }

  /** A set of another definition takes the place of one that no rule uses, but for the rules of chains at hand; its elements go. */
  #renewSet(set: NftSet, together: ReadonlySet<KernelKey>): void {
    const present = this.objects.get(keyOf(set))
    if (present?.kind !== 'nft-set' || sameDefinition(present, set)) return
    const inTable = (object: NftChain | NftElement): boolean =>
      object.family === set.family && object.table === set.table
    for (const chain of this.of('nft-chain'))
      if (inTable(chain) && !together.has(keyOf(chain)))
        if (chain.rules.some((rule) => setsUsedBy(rule).includes(set.name))) throw new Refusal('EBUSY')
    for (const element of this.of('nft-element'))
      if (inTable(element) && element.set === set.name) this.#drop(keyOf(element))
  }
}
