/**
 * `weft install` and `weft uninstall`: their options, and the hand-over to src/install.
 */
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import type { InstallValues } from '../src/install/values.ts'
import { ConfigError } from '../src/model/errors.ts'

interface Given {
  readonly kubeconfig?: string
  readonly kubeApiUrl?: string
  readonly namespace?: string
  readonly image?: string
  readonly podNetwork?: readonly string[]
  readonly backend?: string
  readonly netConfig?: string
  readonly agentArg?: readonly string[]
  readonly logLevel?: string
  readonly healthPort?: string
  readonly maxUnavailable?: string
  readonly privileged?: boolean
  readonly nodeGuard: boolean
  readonly controller: boolean
  readonly allocateNodeCidrs?: boolean
  readonly controllerReplicas?: string
  readonly leakCheckInterval?: string
  readonly controllerArg?: readonly string[]
  readonly controllerHealthPort?: string
  readonly cniBinDir?: string
  readonly cniConfDir?: string
  readonly dryRun?: boolean
  readonly wait: string
}

const several = (text: string, before: readonly string[] = []): string[] => [...before, text]

export function register(program: Command): void {
  const version = () => program.version() ?? ''
  registerInstall(program, version)
  registerUninstall(program, version)
}

function withConnection(command: Command): Command {
  return command
    .option('--kubeconfig <file>', 'how to reach the API server (default: KUBECONFIG, else ~/.kube/config)')
    .option('--kube-api-url <url>', "its address, instead of the kubeconfig's (default: the kubeconfig's)")
    .option('--namespace <name>', 'where weft runs, and where its ConfigMap is (default: kube-flannel)')
    .option('--image <repository:tag>', 'the image of every node (default: weft.dev/weft, of this version)')
    .option('--cni-bin-dir <directory>', 'where the nodes’ runtime looks for plugins (default: /opt/cni/bin)')
    .option('--cni-conf-dir <directory>', 'where it looks for configuration (default: /etc/cni/net.d)')
    .option('--privileged', 'privileged pods, which the UDP backend needs (default: only the capabilities needed)')
}

function registerInstall(program: Command, version: () => string): void {
  withConnection(
    program.command('install').description('Put weft into a cluster, or upgrade it; or print what would be applied.'),
  )
    .option('--pod-network <network>', 'pod network; repeat for IPv6 (default: 10.244.0.0/16)', several)
    .option('--backend <type>', 'vxlan, host-gw, udp, … as in net-conf.json (default: vxlan)')
    .option('--net-config <file>', 'a whole net-conf.json instead of these two')
    .option('--agent-arg <argument>', 'a further argument of weft agent, such as --iface=eth1; repeatable', several)
    .option('--log-level <level>', 'of the agents and the controller (default: info)')
    .option('--health-port <port>', 'of /healthz, /readyz and /metrics on every node (default: 9180)')
    .option('--max-unavailable <nodes>', 'how many nodes an upgrade works on at once (default: 10%)')
    .option(
      '--no-node-guard',
      'without the admission policies that keep an agent to its own node, and both from labels and taints (default: with)',
    )
    .option(
      '--allocate-node-cidrs',
      'the controller gives nodes their pod CIDRs; needs kube-controller-manager --allocate-node-cidrs=false (default: not)',
    )
    .option('--controller-replicas <count>', 'of which one leads (default: 2)')
    .option(
      '--leak-check-interval <duration>',
      'how often the controller compares what nodes hold with the addresses of pods; 0s for never (default: 10m)',
    )
    .option('--controller-arg <argument>', 'a further argument of weft controller; repeatable', several)
    .option('--controller-health-port <port>', 'of /healthz, /readyz and /metrics where it runs (default: 9181)')
    .option('--no-controller', 'without a controller (default: with it)')
    .option(
      '--no-crds',
      "without the definitions of Calico's objects: pools, blocks, … (default: with, unless Calico's are there)",
    )
    .option('--dry-run', 'the API server checks every object and keeps none', false)
    .option('--wait <seconds>', 'wait for agents on every node, and a controller; 0 for not', '0')
    .addOption(
      new Option('-o, --output <format>', 'print the manifest and do nothing (default: apply)').choices(['yaml']),
    )
    .addHelpText('after', installHelp)
    .action(async (given: Given & { output?: string; crds: boolean }) => {
      const values = await valuesOf(given, version())
      if (given.output === 'yaml') {
        const { formatManifest, manifestObjects } = await import('../src/install/manifest.ts')
        const { definitionObjects } = await import('../src/install/definitions.ts')
        const objects = [...(given.crds ? definitionObjects() : []), ...manifestObjects(values)]
        process.stdout.write(formatManifest(objects, `weft ${version()}`))
        return
      }
      const { install } = await import('../src/install/install.ts')
      const netConfGiven = Boolean(given.netConfig ?? given.podNetwork ?? given.backend)
      await install(await connect(given, version()), values, {
        netConfGiven,
        definitions: given.crds,
        waitSeconds: given.dryRun ? 0 : seconds(given.wait),
        print,
      })
    })
}

function registerUninstall(program: Command, version: () => string): void {
  withConnection(
    program
      .command('uninstall')
      .description('Take weft out of a cluster: off every node, out of the Node objects, and its own objects.'),
  )
    .option('--kube-annotation-prefix <prefix>', 'as the agents have it', 'flannel.alpha.coreos.com')
    .option('--keep-nodes', 'leave devices, routes and files on the nodes as they are', false)
    .option(
      '--crds',
      "also the definitions of Calico's objects, and with them every pool and block (default: they stay)",
      false,
    )
    .option('--dry-run', 'the API server checks every change and keeps none; the nodes are left alone', false)
    .option('--wait <seconds>', 'how long a step over all nodes may take', '300')
    .addHelpText('after', uninstallHelp)
    .action(async (given: Given & { keepNodes: boolean; crds: boolean; kubeAnnotationPrefix: string }) => {
      const values = await valuesOf({ ...given, nodeGuard: true, controller: true }, version())
      const { uninstall } = await import('../src/install/uninstall.ts')
      await uninstall(await connect(given, version()), values, {
        annotationPrefix: given.kubeAnnotationPrefix,
        waitSeconds: seconds(given.wait),
        keepNodes: given.keepNodes,
        definitions: given.crds,
        dryRun: given.dryRun ?? false,
        print,
      })
    })
}

const print = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

function seconds(text: string): number {
  const value = Number(text)
  if (!Number.isFinite(value) || value < 0)
    throw new ConfigError('--wait', 'value', `${JSON.stringify(text)} is no time`)
  return value
}

async function connect({ kubeconfig, kubeApiUrl, dryRun }: Given, version: string) {
  const [{ ClusterClient }, { HttpClient }, { inClusterConnection, readKubeconfig }] = await Promise.all([
    import('../src/install/cluster-client.ts'),
    import('../src/cluster/http-client.ts'),
    import('../src/cluster/kubernetes/kubeconfig.ts'),
  ])
  const usual = join(homedir(), '.kube/config')
  const file = kubeconfig ?? (process.env.KUBECONFIG?.split(':')[0] || (existsSync(usual) ? usual : undefined))
  const connection = file === undefined ? inClusterConnection() : readKubeconfig(file, kubeApiUrl)
  return new ClusterClient(new HttpClient(connection, undefined, `weft/${version}`), { dryRun: dryRun ?? false })
}

async function valuesOf(given: Given, version: string): Promise<InstallValues> {
  const { defaultValues } = await import('../src/install/values.ts')
  const { parseNetConf } = await import('../src/config/flannel/net-conf.ts')
  const usual = defaultValues(version)
  const netConf = netConfOf(given, usual.netConf)
  parseNetConf(JSON.stringify(netConf), given.netConfig ?? 'net-conf.json')
  const { image, agent, controller } = usual
  const unavailable = given.maxUnavailable ?? String(agent.maxUnavailable)
  if (!/^\d{1,5}%?$/.test(unavailable))
    throw new ConfigError(
      '--max-unavailable',
      'value',
      `${JSON.stringify(unavailable)} is neither a number nor a share`,
    )
  return {
    namespace: given.namespace ?? usual.namespace,
    image: given.image === undefined ? image : { ...image, ...parseImage(given.image) },
    netConf,
    agent: {
      ...agent,
      args: given.agentArg ?? agent.args,
      logLevel: given.logLevel ?? agent.logLevel,
      healthPort: count('--health-port', given.healthPort, agent.healthPort, 1, 65535),
      privileged: given.privileged ?? agent.privileged,
      maxUnavailable: unavailable.endsWith('%') ? unavailable : Number(unavailable),
    },
    controller: {
      ...controller,
      enabled: given.controller,
      allocateNodeCidrs: given.allocateNodeCidrs ?? controller.allocateNodeCidrs,
      replicas: count('--controller-replicas', given.controllerReplicas, controller.replicas, 0, 10),
      leakCheckInterval: duration('--leak-check-interval', given.leakCheckInterval ?? controller.leakCheckInterval),
      args: given.controllerArg ?? controller.args,
      logLevel: given.logLevel ?? controller.logLevel,
      healthPort: count('--controller-health-port', given.controllerHealthPort, controller.healthPort, 1, 65535),
    },
    cniBinDir: given.cniBinDir ?? usual.cniBinDir,
    cniConfDir: given.cniConfDir ?? usual.cniConfDir,
    nodeGuard: given.nodeGuard,
  }
}

function duration(flag: string, text: string): string {
  if (!/^(\d+(ms|s|m|h))+$/.test(text))
    throw new ConfigError(flag, 'value', `${JSON.stringify(text)} is not a duration, such as 90s or 1h30m`)
  return text
}

function count(flag: string, text: string | undefined, usual: number, from: number, to: number): number {
  const value = Number(text ?? usual)
  if (!Number.isInteger(value) || value < from || value > to)
    throw new ConfigError(flag, 'value', `${JSON.stringify(text)} is not a number in ${from}..${to}`)
  return value
}

function netConfOf(
  { netConfig, podNetwork, backend }: Given,
  usual: InstallValues['netConf'],
): InstallValues['netConf'] {
  if (netConfig !== undefined) {
    if (podNetwork || backend)
      throw new ConfigError('--net-config', 'value', 'goes without --pod-network and --backend')
    try {
      return JSON.parse(readFileSync(netConfig, 'utf8')) as Record<string, unknown>
    } catch (cause) {
      throw new ConfigError('--net-config', netConfig, (cause as Error).message, { cause })
    }
  }
  const v4 = podNetwork?.find((network) => !network.includes(':'))
  const v6 = podNetwork?.find((network) => network.includes(':'))
  if ((podNetwork?.length ?? 0) > [v4, v6].filter((network) => network !== undefined).length)
    throw new ConfigError('--pod-network', 'value', 'at most one of each family')
  return {
    ...(podNetwork ? {} : { Network: usual.Network }),
    ...(v4 === undefined ? {} : { Network: v4 }),
    ...(podNetwork && v4 === undefined ? { EnableIPv4: false } : {}),
    ...(v6 === undefined ? {} : { EnableIPv6: true, IPv6Network: v6 }),
    Backend: backend === undefined ? usual.Backend : { Type: backend },
  }
}

/** The last colon parts the tag, unless it is a registry's port. */
function parseImage(text: string): { repository: string; tag: string } {
  const [, repository, tag] = /^(.+):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$/.exec(text) ?? []
  if (repository === undefined || tag === undefined)
    throw new ConfigError('--image', 'value', `${JSON.stringify(text)} is not repository:tag`)
  return { repository, tag }
}

const installHelp = `
What is applied is deploy/weft.yaml with the values given: rights, ConfigMap, DaemonSet, Deployment of the controller. Running it
again upgrades, and what the values do not ask for any more goes. A ConfigMap that is there already is kept unless a network, a backend or a net-conf.json is given: after flannel, weft goes
on with flannel's.

Examples:
  weft install --wait 120
  weft install --pod-network 10.42.0.0/16 --pod-network fd00:42::/56 --backend host-gw
  weft install --allocate-node-cidrs                  where kube-controller-manager gives no pod CIDRs
  weft install --image registry.example/weft:0.1.0 -o yaml > weft.yaml
  weft install --dry-run`

const uninstallHelp = `
The controller and the agents are deleted, then weft cleanup runs once on every node, then the annotations and the condition of weft leave the
Node objects, then weft's own objects go. What lacks weft's label stays. Pods lose their network: drain, or restart them
under the next one.

Examples:
  weft uninstall
  weft uninstall --namespace network --wait 900
  weft uninstall --keep-nodes`
