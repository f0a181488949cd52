/**
 * Service → EndpointSlices (one per address family) and the older Endpoints object, from the pods that its selector names.
 *
 * Sources: discovery.k8s.io/v1 EndpointSlice (conditions ready, serving, terminating).
 */
import type { KubeObject } from '../api/interfaces.ts'
import { isNotFound, keyOfObject } from '../informer.ts'
import { type Pod, portNumber } from '../kubelet/pod-spec.ts'
import { controllerReference, isFinished, isReady, isTerminating, matches, type Shared } from './shared.ts'

interface ServicePort {
  readonly name?: string
  readonly protocol?: string
  readonly port: number
  readonly targetPort?: number | string
}

const familyOf = (ip: string): 'IPv4' | 'IPv6' => (ip.includes(':') ? 'IPv6' : 'IPv4')

function endpointPort(port: ServicePort, pods: readonly Pod[]): number {
  const target = port.targetPort ?? port.port
  if (typeof target === 'number' || /^\d+$/.test(target)) return Number(target)
  for (const pod of pods)
    for (const container of pod.spec.containers)
      if (container.ports?.some((each) => each.name === target)) return portNumber(target, container)
  return 0
}

export function startEndpoints(shared: Shared): void {
  const { client, pods } = shared
  const services = shared.informer('services')

  const queue = shared.queue(
    'endpoints',
    async (key) => {
      const service = services.get(key)
      if (!service || isTerminating(service) || !service.spec?.selector) return
      const chosen = [...pods.values()].filter(
        (pod) =>
          pod.metadata.namespace === service.metadata.namespace &&
          matches({ matchLabels: service.spec.selector }, pod.metadata.labels) &&
          (pod.status?.podIPs?.length ?? 0) > 0 &&
          !isFinished(pod),
      )
      const families = (service.spec.ipFamilies ?? ['IPv4']) as ('IPv4' | 'IPv6')[]
      for (const family of families) await write('endpointslices.discovery.k8s.io', slice(service, family, chosen))
      await write('endpoints', endpoints(service, chosen))
    },
    2,
  )

  function slice(service: KubeObject, family: 'IPv4' | 'IPv6', chosen: readonly Pod[]): KubeObject {
    const withoutReadiness = service.spec.publishNotReadyAddresses === true
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `${service.metadata.name}-${family.toLowerCase()}`,
        namespace: service.metadata.namespace!,
        labels: {
          ...service.metadata.labels,
          'kubernetes.io/service-name': service.metadata.name!,
          'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
        },
        ownerReferences: [controllerReference(service, 'v1', 'Service')],
      },
      addressType: family,
      ports: ((service.spec.ports ?? []) as ServicePort[]).map((port) => ({
        name: port.name ?? '',
        protocol: port.protocol ?? 'TCP',
        port: endpointPort(port, chosen),
      })),
      endpoints: chosen.flatMap((pod) => {
        const address = pod.status?.podIPs?.find(({ ip }) => familyOf(ip) === family)?.ip
        if (!address) return []
        const serving = isReady(pod)
        return [
          {
            addresses: [address],
            conditions: {
              ready: withoutReadiness || (serving && !isTerminating(pod)),
              serving,
              terminating: isTerminating(pod),
            },
            nodeName: pod.spec.nodeName,
            targetRef: target(pod),
          },
        ]
      }),
    }
  }

  const target = (pod: Pod) => ({
    kind: 'Pod',
    name: pod.metadata.name,
    namespace: pod.metadata.namespace,
    uid: pod.metadata.uid,
  })

  function endpoints(service: KubeObject, chosen: readonly Pod[]): KubeObject {
    const ports = ((service.spec.ports ?? []) as ServicePort[]).map((port) => ({
      ...(port.name ? { name: port.name } : {}),
      port: endpointPort(port, chosen),
      protocol: port.protocol ?? 'TCP',
    }))
    const live = chosen.filter((pod) => !isTerminating(pod))
    const address = (pod: Pod) => ({ ip: pod.status!.podIP, nodeName: pod.spec.nodeName, targetRef: target(pod) })
    const ready = live.filter(isReady).map(address)
    const notReady = live.filter((pod) => !isReady(pod)).map(address)
    return {
      apiVersion: 'v1',
      kind: 'Endpoints',
      metadata: { name: service.metadata.name!, namespace: service.metadata.namespace! },
      subsets:
        ready.length + notReady.length === 0
          ? []
          : [
              {
                ...(ready.length > 0 ? { addresses: ready } : {}),
                ...(notReady.length > 0 ? { notReadyAddresses: notReady } : {}),
                ports,
              },
            ],
    }
  }

  async function write(resource: string, wanted: KubeObject): Promise<void> {
    const name = { namespace: wanted.metadata.namespace!, name: wanted.metadata.name! }
    let have: KubeObject
    try {
      have = await client.get(resource, name)
    } catch (error) {
      if (!isNotFound(error)) throw error
      await client.create(resource, wanted)
      return
    }
    const same = ['endpoints', 'ports', 'subsets'].every(
      (part) => JSON.stringify(have[part]) === JSON.stringify(wanted[part]),
    )
    if (same) return
    const metadata = { ...have.metadata, labels: wanted.metadata.labels ?? have.metadata.labels ?? {} }
    await client.update(resource, { ...wanted, metadata })
  }

  services.onChange((service, gone) => {
    if (!gone) queue.add(keyOfObject(service))
  })
  pods.onChange((pod) => {
    for (const service of services.values())
      if (
        service.metadata.namespace === pod.metadata.namespace &&
        service.spec?.selector &&
        matches({ matchLabels: service.spec.selector }, pod.metadata.labels)
      )
        queue.add(keyOfObject(service))
  })
}
