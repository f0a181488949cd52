/**
 * What a kind of rtnetlink object tells the rtnetlink driver: how an op becomes messages, which dumps read the kind,
 * how a message becomes an object, and which multicast groups announce it. One file per kind in drivers/.
 */
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import type { ObjectKind, ObjectOf } from '../../model/kernel-object.ts'
import type { MessageHeader } from '../../wire/netlink/message.ts'

/** Where a kind writes the messages of one op. */
export interface RequestSink {
  readonly writer: Writer
  /** Starts a message; returns what `end` needs. Resolve device names before. `mayFail`: a refusal is no failure of the op. */
  begin(type: number, flags: number, mayFail?: boolean): number
  end(start: number): void
  /**
   * Index of a device, for this op list resolved once. What is still unsent goes out first when it makes the device.
   * Throws KernelError ENODEV.
   */
  index(device: string): number
  /** Opens a namespace for the time until the messages are sent, and returns its file descriptor. Throws KernelError. */
  netnsFd(path: string): number
}

/** Names for the indexes of decoded messages. */
export interface DeviceNames {
  /** The device's name; `#index` when it is gone. */
  name(index: number): string
}

/** One dump request: its type and its payload. */
export interface DumpRequest {
  readonly type: number
  /**
   * The address family that it asks for, where it asks for one. A kernel without that family answers with every family's
   * objects, or with EAFNOSUPPORT: what is not of the family does not count, and none is none.
   */
  readonly family?: number
  encode(writer: Writer): void
}

/** The ops of one kind, with the object's type known. */
export interface KindOp<O> {
  readonly verb: 'add' | 'set' | 'delete'
  readonly object: O
  readonly was?: O
}

export interface RtnetlinkKind<K extends ObjectKind> {
  readonly kind: K
  /** RTM_NEW… and RTM_DEL… */
  readonly types: readonly [created: number, deleted: number]
  /** RTNLGRP_* whose messages may be of this kind. */
  readonly groups: readonly number[]
  /**
   * Writes the op's messages. May return a continuation, called once all of them succeeded: what it writes belongs to
   * the same op. Throws KernelError for what cannot even be asked.
   */
  encode(op: KindOp<ObjectOf<K>>, sink: RequestSink): undefined | (() => void)
  /** Dumps that together read every object of the kind. */
  readonly dumps: readonly DumpRequest[]
  /** The object that a message is about; undefined when it is of another kind or outside the vocabulary. Throws DecodeError. */
  decode(header: MessageHeader, payload: Reader, names: DeviceNames): ObjectOf<K> | undefined
  /** Reads where plain dumps do not do, such as dumps per device. */
  read?(reader: KindReader): Promise<ObjectOf<K>[]>
}

/** What `read` may use. */
export interface KindReader {
  readonly names: DeviceNames
  /** Runs a dump; `visit` is called again from the start when the kernel interrupts it, after `restart`. */
  dump(
    request: DumpRequest,
    visit: (header: MessageHeader, payload: Reader) => void,
    restart: () => void,
  ): Promise<void>
}

export type AnyRtnetlinkKind = { [K in ObjectKind]: RtnetlinkKind<K> }[ObjectKind]
