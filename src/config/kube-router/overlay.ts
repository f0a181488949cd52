/**
 * kube-router's overlay flags, as flags of an agent or as keys of a Backend object: the same words, defaults and limits.
 *
 * Sources: kube-router pkg/options/options.go, pkg/tunnels/linux_tunnels.go (ParseEncapType, ParseEncapPort).
 */
import type { HostGwConfig, KubeRouterConfig } from '../../model/backend.ts'
import { ConfigError } from '../../model/errors.ts'

/** The flags without their dashes. */
export const OVERLAY_KEYS = [
  'enable-overlay',
  'overlay-type',
  'overlay-encap',
  'overlay-encap-port',
  'auto-mtu',
] as const
export type OverlayKey = (typeof OVERLAY_KEYS)[number]

const DEFAULT_PORT = 5555
const LEAST_PORT = 1024

/** Where the values stand; each is undefined when it is not said. Throws ConfigError for a value of another kind. */
export interface OverlayWords {
  text(key: OverlayKey): string | undefined
  integer(key: OverlayKey, least: number, most: number): number | undefined
  flag(key: OverlayKey): boolean | undefined
  error(key: OverlayKey, problem: string): ConfigError
}

/** Without the overlay packets go plainly, as kube-router's do. Throws ConfigError naming the key. */
export function readOverlay(words: OverlayWords): KubeRouterConfig | HostGwConfig {
  const choice = <T extends string>(key: OverlayKey, choices: readonly [T, ...T[]]): T => {
    const text = words.text(key) ?? choices[0]
    if (!(choices as readonly string[]).includes(text))
      throw words.error(key, `${JSON.stringify(text.slice(0, 40))}: it is ${choices.join(' or ')}`)
    return text as T
  }
  const config: KubeRouterConfig = {
    type: 'kube-router',
    overlay: choice('overlay-type', ['subnet', 'full']),
    encap: choice('overlay-encap', ['ipip', 'fou']),
    port: words.integer('overlay-encap-port', LEAST_PORT, 65535) ?? DEFAULT_PORT,
    autoMtu: words.flag('auto-mtu') ?? true,
  }
  return (words.flag('enable-overlay') ?? true) ? config : { type: 'host-gw' }
}

/**
 * The overlay as flags say it, `--enable-overlay` and its kin; undefined where none of them is given. Values are text or what
 * the command line made of them. Throws ConfigError naming the flag.
 */
export function parseOverlayFlags(get: (key: OverlayKey) => unknown): KubeRouterConfig | HostGwConfig | undefined {
  if (OVERLAY_KEYS.every((key) => get(key) === undefined)) return undefined
  const error = (key: OverlayKey, problem: string) => new ConfigError('weft agent', `--${key}`, problem)
  const textOf = (key: OverlayKey) => (get(key) === undefined ? undefined : String(get(key)))
  return readOverlay({
    error,
    text: textOf,
    integer(key, least, most) {
      const text = textOf(key)
      if (text === undefined) return undefined
      if (!/^\d{1,6}$/.test(text) || Number(text) < least || Number(text) > most)
        throw error(key, `must be a whole number from ${least} to ${most}, not ${JSON.stringify(text.slice(0, 40))}`)
      return Number(text)
    },
    flag(key) {
      const text = textOf(key)
      if (text === undefined || text === 'true' || text === 'false') return text === undefined ? text : text === 'true'
      throw error(key, `must be true or false, not ${JSON.stringify(text.slice(0, 40))}`)
    },
  })
}
