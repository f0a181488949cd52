/**
 * From a container's spec to the program that runs. The lab has no images: a command runs from the machine's own files,
 * and a container without one gets the tiny built-in server, on the ports that its spec names. Arguments of agnhost
 * (`netexec --http-port=8080`, `pause`) are understood, so that manifests made for it work.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { nativeProgram } from '../layout.ts'
import { START_FAILED_CODE } from './container.ts'
import { type ContainerSpec, expand, type Pod } from './pod-spec.ts'

/** The program of a container without a command. */
function builtIn(container: ContainerSpec, args: readonly string[]): string[] {
  if (args[0] === 'pause' || /(^|\/)pause(:|$)/.test(container.image ?? '')) return ['pause']
  const out = ['serve']
  for (const arg of args) {
    const port = /^--(http|tcp|udp|sctp)(?:-port)?=(\d+)$/.exec(arg)
    if (port && port[2] !== '-1') out.push(`--${port[1]}`, port[2]!)
  }
  if (out.length > 1) return out
  for (const { containerPort, protocol, name } of container.ports ?? []) {
    const kind =
      protocol === 'UDP' ? 'udp' : protocol === 'SCTP' ? 'sctp' : /^(tcp|echo)/.test(name ?? '') ? 'tcp' : 'http'
    out.push(`--${kind}`, String(containerPort))
  }
  return out
}

/** Absolute path of a program as a shell would find it. Throws when it is not on this machine. */
function programPath(name: string, path: string): string {
  const candidates = name.includes('/') ? [name] : path.split(':').map((folder) => join(folder, name))
  const found = candidates.find(existsSync)
  if (!found)
    throw new Error(`exec: ${JSON.stringify(name)}: not found on this machine (exit code ${START_FAILED_CODE})`)
  return found
}

/** The command as its spec says it, without the namespaces. `env` is the container's. Throws when there is no such program. */
export function commandOf(container: ContainerSpec, env: Readonly<Record<string, string>>): string[] {
  const args = (container.args ?? []).map((arg) => expand(arg, env))
  const command = (container.command ?? []).map((arg) => expand(arg, env))
  if (command.length === 0) return [nativeProgram('weft-pod'), ...builtIn(container, args)]
  return [programPath(command[0]!, env.PATH ?? ''), ...command.slice(1), ...args]
}

/** What is executed: enters the pod's namespaces, takes its host name, then becomes the command. */
export function argvOf(
  container: ContainerSpec,
  env: Readonly<Record<string, string>>,
  netnsPath: string,
  pod: Pod,
): string[] {
  const command = commandOf(container, env)
  const own = container.command?.length ? ['--mount-ns'] : []
  const cwd = container.workingDir ? ['--cwd', container.workingDir] : []
  const hostname = env.HOSTNAME ?? pod.metadata.name ?? 'pod'
  return [
    nativeProgram('weft-pod'),
    'run',
    ...(container.tty ? ['--tty', '--sizes', '3'] : []),
    '--netns',
    netnsPath,
    '--hostname',
    hostname.slice(0, 63),
    ...own,
    ...cwd,
    '--',
    ...command,
  ]
}
