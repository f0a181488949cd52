/**
 * `weft ipam`: options, and the hand-over to src/inspect/ipam.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import { agentFlags } from '../src/agent/flags.ts'
import { parseOptions } from '../src/agent/options.ts'
import { flagName } from '../src/config/flag-table.ts'
import type { IpamSight } from '../src/inspect/ipam/sight.ts'
import { ConfigError } from '../src/model/errors.ts'
import { Ip } from '../src/net/ip.ts'
import { addFlags, flagsGiven } from './flag-options.ts'

const taken = /^(kubeconfig|kube-api-url|calico-datastore|calico-etcd-.*)$/

/** Adds the flags that say where pools are. */
const addPlace = (command: Command): Command => {
  addFlags(command, agentFlags, (row) => taken.test(flagName(row)))
  return command
}

/** Opens what the flags name, and closes it after the work. `usesToo`: with the API server's pods, also where pools are in etcd. */
async function look(self: Command, work: (sight: IpamSight) => Promise<void>, usesToo = false): Promise<void> {
  const [{ IpamSight }, { openLog }] = await Promise.all([
    import('../src/inspect/ipam/sight.ts'),
    import('../src/status/log.ts'),
  ])
  const usual = process.env.KUBECONFIG?.split(':')[0] || join(homedir(), '.kube/config')
  const given = flagsGiven(self)
  const hasPlace = given.kubeconfig !== undefined || process.env.WEFT_KUBECONFIG !== undefined
  const options = parseOptions(hasPlace || !existsSync(usual) ? given : { ...given, kubeconfig: usual }, process.env)
  const sight = await IpamSight.open(options, openLog({ level: 'error', format: 'text', base: {} }), usesToo)
  try {
    await work(sight)
  } finally {
    await sight.close()
  }
}

const print = (lines: readonly string[]) => {
  for (const line of lines) console.log(line)
}

function parseIp(text: string): Ip {
  const ip = Ip.tryParse(text)
  if (!ip) throw new ConfigError('--ip', 'value', `${JSON.stringify(text)} is not an address`)
  return ip
}

const collect = (text: string, before: readonly string[] = []): string[] => [...before, text]

export function register(program: Command): void {
  const ipam = program
    .command('ipam')
    .description("Address pools: how full they are, who has an address, what is wrong; calicoctl's words.")
    .addHelpText('after', help)
  addPlace(ipam.command('show').description('How full pools and blocks are; who has an address.'))
    .option('--ip <address>', 'who has this address')
    .option('--show-blocks', 'blocks under their pools')
    .option('--show-borrowed', "addresses in use on another node than their block's")
    .option('--show-configuration', 'the settings: strict affinity, blocks per host, cooldown')
    .action(async ({ ip, showBlocks, showBorrowed, showConfiguration }: ShowFlags, self: Command) => {
      const wanted = ip === undefined ? undefined : parseIp(ip)
      const show = await import('../src/inspect/ipam/show.ts')
      await look(self, async (sight) => {
        if (showConfiguration) return print(show.showConfiguration(await sight.readPools()))
        const { objects: blocks, problems } = await sight.store.blocks.list()
        for (const { message } of problems) console.error(`weft: ${message}`)
        if (wanted) return print(show.showIp({ blocks }, wanted))
        if (showBorrowed) return print(show.showBorrowed({ blocks }))
        const words = await sight.readPools()
        for (const { message } of words.problems) console.error(`weft: ${message}`)
        print(show.showUtilization({ ...words, blocks }, showBlocks === true))
      })
    })
  addPlace(ipam.command('check').description('Compares pools, blocks, affinities and handles with what is in use.'))
    .option('--show-all-ips', 'every allocated address and who has it')
    .option('--show-problem-ips', 'every address that something is wrong with')
    .option('-o, --output <file>', 'write a report, for weft ipam release --from-report')
    .action(async ({ showAllIps, showProblemIps, output }: CheckFlags, self: Command) => {
      const { check } = await import('../src/inspect/ipam/check.ts')
      await look(
        self,
        async (sight) => {
          const input = await sight.load(Date.now())
          const wish = { allIps: showAllIps === true, problemIps: showProblemIps === true }
          const { lines, report, problems } = check(input, program.version() ?? '', wish)
          if (output !== undefined) writeFileSync(output, `${JSON.stringify(report, undefined, 2)}\n`)
          print(lines)
          if (problems > 0) process.exitCode = 1
        },
        true,
      )
    })
  addPlace(ipam.command('release').description('Gives back addresses that nobody uses.'))
    .option('--ip <address>', 'this one, whoever has it')
    .option(
      '--from-report <file>',
      'the leaked ones of a report of weft ipam check; several times: those of all',
      collect,
    )
    .action(async ({ ip, fromReport }: ReleaseFlags, self: Command) => {
      if ((ip === undefined) === (fromReport === undefined))
        throw new ConfigError('weft ipam release', '--ip or --from-report', 'one of the two is needed')
      const wanted = ip === undefined ? undefined : parseIp(ip)
      const reports = (fromReport ?? []).map((file) => ({ file, text: readFileSync(file, 'utf8') }))
      const { releaseIp, releaseReported } = await import('../src/inspect/ipam/release.ts')
      await look(self, async (sight) => {
        const { settings } = await sight.readPools()
        const cooldown = { nowMilliseconds: Date.now(), seconds: settings.ipCooldownSeconds }
        if (wanted) console.log(await releaseIp(sight.store, wanted, cooldown))
        else await releaseReported(sight.store, reports, cooldown, (line) => console.log(line))
      })
    })
  addPlace(ipam.command('split').description('Makes several smaller pools of one, with its blocks and settings.'))
    .argument('<number>', 'how many: 2, 4, 8, …')
    .option('--cidr <cidr>', 'the pool with this CIDR')
    .option('--name <name>', 'the pool of this name')
    .action(async (number: string, { cidr, name }: SplitFlags, self: Command) => {
      if ((cidr === undefined) === (name === undefined))
        throw new ConfigError('weft ipam split', '--cidr or --name', 'one of the two is needed')
      const { splitPool } = await import('../src/inspect/ipam/split.ts')
      await look(self, async (sight) => {
        const { pools } = await sight.readPools()
        const pool = pools.find((each) => (name === undefined ? `${each.cidr}` === cidr : each.name === name))
        if (!pool) throw new ConfigError('weft ipam split', name ?? cidr!, 'there is no such pool')
        print(await splitPool(await sight.openShelf(), pool, Number(number)))
      })
    })
}

interface ShowFlags {
  readonly ip?: string
  readonly showBlocks?: boolean
  readonly showBorrowed?: boolean
  readonly showConfiguration?: boolean
}

interface CheckFlags {
  readonly showAllIps?: boolean
  readonly showProblemIps?: boolean
  readonly output?: string
}

interface ReleaseFlags {
  readonly ip?: string
  readonly fromReport?: readonly string[]
}

interface SplitFlags {
  readonly cidr?: string
  readonly name?: string
}

const help = `
Looks at the objects of Calico's address pools, in Kubernetes or in etcd. show and check change nothing; check exits with 1 when
it finds a problem. What release gives back by a report is given back only if it is still what the report saw.

Examples:
  weft ipam show --show-blocks                      how full pools and blocks are
  weft ipam show --ip 172.26.0.5                    who has this address
  weft ipam check --show-problem-ips -o report.json
  weft ipam release --from-report report.json       give back what leaked
  weft ipam release --ip 172.26.0.5
  weft ipam split 4 --name default-ipv4-ippool
  weft ipam show --calico-datastore etcd --calico-etcd-endpoints https://10.0.0.1:2379`
