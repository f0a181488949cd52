/**
 * What the applier said about an attachment's packet rules, as an answer to the runtime: whose host port it is that was
 * asked for, and what the kernel lacks.
 */
import { DesiredConflict } from '../apply/desired.ts'
import { KernelError } from '../model/errors.ts'
import { fragmentSource } from './attachment-fragment.ts'
import { CniCode, CniError } from './error.ts'
import type { Attachment } from './journal.ts'

/** CniError 106, or 102 for what is no host port's. `living` are the node's attachments, the failed one included. */
export function ruleProblem(attachment: Attachment, cause: unknown, living: Iterable<Attachment>): CniError {
  if (cause instanceof CniError) return cause
  if (cause instanceof DesiredConflict) return takenPort(attachment, cause, living)
  if (cause instanceof KernelError && / bridge weft\b/.test(cause.op))
    return new CniError(CniCode.kernel, `macspoofchk: ${cause.message}`, 'needs nf_tables for bridges', { cause })
  if (cause instanceof KernelError && attachment.role === 'routed' && !cause.op.includes('hostport'))
    return new CniError(CniCode.kernel, cause.message, cause.extack ?? '', { cause })
  return new CniError(CniCode.hostPort, `The packet rules could not be set: ${(cause as Error).message}`, '', { cause })
}

function takenPort(attachment: Attachment, cause: DesiredConflict, living: Iterable<Attachment>): CniError {
  const own = fragmentSource(attachment)
  const other = cause.sources.find((source) => source !== own)
  const holder = other === undefined ? undefined : [...living].find((one) => fragmentSource(one) === other)
  // `nft-element inet weft hostports4 tcp . 8080`, or `… hostport-addresses4 192.0.2.9 . tcp . 8080`
  const port = /hostport(?:s|-addresses)[46] (.+)$/.exec(cause.key)?.[1]?.replaceAll(' . ', ' ')
  const what = port === undefined ? cause.key : `Host port ${port}`
  if (cause.key.startsWith('route ') && other !== undefined)
    return new CniError(
      CniCode.noAddress,
      `An address of ${attachment.hostDevice} is in use by ${holder ? nameOf(holder) : other}`,
      cause.key,
      { cause },
    )
  if (other === undefined) return new CniError(CniCode.hostPort, `${what} is asked for twice`, cause.key, { cause })
  return new CniError(CniCode.hostPort, `${what} is taken by ${holder ? nameOf(holder) : other}`, cause.key, { cause })
}

const nameOf = ({ pod, containerId, ifname }: Attachment): string =>
  `${pod === undefined ? '' : `pod ${pod}, `}${ifname} of container ${containerId}`
