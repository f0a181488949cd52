/**
 * The two families of errors that weft handles. A third kind, a failed assertion, is ours and crashes.
 */

/** The user's configuration is wrong: names the object and the key, changes nothing. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  /** Where the bad text lives: `ConfigMap kube-flannel/kube-flannel-cfg`, `--iface`, `net-conf.json`, … */
  readonly object: string
  /** Path of the key inside it: `Backend.VNI`. */
  readonly key: string

  constructor(object: string, key: string, problem: string, options?: ErrorOptions) {
    super(`${object}: ${key}: ${problem}`, options)
    this.object = object
    this.key = key
  }
}

/** The kernel refused an operation. */
export class KernelError extends Error {
  override readonly name = 'KernelError'
  /** The operation as an operator would type it. */
  readonly op: string
  /** Positive errno. */
  readonly errno: number
  /** Its symbolic name, such as `ENETUNREACH`. */
  readonly code: string
  /** The kernel's own words (NLMSGERR_ATTR_MSG), when it gave any. */
  readonly extack: string | undefined
  /** Offset of the offending attribute in the request (NLMSGERR_ATTR_OFFS), when given. */
  readonly offset: number | undefined

  constructor(
    op: string,
    failure: { errno: number; code: string; text: string; extack?: string | undefined; offset?: number | undefined },
    options?: ErrorOptions,
  ) {
    super(`Cannot ${op}: ${failure.extack ?? failure.text} (${failure.code})`, options)
    this.op = op
    this.errno = failure.errno
    this.code = failure.code
    this.extack = failure.extack
    this.offset = failure.offset
  }
}
