/**
 * Offload features of devices by ethtool netlink, by the kernel's names (`tx-checksum-ip-generic`, `rx-gro`, …). Nobody
 * wants all features of all devices: `read` gives, for the devices and features that this session was asked to set,
 * what they are now.
 *
 * The kernel accepts a change that it cannot make and leaves the feature as it was: so each change is read back, and a
 * feature that stayed is an error. The group `monitor` tells of changes.
 *
 * Sources: Documentation/networking/ethtool-netlink.rst (FEATURES_SET, FEATURES_NTF); ethtool(8) -K.
 */

import { KernelError } from '../../../model/errors.ts'
import { formatOp } from '../../../model/format.ts'
import type { KernelObject, ObjectKind } from '../../../model/kernel-object.ts'
import type { KernelOp } from '../../../model/kernel-state.ts'
import type { Offload } from '../../../model/link.ts'
import * as eth from '../../../wire/ethtool/constants.gen.ts'
import { ETHTOOL_FAMILY, type FeaturesMessage, featuresMessage, namesOf } from '../../../wire/ethtool/message.ts'
import { describeGeneric } from '../../../wire/genetlink/describe.ts'
import { readGenericHeader, writeGenericHeader } from '../../../wire/genetlink/message.ts'
import { NETLINK_GENERIC } from '../../../wire/netlink/constants.gen.ts'
import { kernelError } from '../../errno.ts'
import type { KernelEvent, OpResult, Watch } from '../../kernel.ts'
import type { Driver, DriverContext, DriverSession } from '../driver.ts'
import { resolveFamily } from '../generic-family.ts'
import { NetlinkSocket } from '../netlink-socket.ts'
import { type Hints, ReadingWatches } from '../reading-watch.ts'

const EOPNOTSUPP = 95

export const offloadDriver: Driver = {
  name: 'ethtool',
  kinds: ['offload'],
  open: (context) => new OffloadSession(context),
}

/** A device's features: which are on, and which may be changed. */
export interface DeviceFeatures {
  readonly active: ReadonlySet<string>
  readonly changeable: ReadonlySet<string>
}

/** Reads the features of a device. Throws KernelError (ENODEV, EOPNOTSUPP). */
export function readFeatures(socket: NetlinkSocket, device: string): DeviceFeatures {
  const { id } = resolveFamily(socket, ETHTOOL_FAMILY)
  let answer: FeaturesMessage = {}
  socket.request(
    `ethtool -k ${device}`,
    id,
    0,
    (writer) => {
      writeGenericHeader(writer, eth.ETHTOOL_MSG_FEATURES_GET)
      featuresMessage.encode(writer, { header: { deviceName: device } })
    },
    (_header, payload) => {
      readGenericHeader(payload)
      answer = featuresMessage.decode(payload)
    },
  )
  const fixed = namesOf(answer.fixed)
  const changeable = new Set([...namesOf(answer.changeable)].filter((name) => !fixed.has(name)))
  return { active: namesOf(answer.active), changeable }
}

class OffloadSession implements DriverSession {
  readonly #socket: NetlinkSocket
  /** Names of features that were ever asked for, by device. */
  readonly #asked = new Map<string, Set<string>>()
  readonly #watches: ReadingWatches

  constructor(context: DriverContext) {
    this.#watches = new ReadingWatches(
      context,
      () => this.#readAsked(),
      () => this.#monitorGroup(),
    )
    this.#socket = context.openNetlink(NETLINK_GENERIC, { describe: describeGeneric })
  }

  async read(): Promise<KernelObject[]> {
    return this.#readAsked()
  }

  watch(_kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch {
    return this.#watches.watch('offload', listener)
  }

  #monitorGroup(): Hints | undefined {
    const { groups } = resolveFamily(this.#socket, ETHTOOL_FAMILY)
    const monitor = groups?.find(({ name }) => name === 'monitor')?.id
    return monitor === undefined ? undefined : { protocol: NETLINK_GENERIC, groups: [monitor] }
  }

  #readAsked(): Offload[] {
    const out: Offload[] = []
    for (const [device, names] of this.#asked) {
      try {
        const { active } = readFeatures(this.#socket, device)
        const features = Object.fromEntries([...names].map((name) => [name, active.has(name)]))
        out.push({ kind: 'offload', device, features })
      } catch (error) {
        if (!(error instanceof KernelError)) throw error
        // The device is gone: it has no features.
      }
    }
    return out
  }

  async execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    return ops.map((op) => {
      const result = this.#perform(op)
      if (!result && op.verb !== 'delete') this.#watches.tell(op.object)
      return result
    })
  }

  /** Nothing is known about what a feature was before, so deleting an offload only forgets about it. */
  #perform(op: KernelOp): OpResult {
    const { device, features } = op.object as Offload
    if (op.verb === 'delete') {
      this.#asked.delete(device)
      return undefined
    }
    try {
      return this.#change(op, device, features)
    } catch (error) {
      if (error instanceof KernelError) return error
      throw error
    }
  }

  #change(op: KernelOp, device: string, features: Offload['features']): OpResult {
    const { id } = resolveFamily(this.#socket, ETHTOOL_FAMILY)
    const line = formatOp(op)
    const bits = Object.entries(features).map(([name, on]) => ({ name, ...(on && { value: true as const }) }))
    this.#socket.request(line, id, 0, (writer) => {
      writeGenericHeader(writer, eth.ETHTOOL_MSG_FEATURES_SET)
      featuresMessage.encode(writer, {
        header: { deviceName: device, flags: eth.ETHTOOL_FLAG_OMIT_REPLY },
        wanted: { bits },
      })
    })
    const asked = this.#asked.get(device) ?? new Set()
    for (const name of Object.keys(features)) asked.add(name)
    this.#asked.set(device, asked)
    const { active } = readFeatures(this.#socket, device)
    const stayed = Object.entries(features).find(([name, on]) => active.has(name) !== on)
    if (!stayed) return undefined
    const [name, on] = stayed
    return kernelError(line, EOPNOTSUPP, { extack: `${name} stays ${on ? 'off' : 'on'}` })
  }

  close(): void {
    this.#watches.close()
    this.#socket.close()
  }
}

/** Whether a feature is off on a device of this process's namespace; undefined where that cannot be said. */
export function isFeatureOff(device: string, feature: string): boolean | undefined {
  const socket = new NetlinkSocket(NETLINK_GENERIC, { describe: describeGeneric })
  try {
    return !readFeatures(socket, device).active.has(feature)
  } catch (error) {
    if (error instanceof KernelError) return undefined
    throw error
  } finally {
    socket.close()
  }
}
