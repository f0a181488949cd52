/**
 * Where the API server is and who we are: a kubeconfig file, or the service account of a pod. Read once; tokens in files
 * are read again as they rotate, and exec plugins are asked again when their credential expires.
 *
 * Sources: Kubernetes "Organizing Cluster Access Using kubeconfig Files", client.authentication.k8s.io/v1 (ExecCredential),
 * "Accessing the Kubernetes API from a Pod".
 */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { ConfigError } from '../../model/errors.ts'
import type { Credentials, Endpoint } from '../http-client.ts'

export interface Connection extends Endpoint {
  /** The namespace of the context, `default` when it names none. */
  readonly namespace: string
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'
const TOKEN_RELOAD_MS = 60_000
const MAX_FILE_BYTES = 1 << 20

type Fields = Record<string, unknown>

/** The connection of a pod: environment and service account files. Throws ConfigError outside of a pod. */
export function inClusterConnection(env: NodeJS.ProcessEnv = process.env, folder = SERVICE_ACCOUNT): Connection {
  const host = env.KUBERNETES_SERVICE_HOST
  const port = env.KUBERNETES_SERVICE_PORT ?? '443'
  if (!host || !existsSync(`${folder}/token`))
    throw new ConfigError(
      '--kubeconfig',
      'path',
      'not given, and this is not a pod with a service account (KUBERNETES_SERVICE_HOST, /var/run/secrets/kubernetes.io)',
    )
  return {
    server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    ca: readFileSync(`${folder}/ca.crt`, 'utf8'),
    insecure: false,
    namespace: existsSync(`${folder}/namespace`) ? readFileSync(`${folder}/namespace`, 'utf8').trim() : 'default',
    credentials: tokenFile(`${folder}/token`),
  }
}

/** Reads a kubeconfig file; `server` overrides its cluster's address. Throws ConfigError naming file and key. */
export function readKubeconfig(path: string, server?: string): Connection {
  const object = `kubeconfig ${path}`
  let root: Fields
  try {
    const text = readFileSync(path, 'utf8')
    if (text.length > MAX_FILE_BYTES) throw new Error('is larger than 1 MiB')
    root = asFields(parse(text)) ?? fail(object, '(root)', 'is not a mapping')
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause
    throw new ConfigError(object, '(file)', (cause as Error).message, { cause })
  }
  const folder = dirname(resolve(path))
  const currentContext = text(object, root, 'current-context') ?? fail(object, 'current-context', 'is missing')
  const context = named(object, root, 'contexts', currentContext, 'context')
  const clusterName =
    text(object, context, 'cluster') ?? fail(object, `contexts.${currentContext}.cluster`, 'is missing')
  const cluster = named(object, root, 'clusters', clusterName, 'cluster')
  const userName = text(object, context, 'user')
  const user = userName === undefined ? {} : named(object, root, 'users', userName, 'user')
  if (cluster['proxy-url'] !== undefined) fail(object, 'proxy-url', 'is not supported')
  const ca = material(object, cluster, 'certificate-authority', folder)
  const serverName = text(object, cluster, 'tls-server-name')
  const address = server ?? text(object, cluster, 'server') ?? fail(object, 'server', 'is missing')
  if (!/^https?:\/\/[^\s]+$/.test(address))
    fail(object, 'server', `${JSON.stringify(address)} is not an http(s) address`)
  return {
    server: address.replace(/\/+$/, ''),
    ...(ca === undefined ? {} : { ca }),
    insecure: cluster['insecure-skip-tls-verify'] === true,
    ...(serverName === undefined ? {} : { serverName }),
    namespace: text(object, context, 'namespace') ?? 'default',
    credentials: credentialsOf(object, user, folder),
  }
}

function credentialsOf(object: string, user: Fields, folder: string): () => Promise<Credentials> {
  for (const key of ['auth-provider', 'as'])
    if (user[key] !== undefined) fail(object, `user.${key}`, 'is not supported')
  const certificate = material(object, user, 'client-certificate', folder)
  const key = material(object, user, 'client-key', folder)
  const client = { ...(certificate === undefined ? {} : { certificate }), ...(key === undefined ? {} : { key }) }
  const token = text(object, user, 'token')
  const file = text(object, user, 'tokenFile')
  const name = text(object, user, 'username')
  const exec = asFields(user.exec)
  if (token) return async () => ({ ...client, authorization: `Bearer ${token}` })
  if (file) return tokenFile(resolve(folder, file), client)
  if (name !== undefined) {
    const password = text(object, user, 'password') ?? ''
    const authorization = `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`
    return async () => ({ ...client, authorization })
  }
  if (exec) return execCredentials(object, exec, folder, client)
  return async () => client
}

function tokenFile(path: string, client: Credentials = {}): () => Promise<Credentials> {
  let held: Credentials | undefined
  let readAt = 0
  return async () => {
    if (!held || performance.now() - readAt > TOKEN_RELOAD_MS) {
      held = { ...client, authorization: `Bearer ${readFileSync(path, 'utf8').trim()}` }
      readAt = performance.now()
    }
    return held
  }
}

/** Runs the plugin that the file names and keeps its answer until it expires. */
function execCredentials(
  object: string,
  exec: Fields,
  folder: string,
  client: Credentials,
): () => Promise<Credentials> {
  const command = text(object, exec, 'command') ?? fail(object, 'user.exec.command', 'is missing')
  const version = text(object, exec, 'apiVersion') ?? 'client.authentication.k8s.io/v1'
  const args = Array.isArray(exec.args) ? exec.args.map(String) : []
  const extra = Object.fromEntries(
    (Array.isArray(exec.env) ? exec.env : []).map((entry: Fields) => [String(entry.name), String(entry.value)]),
  )
  const info = JSON.stringify({ kind: 'ExecCredential', apiVersion: version, spec: { interactive: false } })
  const file = command.includes('/') ? resolve(folder, command) : command
  let held: Credentials | undefined
  let expires = Number.POSITIVE_INFINITY
  return async () => {
    if (held && performance.now() < expires) return held
    const { stdout } = await promisify(execFile)(file, args, {
      timeout: 60_000,
      maxBuffer: MAX_FILE_BYTES,
      env: { ...process.env, ...extra, KUBERNETES_EXEC_INFO: info },
    })
    const status =
      asFields(asFields(JSON.parse(stdout))?.status) ?? fail(object, 'user.exec', `${command} gave no status`)
    const token = text(object, status, 'token')
    const certificate = text(object, status, 'clientCertificateData')
    const key = text(object, status, 'clientKeyData')
    const expiry = text(object, status, 'expirationTimestamp')
    // How long it lasts is read off the wall clock once; a clock that jumps later shortens and lengthens nothing.
    const lastsMs = expiry === undefined ? Number.POSITIVE_INFINITY : Date.parse(expiry) - Date.now() - 30_000
    expires = performance.now() + lastsMs
    held = {
      ...client,
      ...(certificate === undefined ? {} : { certificate }),
      ...(key === undefined ? {} : { key }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    }
    return held
  }
}

const asFields = (value: unknown): Fields | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined

function fail(object: string, key: string, problem: string): never {
  throw new ConfigError(object, key, problem)
}

function text(object: string, fields: Fields, key: string): string | undefined {
  const value = fields[key]
  if (value === undefined || value === null || value === '') return undefined
  return typeof value === 'string' ? value : fail(object, key, 'is not text')
}

/** `<key>-data` in base64, or the file that `<key>` names. */
function material(object: string, fields: Fields, key: string, folder: string): string | undefined {
  const inline = text(object, fields, `${key}-data`)
  if (inline !== undefined) return Buffer.from(inline, 'base64').toString('utf8')
  const path = text(object, fields, key)
  if (path === undefined) return undefined
  try {
    return readFileSync(resolve(folder, path), 'utf8')
  } catch (cause) {
    throw new ConfigError(object, key, (cause as Error).message, { cause })
  }
}

function named(object: string, root: Fields, list: string, name: string, inner: string): Fields {
  const entries = Array.isArray(root[list]) ? (root[list] as unknown[]) : []
  const entry = entries.map(asFields).find((item) => item?.name === name)
  return asFields(entry?.[inner]) ?? fail(object, list, `has no entry ${JSON.stringify(name)}`)
}
