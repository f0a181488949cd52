/**
 * Writes kubeconfig files.
 * Sources: Kubernetes documentation, "Organizing Cluster Access Using kubeconfig Files".
 */
import { renameSync, writeFileSync } from 'node:fs'
import { stringify } from 'yaml'

export interface KubeconfigOptions {
  /** `https://127.0.0.1:6443` */
  readonly server: string
  /** PEM; left out for plain HTTP. */
  readonly ca?: string
  readonly token: string
  /** Name of cluster, user and context. Default `weft`. */
  readonly name?: string
  readonly namespace?: string
}

/** Readable by its owner only; appears whole. */
export function writeKubeconfig(
  path: string,
  { server, ca, token, name = 'weft', namespace }: KubeconfigOptions,
): void {
  const text = stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        { name, cluster: { server, ...(ca && { 'certificate-authority-data': Buffer.from(ca).toString('base64') }) } },
      ],
      users: [{ name, user: { token } }],
      contexts: [{ name, context: { cluster: name, user: name, ...(namespace && { namespace }) } }],
      'current-context': name,
    },
    { lineWidth: 0 },
  )
  writeFileSync(`${path}.new`, text, { mode: 0o600 })
  renameSync(`${path}.new`, path)
}
