/**
 * BGP unnumbered with the real FRR: both sides know a device and nothing else, find each other by Router Advertisements,
 * and exchange IPv4 routes with IPv6 link-local next hops.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bench, hasProgram, until } from './bench.ts'
import { frr, startFrr } from './daemons.ts'

const missing = frr.needs.filter((name) => !hasProgram(name))

test('a session over the link-local addresses of a device, and routes of both families both ways', {
  skip: missing.length > 0 ? `${missing.join(', ')} is not installed` : false,
}, async () => {
  const bench = new Bench()
  try {
    for (const namespace of [bench.weft, bench.other]) namespace.run('ip -4 addr flush dev eth0')
    const other = await startFrr(
      bench,
      `log file ${bench.path('frr/bgpd.log')} informational
router bgp 64513
 bgp router-id 10.0.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor eth0 interface remote-as external
 neighbor eth0 timers connect 1
 address-family ipv4 unicast
  network 198.51.100.0/24
 exit-address-family
 address-family ipv6 unicast
  neighbor eth0 activate
  network 2001:db8:2::/48
 exit-address-family
exit
`,
    )
    const weft = await bench.startWeft({
      asn: 64512,
      routerId: '10.0.0.1',
      peers: [{ name: 'other', device: 'eth0', asn: 'external', timers: { connectRetrySeconds: 1 } }],
      routes: [{ prefix: '192.0.2.0/24' }, { prefix: '2001:db8:1::/48' }],
    })
    const logs = () => `${weft.program.log}\n${other.program.log}`
    await until('the session', () => weft.up(), logs, 60)
    await until('their routes', async () => (await weft.learned()).length === 2, logs)
    const { address, device } = await weft.peer()
    assert.match(address!, /^fe80:/)
    assert.equal(device, 'eth0')
    const route = (await weft.route('198.51.100.0/24'))!
    assert.deepEqual(route.nextHops, [{ address, device: 'eth0' }])
    for (const prefix of ['192.0.2.0/24', '2001:db8:1::/48'])
      await until(
        `our ${prefix}`,
        () => /fe80::/.test(other.show(prefix)),
        () => other.show(prefix),
      )
    // FRR complains of having no address to call before it has heard of us.
    assert.deepEqual(
      other.complaints().filter((line) => !/BGP_Start in state Idle/.test(line)),
      [],
    )
  } finally {
    await bench.close()
  }
})
