/**
 * The pods of the controller: two replicas that run before any pod has a network, where the control plane is if they can, and
 * not on one node if there are two. They need nothing of their node: no right on it, no file, no capability.
 *
 * Sources: Kubernetes documentation "Taints and Tolerations" (taints that the node controller sets), "Assigning Pods to Nodes".
 */
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import type { KubeObject } from './kube-object.ts'
import { controllerAccount, controllerName, netConfMap } from './rights.ts'
import { controllerDuties, type InstallValues } from './values.ts'
import { agentLabels, imageOf, probe, scraped } from './workloads.ts'

const labels = { ...ownLabels, 'app.kubernetes.io/component': 'controller' }

/** A node is not ready before it has a pod CIDR: the controller must run there all the same. */
const tolerations = [
  { key: 'node-role.kubernetes.io/control-plane', operator: 'Exists', effect: 'NoSchedule' },
  { key: 'node.kubernetes.io/not-ready', operator: 'Exists' },
  { key: 'node.kubernetes.io/network-unavailable', operator: 'Exists' },
  { key: 'node.cloudprovider.kubernetes.io/uninitialized', operator: 'Exists' },
  { key: 'CriticalAddonsOnly', operator: 'Exists' },
  // From a node that is lost another one takes it over sooner than after the usual five minutes.
  { key: 'node.kubernetes.io/unreachable', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 30 },
]

const affinity = {
  nodeAffinity: {
    preferredDuringSchedulingIgnoredDuringExecution: [
      {
        weight: 50,
        preference: { matchExpressions: [{ key: 'node-role.kubernetes.io/control-plane', operator: 'Exists' }] },
      },
    ],
  },
  podAntiAffinity: {
    preferredDuringSchedulingIgnoredDuringExecution: [
      {
        weight: 100,
        podAffinityTerm: { topologyKey: 'kubernetes.io/hostname', labelSelector: { matchLabels: labels } },
      },
    ],
  },
}

export function controllerDeployment(values: InstallValues): KubeObject {
  const { controller, namespace } = values
  const { healthPort } = controller
  const container = {
    name: 'controller',
    image: imageOf(values),
    imagePullPolicy: values.image.pullPolicy,
    args: [
      'controller',
      `--allocate-node-cidrs=${controller.allocateNodeCidrs}`,
      `--net-config-map=${namespace}/${netConfMap}`,
      `--agent-pods=${namespace}/${Object.entries(agentLabels)
        .map(([key, value]) => `${key}=${value}`)
        .join(',')}`,
      `--leak-check-interval=${controller.leakCheckInterval}`,
      `--leader-elect-resource-namespace=${namespace}`,
      `--healthz-port=${healthPort}`,
      `--log-level=${controller.logLevel}`,
      ...controller.args,
    ],
    // A port of the node: two replicas on one node would be in each other's way.
    ports: [{ name: 'metrics', containerPort: healthPort, hostPort: healthPort, protocol: 'TCP' }],
    startupProbe: { ...probe(healthPort, '/healthz'), periodSeconds: 1, failureThreshold: 60 },
    livenessProbe: { ...probe(healthPort, '/healthz'), periodSeconds: 10, failureThreshold: 6, timeoutSeconds: 5 },
    readinessProbe: { ...probe(healthPort, '/readyz'), periodSeconds: 5, timeoutSeconds: 2 },
    resources: controller.resources,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
  }
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: controllerName, namespace, labels },
    spec: {
      replicas: controller.replicas,
      selector: { matchLabels: labels },
      // A new one beside the old one on the same node would find the port taken.
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 0, maxUnavailable: 1 } },
      template: {
        metadata: { labels, annotations: scraped(healthPort) },
        spec: {
          hostNetwork: true,
          dnsPolicy: 'Default',
          nodeSelector: { 'kubernetes.io/os': 'linux' },
          priorityClassName: 'system-cluster-critical',
          affinity,
          tolerations,
          serviceAccountName: controllerAccount(controllerDuties(values)).name,
          // The Lease is given back in that time.
          terminationGracePeriodSeconds: 10,
          containers: [container],
        },
      },
    },
  }
}
