/**
 * The pods of weft on every node: an agent, and, while weft is uninstalled, one that cleans up.
 *
 * An agent lives in the node's network namespace and reaches, of the node's files, what is listed in `mounts` alone. It
 * is not privileged: the capabilities below suffice, and every one has its reason. Kernel modules are loaded by the kernel
 * itself when a device of their kind is asked for; the agent neither may nor needs to.
 *
 * Sources: capabilities(7); Kubernetes API reference: DaemonSet, SecurityContext, VolumeMount (mountPropagation).
 */
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import type { KubeObject } from './kube-object.ts'
import { agentAccount, netConfMap } from './rights.ts'
import type { InstallValues } from './values.ts'

export const agentName = 'weft-agent'
export const cleanupName = 'weft-cleanup'

/** Capability → what for. */
export const capabilities: Readonly<Record<string, string>> = {
  DAC_OVERRIDE: "the node's CNI directories, whoever unpacked them",
  NET_ADMIN: "devices, routes, rules, the table inet weft, and the kernel's network variables",
  SYS_ADMIN: "entering pods' network namespaces (setns), and making /proc/sys writable in this container alone",
}

interface Mount {
  readonly name: string
  readonly path: string
  readonly propagation?: string
}

const mountsOf = (values: InstallValues): readonly Mount[] => [
  { name: 'run', path: '/run/weft' },
  { name: 'subnet-env', path: '/run/flannel' },
  { name: 'state', path: '/var/lib/weft' },
  { name: 'cni-bin', path: values.cniBinDir },
  { name: 'cni-conf', path: values.cniConfDir },
  // Namespaces that the runtime makes after this pod started have to appear in it.
  { name: 'netns', path: '/run/netns', propagation: 'HostToContainer' },
]

/** What has to go with weft: the directories around its own ones as well, so that those can be removed. */
const cleanupMountsOf = (values: InstallValues): readonly Mount[] => [
  { name: 'run', path: '/run' },
  { name: 'var-lib', path: '/var/lib' },
  { name: 'cni-bin', path: values.cniBinDir },
  { name: 'cni-conf', path: values.cniConfDir },
]

const volumes = (mounts: readonly Mount[]) =>
  mounts.map(({ name, path }) => ({ name, hostPath: { path, type: 'DirectoryOrCreate' } }))

const volumeMounts = (mounts: readonly Mount[]) =>
  mounts.map(({ name, path, propagation }) => ({
    name,
    mountPath: path,
    ...(propagation ? { mountPropagation: propagation } : {}),
  }))

export const imageOf = ({ image }: InstallValues): string => `${image.repository}:${image.tag}`

const securityContext = (privileged: boolean) => ({
  privileged,
  runAsUser: 0,
  // The profiles of runtimes forbid to write the kernel's network variables.
  appArmorProfile: { type: 'Unconfined' },
  ...(privileged
    ? {}
    : {
        readOnlyRootFilesystem: true,
        allowPrivilegeEscalation: true,
        capabilities: { drop: ['ALL'], add: Object.keys(capabilities) },
        seccompProfile: { type: 'RuntimeDefault' },
      }),
})

/** What both kinds of pods share: they run on every node, also before it has a network and while it is cordoned. */
const podSpec = {
  hostNetwork: true,
  dnsPolicy: 'Default',
  nodeSelector: { 'kubernetes.io/os': 'linux' },
  priorityClassName: 'system-node-critical',
  tolerations: [{ operator: 'Exists' }],
} as const

export const probe = (port: number, path: string) => ({ httpGet: { host: '127.0.0.1', port, path } })

/** Annotations by which Prometheus finds /metrics. */
export const scraped = (port: number) => ({
  'prometheus.io/scrape': 'true',
  'prometheus.io/port': `${port}`,
  'prometheus.io/path': '/metrics',
})

/** By these the agents' pods are known, to the DaemonSet and to the controller. */
export const agentLabels = { ...ownLabels, 'app.kubernetes.io/component': 'agent' }

export function agentDaemonSet(values: InstallValues): KubeObject {
  const { agent, namespace } = values
  const labels = agentLabels
  const mounts = mountsOf(values)
  const container = {
    name: 'agent',
    image: imageOf(values),
    imagePullPolicy: values.image.pullPolicy,
    args: [
      'agent',
      `--net-config-map=${namespace}/${netConfMap}`,
      `--healthz-port=${agent.healthPort}`,
      `--log-level=${agent.logLevel}`,
      `--cni-bin-dir=${values.cniBinDir}`,
      `--cni-conf-dir=${values.cniConfDir}`,
      // The tunnel of the UDP backend carries packets itself: an upgrade of the agent must not end it.
      ...(agent.privileged ? ['--tunnel-leaves-container'] : []),
      ...agent.args,
    ],
    env: [{ name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
    ports: [{ name: 'metrics', containerPort: agent.healthPort, protocol: 'TCP' }],
    // A node's API server may be away for long: an agent that waits for it is alive, and not ready.
    startupProbe: { ...probe(agent.healthPort, '/healthz'), periodSeconds: 1, failureThreshold: 60 },
    livenessProbe: {
      ...probe(agent.healthPort, '/healthz'),
      periodSeconds: 10,
      failureThreshold: 6,
      timeoutSeconds: 5,
    },
    readinessProbe: { ...probe(agent.healthPort, '/readyz'), periodSeconds: 2, timeoutSeconds: 2 },
    resources: agent.resources,
    securityContext: securityContext(agent.privileged),
    volumeMounts: volumeMounts(mounts),
  }
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name: agentName, namespace, labels },
    spec: {
      selector: { matchLabels: labels },
      updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: agent.maxUnavailable } },
      template: {
        metadata: {
          labels,
          annotations: scraped(agent.healthPort),
        },
        spec: {
          ...podSpec,
          ...(agent.privileged ? { hostPID: true } : {}),
          serviceAccountName: agentAccount.name,
          terminationGracePeriodSeconds: 10,
          containers: [container],
          volumes: volumes(mounts),
        },
      },
    },
  }
}

/** Cleans each node first, then waits to be deleted: a pod of it that is ready is a node that is clean. */
export function cleanupDaemonSet(values: InstallValues): KubeObject {
  const { namespace } = values
  const labels = { ...ownLabels, 'app.kubernetes.io/component': 'cleanup' }
  const mounts = cleanupMountsOf(values)
  const image = { image: imageOf(values), imagePullPolicy: values.image.pullPolicy }
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name: cleanupName, namespace, labels },
    spec: {
      selector: { matchLabels: labels },
      updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '100%' } },
      template: {
        metadata: { labels },
        spec: {
          ...podSpec,
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: 1,
          initContainers: [
            {
              name: 'cleanup',
              ...image,
              args: ['cleanup', `--cni-bin-dir=${values.cniBinDir}`, `--cni-conf-dir=${values.cniConfDir}`],
              securityContext: securityContext(values.agent.privileged),
              volumeMounts: volumeMounts(mounts),
            },
          ],
          containers: [{ name: 'done', ...image, command: ['/usr/bin/node', '-e', 'setInterval(() => {}, 1e9)'] }],
          volumes: volumes(mounts),
        },
      },
    },
  }
}
