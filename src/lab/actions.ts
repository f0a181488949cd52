/**
 * What the `weft lab` commands do, apart from reading the command line.
 */
import { spawn } from 'node:child_process'
import { closeSync, createReadStream, existsSync, openSync, readSync, watch } from 'node:fs'
import { resolve } from 'node:path'
import { ConfigError } from '../model/errors.ts'
import type { KubeObject } from './api/interfaces.ts'
import { askControl, NotRunning } from './control.ts'
import type { LabStatus, Place } from './daemon-commands.ts'
import { checkKernel } from './kernel-needs.ts'
import { isLabName, labPaths, nativeProgram } from './layout.ts'
import { isRunning, removeLab, startLab } from './lifecycle.ts'
import { readPools } from './pools.ts'
import { LAB_VARIABLE, readTail } from './process.ts'
import { labNames, makeSpec, type NetworkWords, readSpec, wordsFor } from './spec.ts'
import type { Switched } from './switch.ts'

type Print = (line: string) => void

export const DEFAULT_LAB = 'lab'
const MAX_WORDS_BYTES = 65_536

export interface UpOptions {
  readonly name: string
  readonly nodes: number
  readonly subnets: number
  readonly backend: string
  readonly netConfig?: string
  readonly pools?: string
  readonly mtu?: number
  readonly ipv6: boolean
  /** Kubernetes' own programs; `agents` runs weft on them as plain processes. */
  readonly kubernetes?: boolean
  readonly agents?: boolean
  /** Options that say what the lab is made like, as the user gave them: `--nodes`. */
  readonly given?: readonly string[]
}

const seconds = (from: number): string => `${((performance.now() - from) / 1000).toFixed(1)} s`

function checkName(name: string): void {
  if (!isLabName(name))
    throw new ConfigError(
      'weft lab',
      '--name',
      `${JSON.stringify(name)}: up to 16 small letters and digits, a letter first`,
    )
}

/** A file that the user named: text of at most 64 KiB. What it means is checked by who uses it. */
function readWords(command: string, option: string, path: string): string {
  const refuse = (problem: string, cause?: unknown) =>
    new ConfigError(command, option, `${path}: ${problem}`, { cause })
  const bytes = Buffer.alloc(MAX_WORDS_BYTES + 1)
  let length = 0
  try {
    const fd = openSync(path, 'r')
    try {
      for (let more = -1; more !== 0 && length < bytes.length; length += more)
        more = readSync(fd, bytes, length, bytes.length - length, null)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw refuse('cannot be read', error)
  }
  if (length > MAX_WORDS_BYTES) throw refuse(`is longer than ${MAX_WORDS_BYTES} bytes`)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length)).trim()
  } catch (error) {
    throw refuse('is not UTF-8 text', error)
  }
}

/** Of what the user named, a data path or files of their own, what the cluster is to be told. */
interface Named {
  readonly backend?: string
  readonly netConfig?: string
  readonly pools?: string
  /** Options that were typed. */
  readonly given?: readonly string[]
}

/** A backend that was not typed gives way to files. Throws ConfigError. */
function wordsOf(
  command: string,
  { backend, netConfig, pools, given }: Named,
  lab: { readonly ipv6: boolean; readonly subnets: number },
): NetworkWords {
  const isAsked = backend !== undefined && (given === undefined || given.includes('--backend'))
  const hasFiles = netConfig !== undefined || pools !== undefined
  const byName = backend !== undefined && (isAsked || !hasFiles) ? wordsFor(backend, lab) : {}
  if (pools !== undefined && byName.pools)
    throw new ConfigError(command, '--pools', `${backend} has pools of its own: give one of the two`)
  return {
    ...byName,
    ...(netConfig === undefined ? {} : { netConfig: readWords(command, '--net-config', netConfig) }),
    ...(pools === undefined ? {} : { pools: readPools(readWords(command, '--pools', pools), pools) }),
  }
}

/** What `weft lab switch` was asked for. */
export interface SwitchOptions extends Named {
  readonly node?: string
}

/** Asks the lab's daemon; says how to start it when there is none. */
export async function ask<T>(
  lab: string,
  request: { command: string; [key: string]: unknown },
  progress?: Print,
): Promise<T> {
  checkName(lab)
  try {
    return await askControl<T>(labPaths(lab).control, request, progress)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') throw new Error('a lab needs root. Try it with sudo')
    if (!(error instanceof NotRunning)) throw error
    throw new Error(`lab ${lab} does not run; start it with: ${commandFor('weft lab up', lab)}`)
  }
}

/** Brings a lab up, or says that it is. A lab whose daemon died is taken over with what still runs. */
export async function up(options: UpOptions, print: Print): Promise<LabStatus> {
  checkName(options.name)
  const startedAt = performance.now()
  const existing = readSpec(options.name)
  if (existing && (await isRunning(options.name))) {
    print(`lab ${options.name} runs already`)
    if (options.given?.length)
      print(`  it stays as it was made: ${options.given.join(', ')} would count for a new lab, after weft lab down`)
    return ask<LabStatus>(options.name, { command: 'wait-ready' }, (line) => print(`  ${line}`))
  }
  const words = wordsOf('weft lab up', options, options)
  const spec =
    existing ??
    makeSpec({
      name: options.name,
      nodes: options.nodes,
      subnets: options.subnets,
      ipv6: options.ipv6,
      ...(options.mtu === undefined ? {} : { mtuBytes: options.mtu }),
      ...words,
      ...(options.kubernetes ? { kubernetes: true, agents: options.agents === true } : {}),
    })
  await checkKernel(
    spec,
    `weft lab up${(options.given ?? []).includes('--backend') ? ` --backend ${options.backend}` : ' …'}`,
  )
  print(
    existing
      ? `lab ${spec.name} was here before: taking it over as it was made (${existing.nodes.length} nodes); weft lab down ends it`
      : `lab ${spec.name}: ${spec.nodes.length} nodes`,
  )
  const interrupted = () => {
    print(`lab ${spec.name} goes on coming up; end it with: ${commandFor('weft lab down', spec.name)}`)
    process.exit(130)
  }
  process.once('SIGINT', interrupted)
  const status = await startLab(spec, (line) => print(`  ${line}`))
  process.off('SIGINT', interrupted)
  print(`lab ${spec.name} is up in ${seconds(startedAt)}: ${status.nodes.length} nodes, data path ${status.backend}`)
  return status
}

export async function down(names: readonly string[], print: Print): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('a lab needs root. Try it with sudo')
  for (const name of names) {
    checkName(name)
    const startedAt = performance.now()
    const { processes, namespaces } = await removeLab(name)
    print(
      processes + namespaces === 0
        ? `lab ${name}: nothing runs; its files are gone`
        : `lab ${name} is down in ${seconds(startedAt)}: ${processes} processes, ${namespaces} namespaces, its files`,
    )
  }
}

export { labNames }

/** Gives every node of a lab with real kubelets the images of an archive. */
export async function loadImage(lab: string, archive: string, print: Print): Promise<void> {
  await ask(lab, { command: 'load', archive: resolve(archive) }, (line) => print(`  ${line}`))
  print(`${archive}: on all nodes of lab ${lab}`)
}

/** Path of a lab's kubeconfig; it is there while the lab is up, with or without its daemon. */
export function kubeconfigPath(lab: string): string {
  checkName(lab)
  const { kubeconfig } = labPaths(lab)
  if (!existsSync(kubeconfig))
    throw new Error(`there is no lab ${lab}; make one with: ${commandFor('weft lab up', lab)}`)
  return kubeconfig
}

/** The command with the lab's name where it is not the usual one. */
const commandFor = (command: string, lab: string): string =>
  lab === DEFAULT_LAB ? command : `${command} --name ${lab}`

export function printStatus(status: LabStatus, print: Print): void {
  print(
    `lab ${status.name}: data path ${status.backend}, ${status.subnets} subnet${status.subnets === 1 ? '' : 's'}, api ${status.api}, daemon ${status.pid} (${Math.round(status.memoryBytes / 2 ** 20)} MiB)`,
  )
  print(`kubeconfig: ${status.kubeconfig}`)
  const rows = [
    ['NODE', 'READY', 'SUBNET', 'ADDRESSES', 'POD CIDRS', 'SENDS BY', 'AGENT', 'RESTARTS', 'PODS'],
    ...status.nodes.map((node) => [
      node.name,
      node.ready ? 'yes' : 'no',
      `net${node.subnet}`,
      node.addresses.join(','),
      node.podCidrs.join(','),
      node.backend || '-',
      node.agentPid === undefined ? (node.agentElsewhere ? '-' : 'down') : String(node.agentPid),
      String(node.agentRestarts),
      String(node.pods),
    ]),
  ]
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  for (const row of rows)
    print(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
  for (const node of status.nodes) if (node.reason) print(`${node.name}: ${node.reason}`)
  for (const fault of status.faults) print(`fault: ${fault}`)
}

/** Runs a command inside a pod or a node (or `router`, `outside`, `fabric`) with this terminal; resolves with its exit code. */
export async function execute(
  lab: string,
  kind: 'pod' | 'node',
  target: string,
  argv: readonly string[],
  container?: string,
): Promise<number> {
  const place = await ask<Place>(lab, { command: 'locate', kind, target, ...(container ? { container } : {}) })
  const enter =
    place.pid === undefined
      ? ['--netns', place.netnsPath, '--mount-ns', '--hostname', target]
      : ['--join', String(place.pid), '--mount-ns']
  const entry = place.entry ?? [nativeProgram('weft-pod'), 'run', ...enter, '--']
  const child = spawn(entry[0]!, [...entry.slice(1), ...argv], {
    stdio: 'inherit',
    env: { ...process.env, ...place.env, [LAB_VARIABLE]: lab },
  })
  const ignore = () => {}
  process.on('SIGINT', ignore)
  try {
    return await new Promise((done, reject) => {
      child.once('error', reject)
      child.once('exit', (code, signal) => done(code ?? (signal ? 128 : 1)))
    })
  } finally {
    process.off('SIGINT', ignore)
  }
}

export interface RunOptions {
  readonly node?: string
  readonly image: string
  readonly port?: readonly number[]
  readonly restart: string
}

/** Makes a pod and waits until it is ready or done. */
export async function runPod(
  lab: string,
  name: string,
  argv: readonly string[],
  options: RunOptions,
  print: Print,
): Promise<void> {
  if (options.node !== undefined) {
    const { nodes } = await ask<LabStatus>(lab, { command: 'status' })
    if (!nodes.some((node) => node.name === options.node))
      throw new ConfigError(
        'weft lab run',
        '--node',
        `lab ${lab} has no node ${JSON.stringify(options.node)}; it has ${nodes.map((node) => node.name).join(', ')}`,
      )
  }
  const pod: KubeObject = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { run: name } },
    spec: {
      restartPolicy: options.restart,
      ...(options.node ? { nodeName: options.node } : {}),
      containers: [
        {
          name: 'main',
          image: options.image,
          ...(argv.length > 0 ? { command: argv } : {}),
          ...(options.port ? { ports: options.port.map((containerPort) => ({ containerPort })) } : {}),
        },
      ],
    },
  }
  try {
    await ask(lab, { command: 'apply', objects: [pod] })
  } catch (error) {
    // What a pod is made of cannot be changed.
    if (!/is invalid: spec: Forbidden/.test((error as Error).message)) throw error
    const text = `lab ${lab} has a pod ${JSON.stringify(name)} already, made otherwise: kubectl delete pod ${name}`
    throw new Error(text, { cause: error })
  }
  const pods = await ask<{ name: string; node: string; phase: string; ips: string[] }[]>(lab, {
    command: 'wait-pods',
    namespace: 'default',
    selector: `run=${name}`,
  })
  for (const each of pods) print(`pod ${each.name} on ${each.node}: ${each.phase}, ${each.ips.join(', ')}`)
}

/** Prints the log of a pod's container or of a node's agent. */
export async function showLogs(
  lab: string,
  target: string,
  options: { tail?: number; follow: boolean; container?: string },
): Promise<void> {
  const path =
    target === 'daemon'
      ? labPaths(lab).daemonLog
      : await ask<string>(lab, {
          command: 'log-path',
          target,
          ...(options.container ? { container: options.container } : {}),
        })
  const whole = readTail(path, 64 << 20)
  const lines = whole.split('\n')
  const shown = options.tail === undefined ? whole : lines.slice(-options.tail - 1).join('\n')
  process.stdout.write(shown)
  if (!options.follow) return
  let at = Buffer.byteLength(whole)
  const more = () => {
    createReadStream(path, { start: at }).on('data', (chunk) => {
      at += chunk.length
      process.stdout.write(chunk)
    })
  }
  watch(path, more)
}

/** Moves a running lab to another data path; with `node`, that node's new pods only. */
export async function switchTo(lab: string, target: SwitchOptions, print: Print): Promise<void> {
  const status = await ask<LabStatus>(lab, { command: 'status' })
  const words = wordsOf('weft lab switch', target, status)
  const request = { command: 'switch', ...words, ...(target.node === undefined ? {} : { node: target.node }) }
  const { from, to, milliseconds } = await ask<Switched>(lab, request, (line) => print(`  ${line}`))
  print(`${from} → ${to} on ${target.node ?? 'all nodes'} in ${milliseconds} ms`)
}
