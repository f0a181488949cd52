/**
 * `weft controller`: its options, and the hand-over to src/controller.
 */
import type { Command } from 'commander'
import { controllerFlags } from '../src/controller/flags.ts'
import { parseControllerOptions } from '../src/controller/options.ts'
import { addFlags, flagsGiven } from './flag-options.ts'

export function register(program: Command): void {
  const command = program
    .command('controller')
    .description(
      'Run once for a cluster, in one or more replicas: gives nodes their pod CIDRs, and tells of nodes whose agent is gone.',
    )
    .addHelpText('after', help)
  addFlags(command, controllerFlags)
  command.action(async (_values, self: Command) => {
    const options = parseControllerOptions(flagsGiven(self), process.env)
    const { runController } = await import('../src/controller/controller.ts')
    process.exitCode = await runController(options, program.version() ?? '')
  })
}

const help = `
Pod CIDRs are given to nodes that have none, and never changed. Two replicas never give one twice, whatever their clocks do and
however long one of them was stopped: a pod CIDR is promised in a ConfigMap first, by a conditional write, then written.

Stopping it changes nothing: nodes keep what they have, and new ones wait for the next leader.

Examples:
  weft controller --cluster-cidr 10.244.0.0/16                         in a pod; a /24 for each node
  weft controller --cluster-cidr 10.244.0.0/16,fd00:10:244::/48        both families; /24 and /64
  weft controller --kubeconfig ~/.kube/config --leader-elect=false     alone, with the network of the ConfigMap
  weft controller --agent-pods kube-flannel/app=weft-agent             and tell of nodes whose agent is gone
  kubectl -n kube-flannel get lease weft-controller                    who leads`
