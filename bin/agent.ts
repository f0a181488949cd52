/**
 * `weft agent`: the table of flags as a command, and the hand-over to src/agent.
 */
import type { Command } from 'commander'
import { agentFlags } from '../src/agent/flags.ts'
import { parseOptions } from '../src/agent/options.ts'
import { ConfigError } from '../src/model/errors.ts'
import { isLogLevel, logLevels } from '../src/status/log-level.ts'
import { addFlags, flagsGiven } from './flag-options.ts'

export function register(program: Command): void {
  const command = program
    .command('agent')
    .description(
      'Run on every node: gives pods their network, joins them with those of other nodes, and follows flannel’s configuration.',
    )
    .addHelpText('after', help)
  addFlags(command, agentFlags)
  command.action(async (_values, self: Command) => {
    const options = parseOptions(flagsGiven(self), process.env)
    const { runAgent } = await import('../src/agent/agent.ts')
    process.exitCode = await runAgent(options, program.version() ?? '')
  })
  registerLogLevel(command)
}

/** `weft agent log-level`: asks the running agent, and tells it. */
function registerLogLevel(agent: Command): void {
  agent
    .command('log-level')
    .argument('[level]', `${logLevels.join(', ')}; left out: print the one in use`)
    .description("print or change a running agent's log level")
    .option('--run-dir <directory>', "the agent's run directory (default: /run/weft; env: WEFT_RUN_DIR)")
    .addHelpText('after', '\nExamples:\n  weft agent log-level\n  weft agent log-level debug')
    .action(async (level: string | undefined, values: { runDir?: string }, self: Command) => {
      const runDir = values.runDir ?? self.optsWithGlobals().runDir ?? process.env.WEFT_RUN_DIR ?? '/run/weft'
      if (level !== undefined && !isLogLevel(level))
        throw new ConfigError('log-level', 'level', `${JSON.stringify(level)} is none of ${logLevels.join(', ')}`)
      const { askStatus } = await import('../src/status/status-client.ts')
      process.stdout.write(await askStatus(`${runDir}/agent.sock`, '/loglevel', level))
    })
}

const help = `
The network configuration is flannel's net-conf.json, from --net-config or the ConfigMap; changes are followed while pods
keep talking. Without --etcd-endpoints the node's subnets are its spec.podCIDRs.

Stopping the agent changes nothing in the kernel: pods keep their network, and the next agent goes on where this one was.
SIGTERM and SIGINT stop it; SIGHUP turns debug messages on and off, SIGUSR1 says a level more, SIGUSR2 a level less.

Examples:
  weft agent                                               in a pod of a DaemonSet
  weft agent --kubeconfig /etc/weft/kubeconfig --iface eth1
  weft agent --net-config net-conf.json --dry-run          what would be done, and nothing is
  weft agent --etcd-endpoints https://10.0.0.1:2379 --etcd-cafile ca.pem
  weft agent log-level debug                               say more from now on, without a restart
  curl --unix-socket /run/weft/agent.sock http://agent/readyz?verbose
  curl --unix-socket /run/weft/agent.sock http://agent/metrics`
