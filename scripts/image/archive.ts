/**
 * An image as one file that `ctr images import`, `podman load` and `docker load` take: an OCI image layout with the
 * manifest.json of docker's archives beside it, naming the same blobs.
 *
 * Sources: OCI image-spec image-layout.md, manifest.md, config.md; docker's image spec v1.2 (manifest.json); containerd
 * docs "images" (annotation io.containerd.image.name).
 */
import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { type TarEntry, writeTar } from './tar.ts'

export interface ImageSpec {
  /** Repository and tag, `weft.dev/weft:0.1.0`. */
  readonly name: string
  /** GOARCH. */
  readonly architecture: string
  readonly layers: readonly ImageLayer[]
  readonly entrypoint: readonly string[]
  readonly env: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  /** Unix seconds, when the image counts as made. Its entries are of 1970: the same files are the same layer. */
  readonly createdSeconds: number
}

export interface ImageLayer {
  readonly comment: string
  readonly entries: readonly TarEntry[]
}

export interface WrittenImage {
  readonly archive: Buffer
  /** Digest of the manifest, which is the image's. */
  readonly digest: string
  readonly layers: readonly { readonly comment: string; readonly bytes: number; readonly compressedBytes: number }[]
}

const digestOf = (data: Buffer): string => `sha256:${createHash('sha256').update(data).digest('hex')}`
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

/** The same bytes for the same specification (and the same zlib). */
export function writeImage(spec: ImageSpec): WrittenImage {
  const blobs = new Map<string, Buffer>()
  const put = (data: Buffer, mediaType: string) => {
    const digest = digestOf(data)
    blobs.set(digest, data)
    return { mediaType, digest, size: data.length }
  }
  const created = new Date(spec.createdSeconds * 1000).toISOString().replace('.000Z', 'Z')
  const layers = spec.layers.map(({ comment, entries }) => {
    const tar = writeTar(entries, 0)
    // The header's byte 9 names the system that compressed; the rest holds no time.
    const packed = gzipSync(tar, { level: 6 })
    packed[9] = 255
    const descriptor = put(packed, 'application/vnd.oci.image.layer.v1.tar+gzip')
    return { comment, diffId: digestOf(tar), bytes: tar.length, descriptor }
  })
  const config = put(
    json({
      created,
      architecture: spec.architecture,
      os: 'linux',
      config: { Env: spec.env, Entrypoint: spec.entrypoint, WorkingDir: '/', Labels: spec.labels },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      history: layers.map(({ comment }) => ({ created, created_by: comment })),
    }),
    'application/vnd.oci.image.config.v1+json',
  )
  const manifest = put(
    json({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config,
      layers: layers.map(({ descriptor }) => descriptor),
      annotations: spec.labels,
    }),
    'application/vnd.oci.image.manifest.v1+json',
  )
  const index = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      {
        ...manifest,
        platform: { architecture: spec.architecture, os: 'linux' },
        annotations: {
          'io.containerd.image.name': spec.name,
          'org.opencontainers.image.ref.name': spec.name.slice(spec.name.lastIndexOf(':') + 1),
        },
      },
    ],
  }
  const pathOf = (digest: string) => `blobs/${digest.replace(':', '/')}`
  const file = (path: string, data: Buffer): TarEntry => ({ path, type: 'file', data, mode: 0o644 })
  const docker = [
    {
      Config: pathOf(config.digest),
      RepoTags: [spec.name],
      Layers: layers.map(({ descriptor }) => pathOf(descriptor.digest)),
    },
  ]
  const archive = writeTar(
    [
      file('oci-layout', json({ imageLayoutVersion: '1.0.0' })),
      file('index.json', json(index)),
      file('manifest.json', json(docker)),
      ...[...blobs].map(([digest, data]) => file(pathOf(digest), data)),
    ],
    0,
  )
  return {
    archive,
    digest: manifest.digest,
    layers: layers.map(({ comment, bytes, descriptor }) => ({ comment, bytes, compressedBytes: descriptor.size })),
  }
}
