/**
 * Queueing disciplines, classes and filters: what bandwidth limits and BPF attachments need.
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
  readonly htb?: {
    /** Minor number of the class of what no filter sorts, such as 0x30; 0 is none: it goes out unlimited. */
    readonly defaultClass: number
  }
}

/** A class of an htb qdisc. */
export interface TrafficClass {
  readonly kind: 'class'
  readonly device: string
  /** `1:10`, hexadecimal. */
  readonly handle: string
  /** The qdisc `1:`, or the class `1:1` that it borrows from. */
  readonly parent: string
  readonly htb: {
    readonly rateBitsPerSecond: number
    /** What it may borrow up to. */
    readonly ceilBitsPerSecond: number
    readonly burstBytes: number
    readonly ceilBurstBytes: number
    /** Who borrows first: 0..7, the lowest first. 0 when left out. */
    readonly priority?: number
    /** Bytes at a time among those that borrow; the kernel takes a tenth of the rate when left out. */
    readonly quantumBytes?: number
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
