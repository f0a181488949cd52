/**
 * `weft node`: options, and the hand-over to src/inspect.
 */
import type { Command } from 'commander'
import { agentFlags } from '../src/agent/flags.ts'
import { parseOptions } from '../src/agent/options.ts'
import { flagName } from '../src/config/flag-table.ts'
import { addFlags, flagsGiven } from './flag-options.ts'

export function register(program: Command): void {
  const node = program.command('node').description('This node as its agent sees it.').addHelpText('after', help)
  const status = node
    .command('status')
    .description('Is the agent running and ready; pools, tunnels, and the way to each peer.')
  addFlags(status, agentFlags, (row) => flagName(row) === 'run-dir')
  status.action(async (_values, self: Command) => {
    const [{ askStatus }, { formatNodeStatus }] = await Promise.all([
      import('../src/status/status-client.ts'),
      import('../src/inspect/node-status.ts'),
    ])
    const { runDir } = parseOptions(flagsGiven(self), process.env)
    const socket = `${runDir}/agent.sock`
    const state: unknown = JSON.parse(await askStatus(socket, '/state'))
    // A node that is not ready says why with another status than 200.
    const readiness = await askStatus(socket, '/readyz').catch((error: Error) => {
      process.exitCode = 1
      return error.message
    })
    for (const line of formatNodeStatus(state, readiness)) console.log(line)
  })
}

const help = `
Asks the agent's socket in its run directory, and nothing else; exits with 1 when no agent answers or it is not ready.

Examples:
  weft node status
  weft node status --run-dir /run/weft-b`
