/** weft as a user installs it: an image built from the checkout, and the command line of weft beside a cluster's kubectl. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { KubernetesCluster } from '../../src/lab/kubernetes/cluster.ts'

const checkout = fileURLToPath(new URL('../..', import.meta.url))
const program = ['node', '--import', 'tsx', `${checkout}bin/weft.ts`]

export const agentSelector = 'app.kubernetes.io/component=agent'
export const controllerSelector = 'app.kubernetes.io/component=controller'

/** The image's name with a tag. */
export const imageName = (tag: string): string => `weft.test/weft:${tag}`

/** Files of one test: archives, net-conf.json. */
export class InstallationFiles {
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-test-install-'))

  /** Path of the archive of `imageName(tag)`, whose program says that it is of version `tag`. */
  buildImage(tag: string): string {
    const output = join(this.folder, `${tag}.tar`)
    const args = ['--output', output, '--name', 'weft.test/weft', '--tag', tag]
    execFileSync('node', ['--import', 'tsx', 'scripts/image.ts', ...args], { cwd: checkout, stdio: 'pipe' })
    return output
  }

  write(name: string, text: string): string {
    const path = join(this.folder, name)
    writeFileSync(path, text)
    return path
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** `weft …` where an administrator of the cluster would type it; resolves with what it printed, and fails when it does. */
export async function weft(cluster: KubernetesCluster, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.inFabric([...program, ...args, '--kubeconfig', cluster.kubeconfig])
  assert.equal(code, 0, stdout + stderr)
  return stdout
}

interface RulesReview {
  readonly status: {
    readonly resourceRules: readonly {
      readonly verbs: readonly string[]
      readonly apiGroups?: readonly string[]
      readonly resources?: readonly string[]
      readonly resourceNames?: readonly string[]
    }[]
  }
}

/** `group/resource name verb` of all that an account of kube-flannel may do in a namespace, as the API server says it. */
export async function rightsOf(cluster: KubernetesCluster, account: string, namespace: string): Promise<Set<string>> {
  const review = JSON.stringify({
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectRulesReview',
    spec: { namespace },
  })
  const user = ['--as', `system:serviceaccount:kube-flannel:${account}`]
  const groups = ['system:serviceaccounts', 'system:serviceaccounts:kube-flannel', 'system:authenticated']
  const as = [...user, ...groups.flatMap((group) => ['--as-group', group])]
  const { code, stdout, stderr } = await cluster.inFabric(
    ['kubectl', 'create', '--validate=false', '--filename', '-', '--output', 'json', ...as],
    review,
  )
  assert.equal(code, 0, stderr)
  const { resourceRules } = (JSON.parse(stdout) as RulesReview).status
  return new Set(
    resourceRules.flatMap(({ verbs, apiGroups = [], resources = [], resourceNames = ['*'] }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) =>
          resourceNames.flatMap((name) => verbs.map((verb) => `${group}/${resource} ${name} ${verb}`)),
        ),
      ),
    ),
  )
}
