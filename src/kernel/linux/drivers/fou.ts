/**
 * UDP ports on which the kernel unwraps Foo over UDP, by the generic netlink family `fou`. It belongs to a module that nothing
 * loads by itself: the first port that is wanted asks for it. The family announces nothing, so a port that another hand
 * closes is noticed by looking.
 *
 * Sources: include/uapi/linux/fou.h; net/ipv4/fou.c (fou_create, fou_destroy, fou_cfg_cmp); ip-fou(8).
 */
import { execFile } from 'node:child_process'
import { KernelError } from '../../../model/errors.ts'
import { formatOp } from '../../../model/format.ts'
import type { KernelObject, ObjectKind } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import type { FouPort } from '../../../model/link.ts'
import * as f from '../../../wire/fou/constants.gen.ts'
import { FOU_FAMILY, type FouMessage, fouMessage } from '../../../wire/fou/message.ts'
import { describeGeneric } from '../../../wire/genetlink/describe.ts'
import { readGenericHeader, writeGenericHeader } from '../../../wire/genetlink/message.ts'
import { NETLINK_GENERIC } from '../../../wire/netlink/constants.gen.ts'
import { kernelError } from '../../errno.ts'
import type { KernelEvent, OpResult, Watch } from '../../kernel.ts'
import type { Driver, DriverContext, DriverSession } from '../driver.ts'
import { resolveFamily } from '../generic-family.ts'
import type { NetlinkSocket } from '../netlink-socket.ts'
import { ReadingWatches } from '../reading-watch.ts'
import { AF_INET } from '../syscalls.ts'

const AF_INET6 = 10
const ENOENT = 2
const EEXIST = 17
const EPROTONOSUPPORT = 93
/** `fou6` is what lets IPv6 tunnels send. */
const MODULES = ['fou', 'fou6']

export const fouDriver: Driver = {
  name: 'fou',
  kinds: ['fou'],
  open: (context) => new FouSession(context),
}

class FouSession implements DriverSession {
  readonly #socket: NetlinkSocket
  /** Ports that were asked for and are to be followed. */
  readonly #asked = new Map<string, FouPort>()
  readonly #watches: ReadingWatches

  constructor(context: DriverContext) {
    this.#watches = new ReadingWatches(
      context,
      () => this.#readAsked(),
      () => undefined,
      true,
    )
    this.#socket = context.openNetlink(NETLINK_GENERIC, { describe: describeGeneric })
  }

  async read(): Promise<KernelObject[]> {
    const id = this.#familyId()
    if (id === undefined) return []
    const ports: FouPort[] = []
    await this.#socket.dump(
      'read fou',
      id,
      (writer) => writeGenericHeader(writer, f.FOU_CMD_GET, f.FOU_GENL_VERSION),
      (_header, payload) => {
        readGenericHeader(payload)
        const port = portOf(fouMessage.decode(payload))
        if (port) ports.push(port)
      },
      () => {
        ports.length = 0
      },
    )
    return ports
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    if (ops.some(({ verb }) => verb !== 'delete') && this.#familyId() === undefined) await loadModules()
    return ops.map((op) => {
      const result = this.#perform(op, op.object as FouPort)
      if (!result && op.verb === 'delete') this.#watches.tellGone(op.object)
      else if (!result) this.#watches.tell(op.object)
      return result
    })
  }

  watch(_kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    return this.#watches.watch('fou', listener)
  }

  /** The kernel changes no port: `set` closes it and opens it anew. */
  #perform(op: KernelOp, port: FouPort): OpResult {
    const line = formatOp(op)
    const id = this.#familyId()
    if (id === undefined)
      return kernelError(line, EPROTONOSUPPORT, {
        extack: 'the kernel has no module fou, or it may not be loaded here',
      })
    try {
      if (op.verb !== 'add') this.#request(line, id, f.FOU_CMD_DEL, port)
      if (op.verb !== 'delete') this.#request(line, id, f.FOU_CMD_ADD, port)
    } catch (error) {
      if (!(error instanceof KernelError)) throw error
      return this.#nameFailure(line, op.verb, port, error)
    }
    if (op.verb === 'delete') this.#asked.delete(nameOf(port))
    else this.#asked.set(nameOf(port), port)
    return undefined
  }

  /** The kernel says EINVAL of a port that it does not have, and EADDRINUSE of one that it has. */
  #nameFailure(line: string, verb: KernelOp['verb'], port: FouPort, error: KernelError): KernelError {
    if (verb !== 'add') return error.code === 'EINVAL' ? kernelError(line, ENOENT) : error
    if (error.code !== 'EADDRINUSE') return error
    if (this.#readPort(port)) return kernelError(line, EEXIST)
    const extack = `UDP port ${port.port} is taken by another socket of this node`
    return kernelError(line, error.errno, { extack }, { cause: error })
  }

  #request(line: string, id: number, command: number, port: FouPort): void {
    this.#socket.request(line, id, 0, (writer) => {
      writeGenericHeader(writer, command, f.FOU_GENL_VERSION)
      fouMessage.encode(writer, command === f.FOU_CMD_ADD ? messageOf(port) : placeOf(port))
    })
  }

  #readAsked(): FouPort[] {
    return [...this.#asked.values()].flatMap((port) => this.#readPort(port) ?? [])
  }

  /** What the kernel has at the place; undefined for nothing. */
  #readPort(port: FouPort): FouPort | undefined {
    const id = this.#familyId()
    if (id === undefined) return undefined
    let found: FouPort | undefined
    try {
      this.#socket.request(
        'read fou',
        id,
        0,
        (writer) => {
          writeGenericHeader(writer, f.FOU_CMD_GET, f.FOU_GENL_VERSION)
          fouMessage.encode(writer, placeOf(port))
        },
        (_header, payload) => {
          readGenericHeader(payload)
          found = portOf(fouMessage.decode(payload))
        },
      )
    } catch (error) {
      if (!(error instanceof KernelError)) throw error
      // There is none.
    }
    return found
  }

  /** Undefined while the module is not loaded. Throws KernelError for anything else. */
  #familyId(): number | undefined {
    try {
      return resolveFamily(this.#socket, FOU_FAMILY).id
    } catch (error) {
      if (error instanceof KernelError && error.code === 'ENOENT') return undefined
      throw error
    }
  }

  close(): void {
    this.#watches.close()
    this.#socket.close()
  }
}

const nameOf = ({ family, port }: FouPort): string => `${family} ${port}`

const placeOf = ({ family, port }: FouPort): FouMessage => ({
  port,
  addressFamily: family === 4 ? AF_INET : AF_INET6,
})

const messageOf = (port: FouPort): FouMessage => ({
  ...placeOf(port),
  type: port.type === 'gue' ? f.FOU_ENCAP_GUE : f.FOU_ENCAP_DIRECT,
  ...(port.type === 'fou' && { protocol: port.protocol }),
  ...(port.marked && { noPartialRemoteChecksum: true }),
})

/** Undefined for what is outside the vocabulary. */
function portOf(message: FouMessage): FouPort | undefined {
  const { addressFamily, port, type, protocol } = message
  const family = addressFamily === AF_INET ? 4 : addressFamily === AF_INET6 ? 6 : undefined
  if (!family || port === undefined || (type !== f.FOU_ENCAP_GUE && type !== f.FOU_ENCAP_DIRECT)) return undefined
  return {
    kind: 'fou',
    family,
    port,
    ...(type === f.FOU_ENCAP_GUE ? { type: 'gue' } : { type: 'fou', protocol: protocol ?? 0 }),
    ...(message.noPartialRemoteChecksum && { marked: true }),
  }
}

/** Never rejects: whether the family is there afterwards is what counts. */
function loadModules(): Promise<void> {
  return new Promise((resolve) => {
    execFile('modprobe', ['-q', '-a', ...MODULES], { timeout: 10_000 }, () => resolve())
  })
}
