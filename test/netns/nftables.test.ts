/**
 * nftables over netlink against nft itself: what weft writes, nft lists as weft prints it; what nft writes, weft reads;
 * transactions happen whole or not at all; rules that stay keep their counters; what others change is announced.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import type { KernelEvent } from '../../src/kernel/kernel.ts'
import { readNftCounters } from '../../src/kernel/linux/drivers/nft.ts'
import { LinuxKernel } from '../../src/kernel/linux/linux-kernel.ts'
import { type KernelObject, keyOf } from '../../src/model/kernel-object.ts'
import type { NftChain, NftElement, NftRule, NftStatement, NftType } from '../../src/model/nft.ts'
import { formatNftRule, formatNftRuleset, type NftObject, nftObjectText } from '../../src/model/nft-format.ts'
import { TestNamespace } from './namespace.ts'

const inTable = { family: 'inet', table: 'weft' } as const
const table: NftObject = { kind: 'nft-table', family: 'inet', name: 'weft', comment: 'pods' }
const set = (name: string, type: NftType[], rest: object = {}): NftObject => ({
  kind: 'nft-set',
  ...inTable,
  name,
  type,
  ...rest,
})
const element = (inSet: string, key: string, value?: string, comment?: string): NftElement => ({
  kind: 'nft-element',
  ...inTable,
  set: inSet,
  key,
  ...(value !== undefined && { value }),
  ...(comment !== undefined && { comment }),
})
const chain = (name: string, rules: readonly NftRule[], base?: NftChain['base']): NftChain => ({
  kind: 'nft-chain',
  ...inTable,
  name,
  ...(base && { base }),
  rules,
})
const rule = (...statements: NftStatement[]): NftRule => ({ statements })
const match = (selector: string, right: string | string[], op?: '!='): NftStatement =>
  ({ match: selector.split(', '), right, ...(op && { op }) }) as NftStatement
const accept: NftStatement = { verdict: 'accept' }

let space: TestNamespace
beforeEach(() => {
  space = new TestNamespace()
})
afterEach(() => space.delete())

async function apply(verb: 'add' | 'set' | 'delete', ...objects: KernelObject[]): Promise<void> {
  for (const result of await space.kernel.execute(objects.map((object) => ({ verb, object })))) if (result) throw result
}

const sets: readonly NftObject[] = [
  set('blocks', ['ipv4_addr'], { flags: ['interval'], comment: 'ranges' }),
  set('blocks6', ['ipv6_addr'], { flags: ['interval'] }),
  set('hosts', ['ipv4_addr']),
  set('macs', ['ether_addr', 'ipv4_addr'], { flags: ['interval'] }),
  set('device-names', ['ifname']),
  set('protocols', ['inet_proto']),
  set('ports', ['inet_service'], { flags: ['interval'] }),
  set('marks', ['mark']),
  set('targets', ['inet_proto', 'inet_service'], { data: ['ipv4_addr', 'inet_service'] }),
  set('targets6', ['inet_proto', 'inet_service'], { data: ['ipv6_addr', 'inet_service'] }),
  set('names', ['ipv4_addr'], { data: ['mark'] }),
  set('verdicts', ['ipv4_addr', 'inet_proto', 'inet_service'], { data: ['verdict'] }),
]

const elements: readonly NftElement[] = [
  element('blocks', '1.2.3.4'),
  element('blocks', '5.5.5.5-5.5.5.9'),
  element('blocks', '10.0.0.0/24'),
  element('blocks', '10.0.1.0/24', undefined, 'next door'),
  element('blocks', '255.0.0.0/8'),
  element('blocks6', 'fd00:10:244::/64'),
  element('blocks6', 'ff00::/8'),
  element('hosts', '192.0.2.1'),
  element('hosts', '192.0.2.2', undefined, 'n2'),
  element('macs', '02:00:00:00:00:01 . 10.244.1.0/24'),
  element('macs', '02:00:00:00:00:02 . 10.244.2.0/24'),
  element('device-names', '"cni0"'),
  element('protocols', 'tcp'),
  element('protocols', 'sctp'),
  element('ports', '80'),
  element('ports', '30000-32767'),
  element('marks', '0x00004000'),
  element('targets', 'tcp . 8080', '10.244.1.7 . 80'),
  element('targets', 'udp . 53', '10.244.1.8 . 53', 'dns'),
  element('targets6', 'tcp . 8080', 'fd00:10:244::7 . 80'),
  element('names', '10.0.0.1', '0x00000010'),
  element('verdicts', '10.96.0.1 . tcp . 443', 'goto aim'),
  element('verdicts', '10.96.0.2 . udp . 53', 'drop'),
]

const filterRules: readonly NftRule[] = [
  rule(match('ip saddr', '10.0.0.0/16'), match('ip daddr', '192.0.2.1'), match('udp dport', '53'), { verdict: 'drop' }),
  rule(match('ip saddr', '10.0.128.0/17', '!='), accept),
  rule(match('ip6 saddr', 'fd00::/61'), match('ip6 daddr', 'fd00::1'), accept),
  rule(match('ip saddr', '10.0.0.5-10.0.0.9'), accept),
  rule(match('ip saddr', '10.0.0.5-10.0.0.9', '!='), accept),
  rule(
    match('ip saddr', '@blocks'),
    match('ip daddr', '@hosts', '!='),
    { counter: 'strangers' },
    { verdict: 'return' },
  ),
  rule(match('ip6 saddr', '@blocks6', '!='), { verdict: 'continue' }),
  rule(match('ether saddr, ip saddr', '@macs', '!='), { counter: true }, { verdict: 'drop' }),
  rule(match('ether saddr', '02:00:00:00:00:07'), accept),
  rule(match('meta iifname', '"cni0"'), match('meta oifname', '"eth*"', '!='), accept),
  rule(match('meta iifname', ['"a"', '"b"']), accept),
  rule(match('meta iifname', '@device-names'), accept),
  rule(match('meta l4proto', ['tcp', 'udp']), match('th dport', '80'), accept),
  rule(match('meta l4proto', '@protocols'), accept),
  rule(match('meta nfproto', 'ipv6'), accept),
  rule(match('meta mark', '0x00000010'), accept),
  rule(match('meta mark', '@marks'), accept),
  rule({ masked: 'meta mark', mask: 0x4000, value: 0x4000 }, accept),
  rule({ masked: 'ct mark', mask: 0xff, op: '!=', value: 1 }, accept),
  rule(match('meta pkttype', 'multicast'), accept),
  rule(match('tcp dport', ['80', '90-100']), accept),
  rule(match('tcp sport', '1024-65535'), accept),
  rule(match('udp dport', '@ports'), accept),
  rule(match('sctp dport', '9'), accept),
  rule(match('th sport', '53'), accept),
  rule(match('icmp type', 'echo-request'), accept),
  rule(match('icmpv6 type', ['nd-neighbor-advert', 'nd-neighbor-solicit']), accept),
  rule(match('ip protocol', 'tcp'), accept),
  rule(match('ct state', 'established,related'), accept),
  rule(match('ct state', 'new', '!='), accept),
  rule(match('ct state', ['established', 'related'], '!='), accept),
  rule(match('ct status', 'dnat'), accept),
  rule(match('ct mark', '0x00000001'), accept),
  rule(match('ct direction', 'original'), accept),
  rule(match('fib daddr type', 'local'), accept),
  rule(match('fib daddr type', ['broadcast', 'local'], '!='), accept),
  rule(match('fib saddr type', 'unicast', '!='), accept),
  rule(match('fib saddr . iif oif', 'missing'), { verdict: 'drop' }),
  rule({ vmap: ['ip daddr', 'meta l4proto', 'th dport'], map: 'verdicts' }),
  rule({ setMark: 1 }),
  rule({ setMark: 0x4000, keepMask: 0xffffffff }),
  rule({ setMark: 0, keepMask: 0xffffdfff }),
  rule({ setMark: 0x100, keepMask: 0x1ff }),
  rule({ limit: { perSecond: 10 } }, accept),
  rule({ limit: { perSecond: 3, burst: 7 } }, { log: { group: 3, prefix: 'drop: ' } }, { verdict: 'drop' }),
  rule({ log: {} }),
  rule({ jump: 'aim' }),
  rule({ goto: 'aim' }),
  rule({ reject: 'icmp-port-unreachable' }),
  rule({ reject: 'icmp-admin-prohibited' }),
  rule(match('meta l4proto', 'tcp'), { reject: 'tcp-reset' }),
  { statements: [{ counter: true }], comment: 'every packet' },
]

const natRules: readonly NftRule[] = [
  rule(match('fib daddr type', 'local'), {
    dnat: { family: 4, map: 'targets', by: ['meta l4proto', 'th dport'], port: true },
  }),
  rule(match('meta nfproto', 'ipv6'), {
    dnat: { family: 6, map: 'targets6', by: ['meta l4proto', 'th dport'], port: true },
  }),
  rule(match('ip daddr', '192.0.2.9'), { dnat: { to: '10.244.1.7' } }),
  rule(match('tcp dport', '80'), { dnat: { to: '10.244.1.7:8080' } }),
  rule(match('tcp dport', '80'), { dnat: { to: '[fd00::7]:8080' } }),
]

const sourceNatRules: readonly NftRule[] = [
  rule(match('ip saddr', '@blocks'), { masquerade: { fullyRandom: true } }),
  rule(match('ip6 saddr', '@blocks6'), { masquerade: {} }),
  rule(match('ip saddr', '10.1.0.0/16'), { snat: { to: '192.0.2.1' } }),
  rule(match('meta l4proto', 'tcp'), { masquerade: { ports: '1024-2047' } }),
  rule(match('meta l4proto', 'udp'), { masquerade: { ports: '1024-65535', fullyRandom: true } }),
  rule(match('ip saddr', '@blocks'), match('meta l4proto', 'tcp'), {
    snat: { to: '192.0.2.1', ports: '1024-2047' },
  }),
  rule(match('ip6 saddr', '@blocks6'), match('meta l4proto', 'tcp'), { snat: { to: 'fd01::1', ports: '1024-2047' } }),
]

const chains: readonly NftChain[] = [
  chain('aim', []),
  chain('filter', filterRules, { type: 'filter', hook: 'input', priority: -10 }),
  chain('forward', [], { type: 'filter', hook: 'forward', priority: 5, policy: 'drop' }),
  chain('guard', [], { type: 'filter', hook: 'prerouting', priority: -300 }),
  chain('nat', natRules, { type: 'nat', hook: 'prerouting', priority: -100 }),
  chain('nat-output', [], { type: 'nat', hook: 'output', priority: -100 }),
  chain('source', sourceNatRules, { type: 'nat', hook: 'postrouting', priority: 100 }),
]

const counter: NftObject = { kind: 'nft-counter', ...inTable, name: 'strangers', comment: 'some' }
const everything: readonly KernelObject[] = [table, counter, ...sets, ...chains, ...elements]

/** A listing without differences that mean nothing: order of hash sets, line breaks in element lists. */
function normal(listing: string): string[] {
  return listing
    .replace(/elements = \{([^}]*)\}/gs, (_, inner: string) => {
      const members = inner.split(',').map((member) => member.trim().replaceAll(/\s+/g, ' '))
      return `elements = { ${members.sort().join(', ')} }`
    })
    .replace(/\{ ([^{}\n]*) \}/g, (_, inner: string) => `{ ${inner.split(', ').sort().join(', ')} }`)
    .split('\n')
    .filter((line) => line.trim() !== '')
}

test('nft lists what weft wrote as weft prints it', async () => {
  await apply('add', ...everything)
  assert.deepEqual(
    normal(space.run('nft --stateless list ruleset')),
    normal(formatNftRuleset(everything as NftObject[])),
  )
})

test('weft reads back what it wrote, in a process that knows nothing of it', async () => {
  await apply('add', ...everything)
  using fresh = new FreshKernel(space)
  const read = await fresh.kernel.read('nft-table', 'nft-counter', 'nft-set', 'nft-chain', 'nft-element')
  const texts = (objects: readonly KernelObject[]) => objects.map((object) => nftObjectText(object as NftObject)).sort()
  assert.deepEqual(texts(read), texts(everything))
})

test('weft reads what nft wrote from the text that weft prints', async () => {
  const text = formatNftRuleset(everything as NftObject[])
  space.run(`nft -f - <<'END'\n${text}\nEND`)
  const read = await space.kernel.read('nft-chain', 'nft-element')
  // nft compares whole octets of a prefix only, and checks the Ethernet type before a MAC: other expressions, same meaning.
  const otherwise = /10\.0\.0\.0\/16|ether saddr \. ip saddr|10\.1\.0\.0\/16/
  const lines = (all: readonly KernelObject[]) =>
    all
      .filter((object) => object.kind === 'nft-chain')
      .flatMap((object) => object.rules.map((one) => `${object.name}: ${formatNftRule(one)}`))
      .filter((line) => !otherwise.test(line) && !line.endsWith('[payload]'))
  assert.deepEqual(lines(read), lines(everything))
  const keys = (all: readonly KernelObject[]) =>
    all
      .filter(({ kind }) => kind === 'nft-element')
      .map(keyOf)
      .sort()
  assert.deepEqual(keys(read), keys(everything))
})

test('a transaction happens whole or not at all, and the error names the op at fault', async () => {
  await apply('add', table, sets[2]!, elements.find(({ set: name }) => name === 'hosts')!)
  const results = await space.kernel.execute([
    { verb: 'add', object: element('hosts', '192.0.2.7') },
    { verb: 'add', object: element('hosts', '192.0.2.1') },
    { verb: 'add', object: element('hosts', '192.0.2.8') },
  ])
  assert.deepEqual(
    results.map((result) => result?.code),
    ['ECANCELED', 'EEXIST', 'ECANCELED'],
  )
  assert.match(results[1]!.message, /Cannot nft add element inet weft hosts \{ 192\.0\.2\.1 \}/)
  assert.deepEqual((await space.kernel.read('nft-element')).map(keyOf), ['nft-element inet weft hosts 192.0.2.1'])

  const bad = await space.kernel.execute([
    { verb: 'add', object: element('hosts', 'not an address') },
    { verb: 'delete', object: element('hosts', '192.0.2.1') },
  ])
  assert.deepEqual(
    bad.map((result) => result?.code),
    ['EINVAL', 'ECANCELED'],
  )
  const [lost] = await space.kernel.execute([{ verb: 'add', object: element('nowhere', '10.0.0.1') }])
  assert.equal(lost?.code, 'ENOENT')
  const [jump] = await space.kernel.execute([{ verb: 'add', object: chain('x', [rule({ jump: 'nowhere' })]) }])
  assert.equal(jump?.code, 'ENOENT')
})

test('ops may come in any order, and what refers to each other may go together', async () => {
  await apply('add', ...[...everything].reverse())
  await apply('delete', counter, ...sets, ...chains)
  assert.equal(space.run('nft list ruleset').replaceAll(/\s+/g, ' ').trim(), 'table inet weft { comment "pods" }')
  await apply('delete', table)
  assert.equal(space.run('nft list ruleset'), '')
})

test('rules that stay keep their counters when a chain is set', async () => {
  const base = { type: 'filter', hook: 'input', priority: 0 } as const
  const counted = (port: string) => rule(match('udp dport', port), { counter: true })
  await apply('add', table, chain('c', [counted('1'), counted('2'), counted('3')], base))
  space.run('echo x | socat - UDP:127.0.0.1:2 2>/dev/null || true')
  const handles = () =>
    [...space.run('nft -a list chain inet weft c').matchAll(/udp dport (\d+).*handle (\d+)/g)].map(
      ([, port, handle]) => [port, handle],
    )
  const before = new Map(handles().map(([port, handle]) => [port, handle]))
  await apply('set', chain('c', [counted('4'), counted('3'), counted('2'), counted('5')], base))
  const after = handles()
  assert.deepEqual(
    after.map(([port]) => port),
    ['4', '3', '2', '5'],
  )
  // One of the two that changed places may stay; which one is not promised, but one does.
  const stayed = after.filter(([port, handle]) => before.get(port!) === handle)
  assert.equal(stayed.length, 1)
  await apply('set', chain('c', [counted('4'), counted('2'), counted('6'), counted('5')], base))
  const last = new Map(handles().map(([port, handle]) => [port, handle]))
  for (const port of ['4', '2', '5'])
    assert.equal(last.get(port), new Map(after.map(([p, h]) => [p, h])).get(port), port)
  assert.deepEqual([...last.keys()], ['4', '2', '6', '5'])
  await apply('set', chain('c', [counted('4')], { ...base, priority: 7, policy: 'drop' }))
  assert.match(space.run('nft list chain inet weft c'), /priority filter \+ 7; policy drop;\s+udp dport 4/)
})

test('an element of a map changes its value in place', async () => {
  await apply('add', table, sets[8]!, element('targets', 'tcp . 80', '10.0.0.1 . 1'))
  await apply('set', element('targets', 'tcp . 80', '10.0.0.2 . 2'))
  const [read] = await space.kernel.read('nft-element')
  assert.equal(read?.value, '10.0.0.2 . 2')
})

test('foreign rules in our chain are seen, foreign tables are not touched or read', async () => {
  await apply('add', table, chain('c', [rule(accept)]))
  space.run('nft add table inet other; nft add chain inet other c; nft add rule inet weft c meta cpu 0 drop')
  const read = await space.kernel.read('nft-table', 'nft-chain')
  assert.deepEqual(read.map(keyOf), ['nft-table inet weft', 'nft-chain inet weft c'])
  const [, ours] = read as [NftObject, NftChain]
  assert.equal(ours.rules.length, 2)
  assert.ok(ours.rules[1]!.statements.some((statement) => 'foreign' in statement))
  await apply('set', chain('c', [rule(accept)]))
  assert.equal((await space.kernel.read('nft-chain'))[0]!.rules.length, 1)
})

test('named counters can be read', async () => {
  await apply(
    'add',
    table,
    counter,
    chain('c', [rule(match('icmp type', 'echo-request'), { counter: 'strangers' })], {
      type: 'filter',
      hook: 'input',
      priority: 0,
    }),
  )
  space.run('ping -c 2 -i 0.01 127.0.0.1')
  const [reading] = await readNftCounters(space.kernel)
  assert.equal(reading?.name, 'strangers')
  assert.equal(reading?.packets, 2n)
})

test('what anybody changes is announced', async () => {
  await apply('add', table, ...sets, chain('c', []))
  const heard: string[] = []
  let wake = () => {}
  const watch = space.kernel.watch(['nft-table', 'nft-set', 'nft-chain', 'nft-element'], (event: KernelEvent) => {
    heard.push(event.type === 'resync' ? 'resync' : `${event.type} ${event.key}`)
    wake()
  })
  const until = async (line: string) => {
    const limit = AbortSignal.timeout(20_000)
    while (!heard.includes(line))
      await new Promise<void>((resolve, reject) => {
        wake = resolve
        limit.addEventListener('abort', () => reject(new Error(`no ${line} in ${heard.join('; ')}`)), { once: true })
      })
    heard.length = 0
  }
  try {
    // The session knows the sets that it wrote or read, also when they are older than the watch.
    space.run('nft add element inet weft hosts { 192.0.2.5 }')
    await until('new nft-element inet weft hosts 192.0.2.5')
    await apply('add', ...elements.filter(({ set: name }) => name === 'blocks'))
    await until('new nft-element inet weft blocks 255.0.0.0/8')
    space.run('nft delete element inet weft blocks { 10.0.0.0/24 }')
    await until('delete nft-element inet weft blocks 10.0.0.0/24')
    space.run('nft add element inet weft targets { tcp . 1 : 10.0.0.1 . 2 }')
    await until('new nft-element inet weft targets tcp . 1')
    space.run('nft add rule inet weft c accept')
    await until('new nft-chain inet weft c')
    space.run('nft flush ruleset')
    await until('resync')
  } finally {
    watch.close()
  }
})

test('sets that nobody has read are learnt at the first element', async () => {
  await apply('add', table, ...sets)
  const other = LinuxKernel.openAt(space.path)
  let wake = () => {}
  const resync = new Promise<void>((resolve, reject) => {
    wake = resolve
    AbortSignal.timeout(20_000).addEventListener('abort', () => reject(new Error('no resync')), { once: true })
  })
  const watch = other.watch(['nft-element'], (event: KernelEvent) => event.type === 'resync' && wake())
  try {
    space.run('nft add element inet weft hosts { 192.0.2.6 }')
    await resync
  } finally {
    watch.close()
    other.close()
  }
})

test('ten thousand elements are one transaction each way', async () => {
  const many = Array.from({ length: 10_000 }, (_, i) =>
    element('targets', `tcp . ${i + 1}`, `10.${i >> 16}.${(i >> 8) & 255}.${i & 255} . 80`),
  )
  await apply('add', table, sets[8]!, ...many)
  assert.equal((await space.kernel.read('nft-element')).length, many.length)
  const [failed] = (await space.kernel.execute([...many].map((object) => ({ verb: 'add' as const, object })))).filter(
    (result) => result?.code === 'EEXIST',
  )
  assert.ok(failed)
  await apply('delete', ...many)
  assert.equal((await space.kernel.read('nft-element')).length, 0)
})

/** A second kernel of the same namespace: another process's eyes. */
class FreshKernel {
  readonly kernel
  constructor(of: TestNamespace) {
    this.kernel = of.kernel.open(of.path)
  }
  [Symbol.dispose](): void {
    this.kernel.close()
  }
}
