/**
 * `weft bgp`: the speaker alone, and the eyes on one that runs.
 */
import type { Command } from 'commander'
import type { PeerStatus, RibRoute, SpeakerStatus } from '../src/model/bgp.ts'
import { ConfigError } from '../src/model/errors.ts'

const DEFAULT_CONTROL = '/run/weft/bgp.sock'

const addControl = (command: Command): Command =>
  command.option(
    '--control <socket>',
    `the speaker's control socket (default: ${DEFAULT_CONTROL}; env: WEFT_BGP_CONTROL)`,
  )

const controlOf = (values: { control?: string }): string =>
  values.control ?? process.env.WEFT_BGP_CONTROL ?? DEFAULT_CONTROL

interface EyeOptions {
  readonly control?: string
  readonly json?: boolean
}

/** Asks, and prints either lines of JSON or what `show` makes of each item. */
async function ask<T>(
  values: EyeOptions,
  request: Readonly<Record<string, unknown>>,
  show: (items: readonly T[], tables: typeof import('../src/inspect/bgp/tables.ts')) => readonly string[],
): Promise<void> {
  const [{ askSpeaker }, tables] = await Promise.all([
    import('../src/bgp/session/control-client.ts'),
    import('../src/inspect/bgp/tables.ts'),
  ])
  const items: T[] = []
  for await (const item of askSpeaker<T>(controlOf(values), request))
    if (values.json) console.log(JSON.stringify(item))
    else items.push(item)
  if (!values.json) for (const line of show(items, tables)) console.log(line)
}

export function register(program: Command): void {
  const bgp = program.command('bgp').description('A BGP speaker of its own, and a look at the one that runs.')
  bgp.addHelpText('after', help)
  const eye = (name: string, description: string): Command =>
    addControl(bgp.command(name).description(description)).option('--json', 'one JSON object a line')
  addControl(bgp.command('serve').description('Runs a speaker from a file, outside Kubernetes.'))
    .requiredOption('--config <file>', 'what it is and whom it talks to, in YAML')
    .option(
      '--restarted',
      'its routes of before are still in use: peers are told so, and asked to keep theirs (RFC 4724)',
    )
    .option('--check', 'read the file, say what is wrong with it, and end')
    .option('--log-level <level>', 'error, warn, info or debug', 'info')
    .option('--log-format <format>', 'text or json', 'text')
    .addHelpText('after', serveHelp)
    .action(serveAction)
  eye('summary', 'One line a peer: state, and how many routes came, were taken and went.').action(
    (values: EyeOptions) =>
      ask<SpeakerStatus>(values, { command: 'summary' }, (items, { formatSummary }) =>
        items.flatMap((status) => formatSummary(status, Date.now())),
      ),
  )
  eye('neighbor', 'Everything about one peer, or about all.')
    .argument('[peer]', 'its name, its address or its device')
    .action((peer: string | undefined, values: EyeOptions) =>
      ask<PeerStatus>(values, { command: 'neighbor', peer }, (items, { formatNeighbor }) =>
        items.flatMap((each) => [...formatNeighbor(each, Date.now()), '']),
      ),
    )
  eye('rib', 'Routes: all that are known, or those that came in from or went out to one peer.')
    .argument('[view]', 'local, in or out', 'local')
    .option('--peer <peer>', 'whose, for in and out')
    .option('--family <family>', 'ipv4 or ipv6; both when left out')
    .option('--prefix <prefix>', 'this prefix alone')
    .action((view: string, values: EyeOptions & { peer?: string; family?: string; prefix?: string }) => {
      const { peer, family, prefix } = values
      return ask<RibRoute>(
        values,
        { command: 'rib', view, peer, family, prefix },
        (items, { ribHead, ribRow, table }) => table(ribHead, items.map(ribRow)),
      )
    })
  eye('why', 'Every path of a prefix and the step of the decision that it lost at.')
    .argument('<prefix>', 'such as 10.244.1.0/24')
    .action((prefix: string, values: EyeOptions) =>
      ask<{ route: RibRoute; lostAt?: string }>(values, { command: 'why', prefix }, (items, { formatCandidate }) =>
        items.length === 0
          ? [`${prefix}: nobody has it`]
          : items.map(({ route, lostAt }) => formatCandidate(route, lostAt)),
      ),
    )
  addControl(
    bgp.command('dump').description('Writes all routes that are known into a file, as an MRT table (RFC 6396).'),
  )
    .requiredOption('--output <file>', 'what was there is replaced')
    .option('--family <family>', 'ipv4 or ipv6; both when left out')
    .action(dumpAction)
  eye('reset', 'Ends the session with a peer; it begins again at once.')
    .argument('<peer>', 'its name, its address or its device')
    .option('--text <text>', 'what the peer is told (RFC 9003)')
    .action((peer: string, values: EyeOptions & { text?: string }) =>
      ask(values, { command: 'reset', peer, text: values.text }, () => []),
    )
  eye('refresh', 'Asks a peer to send all its routes once more.')
    .argument('<peer>', 'its name, its address or its device')
    .action((peer: string, values: EyeOptions) => ask(values, { command: 'refresh', peer }, () => []))
}

/** The table is written beside the file and takes its place when it is whole. */
async function dumpAction(values: { control?: string; output: string; family?: string }): Promise<void> {
  const [{ askSpeaker }, { mrtTable }, { open, rename, rm }] = await Promise.all([
    import('../src/bgp/session/control-client.ts'),
    import('../src/bgp/mrt-table.ts'),
    import('node:fs/promises'),
  ])
  const control = controlOf(values)
  const routes = askSpeaker<RibRoute>(control, { command: 'rib', view: 'local', family: values.family })
  const part = `${values.output}.part`
  const file = await open(part, 'w')
  try {
    for await (const status of askSpeaker<SpeakerStatus>(control, { command: 'summary' }))
      for await (const record of mrtTable(status, routes, Math.floor(Date.now() / 1000))) await file.write(record)
    await file.close()
    await rename(part, values.output)
  } catch (error) {
    await file.close()
    await rm(part, { force: true })
    throw error
  }
}

interface ServeFlags {
  readonly config: string
  readonly control?: string
  readonly restarted?: boolean
  readonly check?: boolean
  readonly logLevel: string
  readonly logFormat: string
}

async function serveAction(values: ServeFlags): Promise<void> {
  const [{ readSpeakerFile, serve }, { openLog }, { isLogLevel }] = await Promise.all([
    import('../src/bgp/session/serve.ts'),
    import('../src/status/log.ts'),
    import('../src/status/log-level.ts'),
  ])
  const { logLevel: level, logFormat: format } = values
  if (!isLogLevel(level)) throw new ConfigError('--log-level', 'value', `${JSON.stringify(level)} is no level`)
  if (format !== 'text' && format !== 'json') throw new ConfigError('--log-format', 'value', 'must be text or json')
  if (values.check) {
    const { config, routes } = readSpeakerFile(values.config)
    console.log(`${values.config}: AS ${config.asn}, ${config.peers.length} peers, ${routes.length} routes`)
    return
  }
  const log = openLog({ level, format, base: {} })
  process.exitCode = await serve({
    file: values.config,
    controlPath: controlOf(values),
    restarted: values.restarted === true,
    log: ({ level: severity, message, fields }) => log[severity](fields, message),
  })
}

const help = `
summary, neighbor, rib, why and dump ask the control socket of a speaker on this machine, change nothing, and exit with 1 when none
answers. In rib, * is a valid path, > the best of its prefix, = one that is used beside it, s one that is kept stale.

Examples:
  weft bgp serve --config tor.yaml
  weft bgp summary
  weft bgp neighbor tor --json
  weft bgp rib in --peer tor --family ipv6
  weft bgp why 10.244.1.0/24
  weft bgp dump --output table.mrt`

const serveHelp = `
The file:
  asn: 64513                      ours; required
  routerId: 10.0.0.1              required
  listen: { port: 179, addresses: [] }     port 0: nobody can call
  peers:
    - name: node1
      address: 10.0.0.2           or device: eth1 alone, for the link-local neighbour there (unnumbered)
      asn: 64512                  or internal, external
      password: secret            TCP MD5
      families:                   both when left out
        ipv4: { importPolicies: [lan], maxPrefixes: { limit: 1000 }, addPathSend: 4 }
        ipv6: {}
      timers: { holdSeconds: 90, connectRetrySeconds: 5 }
      gracefulRestart: { mode: full, restartSeconds: 120 }       off, helper (usual) or full
      bfd: { minTransmitMilliseconds: 50, minReceiveMilliseconds: 50 }   {} is 300 ms and 3 packets; port, multihop
  dynamicPeers:
    - { name: pods, prefix: 10.244.0.0/16, asn: external, maxPeers: 100 }
  policies:
    - name: lan
      rules:
        - match: { prefixes: { set: [{ prefix: 10.0.0.0/8, maxLength: 24 }] } }
          changes: [{ kind: set-local-preference, localPreference: 200 }]
          verdict: accept         or reject, next
        - { match: {}, verdict: reject }
  routes:
    - { prefix: 192.0.2.0/24, communities: ['64513:100'] }

A key that is not known is an error. SIGHUP reads the file again: only sessions whose OPEN, address or password changes are reset,
and a file with an error changes nothing. SIGTERM ends it; with gracefulRestart full peers keep the routes for the next run.

Examples:
  weft bgp serve --config tor.yaml --check          what is wrong with it
  weft bgp serve --config tor.yaml
  weft bgp serve --config tor.yaml --restarted      after a restart, when the kernel still forwards`
