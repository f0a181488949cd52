/**
 * The root of the command line: collects the commands, each in a file of its own, and turns errors into
 * exit codes. Heavy modules load inside a command's action, so that `--help` answers at once.
 */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { ConfigError, KernelError } from '../src/model/errors.ts'
import { register as agent } from './agent.ts'
import { register as bgp } from './bgp.ts'
import { register as cleanup } from './cleanup.ts'
import { register as controller } from './controller.ts'
import { register as install } from './install.ts'
import { register as ipam } from './ipam.ts'
import { register as lab } from './lab.ts'
import { register as node } from './node.ts'

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

const program = new Command('weft')
  .description('A Kubernetes pod network: one agent that speaks every mode, and shows what it does.')
  .version(version)
  .showHelpAfterError('(run with --help for the options)')
  .exitOverride()
  .addHelpText(
    'after',
    `
Examples:
  weft lab up                 a three-node cluster on this machine, in its own namespaces
  weft lab demo               the same, with demo pods and a packet followed hop by hop
  weft lab switch host-gw     move the running cluster to another data path
  weft agent --help           what runs on every node
  weft controller --help      what runs once for a cluster
  weft install                put weft into a cluster; weft uninstall takes it out
  weft ipam show              how full address pools are; weft ipam check finds what is wrong
  weft node status            this node as its agent sees it
  weft bgp serve --config f   a BGP speaker; weft bgp summary shows its peers

Exit codes: 0 done, 1 failed, 2 wrong use or wrong configuration.`,
  )

for (const register of [agent, bgp, cleanup, controller, install, ipam, lab, node]) register(program)

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = exitCodeOf(error)
  // The parser has said itself what is wrong with a command line.
  if (!(error instanceof CommanderError)) {
    const known = error instanceof ConfigError || error instanceof KernelError
    console.error(known || !process.env.WEFT_STACK ? `weft: ${messagesOf(error)}` : error)
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  return error instanceof ConfigError ? 2 : 1
}

/** The message and those of its causes, outermost first, each said once. Set WEFT_STACK=1 for the stack. */
function messagesOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const inner = error.cause === undefined ? '' : messagesOf(error.cause)
  return inner === '' || error.message.includes(inner) ? error.message : `${error.message}: ${inner}`
}
