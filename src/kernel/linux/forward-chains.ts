/**
 * Base chains of others at nf_tables' hook `forward`, as far as it matters for pods: whether they drop what no rule accepts, which
 * blocks they accept, and which of their rules are weft's. Rules are written into iptables' own chain only, and read
 * there as iptables-nft would have written them.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h, linux/netfilter/xt_comment.h (the comment as an xtables match).
 */
import type { Reader } from '../../bytes/reader.ts'
import {
  FORWARD_COMMENT,
  type ForwardChain,
  type ForwardChange,
  type ForwardMatch,
  isIptables,
} from '../../model/forward-chain.ts'
import type { NftFamily } from '../../model/nft.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import * as nl from '../../wire/netlink/constants.gen.ts'
import { beginMessage, endMessage, readMessages } from '../../wire/netlink/message.ts'
import * as n from '../../wire/nftables/constants.gen.ts'
import {
  commentEntry,
  decodeComment,
  decodeUserdata,
  encodeUserdata,
  NF_ACCEPT,
  NF_DROP,
  RULE_COMMENT,
} from '../../wire/nftables/data.ts'
import { describeNfnetlink } from '../../wire/nftables/describe.ts'
import type { NftExpression } from '../../wire/nftables/expression.ts'
import {
  chainMessage,
  familyNumbers,
  hookNumbers,
  nftMessageType,
  policyNumbers,
  type RuleMessage,
  readNfgenmsg,
  ruleMessage,
  tableMessage,
  writeNfgenmsg,
} from '../../wire/nftables/message.ts'
import { kernelError } from '../errno.ts'
import type { Kernel, Watch } from '../kernel.ts'
import type { DriverContext } from './driver.ts'
import { compileRule } from './drivers/nft-compile.ts'
import { isOurTable } from './drivers/nft-read.ts'
import { familyOf } from './drivers/nft-set.ts'
import { MulticastSocket } from './multicast-socket.ts'
import type { NetlinkSocket } from './netlink-socket.ts'

const families = new Map<NftFamily, ForwardChain['family']>([
  ['ip', 'ip'],
  ['ip6', 'ip6'],
  ['inet', 'inet'],
])

const isContext = (kernel: Kernel): kernel is Kernel & DriverContext => 'openNetlink' in kernel

async function inSession<T>(kernel: Kernel, work: (socket: NetlinkSocket) => Promise<T>): Promise<T | undefined> {
  if (!isContext(kernel)) return undefined
  const socket = kernel.openNetlink(nl.NETLINK_NETFILTER, { describe: describeNfnetlink })
  try {
    return await work(socket)
  } finally {
    socket.close()
  }
}

/** Every base chain of others at hook forward; none in a kernel that is not this machine's (the twin). Throws KernelError. */
export async function readForwardChains(kernel: Kernel): Promise<readonly ForwardChain[]> {
  const chains = await inSession(kernel, async (socket) => {
    const heads: { family: ForwardChain['family']; table: string; name: string; drops: boolean }[] = []
    await socket.dump(
      'nft list chains',
      nftMessageType(n.NFT_MSG_GETCHAIN),
      (writer) => writeNfgenmsg(writer, 0),
      (_header, payload) => {
        const family = families.get(familyOf(readNfgenmsg(payload).family) ?? 'bridge')
        const { table, name, type, hook, policy } = chainMessage.decode(payload)
        if (!family || table === undefined || name === undefined || isOurTable(table)) return
        if (type === 'filter' && hook?.number === hookNumbers.forward)
          heads.push({ family, table, name, drops: policy === policyNumbers.drop })
      },
      () => heads.splice(0),
    )
    const read: ForwardChain[] = []
    for (const head of heads) read.push(await readRules(socket, head))
    return read
  })
  return chains ?? []
}

async function readRules(
  socket: NetlinkSocket,
  { family, table, name, drops }: { family: ForwardChain['family']; table: string; name: string; drops: boolean },
): Promise<ForwardChain> {
  const rules: RuleMessage[] = []
  await socket.dump(
    `nft list chain ${family} ${table} ${name}`,
    nftMessageType(n.NFT_MSG_GETRULE),
    (writer) => {
      writeNfgenmsg(writer, familyNumbers[family])
      ruleMessage.encode(writer, { table, chain: name })
    },
    (_header, payload) => {
      readNfgenmsg(payload)
      const rule = ruleMessage.decode(payload)
      if (rule.table === table && rule.chain === name) rules.push(rule)
    },
    () => rules.splice(0),
  )
  const last = rules.at(-1)?.expressions ?? []
  return {
    backend: 'nft',
    family,
    table,
    name,
    drops: dropsAll(last) ? 'last rule' : drops ? 'policy' : undefined,
    rules: rules.map(({ handle = 0n, expressions = [], userdata }) => {
      const accepts = readAccept(family, expressions)
      const isOurs =
        decodeComment(decodeUserdata(userdata), RULE_COMMENT) === FORWARD_COMMENT || expressions.some(isOurComment)
      return { handle, isOurs, ...(accepts && { accepts }) }
    }),
  }
}

/** Data of an xtables extension, whose name and arguments are text in it. */
const extensionSays = (expression: NftExpression, kernelName: string, ...words: readonly string[]): boolean =>
  expression.name === 'other' &&
  expression.kernelName === kernelName &&
  words.every((word) => Buffer.from(expression.data).includes(`${word}\0`))

/** iptables-nft kept comments as a match of xtables, and does so with rules that iptables-restore loads. */
const isOurComment = (expression: NftExpression): boolean =>
  extensionSays(expression, 'match', 'comment', FORWARD_COMMENT)

const isVerdict = (expression: NftExpression | undefined, code: number): boolean =>
  expression?.name === 'immediate' && expression.data.data?.verdict?.code === code

/** Whether the rule drops or rejects whatever comes to it. */
function dropsAll(expressions: readonly NftExpression[]): boolean {
  const [what, ...rest] = expressions.filter(
    (each) => each.name !== 'counter' && each.name !== 'log' && !isComment(each),
  )
  if (!what || rest.length > 0) return false
  return isVerdict(what, NF_DROP) || what.name === 'reject' || extensionSays(what, 'target', 'REJECT')
}

const isComment = (expression: NftExpression): boolean => extensionSays(expression, 'match', 'comment')

/** Where addresses stand in their header: byte offsets of source and destination. */
const offsets = { 4: { source: 12, destination: 16 }, 6: { source: 8, destination: 24 } } as const

/** The block that a rule accepts from or to, and nothing else: `[meta nfproto] payload [bitwise] cmp accept`. */
function readAccept(family: ForwardChain['family'], expressions: readonly NftExpression[]): ForwardMatch | undefined {
  const steps = expressions.filter((each) => each.name !== 'counter' && !isComment(each))
  let ipFamily: 4 | 6 | undefined = family === 'ip' ? 4 : family === 'ip6' ? 6 : undefined
  if (steps[0]?.name === 'meta' && steps[0].data.key === n.NFT_META_NFPROTO && steps[1]?.name === 'cmp') {
    ipFamily = steps[1].data.data?.[0] === 2 ? 4 : 6
    steps.splice(0, 2)
  }
  const load = steps.shift()
  const masked = steps[0]?.name === 'bitwise' ? steps.shift() : undefined
  const compare = steps.shift()
  if (!ipFamily || load?.name !== 'payload' || load.data.base !== n.NFT_PAYLOAD_NETWORK_HEADER) return undefined
  if (
    compare?.name !== 'cmp' ||
    compare.data.op !== n.NFT_CMP_EQ ||
    steps.length !== 1 ||
    !isVerdict(steps[0], NF_ACCEPT)
  )
    return undefined
  const { source, destination } = offsets[ipFamily]
  const end = load.data.offset === source ? 'source' : load.data.offset === destination ? 'destination' : undefined
  const prefix = compare.data.data
  if (!end || !prefix || prefix.length !== load.data.length || prefix.length > (ipFamily === 4 ? 4 : 16))
    return undefined
  const length = masked?.name === 'bitwise' ? prefixLength(masked.data.mask) : prefix.length * 8
  if (length === undefined) return undefined
  const address = new Uint8Array(ipFamily === 4 ? 4 : 16)
  address.set(prefix)
  return { end, block: Cidr.of(Ip.fromBytes(address), length) }
}

/** Ones before zeros; undefined for any other mask. */
function prefixLength(mask: Uint8Array | undefined): number | undefined {
  const bits = Array.from(mask ?? [], (octet) => octet.toString(2).padStart(8, '0')).join('')
  return /^1*0*$/.test(bits) ? bits.lastIndexOf('1') + 1 : undefined
}

/** Writes rules into, and takes them out of, iptables' chains of nf_tables; all or none. Throws KernelError. */
export async function changeForwardRules(kernel: Kernel, changes: readonly ForwardChange[]): Promise<void> {
  if (changes.length === 0) return
  await inSession(kernel, async (socket) => {
    const batch = socket.batch()
    const message = (type: number, flags: number, family: number, body: () => void) => {
      const start = batch.begin(type, flags)
      writeNfgenmsg(batch.writer, family, family === 0 ? n.NFNL_SUBSYS_NFTABLES : 0)
      body()
      batch.end(start)
    }
    batch.openingSequence = batch.nextSequence
    message(n.NFNL_MSG_BATCH_BEGIN, 0, 0, () => {})
    for (const { verb, chain, rule } of changes) {
      if (!isIptables(chain)) throw new Error(`${chain.table} is not iptables' table`)
      const { table, name, family, drops, rules } = chain
      const before = drops === 'last rule' ? rules.at(-1)?.handle : undefined
      const flags = nl.NLM_F_CREATE | (before === undefined ? nl.NLM_F_APPEND : 0)
      if (verb === 'delete')
        message(nftMessageType(n.NFT_MSG_DELRULE), 0, familyNumbers[family], () =>
          ruleMessage.encode(batch.writer, { table, chain: name, handle: rule.handle ?? 0n }),
        )
      else if (rule.accepts)
        message(nftMessageType(n.NFT_MSG_NEWRULE), flags, familyNumbers[family], () =>
          ruleMessage.encode(batch.writer, {
            table,
            chain: name,
            expressions: [...acceptExpressions(family, rule.accepts!)],
            ...(before !== undefined && { position: before }),
            userdata: encodeUserdata([commentEntry(RULE_COMMENT, FORWARD_COMMENT)]),
          }),
        )
    }
    const end = beginMessage(batch.writer, n.NFNL_MSG_BATCH_END, nl.NLM_F_REQUEST, batch.nextSequence - 1)
    writeNfgenmsg(batch.writer, 0, n.NFNL_SUBSYS_NFTABLES)
    endMessage(batch.writer, end)
    const [failure] = socket.transact(batch).values()
    if (failure) throw kernelError('iptables FORWARD', failure.errno, { extack: failure.message })
  })
}

function acceptExpressions(family: ForwardChain['family'], { end, block }: ForwardMatch): readonly NftExpression[] {
  const selector = `${block.family === 4 ? 'ip' : 'ip6'} ${end === 'source' ? 'saddr' : 'daddr'}` as 'ip saddr'
  return compileRule(
    family,
    { statements: [{ match: [selector], right: `${block}` }, { counter: true }, { verdict: 'accept' }] },
    () => 0,
  ).expressions
}

/** Whose chain or rule a message is about; undefined for other messages. */
function tableIn(message: number, payload: Reader): string | undefined {
  switch (message) {
    case n.NFT_MSG_DELTABLE:
      return tableMessage.decode(payload).name
    case n.NFT_MSG_NEWCHAIN:
    case n.NFT_MSG_DELCHAIN:
      return chainMessage.decode(payload).table
    case n.NFT_MSG_NEWRULE:
    case n.NFT_MSG_DELRULE:
      return ruleMessage.decode(payload).table
    default:
      return undefined
  }
}

/** Calls back when chains or rules of others have changed, or may have. Nothing in the twin. */
export function watchForwardChains(kernel: Kernel, listener: () => void): Watch {
  if (!isContext(kernel)) return { close: () => {} }
  const datagram = (bytes: Uint8Array) =>
    readMessages(bytes, ({ type }, payload) => {
      if (type >> 8 !== n.NFNL_SUBSYS_NFTABLES) return
      readNfgenmsg(payload)
      const table = tableIn(type & 255, payload)
      if (table !== undefined && !isOurTable(table)) listener()
    })
  const groups = [n.NFNLGRP_NFTABLES]
  return kernel.inside(
    () => new MulticastSocket(nl.NETLINK_NETFILTER, groups, { datagram, lost: listener, describe: describeNfnetlink }),
  )
}
