/**
 * A session of `weft bgp serve` with bird2 that BFD watches: the path fails long before the hold time is over. Detection is
 * slow, 2 s, so that a busy machine does not end the sessions by itself.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Bench, hasProgram, type Program, until, type WeftSpeaker } from './bench.ts'

const birdConfig = (folder: string): string => `log "${folder}/bird.log" all;
router id 10.0.0.2;
protocol device {}
protocol static { ipv4; route 10.2.0.0/16 blackhole; }
protocol bfd { interface "eth0" { min rx interval 200 ms; min tx interval 200 ms; multiplier 10; }; }
protocol bgp weft {
  local 10.0.0.2 as 65002;
  neighbor 10.0.0.1 as 65001;
  bfd on;
  hold time 90;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export all; };
}
`

describe('BFD watches a session', { skip: hasProgram('bird') ? false : 'bird is not installed' }, () => {
  let bench: Bench
  let weft: WeftSpeaker
  let bird: Program

  before(async () => {
    bench = new Bench()
    const file = bench.write('bird.conf', birdConfig(bench.folder))
    const startBird = () => bench.run(bench.other, 'bird', ['bird', '-f', '-c', file, '-s', bench.path('bird.ctl')])
    bird = startBird()
    weft = await bench.startWeft({
      asn: 65001,
      routerId: '10.0.0.1',
      peers: [
        {
          name: 'other',
          address: '10.0.0.2',
          asn: 65002,
          bfd: { minTransmitMilliseconds: 200, minReceiveMilliseconds: 200, detectMultiplier: 10 },
          gracefulRestart: { mode: 'off' },
        },
      ],
    })
    await until('session and path are up', async () => (await weft.up()) && (await weft.peer()).bfd === 'up')
    await until('its route', async () => (await weft.learned()).includes('10.2.0.0/16'))
  })
  after(() => bench.close())

  test('a stopped peer is noticed at once, its routes go, and both sides come back', async () => {
    const count = (await weft.peer()).establishedCount
    bird.child.kill('SIGSTOP')
    await until(
      'the session is gone',
      async () => !(await weft.up()),
      () => weft.program.log,
      60,
    )
    const { reason } = await weft.peer()
    assert.match(reason ?? '', /BFD down \(BFD: nothing was heard/)
    assert.deepEqual(await weft.learned(), [])
    bird.child.kill('SIGCONT')
    await until('it is back', async () => (await weft.peer()).establishedCount > count && (await weft.up()))
    await until('the path as well', async () => (await weft.peer()).bfd === 'up')
  })

  test('without BFD in its configuration the session lives without', async () => {
    weft.reload({
      asn: 65001,
      routerId: '10.0.0.1',
      peers: [{ name: 'other', address: '10.0.0.2', asn: 65002, gracefulRestart: { mode: 'off' } }],
    })
    await until('the path is not watched', async () => (await weft.peer()).bfd === undefined)
    // bird2 takes the will of a peer's operator for a broken path, and calls again.
    await until('bird shows no path', () =>
      / Down /.test(bench.other.run(`birdc -s ${bench.path('bird.ctl')} show bfd sessions`)),
    )
    await until('the session is up', () => weft.up())
  })
})
