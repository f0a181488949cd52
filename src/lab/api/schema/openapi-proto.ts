/**
 * The OpenAPI v2 document in protobuf: the only form in which older kubectl takes it. Only the messages and
 * fields that our documents have are written.
 * Sources: google/gnostic-models, openapiv2/OpenAPIv2.proto (field numbers); Protocol Buffers encoding.
 */
import type { Schema } from './schema.ts'

/** Writes one message; nested messages are written to their own and copied in. */
class Message {
  readonly #parts: Buffer[] = []

  #varint(value: number): void {
    const bytes: number[] = []
    let rest = value
    do {
      const low = rest % 128
      rest = Math.floor(rest / 128)
      bytes.push(rest > 0 ? low | 0x80 : low)
    } while (rest > 0)
    this.#parts.push(Buffer.from(bytes))
  }

  text(field: number, value: string | undefined): this {
    return value ? this.bytes(field, Buffer.from(value)) : this
  }

  bytes(field: number, value: Buffer): this {
    this.#varint(field * 8 + 2)
    this.#varint(value.length)
    this.#parts.push(value)
    return this
  }

  flag(field: number, value: boolean | undefined): this {
    if (!value) return this
    this.#varint(field * 8)
    this.#varint(1)
    return this
  }

  message(field: number, value: Message | undefined): this {
    return value ? this.bytes(field, value.finish()) : this
  }

  finish(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the document is our own (openapi.ts)
type Json = any

/** Any: its text as YAML, of which JSON is a part. */
const any = (value: unknown): Message => new Message().text(2, JSON.stringify(value))
const named = (name: string, value: Message): Message => new Message().text(1, name).message(2, value)

const extensions = (message: Message, field: number, object: object): Message => {
  for (const [key, value] of Object.entries(object))
    if (key.startsWith('x-') && value !== undefined) message.message(field, named(key, any(value)))
  return message
}

function schemaMessage(schema: Schema): Message {
  const message = new Message().text(1, schema.$ref).text(2, schema.format).text(4, schema.description)
  if (schema.default !== undefined) message.message(5, any(schema.default))
  for (const name of schema.required ?? []) message.text(19, name)
  for (const value of schema.enum ?? []) message.message(20, any(value))
  const extra = schema.additionalProperties
  if (typeof extra === 'object') message.message(21, new Message().message(1, schemaMessage(extra)))
  else if (extra === true) message.message(21, new Message().flag(2, true))
  if (schema.type) message.message(22, new Message().text(1, schema.type))
  if (schema.items) message.message(23, new Message().message(1, schemaMessage(schema.items)))
  if (schema.properties) {
    const properties = new Message()
    for (const [key, property] of Object.entries(schema.properties))
      properties.message(1, named(key, schemaMessage(property)))
    message.message(25, properties)
  }
  return extensions(message, 31, schema)
}

/** ParametersItem → Parameter → NonBodyParameter → QueryParameterSubSchema. */
function parameterMessage(parameter: Json): Message {
  const query = new Message()
    .text(2, 'query')
    .text(4, parameter.name)
    .text(6, parameter.type)
    .flag(20, parameter.uniqueItems)
  return new Message().message(1, new Message().message(2, new Message().message(3, query)))
}

function operationMessage(operation: Json): Message {
  const message = new Message().text(5, operation.operationId)
  for (const parameter of operation.parameters ?? []) message.message(8, parameterMessage(parameter))
  const responses = new Message()
  for (const [code, response] of Object.entries<Json>(operation.responses)) {
    const body = new Message()
      .text(1, response.description)
      .message(2, new Message().message(1, schemaMessage(response.schema)))
    responses.message(1, named(code, new Message().message(1, body)))
  }
  return extensions(message.message(9, responses), 13, operation)
}

const operationFields = { get: 2, put: 3, post: 4, delete: 5, patch: 8 } as const

/** `document`: as OpenApi.v2() makes it. */
export function encodeOpenApiV2(document: Json): Buffer {
  const paths = new Message()
  for (const [path, item] of Object.entries<Json>(document.paths)) {
    const message = new Message()
    for (const [method, field] of Object.entries(operationFields))
      if (item[method]) message.message(field, operationMessage(item[method]))
    paths.message(2, named(path, message))
  }
  const definitions = new Message()
  for (const [name, schema] of Object.entries<Schema>(document.definitions))
    definitions.message(1, named(name, schemaMessage(schema)))
  return new Message()
    .text(1, document.swagger)
    .message(2, new Message().text(1, document.info.title).text(2, document.info.version))
    .message(8, paths)
    .message(9, definitions)
    .finish()
}
