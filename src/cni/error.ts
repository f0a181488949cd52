/**
 * The CNI error object and its codes. Codes below 100 are the specification's, from 100 on ours.
 *
 * Sources: CNI SPEC.md, "Error" and "STATUS".
 */
export const CniCode = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  ioFailure: 5,
  undecodable: 6,
  invalidConfig: 7,
  tryAgainLater: 11,
  notAvailable: 50,
  limitedConnectivity: 51,
  /** No free address, or a requested address that cannot be given. */
  noAddress: 100,
  /** A device of the wanted name belongs to somebody else. */
  nameClash: 101,
  /** The kernel refused; nothing is left behind. */
  kernel: 102,
  /** CHECK found something else than ADD made. */
  checkFailed: 103,
  /** The container's interface is attached already. */
  alreadyAttached: 104,
  /** The journal cannot be written: nothing was begun. */
  journal: 105,
  /** A host port that another container has, or that the node's firewall refuses. */
  hostPort: 106,
  internal: 199,
} as const

export class CniError extends Error {
  override readonly name = 'CniError'
  readonly code: number
  readonly details: string

  constructor(code: number, message: string, details = '', options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.details = details
  }
}

/** The error object as the specification prints it. */
export function formatError(error: CniError, cniVersion: string): string {
  const { code, message, details } = error
  return `${JSON.stringify({ cniVersion, code, msg: message, ...(details === '' ? {} : { details }) }, undefined, 4)}\n`
}
