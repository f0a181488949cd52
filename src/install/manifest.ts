/**
 * Everything that weft is in a cluster, as objects and as the text of a manifest. `weft install`, deploy/weft.yaml,
 * deploy/agent-rbac.yaml and the chart all say the same; scripts/manifests.test.ts holds them together.
 */
import { Document, isMap, isSeq, stringify, type YAMLMap, type YAMLSeq } from 'yaml'
import type { KubeObject } from './kube-object.ts'
import {
  accountObjects,
  agentClusterRules,
  agentRules,
  netConfMap,
  nodeGuardObjects,
  ownLabels,
  type Rule,
} from './rights.ts'
import type { InstallValues } from './values.ts'
import { agentDaemonSet } from './workloads.ts'

/** In the order in which they are to be applied. */
export function manifestObjects(values: InstallValues): KubeObject[] {
  const { namespace, netConf } = values
  return [
    ...accountObjects(namespace),
    ...(values.nodeGuard ? nodeGuardObjects(namespace) : []),
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: netConfMap, namespace, labels: { ...ownLabels, app: 'flannel', tier: 'node' } },
      data: { 'net-conf.json': `${JSON.stringify(netConf, undefined, 2)}\n` },
    },
    agentDaemonSet(values),
  ]
}

/** The objects as documents of one file, each rule of a role under its reason. `head` becomes the comment at the top. */
export function formatManifest(objects: readonly KubeObject[], head: string): string {
  return `${comment(head)}${objects.map(formatObject).join('---\n')}`
}

const comment = (text: string): string =>
  text
    .split('\n')
    .map((line) => `# ${line}\n`)
    .join('')

const reasons: Readonly<Record<string, readonly Rule[]>> = { ClusterRole: agentClusterRules, Role: agentRules }

function formatObject(object: KubeObject): string {
  const rules = reasons[object.kind]
  if (!rules) return stringify(object, { lineWidth: 0, aliasDuplicateObjects: false })
  const document = new Document(object, { aliasDuplicateObjects: false })
  const list = document.get('rules') as YAMLSeq<YAMLMap>
  if (isSeq(list))
    for (const [index, rule] of list.items.entries()) if (isMap(rule)) rule.commentBefore = ` ${rules[index]!.why}`
  return document.toString({ lineWidth: 0 })
}
