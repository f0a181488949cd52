/**
 * How lists and maps of the built-in kinds merge, by model and property: what the Kubernetes client's models
 * leave out. Anything not named here is an atomic list or a granular map.
 * Sources: Kubernetes API reference ("patch strategy", "map", "set" and "atomic" marks of each field).
 */
import type { Schema } from './schema.ts'

/** A list of objects known by some of their fields; `merge`: the one that strategic merge patch uses. */
const map = (keys: string[], merge = keys[0]!, strategy = 'merge'): Partial<Schema> => ({
  'x-kubernetes-list-type': 'map',
  'x-kubernetes-list-map-keys': keys,
  'x-kubernetes-patch-merge-key': merge,
  'x-kubernetes-patch-strategy': strategy,
})
/** Merged by strategic merge patch, whole for server-side apply. */
const mergedAtomic = (merge: string): Partial<Schema> => ({
  'x-kubernetes-list-type': 'atomic',
  'x-kubernetes-patch-merge-key': merge,
  'x-kubernetes-patch-strategy': 'merge',
})
const set: Partial<Schema> = { 'x-kubernetes-list-type': 'set' }
const mergedSet: Partial<Schema> = { ...set, 'x-kubernetes-patch-strategy': 'merge' }
const atomicMap: Partial<Schema> = { 'x-kubernetes-map-type': 'atomic' }
const conditions = map(['type'])

export const mergeRules: Readonly<Record<string, Readonly<Record<string, Partial<Schema>>>>> = {
  ObjectMeta: { finalizers: mergedSet, ownerReferences: map(['uid']) },
  PodSpec: {
    containers: map(['name']),
    initContainers: map(['name']),
    ephemeralContainers: map(['name']),
    volumes: map(['name'], 'name', 'merge,retainKeys'),
    imagePullSecrets: map(['name']),
    hostAliases: map(['ip']),
    topologySpreadConstraints: map(['topologyKey', 'whenUnsatisfiable']),
    schedulingGates: map(['name']),
    resourceClaims: map(['name'], 'name', 'merge,retainKeys'),
    nodeSelector: atomicMap,
  },
  Container: {
    env: map(['name']),
    ports: map(['containerPort', 'protocol']),
    volumeMounts: map(['mountPath']),
    volumeDevices: map(['devicePath']),
  },
  EphemeralContainer: {
    env: map(['name']),
    ports: map(['containerPort', 'protocol']),
    volumeMounts: map(['mountPath']),
    volumeDevices: map(['devicePath']),
  },
  PodStatus: { conditions, podIPs: map(['ip']), hostIPs: mergedAtomic('ip') },
  ServiceSpec: { ports: map(['port', 'protocol']), selector: atomicMap },
  ServiceStatus: { conditions },
  NodeSpec: { podCIDRs: mergedSet },
  NodeStatus: { conditions, addresses: map(['type']) },
  NamespaceStatus: { conditions },
  ServiceAccount: { secrets: map(['name']) },
  DeploymentSpec: { strategy: { 'x-kubernetes-patch-strategy': 'retainKeys' } },
  DeploymentStatus: { conditions },
  ReplicaSetStatus: { conditions },
  DaemonSetStatus: { conditions },
  StatefulSetStatus: { conditions },
  Endpoint: { addresses: set },
  CustomResourceDefinitionStatus: { conditions },
}

/** Small reference-like objects that server-side apply owns whole. */
export const atomicModels: ReadonlySet<string> = new Set([
  'LabelSelector',
  'NodeSelector',
  'NodeSelectorTerm',
  'ObjectReference',
  'LocalObjectReference',
  'OwnerReference',
  'SecretKeySelector',
  'ConfigMapKeySelector',
  'ObjectFieldSelector',
  'ResourceFieldSelector',
  'TypedLocalObjectReference',
  'RoleRef',
  'Subject',
])

/** Amounts such as `500m` and `1Gi`: strings that users may also write as numbers. */
export const quantityFields: ReadonlySet<string> = new Set([
  'ResourceRequirements.limits',
  'ResourceRequirements.requests',
  'NodeStatus.capacity',
  'NodeStatus.allocatable',
  'PodSpec.overhead',
  'EmptyDirVolumeSource.sizeLimit',
  'ResourceFieldSelector.divisor',
  'ContainerStatus.allocatedResources',
])
