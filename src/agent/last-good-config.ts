/**
 * The network configuration as it was last understood. A text that cannot be read, and one that is gone, change nothing but
 * what is said of them.
 */
import type { NetworkConfig } from '../config/config.ts'
import { parseNetConf } from '../config/flannel/net-conf.ts'
import type { BackendConfig } from '../model/backend.ts'
import { ConfigError } from '../model/errors.ts'
import type { LoopLog } from './network-loop.ts'

export class LastGoodConfig {
  readonly #log: LoopLog
  readonly #given: BackendConfig | undefined
  #config: NetworkConfig | undefined
  #problem: string | undefined
  #missing = false

  /** @param given a backend that flags name, in place of the text's own. */
  constructor(log: LoopLog, given?: BackendConfig) {
    this.#log = log
    this.#given = given
  }

  get config(): NetworkConfig | undefined {
    return this.#config
  }

  /** What is wrong with the text as it is now. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** True when the object was not there when it was last read. */
  get isMissing(): boolean {
    return this.#missing
  }

  /** Reads a text of `object`, undefined when that is not there. Tells whether the configuration changed, or what is wrong. */
  read(text: string | undefined, object: string): { readonly changed: boolean; readonly error?: ConfigError } {
    const log = this.#log
    this.#missing = text === undefined
    if (text === undefined) {
      this.#problem = `${object} is not there`
      log.warn(
        { object },
        this.#config
          ? 'the network configuration is gone; the last one stays'
          : 'there is no network configuration yet',
      )
      return { changed: false }
    }
    try {
      const { config, warnings } = parseNetConf(text, object, this.#given)
      for (const warning of warnings) log.warn({ object }, warning)
      const changed = JSON.stringify(config) !== JSON.stringify(this.#config)
      const { backend, v4, v6 } = config
      if (changed) log.info({ object, backend, v4: v4?.network, v6: v6?.network }, 'network configuration')
      this.#config = config
      this.#problem = undefined
      return { changed }
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.#problem = error.message
      log.error(
        { err: error.message },
        this.#config ? 'bad network configuration; the last good one stays' : 'bad network configuration',
      )
      return { changed: false, error }
    }
  }
}
