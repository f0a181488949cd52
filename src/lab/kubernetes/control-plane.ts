/**
 * The control plane of a real cluster: etcd, kube-apiserver, kube-controller-manager and kube-scheduler in the fabric's network
 * namespace, with certificates of the lab's authority. Nodes reach the API server over the underlay.
 *
 * Sources: kubernetes.io/docs/setup/best-practices/certificates (which certificate says what), and each program's --help.
 */
import { spawn } from 'node:child_process'
import { createPublicKey } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inNetns } from '../../kernel/linux/netns.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import type { Authority, Issue } from '../certificates.ts'
import {
  apiAddress,
  FABRIC_API_PORT,
  type LabSpec,
  labPaths,
  netnsPath,
  POD_CIDR_LENGTHS,
  POD_CIDRS,
  SERVICE_CIDRS,
} from '../layout.ts'
import { LAB_VARIABLE } from '../process.ts'
import { Program } from './process.ts'
import type { Programs } from './programs.ts'

/** Who has a kubeconfig with a certificate, and as what. */
const holders: Readonly<Record<string, Issue>> = {
  admin: { commonName: 'kubernetes-admin', organizations: ['system:masters'], usages: ['client'] },
  'kube-controller-manager': { commonName: 'system:kube-controller-manager', usages: ['client'] },
  'kube-scheduler': { commonName: 'system:kube-scheduler', usages: ['client'] },
}

/** First address of the service network: what `kubernetes.default` has. */
const serviceAddress = (cidr: string): string => String(Cidr.parse(cidr).base.plus(1))

/** A kubeconfig whose user has a certificate. JSON, which is YAML. */
export function certificateKubeconfig(options: {
  readonly cluster: string
  readonly server: string
  readonly user: string
  /** PEM. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}): string {
  const { cluster, server, user, ca, cert, key } = options
  const data = (pem: string) => Buffer.from(pem).toString('base64')
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': cluster,
    clusters: [{ name: cluster, cluster: { server, 'certificate-authority-data': data(ca) } }],
    users: [{ name: user, user: { 'client-certificate-data': data(cert), 'client-key-data': data(key) } }],
    contexts: [{ name: cluster, context: { cluster, user } }],
  }
  return `${JSON.stringify(config, undefined, 2)}\n`
}

export const apiServerUrl = `https://${apiAddress(4)}:${FABRIC_API_PORT}`

export class ControlPlane {
  readonly etcd: Program
  readonly apiserver: Program
  readonly controllerManager: Program
  readonly scheduler: Program
  readonly authority: Authority
  readonly #spec: LabSpec
  readonly #programs: Programs

  constructor(spec: LabSpec, programs: Programs, authority: Authority) {
    this.#spec = spec
    this.#programs = programs
    this.authority = authority
    const paths = labPaths(spec.name)
    mkdirSync(join(paths.store, 'etcd'), { recursive: true, mode: 0o700 })
    this.#writeCredentials()
    this.etcd = this.#program('etcd', programs.etcd, this.#etcdFlags())
    this.apiserver = this.#kubernetes('kube-apiserver', this.#apiserverFlags())
    this.controllerManager = this.#kubernetes('kube-controller-manager', this.#controllerManagerFlags())
    this.scheduler = this.#kubernetes('kube-scheduler', {
      kubeconfig: this.kubeconfig('kube-scheduler'),
      'leader-elect': 'false',
      'bind-address': '127.0.0.1',
    })
  }

  get all(): readonly Program[] {
    return [this.etcd, this.apiserver, this.controllerManager, this.scheduler]
  }

  /** A kubeconfig for use inside the fabric or on a node. */
  kubeconfig(holder: string): string {
    return join(labPaths(this.#spec.name).certificates, `${holder}.kubeconfig`)
  }

  /** A new kubeconfig's text for somebody. */
  issueKubeconfig(wish: Issue, server = apiServerUrl): string {
    const { cert, key } = this.authority.issue(wish)
    const cluster = `weft-${this.#spec.name}`
    return certificateKubeconfig({ cluster, server, user: wish.commonName, ca: this.authority.cert, cert, key })
  }

  #pki(name: string): string {
    return join(labPaths(this.#spec.name).certificates, name)
  }

  /** Certificates and kubeconfigs; made anew at every start, by an authority that stays. */
  #writeCredentials(): void {
    const { ipv6 } = this.#spec
    const write = (name: string, wish: Issue) => {
      const { cert, key } = this.authority.issue(wish)
      writeFileSync(this.#pki(`${name}.crt`), cert)
      writeFileSync(this.#pki(`${name}.key`), key, { mode: 0o600 })
    }
    const services = ipv6 ? [SERVICE_CIDRS.v4, SERVICE_CIDRS.v6] : [SERVICE_CIDRS.v4]
    const names = ['127.0.0.1', 'localhost', ...services.map(serviceAddress), String(apiAddress(4))]
    if (ipv6) names.push(String(apiAddress(6)))
    for (const name of ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc']) names.push(name)
    names.push('kubernetes.default.svc.cluster.local')
    const signing = createPublicKey(readFileSync(this.#pki('service-accounts.key')))
    writeFileSync(this.#pki('service-accounts.pub'), signing.export({ type: 'spki', format: 'pem' }))
    write('apiserver', { commonName: 'kube-apiserver', names, usages: ['server'] })
    write('apiserver-kubelet-client', {
      commonName: 'kube-apiserver-kubelet-client',
      organizations: ['system:masters'],
      usages: ['client'],
    })
    for (const [holder, wish] of Object.entries(holders))
      writeFileSync(this.kubeconfig(holder), this.issueKubeconfig(wish), { mode: 0o600 })
  }

  #etcdFlags(): Record<string, string> {
    return {
      name: this.#spec.name,
      'data-dir': join(labPaths(this.#spec.name).store, 'etcd'),
      'listen-client-urls': 'http://127.0.0.1:2379',
      'advertise-client-urls': 'http://127.0.0.1:2379',
      'listen-peer-urls': 'http://127.0.0.1:2380',
      'initial-advertise-peer-urls': 'http://127.0.0.1:2380',
      'initial-cluster': `${this.#spec.name}=http://127.0.0.1:2380`,
      'quota-backend-bytes': '4294967296',
    }
  }

  #apiserverFlags(): Record<string, string> {
    const { ipv6 } = this.#spec
    return {
      'etcd-servers': 'http://127.0.0.1:2379',
      'bind-address': ipv6 ? '::' : '0.0.0.0',
      'advertise-address': String(apiAddress(4)),
      'secure-port': String(FABRIC_API_PORT),
      'tls-cert-file': this.#pki('apiserver.crt'),
      'tls-private-key-file': this.#pki('apiserver.key'),
      'client-ca-file': this.#pki('ca.crt'),
      'kubelet-client-certificate': this.#pki('apiserver-kubelet-client.crt'),
      'kubelet-client-key': this.#pki('apiserver-kubelet-client.key'),
      'kubelet-preferred-address-types': 'InternalIP',
      'service-account-issuer': 'https://kubernetes.default.svc.cluster.local',
      'service-account-signing-key-file': this.#pki('service-accounts.key'),
      'service-account-key-file': this.#pki('service-accounts.pub'),
      'service-cluster-ip-range': ipv6 ? `${SERVICE_CIDRS.v4},${SERVICE_CIDRS.v6}` : SERVICE_CIDRS.v4,
      'authorization-mode': 'Node,RBAC',
      'enable-admission-plugins': 'NodeRestriction',
      'allow-privileged': 'true',
    }
  }

  #controllerManagerFlags(): Record<string, string> {
    const { ipv6, allocateNodeCidrs = true } = this.#spec
    const pods = ipv6 ? `${POD_CIDRS.v4},${POD_CIDRS.v6}` : String(POD_CIDRS.v4)
    const lengths: Record<string, string> = ipv6
      ? {
          'node-cidr-mask-size-ipv4': String(POD_CIDR_LENGTHS.v4),
          'node-cidr-mask-size-ipv6': String(POD_CIDR_LENGTHS.v6),
        }
      : { 'node-cidr-mask-size': String(POD_CIDR_LENGTHS.v4) }
    return {
      kubeconfig: this.kubeconfig('kube-controller-manager'),
      'leader-elect': 'false',
      'bind-address': '127.0.0.1',
      'use-service-account-credentials': 'true',
      'service-account-private-key-file': this.#pki('service-accounts.key'),
      'root-ca-file': this.#pki('ca.crt'),
      'cluster-signing-cert-file': this.#pki('ca.crt'),
      'cluster-signing-key-file': this.#pki('ca.key'),
      'allocate-node-cidrs': String(allocateNodeCidrs),
      ...(allocateNodeCidrs ? { 'cluster-cidr': pods, ...lengths } : {}),
      'service-cluster-ip-range': ipv6 ? `${SERVICE_CIDRS.v4},${SERVICE_CIDRS.v6}` : SERVICE_CIDRS.v4,
    }
  }

  #kubernetes(name: string, flags: Record<string, string>): Program {
    return this.#program(name, join(this.#programs.folder, 'kubernetes'), flags, [name])
  }

  #program(name: string, program: string, flags: Record<string, string>, first: readonly string[] = []): Program {
    const { name: lab } = this.#spec
    const { run } = labPaths(lab)
    const argv = [...first, ...Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`)]
    return new Program({
      name,
      log: join(run, 'control-plane', `${name}.log`),
      state: join(run, 'control-plane', `${name}.json`),
      wrapped: false,
      spawn: (output) =>
        inNetns(netnsPath(lab, 'fabric'), () =>
          spawn(program, argv, {
            cwd: '/',
            detached: true,
            stdio: ['ignore', output, output],
            env: { PATH: process.env.PATH ?? '', HOME: '/root', [LAB_VARIABLE]: lab },
          }),
        ),
    })
  }
}

/** The address of the cluster's DNS service. There is none unless somebody deploys it. */
export const dnsAddress = (): Ip => Cidr.parse(SERVICE_CIDRS.v4).base.plus(10)
