/**
 * Elements of one set that come one after the other share a message, which remembers where each op's part of it starts: the
 * kernel names the offset of the one that it refuses.
 */
import type { Writer } from '../../../bytes/writer.ts'
import type { NftElement } from '../../../model/nft.ts'
import { beginAttribute, endAttribute } from '../../../wire/netlink/attribute.ts'
import * as nl from '../../../wire/netlink/constants.gen.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import {
  elementListMessage,
  familyNumbers,
  nftMessageType,
  writeElement,
  writeNfgenmsg,
} from '../../../wire/nftables/message.ts'
import type { RequestBatch } from '../netlink-socket.ts'
import type { Sent } from './nft-outcome.ts'
import type { WrittenElement } from './nft-set.ts'

/** A list of elements is one attribute, which holds 65,535 bytes. */
const ELEMENT_LIST_BYTES_MAX = 60_000

export class ElementMessages {
  readonly #batch: RequestBatch
  readonly #sent: Sent[]
  /** The message that is still open. */
  #open:
    | { key: string; start: number; list: number; sequence: number; parts: { offset: number; op: number }[] }
    | undefined

  /** Messages go to `batch`; what each stands for is added to `sent`. */
  constructor(batch: RequestBatch, sent: Sent[]) {
    this.#batch = batch
    this.#sent = sent
  }

  /** Writes one element of the set of key `setKey`, on behalf of the op at `index`. */
  put(
    verb: 'add' | 'delete',
    setKey: string,
    element: NftElement,
    written: readonly WrittenElement[],
    index: number,
  ): void {
    const { writer } = this.#batch
    const key = `${verb} ${setKey}`
    if (this.#open && (this.#open.key !== key || writer.length - this.#open.list > ELEMENT_LIST_BYTES_MAX)) this.flush()
    this.#open ??= this.#begin(verb, key, element)
    this.#open.parts.push({ offset: writer.length - this.#open.start, op: index })
    for (const part of written) writeElement(writer, part)
  }

  /** Completes the message that is open: before any other message is begun. */
  flush(): void {
    if (!this.#open) return
    const { start, list, sequence, parts } = this.#open
    this.#open = undefined
    endAttribute(this.#batch.writer, list)
    this.#batch.end(start)
    this.#sent.push({ sequence, parts })
  }

  #begin(verb: 'add' | 'delete', key: string, { family, table, set }: NftElement) {
    const { writer, nextSequence: sequence } = this.#batch
    const isNew = verb === 'add'
    const message = isNew ? n.NFT_MSG_NEWSETELEM : n.NFT_MSG_DELSETELEM
    const start = this.#batch.begin(nftMessageType(message), isNew ? nl.NLM_F_CREATE | nl.NLM_F_EXCL : 0)
    writeNfgenmsg(writer, familyNumbers[family])
    elementListMessage.encode(writer, { table, set })
    const list = beginAttribute(writer, n.NFTA_SET_ELEM_LIST_ELEMENTS | nl.NLA_F_NESTED)
    return { key, start, list, sequence, parts: [] }
  }
}

/** The attribute that lists elements. */
export function writeElementList(writer: Writer, elements: readonly WrittenElement[]): void {
  const list = beginAttribute(writer, n.NFTA_SET_ELEM_LIST_ELEMENTS | nl.NLA_F_NESTED)
  for (const element of elements) writeElement(writer, element)
  endAttribute(writer, list)
}
