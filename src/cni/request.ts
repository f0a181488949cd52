/**
 * What arrives: the plugin's environment and standard input, checked into one request. Everything here is a
 * stranger's text; each refusal carries the specification's code and names the key.
 *
 * Sources: CNI SPEC.md "Section 2: Execution Protocol", CONVENTIONS.md (runtimeConfig, CNI_ARGS).
 */
import { Ip } from '../net/ip.ts'
import type { Mac } from '../net/mac.ts'
import { type NetworkConfig, parseNetworkConfig, parsePodMac } from './config.ts'
import { CniCode, CniError } from './error.ts'
import { FieldReader } from './fields.ts'
import {
  atLeast,
  type CniVersion,
  commandSince,
  isVersion,
  latestVersion,
  supportedVersions,
  unstatedVersion,
} from './version.ts'

export const commands = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC', 'VERSION'] as const
export type Command = (typeof commands)[number]

/** The commands that need a container's namespace and the configuration. */
export type AttachmentCommand = 'ADD' | 'CHECK'

export interface CniArgs {
  readonly podName?: string
  readonly podNamespace?: string
  readonly podUid?: string
  /** `IP=`: requested addresses. */
  readonly ips: readonly Ip[]
  readonly mac?: Mac
}

export interface AttachmentRequest {
  readonly command: AttachmentCommand
  readonly containerId: string
  readonly ifname: string
  readonly netnsPath: string
  /** A descriptor of the same namespace, `/proc/self/fd/<n>`, when the plugin sent the request from inside it. */
  readonly netnsFile?: string
  readonly args: CniArgs
  readonly config: NetworkConfig
}

export type CniRequest =
  | AttachmentRequest
  /** Nothing else of the request counts: a configuration that ADD refused must not keep a container from going. */
  | { readonly command: 'DEL'; readonly containerId: string; readonly ifname: string }
  | { readonly command: 'STATUS'; readonly config: NetworkConfig }
  | { readonly command: 'GC'; readonly config: NetworkConfig; readonly valid: readonly ValidAttachment[] | undefined }
  | { readonly command: 'VERSION'; readonly cniVersion: CniVersion }

export interface ValidAttachment {
  readonly containerId: string
  readonly ifname: string
}

const maxEnvironmentEntries = 64
const identifierPattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/

/** Splits the shim's body: `KEY=VALUE\0`… `\0` stdin. Throws CniError 4. */
export function splitBody(body: Uint8Array): { environment: Map<string, string>; stdin: Uint8Array } {
  const environment = new Map<string, string>()
  const decoder = new TextDecoder()
  let at = 0
  for (;;) {
    const end = body.indexOf(0, at)
    if (end < 0) throw new CniError(CniCode.invalidEnvironment, 'The request ends within the environment')
    if (end === at) return { environment, stdin: body.subarray(end + 1) }
    const entry = decoder.decode(body.subarray(at, end))
    const equals = entry.indexOf('=')
    if (equals > 0) environment.set(entry.slice(0, equals), entry.slice(equals + 1))
    if (environment.size > maxEnvironmentEntries)
      throw new CniError(CniCode.invalidEnvironment, `More than ${maxEnvironmentEntries} CNI_ variables`)
    at = end + 1
  }
}

/** The version to print an error in: the configuration's own if it is known, whatever else is wrong with it. */
export function versionForErrors(stdin: Uint8Array): CniVersion {
  try {
    const stated = (JSON.parse(new TextDecoder().decode(stdin)) as { cniVersion?: unknown }).cniVersion
    return isVersion(stated) ? stated : latestVersion
  } catch {
    return latestVersion
  }
}

/** `netnsFile` is the container's namespace, when the request comes from inside it. Throws CniError 1, 2, 4, 6 or 7. */
export function parseRequest(
  environment: ReadonlyMap<string, string>,
  stdin: Uint8Array,
  netnsFile?: string,
): CniRequest {
  const command = environment.get('CNI_COMMAND')
  if (!command) throw new CniError(CniCode.invalidEnvironment, 'CNI_COMMAND is missing')
  if (!commands.includes(command as Command))
    throw new CniError(CniCode.invalidEnvironment, `CNI_COMMAND: unknown command ${quote(command)}`)
  if (command === 'VERSION') return { command, cniVersion: versionForErrors(stdin) }
  const fields = FieldReader.of(parseJson(stdin), '')
  const cniVersion = readVersion(fields)
  const since = commandSince[command]
  if (since && !atLeast(cniVersion, since))
    throw new CniError(
      CniCode.incompatibleVersion,
      `cniVersion ${cniVersion} does not know ${command}`,
      `since ${since}`,
    )
  if (command === 'DEL') return { command, ...parseOwner(environment, []) }
  const config = parseNetworkConfig(fields, cniVersion)
  if (command === 'STATUS') return { command, config }
  if (command === 'GC') return { command, config, valid: readValidAttachments(fields) }
  return { ...parseAttachment(command as AttachmentCommand, environment, config), ...(netnsFile ? { netnsFile } : {}) }
}

const quote = (text: string): string => JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text)

function parseJson(stdin: Uint8Array): unknown {
  if (stdin.length === 0) throw new CniError(CniCode.undecodable, 'No network configuration on standard input')
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(stdin))
  } catch (cause) {
    throw new CniError(
      CniCode.undecodable,
      'The network configuration is not JSON',
      (cause as Error).message.slice(0, 200),
    )
  }
}

function readVersion(fields: FieldReader): CniVersion {
  const stated = fields.optionalText('cniVersion', 64)
  if (stated === undefined || stated === '') return unstatedVersion
  if (!isVersion(stated))
    throw new CniError(
      CniCode.incompatibleVersion,
      `cniVersion ${quote(stated)} is not supported`,
      `supported: ${supportedVersions.join(', ')}`,
    )
  return stated
}

function parseAttachment(
  command: AttachmentCommand,
  environment: ReadonlyMap<string, string>,
  config: NetworkConfig,
): AttachmentRequest {
  const owner = parseOwner(environment, ['CNI_NETNS'])
  // With a percent sign the kernel would choose a name of its own; nothing of such a name is there for DEL to refuse.
  if (owner.ifname.includes('%'))
    throw new CniError(CniCode.invalidEnvironment, `CNI_IFNAME: ${quote(owner.ifname)} has a "%"`)
  const netnsPath = environment.get('CNI_NETNS')!
  if (netnsPath.length > 4095) throw new CniError(CniCode.invalidEnvironment, 'CNI_NETNS: is longer than 4095 bytes')
  return { command, ...owner, netnsPath, args: parseArgs(environment.get('CNI_ARGS') ?? ''), config }
}

function parseOwner(environment: ReadonlyMap<string, string>, also: readonly string[]) {
  const missing = ['CNI_CONTAINERID', 'CNI_IFNAME', ...also].filter((key) => !environment.get(key))
  if (missing.length) throw new CniError(CniCode.invalidEnvironment, `${missing.join(', ')}: missing`)
  const containerId = environment.get('CNI_CONTAINERID')!
  const ifname = environment.get('CNI_IFNAME')!
  checkContainerId('CNI_CONTAINERID', containerId, CniCode.invalidEnvironment)
  checkIfname('CNI_IFNAME', ifname, CniCode.invalidEnvironment)
  return { containerId, ifname }
}

function checkContainerId(key: string, id: string, code: number): void {
  if (id.length > 256) throw new CniError(code, `${key}: is longer than 256 characters`)
  if (!identifierPattern.test(id))
    throw new CniError(
      code,
      `${key}: ${quote(id)} must be letters, digits, "_", "." and "-", beginning with a letter or digit`,
    )
}

/** The kernel's own rules for device names (dev_valid_name), and no colon, which `ip` reads as an alias. */
function checkIfname(key: string, name: string, code: number): void {
  const good = name.length <= 15 && name !== '.' && name !== '..' && /^[\x21-\x7e]+$/.test(name) && !/[/:]/.test(name)
  if (!good)
    throw new CniError(code, `${key}: ${quote(name)} is not a device name (1 to 15 characters, no "/", ":" or space)`)
}

/** `K=V;K=V`. An unknown key is an error unless IgnoreUnknown says otherwise. */
export function parseArgs(text: string): CniArgs {
  if (text.length > 8192) throw new CniError(CniCode.invalidEnvironment, 'CNI_ARGS: is longer than 8192 characters')
  const pairs = text === '' ? [] : text.split(';').filter((pair) => pair !== '')
  const args = new Map<string, string>()
  for (const pair of pairs) {
    const equals = pair.indexOf('=')
    if (equals < 1) throw new CniError(CniCode.invalidEnvironment, `CNI_ARGS: ${quote(pair)} is not KEY=VALUE`)
    args.set(pair.slice(0, equals), pair.slice(equals + 1))
  }
  const known = ['IgnoreUnknown', 'IP', 'MAC', 'GATEWAY', 'K8S_POD_NAME', 'K8S_POD_NAMESPACE', 'K8S_POD_UID']
  const unknown = [...args.keys()].filter((key) => !known.includes(key) && key !== 'K8S_POD_INFRA_CONTAINER_ID')
  if (unknown.length && !readFlag(args.get('IgnoreUnknown')))
    throw new CniError(
      CniCode.invalidEnvironment,
      `CNI_ARGS: unknown ${unknown.map(quote).join(', ')} without IgnoreUnknown=1`,
    )
  const value = <T>(key: string, parse: (text: string) => T): T | undefined => {
    const given = args.get(key)
    try {
      return given ? parse(given) : undefined
    } catch (cause) {
      throw new CniError(CniCode.invalidEnvironment, `CNI_ARGS: ${key}: ${(cause as Error).message}`)
    }
  }
  const ips = value('IP', (list) => list.split(',').map((item) => Ip.parse(item.replace(/\/\d{1,3}$/, '')))) ?? []
  const mac = value('MAC', parsePodMac)
  const [podName, podNamespace, podUid] = [
    args.get('K8S_POD_NAME'),
    args.get('K8S_POD_NAMESPACE'),
    args.get('K8S_POD_UID'),
  ]
  return {
    ips,
    ...(mac ? { mac } : {}),
    ...(podName ? { podName } : {}),
    ...(podNamespace ? { podNamespace } : {}),
    ...(podUid ? { podUid } : {}),
  }
}

function readFlag(text: string | undefined): boolean {
  if (text === undefined || ['0', 'false', ''].includes(text.toLowerCase())) return false
  if (['1', 'true'].includes(text.toLowerCase())) return true
  throw new CniError(CniCode.invalidEnvironment, `CNI_ARGS: IgnoreUnknown: ${quote(text)} is neither true nor false`)
}

/**
 * Undefined without the list: a caller that names nothing (libcni without arguments, which deletes what it knows itself)
 * asks for nothing, and must not be taken to say that nothing is valid. `null` is how Go prints an empty list.
 */
function readValidAttachments(fields: FieldReader): ValidAttachment[] | undefined {
  const key = 'cni.dev/valid-attachments'
  if (!Object.hasOwn(fields.raw, key)) return undefined
  return fields.objects(key, 100_000).map((field) => {
    const [containerId, ifname] = [field.text('containerID', 256), field.text('ifname', 15)]
    checkContainerId(`${field.path}.containerID`, containerId, CniCode.invalidConfig)
    checkIfname(`${field.path}.ifname`, ifname, CniCode.invalidConfig)
    return { containerId, ifname }
  })
}
