/**
 * Calico's objects as an administrator meets them, by kubectl and the file under deploy/: the same answers of the lab's API
 * server and of Kubernetes' own.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bgpCases } from '../../src/config/calico/definitions/bgp-cases.ts'
import { calicoDefinitions } from '../../src/config/calico/definitions/index.ts'
import { poolCases } from '../../src/config/calico/definitions/pool-cases.ts'

export interface KubectlResult {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs kubectl; `input` is given as JSON. */
export type Kubectl = (args: readonly string[], input?: unknown) => Promise<KubectlResult>

const definitions = fileURLToPath(new URL('../../deploy/crds/calico.yaml', import.meta.url))

const calico = (kind: string, name: string, spec: object, metadata: object = {}) => ({
  apiVersion: 'crd.projectcalico.org/v1',
  kind,
  metadata: { name, ...metadata },
  spec,
})

export function poolSuite(kubectl: Kubectl, options: { readonly skip?: string | false } = {}): void {
  const it = (name: string, run: () => Promise<void>) => test(name, { skip: options.skip ?? false }, run)
  const works = async (args: readonly string[], input?: unknown): Promise<string> => {
    const { code, out, err } = await kubectl(args, input)
    assert.equal(code, 0, `kubectl ${args.join(' ')}: ${err}`)
    return out
  }
  const refused = async (args: readonly string[], input?: unknown): Promise<string> => {
    const { code, err } = await kubectl(args, input)
    assert.notEqual(code, 0, `kubectl ${args.join(' ')} is to be refused`)
    return err
  }
  const apply = ['apply', '-f', '-']

  it('the file under deploy/ is applied, and its kinds are served', async () => {
    const out = await works(['apply', '-f', definitions])
    assert.equal(out.match(/ created$/gm)?.length, calicoDefinitions.length, out)
    await works(['wait', '--for=condition=Established', '--timeout=60s', '-f', definitions])
    // Established, and served a moment later.
    for (const deadline = Date.now() + 60_000; ; ) {
      const { code, err } = await kubectl(['get', 'ippools,felixconfigurations'])
      if (code === 0) break
      assert.ok(Date.now() < deadline, `the definitions are not served: ${err}`)
    }
  })

  it('the definitions are applied again without a change, and by the server', async () => {
    assert.doesNotMatch(await works(['apply', '-f', definitions]), /configured/)
    await works(['apply', '--server-side', '--force-conflicts', '-f', definitions])
  })

  for (const [n, { what, spec, change, refused: refusal, parserOnly }] of poolCases.entries())
    it(`a pool: ${what}`, async () => {
      const name = `pool-${n}`
      if (change) await works(apply, calico('IPPool', name, spec))
      const object = calico('IPPool', name, change ?? spec)
      // What apply does not find in the object it takes out; replace says the whole.
      const args = change ? ['replace', '-f', '-'] : apply
      if (!refusal || parserOnly) return void (await works(args, object))
      const said = await refused(args, object)
      assert.match(said, refusal.says)
      assert.ok(said.includes(`${refusal.field}: `), said)
      assert.match(said, new RegExp(`The IPPool "${name}" is invalid`), said)
    })

  it("BGP's objects are taken and refused as their parsers do, field and reason said", async () => {
    const all = bgpCases.map(({ kind, name, spec, refused: refusal, parserOnly }, n) => ({
      object: calico(kind, name ?? (kind === 'BGPConfiguration' ? `node.case-${n}` : `case-${n}`), spec),
      refusal: parserOnly ? undefined : refusal,
    }))
    const items = all.map(({ object }) => object)
    const { out, err } = await kubectl(['create', '--dry-run=server', '--validate=false', '-f', '-'], {
      apiVersion: 'v1',
      kind: 'List',
      items,
    })
    const answers = err.split(/^(?=The |Error )/m)
    for (const { object, refusal } of all) {
      const { kind, metadata } = object
      const resource = `${kind.toLowerCase()}.crd.projectcalico.org/${metadata.name} created`
      assert.equal(out.includes(resource), refusal === undefined, `${kind} ${metadata.name}: ${out} ${err}`)
      if (!refusal) continue
      const said = answers.find((answer) => answer.includes(`"${metadata.name}" is invalid`) && answer.includes(kind))
      assert.ok(said, `${kind} ${metadata.name}: ${err}`)
      assert.ok(said.includes(refusal.key), `${kind} ${metadata.name}: ${said}`)
      assert.match(said, refusal.says)
    }
  })

  it('pools are listed with the columns that Calico’s users know', async () => {
    await works(apply, calico('IPPool', 'listed', { cidr: '10.99.0.0/16', ipipMode: 'CrossSubnet', natOutgoing: true }))
    const lines = (await works(['get', 'ippools', 'listed'])).trimEnd().split('\n')
    assert.match(lines[0]!, /^NAME +CIDR +VXLAN +IPIP +NAT +ALLOCATABLE +AGE$/)
    assert.match(lines[1]!, /^listed +10\.99\.0\.0\/16 +CrossSubnet +true +\S+$/)
    const wide = await works(['get', 'ippool.crd.projectcalico.org', 'listed', '-o', 'jsonpath={.spec.nodeSelector}'])
    assert.equal(wide, 'all()')
  })

  it('affinities, blocks and handles have their columns and short names', async () => {
    await works(
      apply,
      calico('BlockAffinity', 'n1-10-99-0-0-26', {
        cidr: '10.99.0.0/26',
        node: 'n1',
        type: 'host',
        state: 'confirmed',
        deleted: 'false',
      }),
    )
    assert.match(
      await works(['get', 'affinities']),
      /^NAME +CIDR +NODE +TYPE\nn1-10-99-0-0-26 +10\.99\.0\.0\/26 +n1 +host\n$/,
    )
    const free = Array.from({ length: 64 }, (_, ordinal) => ordinal)
    const block = {
      cidr: '10.99.0.0/26',
      affinity: 'host:n1',
      allocations: free.map(() => null),
      unallocated: free,
      attributes: [],
      strictAffinity: false,
    }
    await works(['create', '-f', '-'], calico('IPAMBlock', '10-99-0-0-26', block))
    const [head, row] = (await works(['get', 'ipamblocks'])).split('\n')
    assert.match(head!, /^NAME +CIDR +AFFINITY +CLAIMTIME$/)
    assert.match(row!, /^10-99-0-0-26 +10\.99\.0\.0\/26 +host:n1 *$/)
    const allocations = await works(['get', 'ipamblock', '10-99-0-0-26', '-o', 'jsonpath={.spec.allocations[63]}'])
    assert.match(allocations, /^(null|)$/)
    await works(apply, calico('IPAMHandle', 'h', { handleID: 'h', block: { '10.99.0.0/26': 1 } }))
    assert.match(await works(['get', 'ipamhandles']), /^NAME +ID\nh +h\n$/)
  })

  it('settings: what cannot be is refused, and misspelt keys are named', async () => {
    const settings = calico('IPAMConfig', 'default', { strictAffinity: false, autoAllocateBlocks: false })
    assert.match(await refused(apply, settings), /one of strictAffinity and autoAllocateBlocks must be true/)
    const reserved = calico('IPReservation', 'r', { reservedCIDRs: ['10.99.128.0/17', 'ten'] })
    assert.match(await refused(apply, reserved), /spec\.reservedCIDRs\[1\]: Invalid value: "ten"/)
    const felix = (spec: object) => calico('FelixConfiguration', 'default', spec)
    assert.match(await refused(apply, felix({ vxlanVni: 1 })), /unknown field "spec\.vxlanVni"/)
    assert.match(await refused(apply, felix({ deviceRouteSourceAddress: 'eth0' })), /must be an IPv4 address/)
    assert.match(await refused(apply, felix({ vxlanPort: 65536 })), /spec\.vxlanPort: Invalid value: 65536/)
    // As Calico's own programs write it.
    const usual = {
      bpfLogLevel: '',
      floatingIPs: 'Disabled',
      logSeverityScreen: 'Info',
      reportingInterval: '0s',
      vxlanVNI: 4096,
    }
    await works(apply, felix(usual))
    const kept = JSON.parse(await works(['get', 'felixconfiguration', 'default', '-o', 'json'])) as { spec: object }
    assert.deepEqual(kept.spec, usual)
  })

  it('a pool is changed by patch and by edit, as far as it may be', async () => {
    await works(apply, calico('IPPool', 'patched', { cidr: '10.98.0.0/16', ipipMode: 'Always' }))
    const patch = (body: object) => ['patch', 'ippool', 'patched', '--type=merge', '--patch', JSON.stringify(body)]
    await works(patch({ spec: { ipipMode: 'CrossSubnet' } }))
    assert.match(await refused(patch({ spec: { vxlanMode: 'Always' } })), /one of ipipMode and vxlanMode must be Never/)
    assert.match(
      await refused(patch({ spec: { cidr: '10.97.0.0/16' } })),
      /spec\.cidr: Invalid value: "10\.97\.0\.0\/16": cannot be changed/,
    )
    assert.match(await refused(patch({ spec: { blockSize: 28 } })), /spec\.blockSize: Invalid value: cannot be changed/)
    await works(patch({ spec: { disabled: true, blockSize: 26 } }))
  })

  it('explain says what every key does, and which do not apply', async () => {
    const pool = await works(['explain', 'ippool.spec', '--api-version=crd.projectcalico.org/v1'])
    assert.match(pool, /blockSize\s+<integer>[\s\S]*Cannot be changed/)
    const felix = await works([
      'explain',
      'felixconfiguration.spec.bpfEnabled',
      '--api-version=crd.projectcalico.org/v1',
    ])
    assert.match(felix, /Does not apply: weft has no eBPF/)
  })
}
