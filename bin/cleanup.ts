/**
 * `weft cleanup`: options, and the hand-over to src/agent.
 */
import type { Command } from 'commander'
import { agentFlags } from '../src/agent/flags.ts'
import { parseOptions } from '../src/agent/options.ts'
import { flagName } from '../src/config/flag-table.ts'
import { addFlags, flagsGiven } from './flag-options.ts'

const taken = new Set(['run-dir', 'state-dir', 'cni-bin-dir', 'cni-conf-dir', 'subnet-file'])

export function register(program: Command): void {
  const command = program
    .command('cleanup')
    .description('Take everything of weft off this node: devices, routes, rules, files. Refuses while an agent runs.')
    .addHelpText('after', help)
  addFlags(command, agentFlags, (row) => taken.has(flagName(row)))
  command.action(async (_values, self: Command) => {
    const options = parseOptions(flagsGiven(self), process.env)
    const { cleanUp } = await import('../src/agent/cleanup.ts')
    process.exitCode = await cleanUp(options, (line) => process.stdout.write(`${line}\n`))
  })
}

const help = `
What is weft's is known by its marks: routes and rules of protocol 119, devices with an alias weft:… or weft-pod:…, the
tables inet weft and bridge weft, rules in iptables' FORWARD with the comment "weft forward", the tunnels of the run
directory. Everything else stays as it is. Kernel variables go back to what they were before weft. Pods that are still on
the node lose their network. weft uninstall runs this on every node.

Examples:
  weft cleanup
  weft cleanup --run-dir /run/weft-b --cni-bin-dir /usr/libexec/cni`
