/**
 * What a node asks of the network plugin for a pod: names as CRI runtimes give them, host ports, bandwidth. Pure.
 * Sources: containernetworking cni CONVENTIONS.md (CNI_ARGS, portMappings, bandwidth); Kubernetes documentation, "Network
 * Plugins", "Support traffic shaping".
 */
import type { Attachment } from './cni.ts'
import type { Pod } from './pod-spec.ts'
import type { PodRecord } from './record.ts'

/** The attachment of a pod's sandbox. */
export function attachmentOf(pod: Pod, record: PodRecord, containerId: string, netnsPath: string): Attachment {
  const ports = pod.spec.containers
    .flatMap((container) => container.ports ?? [])
    .filter((port) => port.hostPort)
    .map(({ hostPort, containerPort, protocol, hostIP }) => ({
      hostPort,
      containerPort,
      protocol: (protocol ?? 'TCP').toLowerCase(),
      ...(hostIP ? { hostIP } : {}),
    }))
  const bandwidth = bandwidthOf(pod.metadata.annotations ?? {})
  return {
    containerId,
    netnsPath,
    ifName: 'eth0',
    args: [
      ['IgnoreUnknown', '1'],
      ['K8S_POD_NAMESPACE', record.namespace],
      ['K8S_POD_NAME', record.name],
      ['K8S_POD_INFRA_CONTAINER_ID', containerId],
      ['K8S_POD_UID', record.uid],
    ],
    runtimeConfig: {
      ...(ports.length > 0 ? { portMappings: ports } : {}),
      ...(bandwidth ? { bandwidth } : {}),
    },
  }
}

/** Bits per second of the two well-known annotations, with bursts as kubelets give them. */
function bandwidthOf(annotations: Readonly<Record<string, string>>): Record<string, number> | undefined {
  const ingressRate = quantityBits(annotations['kubernetes.io/ingress-bandwidth'])
  const egressRate = quantityBits(annotations['kubernetes.io/egress-bandwidth'])
  if (ingressRate === undefined && egressRate === undefined) return undefined
  const burst = 2 ** 31 - 1
  return {
    ...(ingressRate === undefined ? {} : { ingressRate, ingressBurst: burst }),
    ...(egressRate === undefined ? {} : { egressRate, egressBurst: burst }),
  }
}

const SUFFIXES: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
}

function quantityBits(text: string | undefined): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?$/.exec(text ?? '')
  return match ? Math.round(Number(match[1]) * SUFFIXES[match[2] ?? '']!) : undefined
}
