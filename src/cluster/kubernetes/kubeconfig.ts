/**
 * Where the API server is and who we are: a kubeconfig file, or the service account of a pod. A connection stands for the
 * files as they were read; a followed one for the files as they are, since certificates are renewed and tokens rotated under
 * a program that runs. Exec plugins are asked again when their credential expires.
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
import type { ClusterLog } from '../cluster.ts'
import { FollowedFiles, type ReadFile } from '../followed-files.ts'
import type { Credentials, Endpoint } from '../http-client.ts'

export interface Connection extends Endpoint {
  /** The namespace of the context, `default` when it names none. */
  readonly namespace: string
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'
const MAX_FILE_BYTES = 1 << 20

type Fields = Record<string, unknown>

/** The connection of a pod: environment and service account files. Throws ConfigError outside of a pod. */
export function inClusterConnection(
  env: NodeJS.ProcessEnv = process.env,
  folder = SERVICE_ACCOUNT,
  read: ReadFile = readText,
): Connection {
  const host = env.KUBERNETES_SERVICE_HOST
  const port = env.KUBERNETES_SERVICE_PORT ?? '443'
  if (!host || !existsSync(`${folder}/token`))
    throw new ConfigError(
      '--kubeconfig',
      'path',
      'not given, and this is not a pod with a service account (KUBERNETES_SERVICE_HOST, /var/run/secrets/kubernetes.io)',
    )
  const authorization = `Bearer ${read(`${folder}/token`).trim()}`
  return {
    server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    ca: read(`${folder}/ca.crt`),
    insecure: false,
    namespace: existsSync(`${folder}/namespace`) ? read(`${folder}/namespace`).trim() : 'default',
    credentials: async () => ({ authorization }),
  }
}

/**
 * The connection of a kubeconfig file, or without one that of a pod, by the files as they are at every asking. Throws
 * ConfigError when they cannot be read at first; of later ones that cannot the log is told, and the last good ones count.
 */
export function followConnection(path: string | undefined, server: string | undefined, log: ClusterLog) {
  const files = new FollowedFiles<Connection>(
    (read) =>
      path === undefined ? inClusterConnection(process.env, SERVICE_ACCOUNT, read) : readKubeconfig(path, server, read),
    (problem) => {
      if (problem) log.warn({ err: problem.message }, 'new credentials cannot be read; the last ones are used on')
      else log.info({ from: path ?? SERVICE_ACCOUNT }, 'credentials were read again')
    },
  )
  return () => files.value
}

const readText: ReadFile = (path) => readFileSync(path, 'utf8')

/** Reads a kubeconfig file; `server` overrides its cluster's address. Throws ConfigError naming file and key. */
export function readKubeconfig(path: string, server?: string, read: ReadFile = readText): Connection {
  const object = `kubeconfig ${path}`
  let root: Fields
  try {
    const text = read(path)
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
  const ca = material(object, cluster, 'certificate-authority', folder, read)
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
    credentials: credentialsOf(object, user, folder, read),
  }
}

function credentialsOf(object: string, user: Fields, folder: string, read: ReadFile): () => Promise<Credentials> {
  for (const key of ['auth-provider', 'as'])
    if (user[key] !== undefined) fail(object, `user.${key}`, 'is not supported')
  const certificate = material(object, user, 'client-certificate', folder, read)
  const key = material(object, user, 'client-key', folder, read)
  const client = { ...(certificate === undefined ? {} : { certificate }), ...(key === undefined ? {} : { key }) }
  const file = text(object, user, 'tokenFile')
  const token =
    text(object, user, 'token') ?? (file && contentOf(object, 'tokenFile', resolve(folder, file), read).trim())
  const name = text(object, user, 'username')
  const exec = asFields(user.exec)
  if (token) return async () => ({ ...client, authorization: `Bearer ${token}` })
  if (name !== undefined) {
    const password = text(object, user, 'password') ?? ''
    const authorization = `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`
    return async () => ({ ...client, authorization })
  }
  if (exec) return execCredentials(object, exec, folder, client)
  return async () => client
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
function material(object: string, fields: Fields, key: string, folder: string, read: ReadFile): string | undefined {
  const inline = text(object, fields, `${key}-data`)
  if (inline !== undefined) return Buffer.from(inline, 'base64').toString('utf8')
  const path = text(object, fields, key)
  return path === undefined ? undefined : contentOf(object, key, resolve(folder, path), read)
}

function contentOf(object: string, key: string, path: string, read: ReadFile): string {
  try {
    return read(path)
  } catch (cause) {
    throw new ConfigError(object, key, (cause as Error).message, { cause })
  }
}

function named(object: string, root: Fields, list: string, name: string, inner: string): Fields {
  const entries = Array.isArray(root[list]) ? (root[list] as unknown[]) : []
  const entry = entries.map(asFields).find((item) => item?.name === name)
  return asFields(entry?.[inner]) ?? fail(object, list, `has no entry ${JSON.stringify(name)}`)
}
