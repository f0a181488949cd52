/** A kubeconfig with one cluster, one user by token, one context. YAML that is JSON where it matters. */
export function kubeconfigText(options: {
  readonly cluster: string
  readonly server: string
  readonly user: string
  /** PEM. */
  readonly ca: string
  readonly token: string
}): string {
  const { cluster, server, user, ca, token } = options
  return `apiVersion: v1
kind: Config
current-context: ${cluster}
clusters:
- name: ${cluster}
  cluster:
    server: ${server}
    certificate-authority-data: ${Buffer.from(ca).toString('base64')}
users:
- name: ${user}
  user:
    token: ${token}
contexts:
- name: ${cluster}
  context:
    cluster: ${cluster}
    user: ${user}
`
}
