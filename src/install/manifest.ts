/**
 * Everything that weft is in a cluster, as objects and as the text of a manifest. `weft install`, the files under deploy/ and
 * the chart all say the same; scripts/manifests.test.ts and test/peers/helm.test.ts hold them together.
 */
import { Document, isMap, isSeq, stringify, type YAMLMap, type YAMLSeq } from 'yaml'
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import { controllerDeployment } from './controller-workload.ts'
import type { KubeObject } from './kube-object.ts'
import {
  accountObjects,
  agentAccount,
  agentGuardObjects,
  controllerAccount,
  controllerGuardObjects,
  namespaceObject,
  netConfMap,
} from './rights.ts'
import { controllerDuties, type InstallValues } from './values.ts'
import { agentDaemonSet } from './workloads.ts'

/** In the order in which they are to be applied. */
export function manifestObjects(values: InstallValues): KubeObject[] {
  const { namespace, netConf, controller } = values
  return [
    namespaceObject(namespace),
    ...accountObjects(namespace, agentAccount),
    ...(values.nodeGuard ? agentGuardObjects(namespace) : []),
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: netConfMap, namespace, labels: { ...ownLabels, app: 'flannel', tier: 'node' } },
      data: { 'net-conf.json': `${JSON.stringify(netConf, undefined, 2)}\n` },
    },
    agentDaemonSet(values),
    ...(controller.enabled
      ? [
          ...accountObjects(namespace, controllerAccount(controllerDuties(values))),
          ...(values.nodeGuard ? controllerGuardObjects(namespace) : []),
          controllerDeployment(values),
        ]
      : []),
  ]
}

/** Everything that an installation may have put there, whatever its values were. */
export const everyObject = (values: InstallValues): KubeObject[] =>
  manifestObjects({ ...values, nodeGuard: true, controller: { ...values.controller, enabled: true } })

/** The objects as documents of one file, each rule of a role under its reason. `head` becomes the comment at the top. */
export function formatManifest(objects: readonly KubeObject[], head: string): string {
  return `${comment(head)}${objects.map(formatObject).join('---\n')}`
}

const comment = (text: string): string =>
  text
    .split('\n')
    .map((line) => `# ${line}\n`)
    .join('')

/** Why a role has a rule. The same rule may be in roles of several accounts, for other reasons. */
function reasonFor(role: KubeObject, rule: object): string | undefined {
  for (const { name, everywhere, here, inDefault } of [
    agentAccount,
    controllerAccount({ allocates: true, findsLeaks: true }),
  ]) {
    const { name: of } = role.metadata
    const rules = of === `${name}-events` ? inDefault : of !== name ? [] : role.kind === 'Role' ? here : everywhere
    const found = rules.find(({ why: _, ...rest }) => JSON.stringify(rest) === JSON.stringify(rule))
    if (found) return found.why
  }
  return undefined
}

function formatObject(object: KubeObject): string {
  const rules = (object.rules ?? []) as readonly object[]
  if (rules.length === 0) return stringify(object, { lineWidth: 0, aliasDuplicateObjects: false })
  const document = new Document(object, { aliasDuplicateObjects: false })
  const list = document.get('rules') as YAMLSeq<YAMLMap>
  if (isSeq(list))
    for (const [index, node] of list.items.entries()) {
      const why = reasonFor(object, rules[index]!)
      if (isMap(node) && why !== undefined) node.commentBefore = ` ${why}`
    }
  return document.toString({ lineWidth: 0 })
}
