/**
 * What form of answer a client wants. The server speaks JSON and YAML; clients that would rather have protobuf
 * name JSON as their second choice, and those that name nothing else are told 406.
 * Sources: RFC 9110 section 12.5.1; Kubernetes documentation, "Kubernetes API Concepts", "Resource representations".
 */
import { notAcceptable } from '../api-error.ts'

export interface Wanted {
  readonly media: 'application/json' | 'application/yaml'
  readonly as: 'object' | 'Table' | 'PartialObjectMetadata' | 'PartialObjectMetadataList' | 'APIGroupDiscoveryList'
  /** Version of the group that `as` belongs to. */
  readonly version: string
}

interface Choice {
  readonly type: string
  readonly parameters: ReadonlyMap<string, string>
  readonly quality: number
}

function parseAccept(accept: string): Choice[] {
  const choices = accept
    .split(',')
    .slice(0, 32)
    .map((part) => {
      const [type, ...rest] = part.split(';').map((text) => text.trim())
      const parameters = new Map<string, string>()
      for (const parameter of rest) {
        const [name, value] = parameter.split('=', 2)
        if (name) parameters.set(name, value ?? '')
      }
      return { type: type!.toLowerCase(), parameters, quality: Number(parameters.get('q') ?? 1) }
    })
    .filter((choice) => choice.type !== '' && choice.quality > 0)
  return choices.sort((a, b) => b.quality - a.quality)
}

const shapes = ['Table', 'PartialObjectMetadata', 'PartialObjectMetadataList', 'APIGroupDiscoveryList'] as const

/** Throws 406. */
export function negotiate(accept: string | undefined): Wanted {
  if (!accept) return { media: 'application/json', as: 'object', version: 'v1' }
  for (const { type, parameters } of parseAccept(accept)) {
    const media =
      type === 'application/yaml' || type === 'text/yaml'
        ? 'application/yaml'
        : type === 'application/json' ||
            type === '*/*' ||
            type === 'application/*' ||
            type === 'text/plain' ||
            type === 'text/*'
          ? 'application/json'
          : undefined
    if (!media) continue
    const asked = parameters.get('as')
    if (asked === undefined) return { media, as: 'object', version: 'v1' }
    const as = shapes.find((shape) => shape === asked)
    const version = parameters.get('v') ?? 'v1'
    if (as && /^v[12](beta1)?$/.test(version)) return { media, as, version }
  }
  throw notAcceptable()
}
