/**
 * `weft bgp serve` with another project's real speaker: the same questions to each of them.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Bench, hasProgram, until, type WeftSpeaker } from './bench.ts'
import { type Daemon, exabgp, type RunningDaemon } from './daemons.ts'

const WEFT_ASN = 64512
const OTHER_ASN = 64513
const ours = ['192.0.2.0/24', '2001:db8:1::/48']
const theirs = ['198.51.100.0/24', '2001:db8:2::/48']

const peer = (more: object = {}) => ({
  name: 'other',
  address: '10.0.0.2',
  asn: OTHER_ASN,
  timers: { connectRetrySeconds: 1 },
  ...more,
})

const config = (more: object = {}, routes: readonly string[] = ours) => ({
  asn: WEFT_ASN,
  routerId: '10.0.0.1',
  peers: [peer(more)],
  deferralSeconds: 20,
  routes: routes.map((prefix) => ({ prefix, communities: [`${WEFT_ASN}:100`, `${WEFT_ASN}:1:2`] })),
})

/** Fails with both sides' logs. */
const logs = (weft: WeftSpeaker, daemon: RunningDaemon) => () =>
  `weft:\n${weft.program.log}\nother:\n${daemon.program.log.slice(-4000)}`

async function exchanged(weft: WeftSpeaker, daemon: RunningDaemon): Promise<void> {
  await until('the session', () => weft.up(), logs(weft, daemon))
  await until('their routes', async () => (await weft.learned()).length === theirs.length, logs(weft, daemon))
  for (const prefix of ours) await until(`our ${prefix}`, () => has(daemon, prefix), logs(weft, daemon))
}

function has(daemon: RunningDaemon, prefix: string): boolean {
  try {
    return daemon.show(prefix).includes(isV6(prefix) ? 'fd00::1' : '10.0.0.1')
  } catch {
    return false
  }
}

const isV6 = (prefix: string): boolean => prefix.includes(':')

/** Runs with a cable, a speaker of ours and one of theirs; everything ends with it. */
async function together(
  daemon: Daemon,
  wish: Partial<Parameters<Daemon['start']>[1]>,
  more: object,
  work: (weft: WeftSpeaker, other: RunningDaemon, bench: Bench) => Promise<void>,
): Promise<void> {
  const bench = new Bench()
  try {
    const other = await daemon.start(bench, { asn: OTHER_ASN, weftAsn: WEFT_ASN, routes: theirs, ...wish })
    const weft = await bench.startWeft(config(more))
    await work(weft, other, bench)
  } finally {
    await bench.close()
  }
}

/** The tests of one daemon. */
export function testSpeaker(daemon: Daemon): void {
  const missing = daemon.needs.filter((name) => !hasProgram(name))
  describe(daemon.name, { skip: missing.length > 0 ? `${missing.join(', ')} is not installed` : false }, () => {
    test('every capability, routes of both families with communities both ways, and no complaint', () =>
      together(
        daemon,
        { gracefulRestart: true, addPath: true },
        {
          gracefulRestart: { mode: 'full', longLivedStaleSeconds: 300 },
          capabilities: { hostName: 'weft', extendedNextHop: true },
          families: { ipv4: { addPathReceive: true, addPathSend: 4 }, ipv6: {} },
        },
        async (weft, other) => {
          await exchanged(weft, other)
          for (const prefix of theirs) {
            const route = (await weft.route(prefix))!
            assert.deepEqual(route.communities, [`${OTHER_ASN}:7`, `${OTHER_ASN}:7:8`], prefix)
            assert.deepEqual(route.asPath, [{ kind: 'sequence', asns: [OTHER_ASN] }])
            assert.deepEqual(
              route.nextHops.map(({ address }) => address),
              [isV6(prefix) ? 'fd00::2' : '10.0.0.2'],
            )
          }
          for (const prefix of ours) {
            // ExaBGP's JSON has spaces between.
            const shown = other.show(prefix).replaceAll(/ *, */g, ',')
            assert.match(shown, new RegExp(`${WEFT_ASN}[:,] ?100\\b`), shown)
            assert.match(shown, new RegExp(`${WEFT_ASN}[:,] ?1[:,] ?2\\b`), shown)
          }
          const { families, capabilitiesReceived } = await weft.peer()
          assert.ok(families.every(({ endOfRibReceived, endOfRibSent }) => endOfRibReceived && endOfRibSent))
          assert.ok(capabilitiesReceived!.some(({ text }) => text.startsWith('add-path')))
          assert.deepEqual(other.complaints(), [])
          assert.doesNotMatch(weft.program.log, /WARN|ERROR/)
        },
      ))

    test('the same AS inside and MD5', () =>
      together(
        daemon,
        { password: 'secret', asn: WEFT_ASN },
        { password: 'secret', asn: WEFT_ASN },
        async (weft, other) => {
          await exchanged(weft, other)
          assert.equal((await weft.peer()).type, 'ibgp')
          assert.equal((await weft.route(theirs[0]!))!.localPreference, 100)
          // Another key on our side alone ends the session and lets none begin; the right one brings it back.
          weft.reload(config({ password: 'wrong', asn: WEFT_ASN }))
          await until('the session is gone', async () => !(await weft.up()), logs(weft, other))
          weft.reload(config({ password: 'secret', asn: WEFT_ASN }))
          await exchanged(weft, other)
        },
      ))

    test('our shutdown and theirs: the text arrives, the routes go', () =>
      together(daemon, {}, {}, async (weft, other) => {
        await exchanged(weft, other)
        weft.reload(config({ shutdown: 'moving racks' }))
        await until(
          'our routes are gone',
          () => ours.every((prefix) => !has(other, prefix)) || daemon === exabgp,
          logs(weft, other),
        )
        assert.equal((await weft.peer()).reason, 'administratively down')
        const { heard } = other
        if (heard)
          await until(
            'the text',
            () => heard().includes('moving racks'),
            () => heard().slice(-3000),
          )
        weft.reload(config())
        await exchanged(weft, other)
        if (!other.shutdown) return
        other.shutdown('repair')
        const theirText = daemon.saysWhy ? '"repair"' : 'administrative shutdown'
        await until(
          'their text',
          async () => (await weft.peer()).lastReceived?.text.includes(theirText) === true,
          logs(weft, other),
        )
        await until('their routes are gone', async () => (await weft.learned()).length === 0)
      }))

    test('the other restarts: its routes stay meanwhile, and what it no longer has goes', () =>
      together(daemon, { gracefulRestart: true }, { gracefulRestart: { mode: 'full' } }, async (weft, other, bench) => {
        await exchanged(weft, other)
        await other.stop('SIGKILL')
        await until('the end is noticed', async () => !(await weft.up()))
        assert.deepEqual((await weft.learned()).sort(), [...theirs].sort())
        // FRR sends our own routes back too, which count as received.
        assert.ok((await weft.peer()).families.every(({ stale }) => stale > 0))
        const kept = theirs.slice(0, 1)
        const again = await daemon.start(bench, {
          asn: OTHER_ASN,
          weftAsn: WEFT_ASN,
          routes: kept,
          gracefulRestart: true,
        })
        await until('the session', () => weft.up(), logs(weft, again), 80)
        await until(
          'what is gone goes',
          async () => (await weft.learned()).join() === kept.join(),
          logs(weft, again),
          80,
        )
        assert.equal((await weft.route(kept[0]!))!.stale, false)
      }))

    if (daemon.helps)
      test('we restart: it keeps our routes meanwhile, without a gap', () =>
        together(
          daemon,
          { gracefulRestart: true },
          { gracefulRestart: { mode: 'full' } },
          async (weft, other, bench) => {
            await exchanged(weft, other)
            let gaps = 0
            let looks = 0
            let watching = true
            const watch = (async () => {
              while (watching) {
                looks++
                if (!ours.every((prefix) => has(other, prefix))) gaps++
                await new Promise((resolve) => setTimeout(resolve, 100))
              }
            })()
            await weft.program.stop('SIGTERM')
            const again = await bench.startWeft(config({ gracefulRestart: { mode: 'full' } }, ours), ['--restarted'])
            await exchanged(again, other)
            assert.match(again.program.log, /converged/)
            const { families } = await again.peer()
            assert.ok(families.every(({ endOfRibSent }) => endOfRibSent))
            watching = false
            await watch
            assert.ok(looks > 5, `${looks} looks`)
            assert.equal(gaps, 0, `${gaps} of ${looks} looks found a route of ours missing`)
          },
        ))

    test('both sides call at once, again and again: one session each time', () =>
      together(daemon, {}, {}, async (weft, other) => {
        await exchanged(weft, other)
        for (let round = 0; round < 5; round++) {
          const { establishedCount } = await weft.peer()
          await weft.ask({ command: 'reset', peer: 'other', text: `round ${round}` })
          await until(
            'the next session',
            async () => {
              const status = await weft.peer()
              return status.state === 'established' && status.establishedCount > establishedCount
            },
            logs(weft, other),
          )
        }
        await exchanged(weft, other)
      }))
  })
}
