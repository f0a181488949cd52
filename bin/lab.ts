/**
 * `weft lab`: a whole cluster on this machine, in network namespaces of its own.
 */
import { type Command, InvalidArgumentError } from 'commander'

const DEFAULT_LAB = 'lab'
const print = (line: string): void => console.log(line)
const actions = () => import('../src/lab/actions.ts')

const whole = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('must be a whole number')
  return Number(text)
}
const number = (text: string): number => {
  if (!/^\d+(\.\d+)?$/.test(text)) throw new InvalidArgumentError('must be a number')
  return Number(text)
}
const ports = (text: string, before: number[] | undefined): number[] => [...(before ?? []), whole(text)]

const examples = (...lines: readonly string[]): string => `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`

/** Data paths of flannel and kube-router, then Calico's. */
const BACKENDS =
  'vxlan, vxlan-direct, host-gw, udp, ipip, ipip-direct, kube-router, kube-router-subnet, kube-router-fou; calico-ipip, calico-ipip-cross, calico-vxlan, calico-vxlan-cross or calico-plain'

/** Every command takes the lab's name. */
const named = (command: Command): Command => command.option('--name <lab>', 'name of the lab', DEFAULT_LAB)

const withUpOptions = (command: Command): Command =>
  named(command)
    .option('--nodes <count>', 'how many nodes', whole, 3)
    .option(
      '--subnets <count>',
      'underlay subnets, joined by a router that knows no pod route; nodes take turns',
      whole,
      1,
    )
    .option('--backend <backend>', `data path: ${BACKENDS}`, 'vxlan')
    .option('--net-config <file>', "flannel's net-conf.json to use instead of --backend")
    .option('--pools <file>', "Calico's IPPool manifests to use instead of --backend, or beside one of flannel's")
    .option('--mtu <bytes>', 'MTU of the underlay (default 1500)', whole)
    .option('--no-ipv6', 'IPv4 only (default: both families)')

/** The options given on the command line that say what a lab is made like. */
const givenShape = (command: Command): string[] =>
  command.options
    .filter(
      (option) => option.attributeName() !== 'name' && command.getOptionValueSource(option.attributeName()) === 'cli',
    )
    .map((option) => option.long ?? option.flags)

export function register(program: Command): void {
  const lab = program
    .command('lab')
    .description('a whole cluster on this machine: nodes are network namespaces, pods real processes')
    .addHelpText(
      'after',
      examples(
        'weft lab up                          three nodes, VXLAN, both address families',
        'weft lab up --subnets 2 --backend vxlan-direct',
        'export KUBECONFIG=$(weft lab kubeconfig); kubectl get nodes -o wide',
        'weft lab run web --node n1; weft lab exec web -- ip route',
        'weft lab switch host-gw              no packet is lost',
        'weft lab fault partition n2; weft lab fault heal',
        'weft lab down',
        '',
        'Everything lives in namespaces named weft-<lab>-…; interfaces, routes, rules and sysctls of the machine stay as they are.',
      ),
    )
  registerLife(lab)
  registerPods(lab)
  registerSwitch(lab)
  registerFaults(lab)
  registerDaemon(lab)
}

function registerLife(lab: Command): void {
  withUpOptions(lab.command('up').description('bring a lab up, or take over one whose daemon died'))
    .option(
      '--kubernetes',
      "Kubernetes' own control plane, kubelets and containerd (built at the first use); weft is for you to deploy (default: the lab's own)",
    )
    .option('--agents', 'with --kubernetes: run weft on the nodes as plain processes (default: not)')
    .addHelpText(
      'after',
      examples(
        'weft lab up',
        'weft lab up --nodes 5 --subnets 2 --backend vxlan-direct --name big',
        'weft lab up --net-config my-net-conf.json --mtu 9000',
        'weft lab up --subnets 2 --backend calico-vxlan-cross',
        'weft lab up --pools my-ippools.yaml',
        'weft lab up --kubernetes --agents',
      ),
    )
    .action(async (options, command: Command) => {
      if (options.agents && !options.kubernetes) command.error('--agents goes with --kubernetes; other labs have them')
      const status = await (await actions()).up({ ...options, given: givenShape(command) }, print)
      print(`next: export KUBECONFIG=${status.kubeconfig}; kubectl get nodes -o wide`)
    })

  named(
    lab
      .command('down')
      .description('end a lab and remove everything of it; works without its daemon, after a crash and after a reboot'),
  )
    .option('--all', 'every lab of this machine', false)
    .addHelpText('after', examples('weft lab down', 'weft lab down --name big', 'weft lab down --all'))
    .action(async (options) => {
      const { down, labNames } = await actions()
      await down(options.all ? labNames() : [options.name], print)
    })

  named(lab.command('status').description('nodes, data path, agents and active faults'))
    .option('--json', 'as one JSON object', false)
    .addHelpText('after', examples('weft lab status', 'weft lab status --json | jq .nodes'))
    .action(async (options) => {
      const { ask, printStatus } = await actions()
      const status = await ask<Parameters<typeof printStatus>[0]>(options.name, { command: 'status' })
      if (options.json) print(JSON.stringify(status, undefined, 2))
      else printStatus(status, print)
    })

  lab
    .command('list')
    .description('names of the labs on this machine')
    .addHelpText('after', examples('weft lab list'))
    .action(async () => {
      for (const name of (await actions()).labNames()) print(name)
    })

  named(lab.command('load').argument('<archive>', 'of docker or OCI, as npm run image writes it'))
    .description('give every node of a lab with --kubernetes the images of an archive')
    .addHelpText('after', examples('weft lab load dist/weft-image.tar'))
    .action(async (archive: string, options) => {
      await (await actions()).loadImage(options.name, archive, print)
    })

  named(lab.command('kubeconfig').description("print the path of the lab's kubeconfig"))
    .addHelpText(
      'after',
      examples('export KUBECONFIG=$(weft lab kubeconfig)', 'kubectl --kubeconfig $(weft lab kubeconfig) get pods -A'),
    )
    .action(async (options) => {
      print((await actions()).kubeconfigPath(options.name))
    })

  withUpOptions(
    lab
      .command('demo')
      .description('bring a lab up, deploy pods, show by kubectl, ping and captures that and how they talk'),
  )
    .addHelpText(
      'after',
      examples(
        'weft lab demo',
        'weft lab demo --backend udp --name udp',
        'weft lab demo --subnets 2 --backend vxlan-direct',
      ),
    )
    .action(async (options, command: Command) => {
      const status = await (await actions()).up({ ...options, given: givenShape(command) }, print)
      const { showProof } = await import('../src/lab/demo.ts')
      await showProof(status, print)
    })
}

function registerPods(lab: Command): void {
  named(lab.command('exec').argument('<pod>', 'NAME or NAMESPACE/NAME').argument('<command...>', 'after --'))
    .description('run a command inside a pod, with this terminal')
    .option('-c, --container <container>', 'which container (default: the first)')
    .addHelpText('after', examples('weft lab exec web -- ip route', 'weft lab exec kube-system/dns -- bash'))
    .action(async (pod: string, argv: string[], options) => {
      process.exitCode = await (await actions()).execute(options.name, 'pod', pod, argv, options.container)
    })

  named(
    lab
      .command('run')
      .argument('<pod>', 'name of the new pod')
      .argument('[command...]', 'after --; without one the built-in server answers'),
  )
    .description('make a pod and wait for it')
    .option('--node <node>', 'run it on this node')
    .option('--image <image>', 'only shown: the lab has no images, commands run from this machine', 'weft/server')
    .option('--port <port>', 'port of the built-in server (repeatable; default 8080)', ports)
    .option('--restart <policy>', 'Always, OnFailure or Never', 'Always')
    .addHelpText(
      'after',
      examples(
        'weft lab run web --node n1                 the built-in server: HTTP 8080, TCP 9000, UDP 9001',
        'weft lab run shell -- sleep infinity',
        "weft lab run once --restart Never -- sh -c 'ip -br address'",
      ),
    )
    .action(async (pod: string, argv: string[], options) => {
      await (await actions()).runPod(options.name, pod, argv, options, print)
    })

  const node = lab
    .command('node')
    .description('work on a node')
    .addHelpText('after', examples('weft lab node exec n1 -- ip route'))
  named(
    node.command('exec').argument('<node>', 'n1, …, router, outside or fabric').argument('<command...>', 'after --'),
  )
    .description("run a command inside a node's network namespace")
    .addHelpText(
      'after',
      examples(
        'weft lab node exec n1 -- ip route',
        'weft lab node exec n1 -- bridge fdb show dev flannel.1',
        'weft lab node exec outside -- ping -c1 172.30.0.11',
      ),
    )
    .action(async (target: string, argv: string[], options) => {
      process.exitCode = await (await actions()).execute(options.name, 'node', target, argv)
    })

  named(lab.command('logs').argument('<target>', "a pod, a node (its agent's log) or `daemon`"))
    .description('print what a pod, an agent or the daemon wrote')
    .option('-f, --follow', 'go on printing', false)
    .option('--tail <lines>', 'only the last lines', whole)
    .option('-c, --container <container>', 'which container (default: the first)')
    .addHelpText('after', examples('weft lab logs web', 'weft lab logs n1 --tail 20 -f', 'weft lab logs daemon'))
    .action(async (target: string, options) => {
      await (await actions()).showLogs(options.name, target, options)
    })
}

function registerSwitch(lab: Command): void {
  named(lab.command('switch').argument('[backend]', BACKENDS))
    .description(
      "move the running cluster to another data path: writes flannel's ConfigMap or Calico's IPPools, waits for all nodes",
    )
    .option('--net-config <file>', 'a whole net-conf.json instead of a name')
    .option('--pools <file>', 'IPPool manifests instead of a name')
    .option('--node <node>', "between flannel's data paths and Calico's: new pods of this node only (default: of all)")
    .addHelpText(
      'after',
      examples(
        'weft lab switch host-gw',
        'weft lab switch --net-config vxlan-vni-7.json',
        'weft lab switch calico-ipip --node n1      pods that n1 starts from now on are routed; all others are bridged',
        'weft lab switch calico-ipip                on every node; pods that run keep their wiring until they are replaced',
      ),
    )
    .action(async (backend: string | undefined, options, command: Command) => {
      const files = options.netConfig !== undefined || options.pools !== undefined
      if ((backend === undefined) === !files) command.error('name a backend, or give --net-config or --pools')
      const { name, ...rest } = options
      await (await actions()).switchTo(name, backend === undefined ? rest : { ...rest, backend }, print)
    })
}

function registerFaults(lab: Command): void {
  const fault = lab
    .command('fault')
    .description('break something, to see what holds')
    .addHelpText(
      'after',
      examples(
        'weft lab fault kill-agent n1               it is started again, as a DaemonSet would',
        'weft lab fault partition n1                n1 reaches nobody, the API server included',
        'weft lab fault partition n1 n2             these two only',
        'weft lab fault loss n2 5',
        'weft lab fault heal',
      ),
    )
  const send = async (lab: string, request: Record<string, unknown>) =>
    print(await (await actions()).ask<string>(lab, { command: 'fault', ...request }))
  const simple = (kind: string, description: string) =>
    named(fault.command(kind).argument('<node>', 'which node').description(description)).addHelpText(
      'after',
      examples(`weft lab fault ${kind} n1`),
    )

  simple('kill-agent', "SIGKILL a node's agent")
    .option('--keep-down', 'do not start it again until start-agent', false)
    .action((node: string, options) => send(options.name, { kind: 'kill-agent', node, keepDown: options.keepDown }))
  simple('stop-agent', "freeze a node's agent (SIGSTOP)").action((node: string, options) =>
    send(options.name, { kind: 'stop-agent', node }),
  )
  simple('start-agent', 'end kill-agent --keep-down or stop-agent').action((node: string, options) =>
    send(options.name, { kind: 'start-agent', node }),
  )
  simple('reboot-node', "a node's power fails and comes back: agent, pods and namespaces are made anew").action(
    (node: string, options) => send(options.name, { kind: 'reboot-node', node }),
  )
  simple('drop-node', "a node's power fails for good: agent, pods and Node object go").action((node: string, options) =>
    send(options.name, { kind: 'drop-node', node }),
  )
  named(
    fault.command('add-node').argument('[node]', 'its name (default: the next n<number>)').description('a node joins'),
  )
    .option('--subnet <number>', 'on which underlay subnet, from 0', whole)
    .addHelpText('after', examples('weft lab fault add-node', 'weft lab fault add-node edge --subnet 1'))
    .action((node: string | undefined, options) =>
      send(options.name, { kind: 'add-node', node, subnet: options.subnet }),
    )
  named(
    fault
      .command('partition')
      .argument('<node>', 'which node')
      .argument('[other]', 'from this node only')
      .description('cut a node off, or two from each other'),
  )
    .addHelpText('after', examples('weft lab fault partition n1', 'weft lab fault partition n1 n2'))
    .action((node: string, other: string | undefined, options) =>
      send(options.name, { kind: 'partition', node, other }),
    )
  named(
    fault
      .command('loss')
      .argument('<node>', 'which node')
      .argument('<percent>', 'share of packets, both ways', number)
      .description('lose packets from and to a node'),
  )
    .addHelpText('after', examples('weft lab fault loss n1 2.5'))
    .action((node: string, percent: number, options) => send(options.name, { kind: 'loss', node, percent }))
  named(
    fault
      .command('delay')
      .argument('<node>', 'which node')
      .argument('<milliseconds>', 'added to each packet to it', number)
      .description('delay packets to a node (needs netem in the kernel; says so when it is not there)'),
  )
    .addHelpText('after', examples('weft lab fault delay n1 40'))
    .action((node: string, milliseconds: number, options) => send(options.name, { kind: 'delay', node, milliseconds }))
  named(fault.command('api-down').description('the API server refuses the nodes until heal'))
    .addHelpText('after', examples('weft lab fault api-down; sleep 60; weft lab fault heal'))
    .action((options) => send(options.name, { kind: 'api-down' }))
  named(fault.command('heal').description('end partitions, losses, delays and api-down'))
    .addHelpText('after', examples('weft lab fault heal'))
    .action((options) => send(options.name, { kind: 'heal' }))
  named(
    fault
      .command('kill-daemon')
      .description("SIGKILL the lab's own daemon; pods and agents run on; `weft lab up` takes over"),
  )
    .addHelpText('after', examples('weft lab fault kill-daemon; weft lab up'))
    .action(async (options) => {
      const { ask } = await actions()
      const { pid } = await ask<{ pid: number }>(options.name, { command: 'status' })
      process.kill(pid, 'SIGKILL')
      print(`daemon ${pid} of lab ${options.name} killed; take over with: weft lab up --name ${options.name}`)
    })
}

function registerDaemon(lab: Command): void {
  named(
    lab.command('daemon', { hidden: true }).description('the process behind a lab; `weft lab up` starts it'),
  ).action(async (options) => {
    const { runDaemon } = await import('../src/lab/daemon-main.ts')
    await runDaemon(options.name)
  })
}
