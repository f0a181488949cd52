/**
 * Queueing disciplines and filters: what bandwidth limits and BPF attachments need.
 *
 * Sources: include/uapi/linux/pkt_sched.h, pkt_cls.h; tc(8), tc-tbf(8), tc-htb(8).
 */
export type QdiscType = 'tbf' | 'htb' | 'ingress' | 'clsact' | 'fq_codel' | 'noqueue' | 'foreign'

export interface Qdisc {
  readonly kind: 'qdisc'
  readonly device: string
  readonly type: QdiscType
  /** `root`, `ingress` or a parent class such as `1:10`. */
  readonly parent: string
  /** Major number as text, such as `1:`. */
  readonly handle?: string
  readonly tbf?: {
    readonly rateBitsPerSecond: number
    readonly burstBytes: number
    readonly limitBytes: number
  }
}

export interface Filter {
  readonly kind: 'filter'
  readonly device: string
  readonly parent: string
  readonly priority: number
  readonly protocol: number
  /** Redirect everything to another device's egress (mirred), or run a loaded BPF program in direct-action mode. */
  readonly action: { readonly redirectTo: string } | { readonly bpfFd: number; readonly name: string }
}
