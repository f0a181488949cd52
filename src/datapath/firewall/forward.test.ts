import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ForwardChain, type ForwardRule, formatForwardChange } from '../../model/forward-chain.ts'
import { Cidr } from '../../net/cidr.ts'
import { planForward, planForwardRemoval } from './forward.ts'

const blocks = ['10.244.0.0/16', 'fd00:244::/56'].map(Cidr.parse)
const iptables: ForwardChain = {
  backend: 'nft',
  family: 'ip',
  table: 'filter',
  name: 'FORWARD',
  drops: 'policy',
  rules: [],
}
const rule = (end: 'source' | 'destination', block: string, rest: Partial<ForwardRule> = {}): ForwardRule => ({
  accepts: { end, block: Cidr.parse(block) },
  isOurs: false,
  ...rest,
})
const planned = (chain: ForwardChain, enabled = true) => {
  const { changes, problems } = planForward([chain], blocks, enabled)
  return [...changes.map(formatForwardChange), ...problems]
}

test('FORWARD that drops gets a rule for each end, of its own family', () => {
  const comment = '-m comment --comment "weft forward" -j ACCEPT'
  assert.deepEqual(planned(iptables), [
    `iptables -A FORWARD -s 10.244.0.0/16 ${comment}`,
    `iptables -A FORWARD -d 10.244.0.0/16 ${comment}`,
  ])
  const rules = [rule('source', '192.0.2.0/24'), { isOurs: false }]
  assert.deepEqual(planned({ ...iptables, backend: 'legacy', family: 'ip6', drops: 'last rule', rules }), [
    `ip6tables-legacy -I FORWARD 2 -s fd00:244::/56 ${comment}`,
    `ip6tables-legacy -I FORWARD 2 -d fd00:244::/56 ${comment}`,
  ])
})

test('each rule once: what is there stays, what is old, doubled or in other words goes', () => {
  const ours = { isOurs: true }
  const rules = [
    rule('source', '10.244.0.0/16', { ...ours, handle: 4n }),
    rule('source', '10.244.0.0/16', { ...ours, handle: 5n }),
    rule('source', '10.9.0.0/16', { ...ours, handle: 6n }),
    { isOurs: true, handle: 7n },
    rule('destination', '10.244.0.0/16', { handle: 8n }),
  ]
  const { changes } = planForward([{ ...iptables, rules }], blocks, true)
  assert.deepEqual(
    changes.map(({ verb, rule: { handle, accepts } }) => `${verb} ${handle ?? `${accepts?.end} ${accepts?.block}`}`),
    ['add destination 10.244.0.0/16', 'delete 5', 'delete 6', 'delete 7'],
  )
  const removal = planForwardRemoval([
    { ...iptables, rules },
    { ...iptables, table: 'other', rules },
  ])
  assert.deepEqual(
    removal.map(({ rule: { handle } }) => handle),
    [4n, 5n, 6n, 7n],
  )
})

test('nothing is done where nothing drops, and what was done is taken back', () => {
  assert.deepEqual(planned({ ...iptables, drops: undefined }), [])
  const rules = [rule('source', '10.244.0.0/16', { isOurs: true, handle: 4n })]
  assert.equal(planned({ ...iptables, drops: undefined, rules }).length, 1)
})

test('chains of others, and FORWARD with the flag off, are told of until they accept the pod network', () => {
  const other: ForwardChain = { ...iptables, family: 'inet', table: 'hardened', name: 'fw' }
  const accepts = [
    rule('source', '10.0.0.0/8'),
    rule('destination', '10.244.0.0/16'),
    rule('source', 'fd00:244::/56'),
    rule('destination', '::/0'),
  ]
  const [problem] = planned({ ...other, rules: accepts.slice(0, 3) })
  assert.equal(
    problem,
    "chain fw of table inet hardened (hook forward, policy drop) loses what its rules do not accept of pods' packets; accept the pod network there: nft insert rule inet hardened fw ip6 daddr fd00:244::/56 accept",
  )
  assert.deepEqual(planned({ ...other, rules: accepts }), [])
  assert.deepEqual(planned({ ...iptables, rules: accepts }, false), [])
  assert.match(
    planned(iptables, false)[0]!,
    /--iptables-forward-rules is off.*iptables -A FORWARD -s 10\.244\.0\.0\/16 -j/,
  )
})
