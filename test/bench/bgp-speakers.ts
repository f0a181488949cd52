/**
 * The speakers that the BGP benches compare, each a process of its own in a namespace with the same addresses: weft bgp serve (the
 * bundle), gobgpd and bird. All get one configuration in their own words: peers are passive, import takes prefixes up to /24
 * with a local preference of 150 and refuses others, and what came in is kept as it came.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { TestNamespace } from '../netns/namespace.ts'
import { LineProgram } from './line-program.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

export const SPEAKER = '10.9.0.1'
export const SPEAKER_ASN = 65000

export interface BenchPeer {
  readonly name: string
  readonly address: string
  readonly asn: number
  /** `table`: sends routes and is told none. `observer`: is told what is in OBSERVED and sends none. `client`: of a reflector. */
  readonly part: 'table' | 'observer' | 'client'
}

/** What observers are told. */
export const OBSERVED = '198.51.100.0/23'

export interface SpeakerProcess {
  readonly name: string
  readonly pid: number
  /** Paths in the local RIB, for all prefixes together. */
  paths(): Promise<number>
  /** How long to wait between two questions. */
  readonly pollMs: number
  end(): Promise<void>
}

export type SpeakerKind = 'weft' | 'bird' | 'gobgpd'

/** Two namespaces joined by a cable: the speaker's, and that of its peers with an address for each. */
export class BenchNetwork {
  readonly speaker = new TestNamespace()
  readonly outside = new TestNamespace()

  constructor(peers: readonly BenchPeer[]) {
    this.speaker.run(
      `ip link set lo up; ip link add b0 type veth peer name b1 netns ${this.outside.name}; ip address add ${SPEAKER}/16 dev b0; ip link set b0 up`,
    )
    this.outside.run(
      `ip link set lo up; ip link set b1 up; ip -batch - <<END\n${peers.map(({ address }) => `address add ${address}/16 dev b1`).join('\n')}\nEND`,
    )
  }

  sender(): LineProgram {
    return new LineProgram('ip', [
      ...['netns', 'exec', this.outside.name, process.execPath, '--import', 'tsx', 'test/bench/bgp-sender.ts'],
    ])
  }

  async start(kind: SpeakerKind, peers: readonly BenchPeer[]): Promise<SpeakerProcess> {
    const folder = mkdtempSync(join(tmpdir(), 'weft-bench-bgp-'))
    return kind === 'weft'
      ? startWeft(this.speaker, folder, peers)
      : kind === 'bird'
        ? startBird(this.speaker, folder, peers)
        : startGobgpd(this.speaker, folder, peers)
  }

  delete(): void {
    this.outside.delete()
    this.speaker.delete()
  }
}

/** Resident memory in MiB: now, and at its highest. */
export function memoryOf(pid: number): { now: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const of = (key: string) => Math.round(Number(new RegExp(`${key}:\\s+(\\d+)`).exec(status)![1]) / 1024)
  return { now: of('VmRSS'), peak: of('VmHWM') }
}

/** Seconds of processor time so far. */
export function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** Which of the programs are here. */
export const speakersHere = (): SpeakerKind[] => [
  'weft',
  ...(existsSync('/usr/sbin/bird') ? (['bird'] as const) : []),
  ...(existsSync('/usr/bin/gobgpd') ? (['gobgpd'] as const) : []),
]

function launch(netns: TestNamespace, folder: string, command: string, args: readonly string[]) {
  const child = spawn('ip', ['netns', 'exec', netns.name, command, ...args], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let words = ''
  child.stderr.on('data', (bytes: Buffer) => {
    words = (words + bytes.toString()).slice(-4000)
  })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  return {
    child,
    async ready(isReady: () => boolean | Promise<boolean>): Promise<void> {
      for (let tries = 0; tries < 300; tries++) {
        if (child.exitCode !== null) throw new Error(`${command} ended: ${words}`)
        if (await isReady()) return
        await pause(50)
      }
      throw new Error(`${command} is not ready: ${words}`)
    },
    async end(): Promise<void> {
      process.removeListener('exit', kill)
      await ended(child)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await gone
}

async function startWeft(netns: TestNamespace, folder: string, peers: readonly BenchPeer[]): Promise<SpeakerProcess> {
  const control = join(folder, 'control')
  const policies = [
    {
      name: 'in',
      rules: [
        {
          match: { prefixes: { set: [{ prefix: '0.0.0.0/0', maxLength: 24 }] } },
          changes: [{ kind: 'set-local-preference', localPreference: 150 }],
          verdict: 'accept',
        },
        { match: {}, verdict: 'reject' },
      ],
    },
    {
      name: 'observed',
      rules: [{ match: { prefixes: { set: [{ prefix: OBSERVED, maxLength: 32 }] } }, verdict: 'accept' }],
    },
  ]
  const direction = {
    table: { importPolicies: ['in'], exportDefault: 'reject' },
    observer: { importDefault: 'reject', exportPolicies: ['observed'], exportDefault: 'reject' },
    client: {},
  }
  const config = {
    asn: SPEAKER_ASN,
    routerId: SPEAKER,
    listen: { port: 179, addresses: [SPEAKER] },
    policies,
    peers: peers.map(({ name, address, asn, part }) => ({
      name,
      address,
      asn,
      passive: true,
      ...(part === 'client' && { reflectorClient: true }),
      gracefulRestart: { mode: 'off' },
      families: { ipv4: direction[part] },
    })),
  }
  const file = join(folder, 'weft.yaml')
  writeFileSync(file, JSON.stringify(config))
  const { child, ready, end } = launch(netns, folder, process.execPath, [
    ...['dist/weft.js', 'bgp', 'serve', '--config', file, '--control', control, '--log-level', 'error'],
  ])
  await ready(() => existsSync(control))
  return {
    name: 'weft',
    pid: child.pid!,
    pollMs: 20,
    async paths() {
      const lines = await askSocket(control, '{"command":"summary"}\n', (text) => text.includes('"done"'))
      return (JSON.parse(lines.split('\n')[0]!) as { item: { rib: { ipv4: { paths: number } } } }).item.rib.ipv4.paths
    },
    end,
  }
}

async function startBird(netns: TestNamespace, folder: string, peers: readonly BenchPeer[]): Promise<SpeakerProcess> {
  const control = join(folder, 'control')
  const channel = {
    table: 'ipv4 { import table on; import filter taken; export none; };',
    observer: `ipv4 { import none; export filter { if net ~ ${OBSERVED} then accept; reject; }; };`,
    client: 'ipv4 { import all; export all; gateway direct; }; rr client; direct;',
  }
  const config = `
router id ${SPEAKER};
log stderr all;
protocol device { }
filter taken { if net.len > 24 then reject; bgp_local_pref = 150; accept; }
${peers
  .map(
    ({ name, address, asn, part }) =>
      `protocol bgp peer_${name} { local ${SPEAKER} as ${SPEAKER_ASN}; neighbor ${address} as ${asn}; passive on; graceful restart off; ${channel[part]} }`,
  )
  .join('\n')}
`
  writeFileSync(join(folder, 'bird.conf'), config)
  const { child, ready, end } = launch(netns, folder, '/usr/sbin/bird', [
    ...['-f', '-c', join(folder, 'bird.conf'), '-s', control, '-P', join(folder, 'pid')],
  ])
  // The socket is there before the configuration has been read.
  await ready(() =>
    askSocket(control, 'show status\n', (text) => text.includes('Daemon is up')).then(
      (text) => text.includes('Daemon is up'),
      () => false,
    ),
  )
  return {
    name: 'bird',
    pid: child.pid!,
    pollMs: 20,
    async paths() {
      const text = await askSocket(control, 'show route count\n', (all) => /\n0014 |\n1007-|Total/.test(all))
      return Number(/(\d+) of \d+ routes/.exec(text)?.[1] ?? 0)
    },
    end,
  }
}

async function startGobgpd(netns: TestNamespace, folder: string, peers: readonly BenchPeer[]): Promise<SpeakerProcess> {
  const addresses = (part: BenchPeer['part']) =>
    JSON.stringify(peers.filter((peer) => peer.part === part).map(({ address }) => address))
  const reflects = peers.some(({ part }) => part === 'client')
  const policy = `
[global.apply-policy.config]
  import-policy-list = ["in"]
  default-import-policy = "reject-route"
  export-policy-list = ["out"]
  default-export-policy = "reject-route"
[[defined-sets.prefix-sets]]
  prefix-set-name = "short"
  [[defined-sets.prefix-sets.prefix-list]]
    ip-prefix = "0.0.0.0/0"
    masklength-range = "0..24"
[[defined-sets.prefix-sets]]
  prefix-set-name = "observed"
  [[defined-sets.prefix-sets.prefix-list]]
    ip-prefix = "${OBSERVED}"
    masklength-range = "23..32"
[[defined-sets.neighbor-sets]]
  neighbor-set-name = "observers"
  neighbor-info-list = ${addresses('observer')}
[[policy-definitions]]
  name = "in"
  [[policy-definitions.statements]]
    [policy-definitions.statements.conditions.match-prefix-set]
      prefix-set = "short"
    [policy-definitions.statements.actions]
      route-disposition = "accept-route"
      [policy-definitions.statements.actions.bgp-actions]
        set-local-pref = 150
[[policy-definitions]]
  name = "out"
  [[policy-definitions.statements]]
    [policy-definitions.statements.conditions.match-prefix-set]
      prefix-set = "observed"
    [policy-definitions.statements.conditions.match-neighbor-set]
      neighbor-set = "observers"
    [policy-definitions.statements.actions]
      route-disposition = "accept-route"
`
  const neighbors = peers.map(
    ({ address, asn, part }) => `
[[neighbors]]
  [neighbors.config]
    neighbor-address = "${address}"
    peer-as = ${asn}
  [neighbors.transport.config]
    passive-mode = true
  [neighbors.timers.config]
    hold-time = 180
${part === 'client' ? `  [neighbors.route-reflector.config]\n    route-reflector-client = true\n    route-reflector-cluster-id = "${SPEAKER}"\n` : ''}`,
  )
  const config = `
[global.config]
  as = ${SPEAKER_ASN}
  router-id = "${SPEAKER}"
  local-address-list = ["${SPEAKER}"]
${reflects ? '' : policy}${neighbors.join('')}
`
  writeFileSync(join(folder, 'gobgpd.toml'), config)
  const { child, ready, end } = launch(netns, folder, '/usr/bin/gobgpd', [
    ...['-f', join(folder, 'gobgpd.toml'), '--log-level', 'error', '--disable-stdlog'],
  ])
  const gobgp = (...args: string[]) =>
    run('ip', ['netns', 'exec', netns.name, 'gobgp', ...args], { maxBuffer: 1 << 28 }).then(({ stdout }) => stdout)
  await ready(() =>
    gobgp('neighbor').then(
      (text) => text.includes(peers.at(-1)!.address),
      () => false,
    ),
  )
  return {
    name: 'gobgpd',
    pid: child.pid!,
    pollMs: 500,
    async paths() {
      const text = await gobgp('global', 'rib', 'summary')
      return Number(/Path: (\d+)/.exec(text)?.[1] ?? 0)
    },
    end,
  }
}

/** Asks on a unix socket and returns what came until it was enough. */
function askSocket(path: string, request: string, isEnough: (text: string) => boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const socket = connect(path, () => socket.write(request))
    socket.setEncoding('utf8')
    socket.on('data', (part: string) => {
      text += part
      if (!isEnough(text)) return
      socket.destroy()
      resolve(text)
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(text))
  })
}

/** The bundle as it is now. */
export const buildBundle = (): void =>
  void execFileSync(process.execPath, ['--import', 'tsx', 'scripts/build.ts'], { cwd: root })
