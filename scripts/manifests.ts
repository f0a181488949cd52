/**
 * The manifests under deploy/, from the one source in src/install. Run alone it writes them; scripts/manifests.test.ts
 * compares.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { definitionObjects } from '../src/install/definitions.ts'
import { formatManifest, manifestObjects } from '../src/install/manifest.ts'
import {
  type Account,
  accountObjects,
  agentAccount,
  controllerAccount,
  namespaceObject,
} from '../src/install/rights.ts'
import { defaultValues } from '../src/install/values.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }

const HEAD = `weft, as \`weft install --no-crds -o yaml\` prints it with the defaults: kubectl apply -f weft.yaml
The network configuration is in the ConfigMap, in flannel's words. Values, permissions and the way back: docs/install.md.
Made by scripts/manifests.ts.`

const CRDS_HEAD = `Definitions of Calico's objects, as weft needs them for pools of addresses: kubectl apply --server-side -f calico.yaml
Not where Calico's own are. docs/calico-objects.md says what every key does. Made by scripts/manifests.ts.`

const AGENT_HEAD = `What \`weft agent\` may do in a cluster, and nothing more. The lab applies this file as it is; weft.yaml has it too.
Made by scripts/manifests.ts.`

const CONTROLLER_HEAD = `What \`weft controller\` may do in a cluster where it gives nodes their pod CIDRs, and nothing more. weft.yaml, where it does
not, has less. Made by scripts/manifests.ts.`

/** Text of every file, by path from the checkout. */
export function manifestFiles(): ReadonlyMap<string, string> {
  const values = defaultValues(version)
  const { namespace } = values
  const rights = (account: Account, head: string) =>
    formatManifest([namespaceObject(namespace), ...accountObjects(namespace, account)], head)
  const definitions = formatManifest(definitionObjects(), CRDS_HEAD)
  return new Map([
    ['deploy/crds/calico.yaml', definitions],
    ['deploy/helm/weft/crds/calico.yaml', definitions],
    ['deploy/weft.yaml', formatManifest(manifestObjects(values), HEAD)],
    ['deploy/agent-rbac.yaml', rights(agentAccount, AGENT_HEAD)],
    ['deploy/controller-rbac.yaml', rights(controllerAccount({ allocates: true, findsLeaks: true }), CONTROLLER_HEAD)],
  ])
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const [path, text] of manifestFiles()) writeFileSync(join(root, path), text)
