/**
 * The result of ADD in one inner shape (that of 1.1.0) and its forms on the wire in every version: 0.1 and 0.2 know
 * one address of each family (`ip4`, `ip6`) and no interfaces, 0.3 and 0.4 mark each address with its version, 1.0
 * drops that mark, 1.1 adds properties of interfaces and routes.
 *
 * Sources: CNI SPEC.md "Section 5: Result Types" of each release, spec-v0.1.0 to spec-v1.1.0.
 */
import { parsePrefixed } from '../net/cidr.ts'
import { type Family, Ip } from '../net/ip.ts'
import { CniCode, CniError } from './error.ts'
import { FieldReader } from './fields.ts'
import { atLeast, type CniVersion, isVersion } from './version.ts'

export interface ResultInterface {
  readonly name: string
  readonly mac?: string
  /** Absent or empty: an interface of the host. */
  readonly sandbox?: string
  readonly mtuBytes?: number
  readonly socketPath?: string
  readonly pciID?: string
}

export interface ResultIp {
  readonly ip: Ip
  readonly prefixLength: number
  readonly gateway?: Ip
  /** Index into `interfaces`. */
  readonly interface?: number
}

export interface ResultRoute {
  /** `address/length`. */
  readonly destination: string
  readonly via?: Ip
  readonly mtuBytes?: number
  readonly advertisedMssBytes?: number
  readonly priority?: number
  readonly table?: number
  readonly scope?: number
}

export interface ResultDns {
  readonly nameservers?: readonly string[]
  readonly domain?: string
  readonly search?: readonly string[]
  readonly options?: readonly string[]
}

export interface CniResult {
  readonly interfaces: readonly ResultInterface[]
  readonly ips: readonly ResultIp[]
  readonly routes: readonly ResultRoute[]
  readonly dns: ResultDns
}

/** The result as an object of the given version, ready for JSON. */
export function encodeResult(result: CniResult, version: CniVersion): Record<string, unknown> {
  if (!atLeast(version, '0.3.0')) return encodeFirst(result, version)
  const mark = !atLeast(version, '1.0.0')
  const rich = atLeast(version, '1.1.0')
  return {
    cniVersion: version,
    ...(result.interfaces.length ? { interfaces: result.interfaces.map((item) => encodeInterface(item, rich)) } : {}),
    ...(result.ips.length
      ? {
          ips: result.ips.map(({ ip, prefixLength, gateway, interface: index }) => ({
            ...(mark ? { version: String(ip.family) } : {}),
            ...(index === undefined ? {} : { interface: index }),
            address: `${ip}/${prefixLength}`,
            ...(gateway ? { gateway: `${gateway}` } : {}),
          })),
        }
      : {}),
    ...(result.routes.length ? { routes: result.routes.map((route) => encodeRoute(route, rich)) } : {}),
    dns: result.dns,
  }
}

function encodeInterface(item: ResultInterface, rich: boolean): object {
  return {
    name: item.name,
    ...(item.mac ? { mac: item.mac } : {}),
    ...(rich && item.mtuBytes ? { mtu: item.mtuBytes } : {}),
    ...(item.sandbox ? { sandbox: item.sandbox } : {}),
    ...(rich && item.socketPath ? { socketPath: item.socketPath } : {}),
    ...(rich && item.pciID ? { pciID: item.pciID } : {}),
  }
}

function encodeRoute(route: ResultRoute, rich: boolean): object {
  return {
    dst: route.destination,
    ...(route.via ? { gw: `${route.via}` } : {}),
    ...(rich && route.mtuBytes ? { mtu: route.mtuBytes } : {}),
    ...(rich && route.advertisedMssBytes ? { advmss: route.advertisedMssBytes } : {}),
    ...(rich && route.priority ? { priority: route.priority } : {}),
    ...(rich && route.table !== undefined ? { table: route.table } : {}),
    ...(rich && route.scope !== undefined ? { scope: route.scope } : {}),
  }
}

/** 0.1 and 0.2: the first address of each family carries that family's routes. */
function encodeFirst(result: CniResult, version: CniVersion): Record<string, unknown> {
  const familyOf = (route: ResultRoute): Family => (route.destination.includes(':') ? 6 : 4)
  const part = (family: Family) => {
    const first = result.ips.find(({ ip }) => ip.family === family)
    if (!first) return undefined
    const routes = result.routes.filter((route) => familyOf(route) === family)
    return {
      ip: `${first.ip}/${first.prefixLength}`,
      ...(first.gateway ? { gateway: `${first.gateway}` } : {}),
      ...(routes.length ? { routes: routes.map((route) => encodeRoute(route, false)) } : {}),
    }
  }
  const [ip4, ip6] = [part(4), part(6)]
  return { cniVersion: version, ...(ip4 ? { ip4 } : {}), ...(ip6 ? { ip6 } : {}), dns: result.dns }
}

/** Reads a result of any version; its own `cniVersion` counts, else the configuration's. Throws CniError 6 or 7 naming the key. */
export function decodeResult(value: unknown, configVersion: CniVersion): CniResult {
  const root = FieldReader.of(value, 'prevResult')
  const stated = root.optionalText('cniVersion', 32)
  if (stated !== undefined && !isVersion(stated))
    throw new CniError(CniCode.incompatibleVersion, `prevResult: cniVersion ${JSON.stringify(stated)} is not supported`)
  const dns = decodeDns(root.optionalObject('dns'))
  if (!atLeast(stated ?? configVersion, '0.3.0')) return decodeFirst(root, dns)
  const interfaces = root.objects('interfaces', 64).map(decodeInterface)
  const ips = root.objects('ips', 256).map((field) => {
    const index = field.optionalInteger('interface', 0, 63)
    if (index !== undefined && index >= interfaces.length)
      throw field.problem('interface', `there are ${interfaces.length} interfaces`)
    return { ...decodeIp(field, 'address'), ...(index === undefined ? {} : { interface: index }) }
  })
  return { interfaces, ips, routes: root.objects('routes', 1024).map(decodeRoute), dns }
}

function decodeFirst(root: FieldReader, dns: ResultDns): CniResult {
  const parts = [root.optionalObject('ip4'), root.optionalObject('ip6')].filter((part) => part !== undefined)
  return {
    interfaces: [],
    ips: parts.map((part) => decodeIp(part, 'ip')),
    routes: parts.flatMap((part) => part.objects('routes', 1024).map(decodeRoute)),
    dns,
  }
}

function decodeIp(field: FieldReader, key: string): ResultIp {
  const { ip, length } = field.parsed(key, parsePrefixed)
  const gateway = field.optionalParsed('gateway', Ip.parse)
  return { ip, prefixLength: length, ...(gateway ? { gateway } : {}) }
}

function decodeInterface(field: FieldReader): ResultInterface {
  const [mac, sandbox] = [field.optionalText('mac', 64), field.optionalText('sandbox', 4096)]
  const [socketPath, pciID] = [field.optionalText('socketPath', 4096), field.optionalText('pciID', 64)]
  const mtuBytes = field.optionalInteger('mtu', 0, 0x7fffffff)
  return {
    name: field.text('name', 64),
    ...(mac ? { mac } : {}),
    ...(sandbox ? { sandbox } : {}),
    ...(mtuBytes ? { mtuBytes } : {}),
    ...(socketPath ? { socketPath } : {}),
    ...(pciID ? { pciID } : {}),
  }
}

export function decodeRoute(field: FieldReader): ResultRoute {
  const destination = field.parsed('dst', parsePrefixed)
  const via = field.optionalParsed('gw', Ip.parse)
  const number = (key: string, max = 0xffffffff) => field.optionalInteger(key, 0, max)
  const [mtuBytes, advertisedMssBytes, priority] = [number('mtu'), number('advmss'), number('priority')]
  const [table, scope] = [number('table'), number('scope', 255)]
  return {
    destination: `${destination.ip.masked(destination.length)}/${destination.length}`,
    ...(via ? { via } : {}),
    ...(mtuBytes ? { mtuBytes } : {}),
    ...(advertisedMssBytes ? { advertisedMssBytes } : {}),
    ...(priority ? { priority } : {}),
    ...(table === undefined ? {} : { table }),
    ...(scope === undefined ? {} : { scope }),
  }
}

export function decodeDns(field: FieldReader | undefined): ResultDns {
  if (!field) return {}
  const [nameservers, search, options] = ['nameservers', 'search', 'options'].map((key) => field.texts(key, 64, 1024))
  const domain = field.optionalText('domain', 1024)
  return {
    ...(nameservers!.length ? { nameservers: nameservers! } : {}),
    ...(domain ? { domain } : {}),
    ...(search!.length ? { search: search! } : {}),
    ...(options!.length ? { options: options! } : {}),
  }
}
