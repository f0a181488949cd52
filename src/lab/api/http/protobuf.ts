/**
 * Reads Kubernetes' protobuf form of objects into their JSON form. kubectl writes some requests (`create
 * namespace`, `auth can-i`, `drain`, …) in no other; answers are always JSON, which it also takes.
 * Go writes zero values that JSON leaves out, so zeros are dropped where they mean "not set".
 * Sources: Protocol Buffers encoding; k8s.io/apimachinery runtime.Unknown ("k8s\0" envelope).
 */
import { parseJson } from '../../../bytes/json.ts'
import { badRequest } from '../api-error.ts'
import { protobufFields } from './protobuf-fields.ts'

interface Field {
  readonly name: string
  readonly type: string
  readonly form: 'one' | 'list' | 'map' | 'inline'
}

type Json = Record<string, unknown>

const magic = Buffer.from('k8s\0')
const depthLimit = 64

/** Fields whose zero or false is said on purpose. */
const meaningfulZeros = new Set([
  ...['activeDeadlineSeconds', 'containerPort', 'defaultMode', 'deletionGracePeriodSeconds', 'exitCode', 'fsGroup'],
  ...['gracePeriodSeconds', 'mode', 'partition', 'priority', 'progressDeadlineSeconds', 'replicas', 'restartCount'],
  ...['revisionHistoryLimit', 'runAsGroup', 'runAsUser', 'terminationGracePeriodSeconds', 'tolerationSeconds'],
  ...['allocateLoadBalancerNodePorts', 'allowPrivilegeEscalation', 'automountServiceAccountToken'],
  ...['blockOwnerDeletion', 'controller', 'enableServiceLinks', 'hostUsers', 'immutable', 'optional'],
  ...['orphanDependents', 'privileged', 'readOnlyRootFilesystem', 'ready', 'runAsNonRoot', 'serving'],
  ...['setHostnameAsFQDN', 'shareProcessNamespace', 'terminating'],
])

let messages: Map<string, Map<number, Field>> | undefined

function readTable(): Map<string, Map<number, Field>> {
  const table = new Map<string, Map<number, Field>>()
  for (const line of protobufFields.replace(/\n\s+/g, ' ').trim().split('\n')) {
    const [message, ...texts] = line.split(' ') as [string, ...string[]]
    const fields = new Map<number, Field>()
    let number = 0
    for (const text of texts) {
      const [, jump, inline, name, type, suffix] = /^(?:(\d+)=)?(\^)?(\w+):([\w.]+)(\[\]|\{\})?$/.exec(text)!
      number = jump ? Number(jump) : number + 1
      const form = inline ? 'inline' : suffix === '[]' ? 'list' : suffix === '{}' ? 'map' : 'one'
      fields.set(number, { name: name!, type: type!, form })
    }
    table.set(message, fields)
  }
  return table
}

const fieldsOf = (message: string): Map<number, Field> | undefined => {
  messages ??= readTable()
  return messages.get(message)
}

/** Cursor over one message. */
class ProtoReader {
  readonly #bytes: Buffer
  #offset = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get done(): boolean {
    return this.#offset >= this.#bytes.length
  }

  varint(): bigint {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#offset++]
      if (byte === undefined) throw new RangeError('cut short')
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return BigInt.asIntN(64, value)
    }
    throw new RangeError('number too long')
  }

  take(length: number): Buffer {
    if (length < 0 || this.#offset + length > this.#bytes.length) throw new RangeError('cut short')
    this.#offset += length
    return this.#bytes.subarray(this.#offset - length, this.#offset)
  }

  /** Field number and value: a bigint, or bytes. */
  field(): [number, bigint | Buffer] {
    const tag = Number(this.varint())
    const number = tag >>> 3
    switch (tag & 7) {
      case 0:
        return [number, this.varint()]
      case 1:
        return [number, this.take(8)]
      case 2:
        return [number, this.take(Number(this.varint()))]
      case 5:
        return [number, this.take(4)]
      default:
        throw new RangeError(`wire type ${tag & 7}`)
    }
  }
}

function* eachField(bytes: Buffer): Generator<[number, bigint | Buffer]> {
  const reader = new ProtoReader(bytes)
  while (!reader.done) yield reader.field()
}

const asBytes = (value: bigint | Buffer): Buffer => {
  if (typeof value === 'bigint') throw new RangeError('a number where bytes belong')
  return value
}
const asNumber = (value: bigint | Buffer): number => {
  if (typeof value !== 'bigint') throw new RangeError('bytes where a number belongs')
  return Number(value)
}

/** Time: seconds and nanoseconds since 1970; an empty message is no time. */
function timeOf(bytes: Buffer): string | undefined {
  let seconds = 0
  let nanoseconds = 0
  for (const [number, value] of eachField(bytes)) {
    if (number === 1) seconds = asNumber(value)
    if (number === 2) nanoseconds = asNumber(value)
  }
  if (seconds === 0 && nanoseconds === 0) return undefined
  const text = new Date(seconds * 1000).toISOString().slice(0, 19)
  return nanoseconds ? `${text}.${String(Math.floor(nanoseconds / 1000)).padStart(6, '0')}Z` : `${text}Z`
}

function intOrString(bytes: Buffer): number | string | undefined {
  let isText = false
  let number = 0
  let text = ''
  for (const [field, value] of eachField(bytes)) {
    if (field === 1) isText = asNumber(value) === 1
    if (field === 2) number = asNumber(value)
    if (field === 3) text = asBytes(value).toString()
  }
  return isText ? text : number === 0 ? undefined : number
}

/** The first field of a message that wraps one value: Quantity, RawExtension, FieldsV1. */
function wrapped(bytes: Buffer): Buffer | undefined {
  for (const [number, value] of eachField(bytes)) if (number === 1) return asBytes(value)
  return undefined
}

function readValue(type: string, value: bigint | Buffer, depth: number): unknown {
  switch (type) {
    case 's':
      return asBytes(value).toString('utf8')
    case 'b':
      return asBytes(value).toString('base64')
    case 't':
      return asNumber(value) !== 0
    case 'i':
      return asNumber(value)
    case 'd':
      return asBytes(value).readDoubleLE()
    case 'T':
      return timeOf(asBytes(value))
    case 'Q':
      return wrapped(asBytes(value))?.toString()
    case 'I':
      return intOrString(asBytes(value))
    case 'J': {
      const json = wrapped(asBytes(value))
      return json && parseJson(json.toString())
    }
    default:
      return messageOf(type, asBytes(value), depth + 1)
  }
}

const isUnset = (name: string, value: unknown): boolean =>
  value === undefined || value === '' || ((value === 0 || value === false) && !meaningfulZeros.has(name))

function messageOf(message: string, bytes: Buffer, depth: number): unknown {
  const fields = fieldsOf(message)
  if (!fields || depth > depthLimit) throw new RangeError(`message ${message}`)
  const object: Json = {}
  for (const [number, value] of eachField(bytes)) {
    const field = fields.get(number)
    // Fields of newer clients are passed over, as every protobuf reader does.
    if (!field) continue
    const { name, type, form } = field
    if (form === 'inline') Object.assign(object, messageOf(type, asBytes(value), depth + 1))
    else if (form === 'list') {
      object[name] ??= []
      ;(object[name] as unknown[]).push(readValue(type, value, depth))
    } else if (form === 'map') {
      object[name] ??= {}
      readEntry(object[name] as Json, type, asBytes(value), depth)
    } else {
      const read = readValue(type, value, depth)
      if (!isUnset(name, read)) object[name] = read
    }
  }
  return message.endsWith('ExtraValue') ? (object.items ?? []) : object
}

/** A map entry: key 1, value 2. */
function readEntry(map: Json, type: string, bytes: Buffer, depth: number): void {
  let key = ''
  let value: unknown = type === 's' || type === 'b' ? '' : {}
  for (const [number, part] of eachField(bytes)) {
    if (number === 1) key = asBytes(part).toString()
    if (number === 2) value = readValue(type, part, depth)
  }
  if (key !== '__proto__') map[key] = value
}

/** An object in its JSON form. Throws 400 for what is no such object, and for kinds that come as JSON only. */
export function decodeProtobuf(body: Buffer): Json {
  if (!body.subarray(0, 4).equals(magic)) throw badRequest('the body is not a Kubernetes object in protobuf')
  try {
    let apiVersion = ''
    let kind = ''
    let raw: Buffer = Buffer.alloc(0)
    for (const [number, value] of eachField(body.subarray(4))) {
      if (number === 2) raw = asBytes(value)
      if (number !== 1) continue
      for (const [part, text] of eachField(asBytes(value))) {
        if (part === 1) apiVersion = asBytes(text).toString()
        if (part === 2) kind = asBytes(text).toString()
      }
    }
    const group = apiVersion.includes('/') ? apiVersion.split('/')[0]!.split('.')[0]! : 'core'
    const message = fieldsOf(`${group}.${kind}`) ? `${group}.${kind}` : kind
    if (!fieldsOf(message)) throw new RangeError(`${kind} of ${apiVersion} is taken as JSON only`)
    return { apiVersion, kind, ...(messageOf(message, raw, 0) as Json) }
  } catch (error) {
    throw badRequest(`the protobuf body cannot be read: ${(error as Error).message}`, error)
  }
}
