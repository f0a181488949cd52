/**
 * Numbers of generic netlink families: the kernel hands them out when it starts, so each is asked for once.
 *
 * Sources: include/uapi/linux/genetlink.h (CTRL_CMD_GETFAMILY).
 */
import { CTRL_CMD_GETFAMILY, GENL_ID_CTRL } from '../../wire/genetlink/constants.gen.ts'
import {
  type FamilyMessage,
  familyMessage,
  readGenericHeader,
  writeGenericHeader,
} from '../../wire/genetlink/message.ts'
import type { NetlinkSocket } from './netlink-socket.ts'

const known = new Map<string, FamilyMessage & { readonly id: number }>()

/** What the controller says of a family. Throws KernelError (ENOENT when the kernel has none of that name). */
export function resolveFamily(socket: NetlinkSocket, name: string): FamilyMessage & { readonly id: number } {
  let family = known.get(name)
  if (family) return family
  socket.request(
    `find the generic netlink family ${name}`,
    GENL_ID_CTRL,
    0,
    (writer) => {
      writeGenericHeader(writer, CTRL_CMD_GETFAMILY)
      familyMessage.encode(writer, { name })
    },
    (_header, payload) => {
      readGenericHeader(payload)
      const message = familyMessage.decode(payload)
      if (message.id !== undefined) family = { ...message, id: message.id }
    },
  )
  if (!family) throw new Error(`The kernel did not say what number the family ${name} has`)
  known.set(name, family)
  return family
}
