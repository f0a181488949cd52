/**
 * Requests from inside a container's namespace. The path in CNI_NETNS is the caller's: for an agent in a container, with
 * mounts and process ids of its own, it may lead nowhere or to another namespace. Then the agent asks the plugin, which
 * runs where the caller does, to go inside and to connect from there; the connection itself brings the namespace.
 *
 *   plugin ── request ──────────────────────► agent   cannot open CNI_NETNS
 *   plugin ◄── exit code 254, an error ────── agent
 *   plugin   setns(CNI_NETNS)
 *   plugin ── WEFT_INSIDE=1, the same again ► agent   SIOCGSKNS gives the namespace of the connection
 *
 * Sources: native/cni (the other end); setns(2), ioctl SIOCGSKNS.
 */
import { closeNetns, openNetnsOfSocket } from '../kernel/linux/netns.ts'

/** The exit code of a reply that asks the plugin to go inside. Its output is the error, should it not be able to. */
export const askFromInside = 254

const mark = Buffer.from('WEFT_INSIDE=1\0')

/** A namespace that a request came from. `file` can be opened until it is closed. */
export interface CallerNetns {
  readonly file: string
  close(): void
}

/** The namespace of a request's connection, if the request says that it comes from inside. Throws KernelError. */
export function callerNetns(body: Buffer, connection: number): CallerNetns | undefined {
  if (body.length < mark.length || body.compare(mark, 0, mark.length, 0, mark.length) !== 0) return undefined
  const fd = openNetnsOfSocket(connection)
  return { file: `/proc/self/fd/${fd}`, close: () => closeNetns(fd) }
}
