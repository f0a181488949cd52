/**
 * Calico's objects on an API server, for tests of what reads and writes them: the lab's in this process, or any other that is
 * reached by a client. What a test writes is gone before the next one.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CalicoResource } from '../../src/cluster/calico/api-group.ts'
import { KubernetesCalicoSource } from '../../src/cluster/calico/kubernetes-source.ts'
import { KubernetesStore } from '../../src/cluster/calico/kubernetes-store.ts'
import { MemoryJournal } from '../../src/cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../src/cluster/embedded/store.ts'
import { type Endpoint, HttpClient, HttpError } from '../../src/cluster/http-client.ts'
import { calicoDefinitions } from '../../src/config/calico/definitions/index.ts'
import { cidrName } from '../../src/config/calico/store-names.ts'
import type { IpamStore } from '../../src/ipam/stores/ipam-store.ts'
import type { StoreHarness } from '../../src/ipam/stores/ipam-store-suite.ts'
import { ApiServer } from '../../src/lab/api/server.ts'
import { ensureCertificate } from '../../src/lab/certificates.ts'
import { Relay } from '../kubernetes/relay.ts'
import { quiet, type SourceHarness } from './calico-source-suite.ts'

// biome-ignore lint/suspicious/noExplicitAny: the JSON of any kind
export type Any = any

export const GROUP = 'crd.projectcalico.org/v1'
const DEFINITIONS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
export const ipamResources = ['ipamblocks', 'blockaffinities', 'ipamhandles'] as const

/** An API server as a test uses it. */
export interface ApiAccess {
  /** The administrator's, past every fault. */
  readonly admin: HttpClient
  /** An agent's, through a relay that `relay` names. */
  open(): HttpClient
  readonly relay: Relay
  /** Refuses every connection, or takes them again. */
  setUp(up: boolean): Promise<void>
}

export const send = (client: HttpClient, method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, body?: object) =>
  client.request({ method, path, ...(body ? { body } : {}) }) as Promise<Any>

/** Waits for what tells nobody of itself. */
export async function until<T>(what: string, ask: () => Promise<T | undefined> | T | undefined): Promise<T> {
  for (const deadline = performance.now() + 60_000; ; ) {
    const found = await ask()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const pathOf = (spec: Any): string => `/apis/${spec.group}/${spec.versions[0].name}/${spec.names.plural}?limit=1`

/** The same definitions under the name and with the shapes of Calico's later group. */
export const laterDefinitions: readonly Any[] = (calicoDefinitions as readonly Any[]).map((each) => {
  const { metadata, spec } = structuredClone(each)
  const later = spec.names.kind === 'IPAMConfig' ? { kind: 'IPAMConfiguration', plural: 'ipamconfigurations' } : {}
  const { kind, plural } = { ...spec.names, ...later }
  if (kind === 'BlockAffinity')
    spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.deleted = { type: 'boolean' }
  return {
    ...each,
    metadata: { ...metadata, name: `${plural}.projectcalico.org` },
    spec: {
      ...spec,
      group: 'projectcalico.org',
      names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
      versions: [{ ...spec.versions[0], name: 'v3' }],
    },
  }
})

/** Applies Calico's definitions and waits until every one is served. */
export async function define(client: HttpClient, definitions: readonly Any[] = calicoDefinitions): Promise<void> {
  for (const definition of definitions)
    await send(client, 'POST', DEFINITIONS, definition).catch((error: unknown) => {
      if (!(error instanceof HttpError && error.status === 409)) throw error
    })
  for (const { spec } of definitions)
    await until(spec.names.plural, () => send(client, 'GET', pathOf(spec)).catch(() => undefined))
}

/** Removes the definitions, and with them every object. */
export async function undefine(client: HttpClient, definitions: readonly Any[] = calicoDefinitions): Promise<void> {
  for (const { metadata, spec } of definitions) {
    await send(client, 'DELETE', `${DEFINITIONS}/${metadata.name}`)
    await until(`no ${spec.names.plural}`, () =>
      send(client, 'GET', pathOf(spec)).then(
        () => undefined,
        () => true,
      ),
    )
  }
}

/** Removes every object of a resource. */
export async function clear(client: HttpClient, resources: readonly string[]): Promise<void> {
  for (const resource of resources) {
    const { items } = await send(client, 'GET', `/apis/${GROUP}/${resource}`)
    for (const { metadata } of items) await send(client, 'DELETE', `/apis/${GROUP}/${resource}/${metadata.name}`)
  }
}

export const put = (client: HttpClient, resource: string, name: string, spec: object, annotations = {}) =>
  send(client, 'POST', `/apis/${GROUP}/${resource}`, {
    apiVersion: GROUP,
    kind: (calicoDefinitions as readonly Any[]).find((each) => each.spec.names.plural === resource).spec.names.kind,
    metadata: { name, annotations },
    spec,
  })

/** The suite's store on an API server with the definitions. */
export async function harnessOn(api: ApiAccess): Promise<StoreHarness> {
  await clear(api.admin, ipamResources)
  const opened: { readonly store: IpamStore; readonly client: HttpClient }[] = []
  return {
    open: async () => {
      const client = api.open()
      const store = new KubernetesStore({ client })
      opened.push({ store, client })
      return store
    },
    setUp: (up) => api.setUp(up),
    close: async () => {
      for (const { store, client } of opened) {
        await store.close()
        client.close()
      }
    },
  }
}

/** A source of Calico's objects on an API server with the definitions, and the same store moved by its administrator. */
export async function sourceHarnessOn(api: ApiAccess): Promise<SourceHarness> {
  const plural = (resource: CalicoResource): string => (resource === 'ipamsettings' ? 'ipamconfigs' : resource)
  await clear(api.admin, [...ipamResources, 'ippools', 'ipreservations', 'felixconfigurations', 'ipamconfigs'])
  const clients: HttpClient[] = []
  return {
    source: () => {
      const client = api.open()
      clients.push(client)
      const tuning = { pageSize: 25, backoff: { first: 5, cap: 50 }, absencePatienceMs: 200 }
      return new KubernetesCalicoSource({ client, nodeName: 'n1', log: quiet, tuning })
    },
    store: new KubernetesStore({ client: api.admin }),
    put: (resource, name, spec) => put(api.admin, plural(resource), name, spec),
    remove: (resource, name) => send(api.admin, 'DELETE', `/apis/${GROUP}/${plural(resource)}/${name}`),
    putBadBlock: (cidr) =>
      put(api.admin, 'ipamblocks', cidrName(cidr), {
        cidr: `${cidr}`,
        allocations: [null],
        unallocated: [],
        attributes: [],
        strictAffinity: false,
      }),
    setUp: (up) => api.setUp(up),
    close: async () => {
      for (const client of clients) client.close()
    },
  }
}

/** A way to a server by a relay that can be taken away. `endpointAt`: a client's endpoint at an address, asked once for each. */
export async function accessTo(port: number, endpointAt: (server: string) => Endpoint) {
  const direct = endpointAt(`https://127.0.0.1:${port}`)
  const admin = new HttpClient(direct)
  const listen = async () => {
    const relay = new Relay({ address: '127.0.0.1', port })
    await relay.listen()
    return { relay, endpoint: endpointAt(relay.url) }
  }
  let way = await listen()
  const access: ApiAccess & { close(): void } = {
    admin,
    get relay() {
      return way.relay
    },
    open: () => new HttpClient(() => way.endpoint),
    async setUp(up) {
      if (up) way = await listen()
      else way.relay.close()
    },
    close() {
      way.relay.close()
      admin.close()
    },
  }
  return access
}

export interface LabApi extends ApiAccess {
  close(): Promise<void>
}

/** The lab's API server, with a store in memory. */
export async function startLabApi(): Promise<LabApi> {
  const folder = mkdtempSync(join(tmpdir(), 'weft-test-calico-api-'))
  const store = await ObjectStore.open(new MemoryJournal())
  const tls = ensureCertificate(folder, ['127.0.0.1', 'localhost'])
  const tokens = new Map([['admin-token', { user: 'admin', groups: ['system:masters'] }]])
  const podRuntime: Any = {}
  const server = new ApiServer({ store, tls, tokens, podRuntime })
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
  const { ca } = ensureCertificate(folder, ['127.0.0.1', 'localhost'])
  const access = await accessTo(port, (url) => ({
    server: url,
    ca,
    insecure: false,
    credentials: async () => ({ authorization: 'Bearer admin-token' }),
  }))
  return Object.assign(access, {
    async close() {
      access.relay.close()
      access.admin.close()
      await server.close()
      await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  })
}
