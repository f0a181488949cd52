/**
 * Addresses of this node's tunnel devices, out of pools that allow it. They are the node's: claimed when a pool first wants
 * the tunnel, kept over restarts by the handle and by what the node says of itself, given back when the device goes.
 *
 *   not known ──► asked ──► held ──► (a pool that it is not of is wanted) ──► given back, asked
 *                             └────► (nobody needs the tunnel any more) ────► given back
 *
 * Sources: Calico node/pkg/allocateip/allocateip.go (when an address is kept, when another is taken).
 */
import { NoAddressError, type PoolAddresses } from '../ipam/stores/pool-addresses.ts'
import type { CalicoNode } from '../model/calico.ts'
import type { Ip } from '../net/ip.ts'
import type { Complaints } from './complaints.ts'
import type { LoopLog } from './network-loop.ts'
import type { TunnelAddressNeed } from './pool-tunnels.ts'

/** When to ask again for what could not be had. */
const RETRY_MS = 5000

type Word = TunnelAddressNeed['word']
export type TunnelWords = Pick<CalicoNode, Word>

const handles: Readonly<Record<Word, string>> = {
  ipv4IpipTunnelAddr: 'ipip-tunnel-addr-',
  ipv4VxlanTunnelAddr: 'vxlan-tunnel-addr-',
  ipv6VxlanTunnelAddr: 'vxlan-v6-tunnel-addr-',
}
const kinds = Object.keys(handles) as Word[]

export interface TunnelAddressesOptions {
  readonly nodeName: string
  readonly addresses: PoolAddresses
  readonly log: LoopLog
  readonly complaints: Complaints
  /** Another address is held, or none any more. */
  onChange(): void
}

interface End {
  ip: Ip | undefined
  /** The store has said that it is this node's. */
  isSure: boolean
  isAsking: boolean
  problem: string | undefined
  need: TunnelAddressNeed | undefined
}

export class TunnelAddresses {
  readonly #options: TunnelAddressesOptions
  readonly #ends: Readonly<Record<Word, End>>
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: TunnelAddressesOptions) {
    this.#options = options
    const end = (): End => ({ ip: undefined, isSure: false, isAsking: false, problem: undefined, need: undefined })
    this.#ends = { ipv4IpipTunnelAddr: end(), ipv4VxlanTunnelAddr: end(), ipv6VxlanTunnelAddr: end() }
  }

  /** What this node has, as it says it. */
  get words(): TunnelWords {
    const held = kinds.map((word) => [word, this.#ends[word].ip] as const).filter(([, ip]) => ip)
    return Object.fromEntries(held) as TunnelWords
  }

  /** Why a device has no address. */
  get problems(): readonly string[] {
    return kinds.map((word) => this.#ends[word].problem).filter((problem) => problem !== undefined)
  }

  /** What an earlier agent said: it holds until the store says otherwise. */
  restore(words: CalicoNode | undefined): void {
    for (const word of kinds) this.#ends[word].ip ??= words?.[word]
  }

  /** What is needed now. What is not, and was held, is given back. */
  want(needs: readonly TunnelAddressNeed[]): void {
    for (const word of kinds) {
      this.#ends[word].need = needs.find((need) => need.word === word)
      this.#settle(word)
    }
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #settle(word: Word): void {
    const end = this.#ends[word]
    const { need, ip, isSure, isAsking } = end
    if (isAsking || this.#closed) return
    const isWanted = need !== undefined && (need.pools.length > 0 || ip !== undefined)
    if (!isWanted) end.problem = need && `no pool gives ${need.device} an address (allowedUses, nodeSelector)`
    if (!need) {
      if (!isSure || ip !== undefined) void this.#ask(word, () => this.#giveBack(word))
      return
    }
    const isOfPools = ip !== undefined && (need.pools.length === 0 || need.pools.some(({ cidr }) => cidr.contains(ip)))
    if (need.pools.length > 0 && !(isSure && isOfPools)) void this.#ask(word, () => this.#take(word, need, isOfPools))
  }

  async #ask(word: Word, work: () => Promise<Ip | undefined>): Promise<void> {
    const end = this.#ends[word]
    const before = end.ip
    end.isAsking = true
    try {
      end.ip = await work()
      end.isSure = true
      end.problem = undefined
    } catch (error) {
      this.#fail(end, error as Error)
    } finally {
      end.isAsking = false
    }
    if (this.#closed) return
    if (`${before}` !== `${end.ip}`) this.#options.onChange()
    if (end.problem === undefined) this.#settle(word)
  }

  async #take(word: Word, { device, handleId, attribute, family, pools }: TunnelAddressNeed, isKept: boolean) {
    const { addresses, nodeName, log } = this.#options
    const before = this.#ends[word].ip
    if (!isKept && before) await addresses.release(handleId)
    const attributes = { node: nodeName, type: attribute }
    const wanted = [{ family, pools: pools.map(({ name }) => name) }]
    const [assigned] = await addresses.assign({ handleId, attributes, use: 'Tunnel', wanted })
    const { ip } = assigned!
    if (!before?.equals(ip)) log.info({ device, address: `${ip}`, pool: assigned!.pool }, 'address of a tunnel')
    return ip
  }

  async #giveBack(word: Word): Promise<undefined> {
    const { addresses, nodeName, log } = this.#options
    const { ip } = this.#ends[word]
    await addresses.release(`${handles[word]}${nodeName}`)
    if (ip) log.info({ address: `${ip}` }, 'address of a tunnel given back')
  }

  #fail(end: End, error: Error): void {
    end.problem = error.message
    const { log, complaints } = this.#options
    if (error instanceof NoAddressError) complaints.ofOwn('NoTunnelAddress', error.message)
    else log.warn({ err: error.message }, 'an address of a tunnel waits for the store')
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      for (const word of kinds) this.#settle(word)
    }, RETRY_MS)
    this.#timer.unref()
  }
}
