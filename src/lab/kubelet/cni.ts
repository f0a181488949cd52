/**
 * A container runtime's side of the CNI protocol: finds the network configuration of a node, runs its chain of
 * plugins with environment and stdin as the specification says, keeps each attachment's result for the DEL to come.
 *
 * Sources: CNI specification 1.1.0 (sections 2, 3 and 4; error codes in "Error"), containernetworking cni CONVENTIONS.md
 * (CNI_ARGS, runtimeConfig).
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inNetns } from '../../kernel/linux/netns.ts'

type Json = Record<string, unknown>

/** What a plugin answered instead of a result. `code` as in the specification; 100 and up are the plugin's own. */
export class CniError extends Error {
  override readonly name = 'CniError'
  readonly code: number

  constructor(plugin: string, command: string, code: number, text: string, options?: ErrorOptions) {
    super(`plugin type=${JSON.stringify(plugin)} failed (${command}): ${text}`, options)
    this.code = code
  }
}

/** "Try again later": the plugin is there, what it needs is not. */
export const CNI_TRY_AGAIN = 11

export interface CniResult {
  readonly cniVersion?: string
  readonly interfaces?: readonly { readonly name: string; readonly mac?: string; readonly sandbox?: string }[]
  readonly ips?: readonly { readonly address: string; readonly gateway?: string; readonly interface?: number }[]
  readonly routes?: readonly { readonly dst: string; readonly gw?: string }[]
}

/** One attachment of one pod to the node's network. */
export interface Attachment {
  readonly containerId: string
  readonly netnsPath: string
  readonly ifName: string
  /** Key and value pairs of CNI_ARGS, in order. */
  readonly args: readonly (readonly [key: string, value: string])[]
  /** Values for the plugins' capabilities (`portMappings`, `bandwidth`, …). */
  readonly runtimeConfig: Json
}

interface PluginConfig extends Json {
  readonly type: string
  readonly capabilities?: Readonly<Record<string, boolean>>
}

interface NetworkConfig {
  readonly name: string
  readonly cniVersion: string
  readonly plugins: readonly PluginConfig[]
}

interface Cached {
  readonly attachment: Attachment
  readonly config: NetworkConfig
  readonly result: CniResult
}

const PLUGIN_TIMEOUT_MS = 60_000
const OUTPUT_LIMIT_BYTES = 4 << 20

export class CniRuntime {
  readonly #confDir: string
  readonly #binDirs: readonly string[]
  readonly #cacheDir: string
  readonly #nodeNetns: string
  readonly #env: NodeJS.ProcessEnv

  /** Plugins run inside the node's network namespace, with `env` beside the CNI variables. */
  constructor(options: {
    readonly confDir: string
    readonly binDirs: readonly string[]
    readonly cacheDir: string
    readonly nodeNetns: string
    readonly env: NodeJS.ProcessEnv
  }) {
    this.#confDir = options.confDir
    this.#binDirs = options.binDirs
    this.#cacheDir = options.cacheDir
    this.#nodeNetns = options.nodeNetns
    this.#env = options.env
    mkdirSync(this.#cacheDir, { recursive: true })
  }

  /** The first configuration in the node's directory by file name; undefined when there is none. Throws on bad JSON. */
  config(): NetworkConfig | undefined {
    const files = existsSync(this.#confDir) ? readdirSync(this.#confDir).sort() : []
    const file = files.find((name) => /\.(conflist|conf|json)$/.test(name) && !name.startsWith('.'))
    if (!file) return undefined
    const json = JSON.parse(readFileSync(join(this.#confDir, file), 'utf8')) as Json
    const plugins = (Array.isArray(json.plugins) ? json.plugins : [json]) as PluginConfig[]
    if (typeof json.name !== 'string' || plugins.length === 0 || plugins.some((p) => typeof p?.type !== 'string'))
      throw new Error(`${file}: not a CNI network configuration: name and plugins[].type must be there`)
    return { name: json.name, cniVersion: typeof json.cniVersion === 'string' ? json.cniVersion : '0.2.0', plugins }
  }

  /** Why the node cannot attach pods now; undefined when it can (STATUS when the configuration's version has it). */
  async unreadyReason(): Promise<string | undefined> {
    let config: NetworkConfig | undefined
    try {
      config = this.config()
    } catch (error) {
      return String(error)
    }
    if (!config) return 'cni config uninitialized'
    if (!versionAtLeast(config.cniVersion, 1, 1)) return undefined
    for (const plugin of config.plugins) {
      try {
        await this.#run(config, plugin, 'STATUS', undefined, undefined)
      } catch (error) {
        return error instanceof Error ? error.message : String(error)
      }
    }
    return undefined
  }

  /** Runs the chain. When a plugin fails, nothing is undone here: call `del`, as runtimes do. */
  async add(attachment: Attachment): Promise<CniResult> {
    const config = this.config()
    if (!config) throw new CniError('', 'ADD', CNI_TRY_AGAIN, 'cni config uninitialized')
    let result: CniResult | undefined
    for (const plugin of config.plugins) {
      result = (await this.#run(config, plugin, 'ADD', attachment, result)) as CniResult
      this.#write(attachment, { attachment, config, result })
    }
    return result!
  }

  /** The cached attachment of a container, if there is one. */
  cached(containerId: string, ifName: string): Cached | undefined {
    try {
      return JSON.parse(readFileSync(this.#cachePath(containerId, ifName), 'utf8')) as Cached
    } catch {
      return undefined
    }
  }

  /** Throws when the network of a pod is not as ADD left it. */
  async check(attachment: Attachment): Promise<void> {
    const cached = this.cached(attachment.containerId, attachment.ifName)
    if (!cached) throw new CniError('', 'CHECK', CNI_TRY_AGAIN, `no result of ${attachment.containerId} is known`)
    if (!versionAtLeast(cached.config.cniVersion, 0, 4)) return
    for (const plugin of cached.config.plugins)
      await this.#run(cached.config, plugin, 'CHECK', attachment, cached.result)
  }

  /** Undoes `add`, last plugin first, with the configuration that the ADD ran with. Idempotent. */
  async del(attachment: Attachment): Promise<void> {
    const cached = this.cached(attachment.containerId, attachment.ifName)
    const config = cached?.config ?? this.config()
    const live = existsSync(attachment.netnsPath) ? attachment : { ...attachment, netnsPath: '' }
    if (config)
      for (const plugin of [...config.plugins].reverse()) await this.#run(config, plugin, 'DEL', live, cached?.result)
    rmSync(this.#cachePath(attachment.containerId, attachment.ifName), { force: true })
  }

  /** Tells the plugins which attachments are still in use, so that they free all others. Nothing below version 1.1.0. */
  async collectGarbage(valid: readonly { readonly containerId: string; readonly ifName: string }[]): Promise<void> {
    const config = this.config()
    if (!config || !versionAtLeast(config.cniVersion, 1, 1)) return
    const attachments = valid.map(({ containerId, ifName }) => ({ containerID: containerId, ifname: ifName }))
    for (const plugin of config.plugins)
      await this.#run(config, { ...plugin, 'cni.dev/valid-attachments': attachments }, 'GC', undefined, undefined)
  }

  #cachePath(containerId: string, ifName: string): string {
    return join(this.#cacheDir, `${containerId}-${ifName}.json`)
  }

  #write(attachment: Attachment, cached: Cached): void {
    const path = this.#cachePath(attachment.containerId, attachment.ifName)
    writeFileSync(`${path}.new`, JSON.stringify(cached))
    renameSync(`${path}.new`, path)
  }

  #run(
    config: NetworkConfig,
    plugin: PluginConfig,
    command: string,
    attachment: Attachment | undefined,
    prevResult: CniResult | undefined,
  ): Promise<unknown> {
    const { capabilities, ...own } = plugin
    const supported = Object.entries(attachment?.runtimeConfig ?? {}).filter(([key]) => capabilities?.[key] === true)
    const stdin: Json = {
      ...own,
      name: config.name,
      cniVersion: config.cniVersion,
      ...(supported.length > 0 ? { runtimeConfig: Object.fromEntries(supported) } : {}),
      ...(prevResult ? { prevResult } : {}),
    }
    const env = {
      ...this.#env,
      CNI_COMMAND: command,
      CNI_PATH: this.#binDirs.join(':'),
      ...(attachment
        ? {
            CNI_CONTAINERID: attachment.containerId,
            CNI_NETNS: attachment.netnsPath,
            CNI_IFNAME: attachment.ifName,
            CNI_ARGS: attachment.args.map(([key, value]) => `${key}=${value}`).join(';'),
          }
        : {}),
    }
    const binary = this.#binDirs.map((dir) => join(dir, plugin.type)).find(existsSync)
    if (!binary || plugin.type.includes('/'))
      throw new CniError(plugin.type, command, CNI_TRY_AGAIN, `failed to find plugin in path ${this.#binDirs}`)
    return this.#execute(binary, plugin.type, command, env, JSON.stringify(stdin))
  }

  #execute(binary: string, type: string, command: string, env: NodeJS.ProcessEnv, stdin: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const child = inNetns(this.#nodeNetns, () => spawn(binary, [], { env, stdio: ['pipe', 'pipe', 'pipe'] }))
      const timer = setTimeout(() => child.kill('SIGKILL'), PLUGIN_TIMEOUT_MS)
      const out: Buffer[] = []
      const err: Buffer[] = []
      let size = 0
      const collect = (into: Buffer[]) => (chunk: Buffer) => {
        size += chunk.length
        if (size > OUTPUT_LIMIT_BYTES) child.kill('SIGKILL')
        else into.push(chunk)
      }
      child.stdout.on('data', collect(out))
      child.stderr.on('data', collect(err))
      child.stdin.on('error', () => {})
      child.stdin.end(stdin)
      child.on('error', (error) => {
        clearTimeout(timer)
        reject(new CniError(type, command, CNI_TRY_AGAIN, `cannot run ${binary}`, { cause: error }))
      })
      child.on('close', (code, signal) => {
        clearTimeout(timer)
        const text = Buffer.concat(out).toString()
        if (code === 0) {
          try {
            resolve(text.trim() === '' ? undefined : JSON.parse(text))
          } catch (error) {
            reject(new CniError(type, command, 999, `its answer is not JSON: ${text.slice(0, 200)}`, { cause: error }))
          }
          return
        }
        reject(failureOf(type, command, text, Buffer.concat(err).toString(), code ?? signal))
      })
    })
  }
}

function failureOf(type: string, command: string, out: string, err: string, exit: number | string | null): CniError {
  try {
    const { code, msg, details } = JSON.parse(out) as { code?: number; msg?: string; details?: string }
    if (typeof code === 'number')
      return new CniError(type, command, code, [msg, details].filter(Boolean).join('; ') || `error code ${code}`)
  } catch {
    // Not the error JSON of the specification: what it printed must do.
  }
  return new CniError(type, command, 999, `exit ${exit}: ${(err || out).trim().slice(0, 500) || 'no output'}`)
}

function versionAtLeast(version: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = version.split('.').map(Number)
  return a > major || (a === major && b >= minor)
}
