/**
 * The parts of a Pod that the lab's kubelet reads, with the defaults of the API where a field may be missing.
 *
 * Sources: Kubernetes API reference, core/v1 Pod (v1.32).
 */
import type { KubeObject } from '../api/interfaces.ts'

export interface ProbeSpec {
  readonly exec?: { readonly command: readonly string[] }
  readonly httpGet?: {
    readonly path?: string
    readonly port: number | string
    readonly host?: string
    readonly scheme?: string
    readonly httpHeaders?: readonly { readonly name: string; readonly value: string }[]
  }
  readonly tcpSocket?: { readonly port: number | string; readonly host?: string }
  readonly initialDelaySeconds?: number
  readonly periodSeconds?: number
  readonly timeoutSeconds?: number
  readonly successThreshold?: number
  readonly failureThreshold?: number
}

export interface ContainerPort {
  readonly name?: string
  readonly containerPort: number
  readonly hostPort?: number
  readonly hostIP?: string
  readonly protocol?: string
}

interface EnvVar {
  readonly name: string
  readonly value?: string
  readonly valueFrom?: { readonly fieldRef?: { readonly fieldPath: string } }
}

export interface ContainerSpec {
  readonly name: string
  readonly image?: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly workingDir?: string
  readonly stdin?: boolean
  /** The end of the first client's input is the end of the container's. */
  readonly stdinOnce?: boolean
  readonly tty?: boolean
  readonly env?: readonly EnvVar[]
  readonly ports?: readonly ContainerPort[]
  readonly readinessProbe?: ProbeSpec
  readonly livenessProbe?: ProbeSpec
  readonly startupProbe?: ProbeSpec
}

export interface PodSpec {
  readonly nodeName?: string
  readonly hostNetwork?: boolean
  readonly hostname?: string
  readonly restartPolicy?: 'Always' | 'OnFailure' | 'Never'
  readonly terminationGracePeriodSeconds?: number
  readonly initContainers?: readonly ContainerSpec[]
  readonly containers: readonly ContainerSpec[]
}

export interface PodCondition {
  readonly type: string
  readonly status: 'True' | 'False' | 'Unknown'
  readonly reason?: string
  readonly message?: string
  readonly lastProbeTime?: string | null
  readonly lastTransitionTime?: string
}

export interface Pod extends KubeObject {
  spec: PodSpec
  status?: {
    readonly phase?: string
    readonly podIP?: string
    readonly podIPs?: readonly { readonly ip: string }[]
    readonly conditions?: readonly PodCondition[]
    readonly startTime?: string
  }
}

/** The number of a port given by number or by name. Throws when the container has no port of that name. */
export function portNumber(port: number | string, container: ContainerSpec): number {
  const number = Number(port)
  if (Number.isInteger(number)) return number
  const named = container.ports?.find((each) => each.name === port)
  if (!named) throw new Error(`container ${container.name} has no port named ${JSON.stringify(port)}`)
  return named.containerPort
}

/** The environment that the container's spec asks for; values may refer to earlier ones as `$(NAME)`. */
export function environmentOf(pod: Pod, container: ContainerSpec, podIps: readonly string[]): Record<string, string> {
  const out: Record<string, string> = {}
  for (const { name, value, valueFrom } of container.env ?? []) {
    const path = valueFrom?.fieldRef?.fieldPath
    out[name] = path ? fieldOf(pod, path, podIps) : expand(value ?? '', out)
  }
  return out
}

/** Replaces `$(NAME)` by the variable; unknown names stay as written, `$$` is a dollar sign. */
export function expand(text: string, variables: Readonly<Record<string, string | undefined>>): string {
  return text.replace(/\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)/g, (whole, name: string | undefined) =>
    name === undefined ? '$' : (variables[name] ?? whole),
  )
}

function fieldOf(pod: Pod, path: string, podIps: readonly string[]): string {
  const keyed = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(path)
  if (keyed) return pod.metadata[keyed[1] as 'labels' | 'annotations']?.[keyed[2]!] ?? ''
  switch (path) {
    case 'metadata.name':
      return pod.metadata.name ?? ''
    case 'metadata.namespace':
      return pod.metadata.namespace ?? ''
    case 'metadata.uid':
      return pod.metadata.uid ?? ''
    case 'spec.nodeName':
      return pod.spec.nodeName ?? ''
    case 'status.podIP':
      return podIps[0] ?? ''
    case 'status.podIPs':
      return podIps.join(',')
    default:
      return ''
  }
}
