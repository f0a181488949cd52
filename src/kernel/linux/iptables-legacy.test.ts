import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseForward, readLegacyForwardChains } from './iptables-legacy.ts'

const summary = (text: string) => {
  const { drops, rules } = parseForward(text)
  return [drops, ...rules.map(({ accepts, isOurs }) => `${accepts?.end} ${accepts?.block}${isOurs ? ' ours' : ''}`)]
}

test('what iptables -S prints is read', () => {
  assert.deepEqual(
    summary(`-P FORWARD DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -s 10.0.0.0/8 -j ACCEPT
-A FORWARD -d 10.244.0.0/16 -m comment --comment "weft forward" -j ACCEPT
-A FORWARD -s 10.244.0.0/16 -p tcp -j ACCEPT
-A FORWARD -s 10.244.0.0/16 -m comment --comment flanneld -j ACCEPT
`),
    [
      'policy',
      'undefined undefined',
      'source 10.0.0.0/8',
      'destination 10.244.0.0/16 ours',
      'undefined undefined',
      'source 10.244.0.0/16',
    ],
  )
  assert.deepEqual(summary('-P FORWARD ACCEPT\n'), [undefined])
  for (const last of [
    '-j DROP',
    '-j REJECT --reject-with icmp-port-unreachable',
    '-m comment --comment "no more" -j DROP',
  ])
    assert.equal(summary(`-P FORWARD ACCEPT\n-A FORWARD ${last}\n`)[0], 'last rule')
  assert.equal(summary('-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP\n')[0], undefined)
})

test('the tool runs only where the filter table is there already, since looking makes it', async () => {
  const ran: string[] = []
  const access = (names: string) => ({
    tableNames: async (family: string) => (family === 'ip6' ? names : 'nat\n'),
    run: async (program: string, args: readonly string[]) => {
      ran.push([program, ...args].join(' '))
      return '-P FORWARD DROP\n'
    },
  })
  assert.deepEqual(await readLegacyForwardChains(access('nat\n')), [])
  assert.deepEqual(ran, [])
  const [chain] = await readLegacyForwardChains(access('nat\nfilter\n'))
  assert.deepEqual([chain?.family, chain?.backend, chain?.drops], ['ip6', 'legacy', 'policy'])
  assert.deepEqual(ran, ['ip6tables-legacy -w 5 -S FORWARD'])
})
